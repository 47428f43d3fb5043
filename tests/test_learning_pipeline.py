"""`featkit.classify` from Python: the same for every classifier and all features, what it makes of strange pictures,
and models that are saved; trials of other stages."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import TOLERANCE
from textures import KINDS, save_textures

import featkit
from featkit import Cache, ClassifyConfig, Model, load_model
from featkit.datasets import read_dataset
from featkit.errors import DatasetMalformed, FeatkitError, ModelDamaged, UsageError
from featkit.extraction.makers import MAKERS
from featkit.images import load, save
from featkit.learning.ablation import Trial, ablate_steps
from featkit.learning.heads import CLASSIFIERS, by_folds
from featkit.learning.model import Prediction
from featkit.learning.model_files import read_model, write_model
from featkit.learning.pipeline import classify, classify_steps
from featkit.learning.testing import Classified, evaluate_steps
from featkit.learning.training import Training
from featkit.progress import Progress

SIZE = (24, 24)


@pytest.fixture(scope="session")
def _textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("textures")
    save_textures(folder / "train", 12, size=SIZE)
    save_textures(folder / "test", 8, first=12, size=SIZE)
    return folder


@pytest.fixture
def data(_textures: Path, tmp_path: Path) -> Path:
    """train/ with 12 pictures of each of three textures, test/ with 8."""
    return shutil.copytree(_textures, tmp_path / "data")


def test_an_example(data: Path, tmp_path: Path) -> None:
    found = featkit.classify(data)

    assert found.evaluation is not None
    assert found.model.classes == KINDS
    assert found.evaluation.accuracy > 0.8
    assert (found.trained, len(found.evaluation.paths)) == (36, 24)
    found.model.save(tmp_path / "textures.fk")
    [prediction] = load_model(tmp_path / "textures.fk").predict([str(data / "test" / "down" / "12.png")])
    assert isinstance(prediction, Prediction)
    assert prediction.label == "down"


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_every_classifier(data: Path, tmp_path: Path, classifier: str) -> None:
    """It learns, and what is saved says the same."""
    if classifier == "mlp":
        pytest.importorskip("torch")
    found = classify(data, classifier=classifier)

    assert found.evaluation is not None
    assert found.evaluation.accuracy > 0.7
    found.model.save(tmp_path / "model.fk")
    model = load_model(tmp_path / "model.fk")
    assert labels_of(model, found.evaluation.paths) == [KINDS[place] for place in found.evaluation.predicted]
    assert (model.classes, model.config) == (found.model.classes, found.model.config)


def labels_of(model: Model, paths: Sequence[str]) -> list[str]:
    predictions = list(model.predict(paths))
    assert all(isinstance(each, Prediction) for each in predictions)
    return [each.label for each in predictions if isinstance(each, Prediction)]


@pytest.mark.parametrize("features", MAKERS)
@pytest.mark.parametrize("flip", [False, True])
def test_all_features(data: Path, tmp_path: Path, features: str, flip: bool) -> None:
    found = classify(data, features=features, flip=flip, classifier="ridge", reduce="pca:20")

    assert found.evaluation is not None
    assert found.evaluation.accuracy > (0.35 if features == "pixels" else 0.8)
    assert found.features is not None
    assert found.features.shape == (24, 20)
    found.model.save(tmp_path / "model.fk")
    assert labels_of(load_model(tmp_path / "model.fk"), found.evaluation.paths) == [
        KINDS[place] for place in found.evaluation.predicted
    ]


def test_a_picture_and_its_mirror_image_are_the_same_with_flip(data: Path) -> None:
    path, mirrored = data / "test" / "spots" / "12.png", data / "mirrored.png"
    save(mirrored, np.ascontiguousarray(load(path).pixels[:, ::-1]))
    there = [str(path), str(mirrored)]

    without, with_flip = (
        [each.score for each in classify(data, flip=flip).model.predict(there) if isinstance(each, Prediction)]
        for flip in (False, True)
    )

    assert with_flip[0] == pytest.approx(with_flip[1], abs=TOLERANCE["float32"])
    assert abs(without[0] - without[1]) > 100 * TOLERANCE["float32"]


@pytest.mark.parametrize("classifier", ["logreg", "ridge"])
def test_c_by_what_is_held_out(data: Path, classifier: str) -> None:
    """It stands in the configuration as what was given, and does the same."""
    found = classify(data, classifier=classifier, c="auto")
    chosen = found.model.config["c"]

    assert chosen in CLASSIFIERS[classifier].choices or (classifier == "ridge" and 0 < chosen < 1e6)
    given = classify(data, classifier=classifier, c=chosen)
    assert found.evaluation is not None
    assert given.evaluation is not None
    assert np.array_equal(found.evaluation.scores, given.evaluation.scores)


class _KnowsByHeart:
    """Right about every row it has seen; of others it takes all for the first class."""

    def __init__(self, training: Training) -> None:
        self._seen = {row.tobytes(): label for row, label in zip(training.views[0], training.labels, strict=True)}
        self._classes = training.classes

    def scores(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.eye(self._classes, dtype=np.float32)[[self._seen.get(row.tobytes(), 0) for row in features]]


def test_c_is_the_best_on_pictures_that_were_not_learned_from(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = CLASSIFIERS["logreg"].fit
    swindle = by_folds(
        lambda training, c: honest(training, c) if c == 2 else _KnowsByHeart(training), "none", (1, 2, 3)
    )
    monkeypatch.setitem(CLASSIFIERS, "logreg", swindle)
    assert classify(data, classifier="logreg", c="auto").model.config["c"] == 2


def test_blocks_count_as_their_maker_says(data: Path) -> None:
    found = classify(data, reduce="none")
    maker, paths = found.model.source, read_dataset(str(data)).train.paths
    reduced = found.model.reduction(maker(np.stack([load(path).pixels for path in paths])))
    hog, colour = np.split(reduced.var(0), [maker.blocks[0]])
    assert (hog.sum(), colour.sum()) == pytest.approx(maker.variances, abs=1e-3)
    assert maker.variances == (1, 0.5)


def test_pictures_that_are_neither_learned_from_nor_tested_on(data: Path) -> None:
    shutil.copytree(data / "test", data / "val")
    assert classify(data).notes == ("the 24 pictures of val are neither learned from nor tested on",)
    assert len(classify(data, test=data / "val").notes) == 2


@pytest.mark.parametrize("features", ["hog", "patches"])
def test_no_picture_that_can_be_read(data: Path, features: str) -> None:
    for path in data.glob("train/*/*"):
        path.write_bytes(b"\0")
    with pytest.raises(DatasetMalformed, match=r"there is no picture to learn from; .*not a picture.*35 more"):
        classify(data, features=features)


def test_a_path_is_no_list_of_paths(data: Path) -> None:
    model, path = classify(data).model, data / "test" / "down" / "12.png"
    for alone in (str(path), path):
        with pytest.raises(UsageError, match="several paths are expected"):
            next(model.predict(alone))
    [prediction] = model.predict([path])
    assert isinstance(prediction, Prediction)
    assert prediction.record()["path"] == str(path)


def test_balanced_classes_weigh_the_same(data: Path) -> None:
    """Of noise alone nothing is to be learned but how frequent a class is."""
    random = np.random.default_rng(0)
    folder = data / "noise"
    for label, count in {"frequent": 60, "rare": 6}.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            save(folder / label / f"{number}.png", random.integers(0, 256, (16, 16, 3), dtype=np.uint8))

    rare = []
    for balanced in (False, True):
        found = classify(folder, classifier="logreg", reduce="pca:4", balanced=balanced, test=folder)
        assert found.evaluation is not None
        rare.append((found.evaluation.predicted == 1).mean())

    assert rare[0] < 0.05
    assert rare[1] > 0.25


def test_the_seed_decides_what_is_held_out(data: Path) -> None:
    tested = []
    for seed in (0, 0, 1):
        found = classify(data / "train", seed=seed, hold_out=0.25)
        assert found.evaluation is not None
        tested.append(found.evaluation.paths)

    assert tested[0] == tested[1] != tested[2]
    assert [sum(f"/{kind}/" in path for path in tested[0]) for kind in KINDS] == [3, 3, 3]


def test_steps_tell_how_far_it_is(data: Path) -> None:
    *steps, last = classify_steps(read_dataset(str(data)), ClassifyConfig())

    assert isinstance(last, Classified)
    assert [step for step in steps if not isinstance(step, Progress)] == []
    stages = list(dict.fromkeys(step.stage for step in steps if isinstance(step, Progress)))
    assert stages == ["preparing", "features", "reducing", "learning", "testing"]
    assert all(0 <= step.done <= step.total for step in steps if isinstance(step, Progress))
    assert set(last.seconds) == {"features", "reduction", "classifier", "test"}


def test_a_cache_changes_nothing(data: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "own")
    found = [classify(data, cache=each) for each in (Cache(None), cache, cache)]

    assert cache.info().entries > 0
    for number, each in enumerate(found):
        each.model.save(tmp_path / f"{number}.fk")
    assert len({(tmp_path / f"{number}.fk").read_bytes() for number in range(3)}) == 1


# --- what the pictures are like


def test_pictures_of_one_small_size_keep_it(tmp_path: Path) -> None:
    save_textures(tmp_path / "small", 4, size=(48, 40))
    assert classify(tmp_path / "small").model.source.size == (48, 40)


def test_pictures_of_all_sizes_are_brought_to_one(tmp_path: Path) -> None:
    """Stretched, whatever their proportions."""
    for number, size in enumerate([(48, 40), (40, 48), (200, 30), (64, 64), (17, 90), (300, 200)]):
        save_textures(tmp_path / "mixed", 1, first=number, size=size)

    found = classify(tmp_path / "mixed", reduce="none")

    assert found.model.source.size == (128, 128)
    assert not found.failures
    assert classify(tmp_path / "mixed", size=(20, 30), reduce="none").model.source.size == (20, 30)


def test_a_class_with_one_picture(data: Path) -> None:
    for number in range(1, 12):
        (data / "train" / "down" / f"{number}.png").unlink()

    found = classify(data / "train")

    assert found.notes == ("the class 'down' has one picture: it is learned from, and not tested",)
    assert found.model.classes == KINDS
    assert found.evaluation is not None
    assert [each.count for each in found.evaluation.per_class] == [2, 0, 2]


def test_every_class_with_one_picture(tmp_path: Path) -> None:
    save_textures(tmp_path / "few", 1)

    found = classify(tmp_path / "few")

    assert found.evaluation is None
    assert found.notes[-1] == "there is nothing to test on: every class has one picture"
    assert labels_of(found.model, [str(tmp_path / "few" / kind / "0.png") for kind in KINDS]) == list(KINDS)


def test_what_cannot_be_read_is_left_out(data: Path) -> None:
    (data / "train" / "down" / "3.png").write_bytes(b"no picture")
    (data / "test" / "spots" / "14.png").write_bytes(b"")

    found = classify(data)

    assert [Path(str(each.path)).name for each in found.failures] == ["3.png", "14.png"]
    assert found.evaluation is not None
    assert found.features is not None
    assert (found.trained, len(found.evaluation.paths), len(found.features)) == (35, 23, 23)


def test_a_class_of_which_nothing_can_be_read_is_not_learned(data: Path) -> None:
    for path in (data / "train" / "down").iterdir():
        path.write_bytes(b"no picture")

    found = classify(data)

    assert found.model.classes == ("across", "spots")
    assert "no picture of the class 'down' can be read: it is not learned" in found.notes
    assert len(found.failures) == 12 + 8  # those, and what is tested and then unknown


def test_labels_that_are_tested_alone(data: Path) -> None:
    """They are named and not counted; what is left stands in line with its features."""
    (data / "test" / "across").rename(data / "test" / "abroad")

    found = classify(data, reduce="pca:7")

    assert [Path(str(each.path)).parent.name for each in found.failures] == ["abroad"] * 8
    assert "its label 'abroad' is none that the model has learned" in found.failures[0].message
    assert found.evaluation is not None
    assert found.features is not None
    pixels = np.stack([load(path).pixels for path in found.evaluation.paths])
    vectors = found.model.reduction(found.model.source(pixels))
    assert found.features == pytest.approx(vectors, abs=TOLERANCE["float32"])


def test_classes_that_are_not_tested(data: Path) -> None:
    shutil.rmtree(data / "test" / "spots")

    found = classify(data)

    assert found.evaluation is not None
    assert found.evaluation.per_class[2].recall is None
    assert not found.failures


def test_more_components_than_there_are(data: Path) -> None:
    found = classify(data, reduce="pca:5000")

    assert found.model.reduction.dimensions == 35
    assert found.notes == (
        "there are 35 components, and not 5000: of vectors of 744 numbers of 36 pictures no more can be found",
    )
    assert classify(data).notes == ()  # the classifier's own number is no wish


def test_pictures_that_are_learned_and_tested(data: Path) -> None:
    found = classify(data / "train", test=data / "train")

    assert found.notes == ("pictures that are tested on and learned from, too: 36; the accuracy will flatter",)


# --- what is refused


def test_one_class(data: Path) -> None:
    for kind in KINDS[1:]:
        shutil.rmtree(data / "train" / kind)
    with pytest.raises(DatasetMalformed, match="there is one class, 'across', and it takes two or more"):
        classify(data / "train")


def test_one_class_and_another_without_pictures(data: Path) -> None:
    for kind in KINDS[1:]:
        shutil.rmtree(data / "train" / kind)
    (data / "train" / "down").mkdir()
    with pytest.raises(DatasetMalformed, match=r"two or more; .*down: there is no picture in this folder"):
        classify(data / "train")


def test_nothing_can_be_read(data: Path) -> None:
    for path in data.glob("train/*/*"):
        path.write_bytes(b"no picture")
    with pytest.raises(DatasetMalformed, match=r"no picture to learn from; .*across/0\.png: .*; and 35 more cannot be"):
        classify(data)


def test_nothing_that_is_tested_was_learned(data: Path) -> None:
    shutil.rmtree(data / "train" / "spots")
    for kind in ("across", "down"):
        shutil.rmtree(data / "test" / kind)
    with pytest.raises(DatasetMalformed, match="none of the classes to test on is one to learn: 'spots' is not"):
        classify(data)


def test_nothing_that_is_tested_can_be_read(data: Path) -> None:
    """What was learned is not thrown away."""
    for path in data.glob("test/*/*"):
        path.write_bytes(b"no picture")

    found = classify(data)

    assert found.evaluation is None
    assert len(found.failures) == 24
    assert found.notes == ("none of the pictures to test on can be used",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classifier": "tree"}, "there is no classifier 'tree'"),
        ({"features": "sift"}, "there are no features 'sift'"),
        ({"reduce": "pca:"}, "there is no reduction 'pca:'"),
        ({"reduce": "pca:0"}, "a reduction leaves 1 component or more"),
        ({"c": 0}, "C is a positive number or auto, not 0"),
        ({"c": float("nan")}, "C is a positive number or auto, not nan"),
        ({"c": "much"}, "C is a positive number or auto, not much"),
        ({"c": 1.0, "classifier": "knn"}, "the classifier knn has no C"),
        ({"c": "auto", "classifier": "mlp"}, "the classifier mlp has no C"),
        ({"size": (3, 100)}, "pictures cannot be brought to 3 × 100 pixels"),
        ({"size": (20, 20), "features": "hog-skimage"}, "smaller than a block of HOG"),
        ({"hold_out": 1}, "the share to hold out is 1"),
        ({"seed": -1}, "the seed is -1"),
        ({"seed": 1 << 32}, "the seed is 4294967296"),
        ({"sharpen": 1}, "there is no option 'sharpen'"),
        ({"config": ClassifyConfig(), "flip": True}, "either a config or single options"),
        ({"jobs": 0}, "--jobs must be at least 1"),
    ],
    ids=str,
)
def test_what_makes_no_sense(data: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        classify(data, **options)  # type: ignore[arg-type]


# --- models


def test_predictions_keep_the_order(data: Path) -> None:
    """Also of what cannot be read, and of more pictures than are read at a time."""
    model = classify(data).model
    good = [str(path) for path in sorted(data.glob("*/*/*.png"))] * 10
    paths = ["first.png", *good[:300], "middle.png", *good[300:], "last.png"]

    found = list(model.predict(paths, top=2))

    assert [str(each.path) for each in found] == paths
    failed = [each.path for each in found if isinstance(each, FeatkitError)]
    assert failed == ["first.png", "middle.png", "last.png"]
    for each in found:
        if isinstance(each, Prediction):
            (label, score), (_, second) = each.top
            assert (each.label, each.score, each.margin) == (label, score, score - second)
            assert each.margin >= 0
    with pytest.raises(UsageError, match="there is 1 label or more"):
        list(model.predict(paths, top=0))


def test_an_evaluation_of_a_saved_model(data: Path, tmp_path: Path) -> None:
    found = classify(data)
    found.model.save(tmp_path / "model.fk")
    *_, again = evaluate_steps(load_model(tmp_path / "model.fk"), read_dataset(str(data / "test")))

    assert isinstance(again, Classified)
    assert again.failures == ()
    assert found.evaluation is not None
    assert (evaluation := again.evaluation) is not None
    assert np.array_equal(evaluation.confusion, found.evaluation.confusion)
    assert evaluation.scores == pytest.approx(found.evaluation.scores, abs=TOLERANCE["float32"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda config, arrays: config.pop("classes"),
        lambda config, arrays: config["classes"].pop(),
        lambda config, arrays: config.update(classes=["only"]),
        lambda config, arrays: config["head"].update(kind="Tree"),
        lambda config, arrays: config["maker"].update(name="sift"),
        lambda config, arrays: config["maker"].update(size=[64, 64, 3]),
        lambda config, arrays: config["maker"].update(size=[2, 2]),
        lambda config, arrays: config["maker"]["versions"].update(hog=0),
        lambda config, arrays: arrays.update({"reduction/mean": np.zeros(3, np.float32)}),
        lambda config, arrays: arrays.update({"head/weights": np.zeros((3, 3, 3), np.float32)}),
        lambda config, arrays: arrays.update({"head/landmarks": np.array(["text"])}),
        lambda config, arrays: arrays.pop("head/intercepts"),
    ],
)
def test_parts_that_do_not_fit_together(data: Path, tmp_path: Path, spoil: object) -> None:
    """Whole files with a right checksum, which no featkit has written."""
    classify(data).model.save(tmp_path / "model.fk")
    config, arrays = read_model(tmp_path / "model.fk")
    assert callable(spoil)
    spoil(config, arrays)
    write_model(tmp_path / "spoilt.fk", config, arrays, force=False)

    with pytest.raises(ModelDamaged, match="no model for this featkit") as caught:
        load_model(tmp_path / "spoilt.fk")
    assert caught.value.hint is not None
    assert "it was written by featkit 0" in caught.value.hint


# --- ablation


def test_ablation_tries_each_stage(data: Path) -> None:
    """Each trial is what a run with that change gives."""
    config = ClassifyConfig(classifier="ridge", reduce="pca:10")
    steps = [step for step in ablate_steps(read_dataset(str(data)), config) if not isinstance(step, Progress)]
    trials = {(step.stage, step.change): step for step in steps if isinstance(step, Trial)}
    without_torch = [step for step in steps if isinstance(step, FeatkitError)]

    assert all("mlp" in step.message for step in without_torch)
    first = trials["as asked", ""]
    assert (first.difference, first.cpu_seconds["features"] is None) == (0, False)
    changes = {
        ("as asked", ""): {},
        ("reduce", "none"): {"reduce": "none"},
        ("reduce", "lda"): {"reduce": "lda"},
        ("reduce", "whitened"): {"whiten": True},
        ("classifier", "svm"): {"classifier": "svm"},
        ("classifier", "linear-svm"): {"classifier": "linear-svm"},
        ("classifier", "logreg"): {"classifier": "logreg"},
        ("classifier", "knn"): {"classifier": "knn"},
        ("flip", "on"): {"flip": True},
        ("features", "hog-skimage, 24x24"): {"features": "hog-skimage"},
        ("features", "pixels, 24x24"): {"features": "pixels"},
    }
    assert set(trials) - {("classifier", "mlp")} == {
        *changes,
        ("features", "without hog"),
        ("features", "without colour"),
    }
    for change, options in changes.items():
        found = classify(data, replace(config, **options)).evaluation
        assert found is not None
        assert trials[change].accuracy == pytest.approx(found.accuracy, abs=1 / 24 + 1e-9), change
        assert trials[change].difference == trials[change].accuracy - first.accuracy
        assert trials[change].interval[0] <= trials[change].accuracy <= trials[change].interval[1]
    assert trials["features", "without hog"].accuracy < first.accuracy  # textures of any colour


def test_ablation_keeps_vectors_short(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As reduction takes time that grows with the cube of their length."""
    monkeypatch.setattr("featkit.learning.ablation._LARGEST_DIMENSIONS", 1000)
    changes = [
        step.change
        for step in ablate_steps(read_dataset(str(data)), ClassifyConfig(features="hog-skimage"))
        if isinstance(step, Trial) and step.stage == "features"
    ]
    assert changes == ["hog, 24x24", "pixels, 12x12"]


def test_ablation_of_features_that_a_picture_is_too_small_for(data: Path) -> None:
    """It is said, and the rest is tried."""
    steps = list(ablate_steps(read_dataset(str(data)), ClassifyConfig(size=(16, 16), classifier="ridge")))
    [error] = [step for step in steps if isinstance(step, FeatkitError) and "mlp" not in step.message]
    assert error.message.startswith("hog-skimage: these pictures of 16 × 16 pixels are smaller than a block")
    assert [step.change for step in steps if isinstance(step, Trial)][-1] == "pixels, 16x16"
