"""Heads on features as a Python user has them: which layer, which backbone, how many pictures."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifierCV
from textures import KINDS, save_textures, texture

from featkit import load_model
from featkit.cache import Cache
from featkit.datasets import read_dataset
from featkit.deep.config import FeatureConfig, NetworkConfig
from featkit.errors import DatasetMalformed, DependencyError, FeatkitError, UsageError
from featkit.images import DEFAULTS, load, save
from featkit.learning.config import PROBES, ClassifyConfig, ProbeConfig
from featkit.learning.pipeline import classify
from featkit.learning.probing import Compared, Probed, compare_steps, probe

#: Small, and quick to make; its weights are random.
LAYERS = ("stage2", "stage3", "head")
NETWORK = NetworkConfig("shufflenet_v2_x0_5", "random", features=FeatureConfig(LAYERS), input=64)


def config(**options: object) -> ProbeConfig:
    return replace(ProbeConfig(network=NETWORK), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probing")
    save_textures(folder / "data" / "train", 12)
    save_textures(folder / "data" / "test", 6, first=12)
    return folder


@pytest.fixture
def data(_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(_folder / "data", tmp_path / "data")


@pytest.fixture(scope="session")
def cache(_folder: Path) -> Cache:
    """Warm after the first test that makes these features."""
    return Cache(_folder / "cache")


@pytest.fixture
def found(data: Path, cache: Cache) -> Probed:
    return probe(data, config(), cache=cache)


def compared(data: Path, names: list[str], cache: Cache) -> list[Compared | FeatkitError]:
    network = replace(NETWORK, features=FeatureConfig())
    steps = compare_steps(read_dataset(str(data)), names, config(network=network), cache=cache, jobs=1)
    return [step for step in steps if isinstance(step, (Compared, FeatkitError))]


# --- layers


def test_a_head_for_each_layer(found: Probed) -> None:
    assert [each.layer for each in found.probes] == list(LAYERS)
    assert [each.dimensions for each in found.probes] == [48, 96, 1024]
    for each in found.probes:
        assert each.evaluation is not None
        assert len(each.evaluation.paths) == 18
        assert each.validated is not None
        assert 0 <= each.validated <= 1
        assert each.setting["C"] > 0
        assert each.features == "shufflenet_v2_x0_5"


def test_what_is_best_on_training_pictures_is_chosen(found: Probed) -> None:
    best = max(each.validated or 0 for each in found.probes)
    assert found.chosen.validated == best
    assert found.chosen.dimensions == min(each.dimensions for each in found.probes if each.validated == best)
    assert found.result.evaluation is found.chosen.evaluation
    assert found.result.model.config["layer"] == found.chosen.layer
    assert found.result.trained == 36
    assert found.advice


def test_the_head_of_a_layer_is_the_same_alone(found: Probed, data: Path, cache: Cache) -> None:
    """From a pass of its own: what comes after a layer is not computed, and changes nothing."""
    for each in found.probes:
        network = replace(NETWORK, features=FeatureConfig((each.layer,)))
        [alone] = probe(data, config(network=network), cache=Cache(None)).probes
        assert alone.setting == pytest.approx(each.setting, rel=1e-3)
        assert alone.validated == each.validated
        assert alone.evaluation is not None
        assert each.evaluation is not None
        assert alone.evaluation.scores == pytest.approx(each.evaluation.scores, abs=1e-3)


def test_ridge_is_that_of_scikit_learn(data: Path, cache: Cache) -> None:
    """Its choice among the same regularisations, by leaving one out, labels the same."""
    network = replace(NETWORK, features=FeatureConfig(("stage3",)))
    found = probe(data, config(network=network), cache=cache)
    model, dataset = found.result.model, read_dataset(str(data))
    assert dataset.test is not None
    maker = model.source.opened(count=18, cache=cache, jobs=1)

    def vectors(paths: tuple[str, ...]) -> np.ndarray:
        pictures = np.stack([maker.prepared(Path(path).read_bytes(), DEFAULTS, path) for path in paths])
        return model.reduction(maker(pictures)).astype(float)

    alpha = 1 / (2 * found.chosen.setting["C"])
    peer = RidgeClassifierCV([alpha]).fit(vectors(dataset.train.paths), dataset.train.labels)
    labels = [model.classes[number] for number in found.chosen.evaluation.predicted]  # type: ignore[union-attr]
    assert peer.predict(vectors(dataset.test.paths)).tolist() == labels


def test_saved_it_says_the_same(found: Probed, data: Path, tmp_path: Path, cache: Cache) -> None:
    found.result.model.save(tmp_path / "head.fk")
    evaluation = found.result.evaluation
    assert evaluation is not None
    predictions = list(load_model(tmp_path / "head.fk").predict(evaluation.paths, cache=cache))
    labels = [evaluation.classes[number] for number in evaluation.predicted]
    assert [each.label for each in predictions] == labels  # type: ignore[union-attr]


def test_all_classifiers_side_by_side(data: Path, cache: Cache) -> None:
    found = probe(data, config(classifier="all"), cache=cache)
    assert [(each.layer, each.classifier) for each in found.probes] == [
        (layer, name) for layer in LAYERS for name in PROBES
    ]
    settings = {each.classifier: set(each.setting) for each in found.probes}
    assert settings == {"ridge": {"C"}, "logreg": {"C"}, "svm": {"C"}, "knn": {"neighbours"}}
    assert found.result.model.config["classifier"] == found.chosen.classifier


def test_a_given_setting_is_kept(data: Path, cache: Cache) -> None:
    for name, setting in (("ridge", {"c": 0.5}), ("knn", {"neighbours": 4})):
        for each in probe(data, config(classifier=name, **setting), cache=cache).probes:
            assert list(each.setting.values()) == list(setting.values())
            assert each.validated is not None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"classifier": "ridge", "neighbours": 3}, "the classifier ridge has no number of neighbours"),
        ({"classifier": "knn", "c": 1.0}, "the classifier knn has no C"),
    ],
)
def test_a_setting_of_another_classifier(data: Path, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        probe(data, config(**options), cache=Cache(None))


def test_mirror_images_are_learned_from_and_averaged(data: Path, cache: Cache) -> None:
    # Of this size as much is cropped on the left as on the right.
    network = replace(NETWORK, features=FeatureConfig(("stage2",)), input=56)
    found = probe(data, config(flip=True, network=network), cache=cache)
    path = found.result.evaluation.paths[0]  # type: ignore[union-attr]
    mirrored = data / "mirrored.png"
    save(mirrored, np.ascontiguousarray(load(path).pixels[:, ::-1]))
    one, other = found.result.model.predict([path, mirrored], cache=cache)
    assert one.score == pytest.approx(other.score, abs=1e-4)  # type: ignore[union-attr]


# --- learning curves


def test_a_learning_curve(data: Path, cache: Cache) -> None:
    found = probe(data, config(), learning_curve=True, cache=cache)
    assert [(point.size, point.pictures) for point in found.curve] == [(1, 3), (2, 6), (5, 15), (10, 30), (12, 36)]
    assert found.chosen.evaluation is not None
    assert found.curve[-1].accuracies == (found.chosen.evaluation.accuracy,)
    assert all(point.tested == 18 for point in found.curve)


# --- comparisons


def test_backbones_and_hog_on_the_same_pictures(data: Path, cache: Cache) -> None:
    first, second, hog = compared(data, ["shufflenet_v2_x0_5", "mobilenet_v3_small", "hog"], cache)
    assert isinstance(first, Compared)
    assert isinstance(second, Compared)
    assert isinstance(hog, Compared)
    assert first.comparison is None
    assert second.comparison is not None
    assert second.comparison.pictures == 18
    ours, theirs = (each.probed.chosen.evaluation for each in (second, first))
    assert ours is not None
    assert theirs is not None
    assert second.comparison.difference == pytest.approx(ours.accuracy - theirs.accuracy)
    as_classify = classify(data, ClassifyConfig(), cache=cache).evaluation
    assert as_classify is not None
    assert hog.probed.chosen.evaluation is not None
    assert hog.probed.chosen.evaluation.accuracy == as_classify.accuracy
    assert hog.record()["type"] == "comparison"


def test_one_that_cannot_be_had_is_said_and_the_rest_is_compared(data: Path, cache: Cache) -> None:
    first, missing, hog = compared(data, ["shufflenet_v2_x0_5", "no-such-network", "hog"], cache)
    assert isinstance(first, Compared)
    assert isinstance(missing, UsageError)
    assert isinstance(hog, Compared)
    with pytest.raises(UsageError, match="there is no backbone 'neither'"):
        compared(data, ["nor", "neither"], cache)


@pytest.mark.parametrize("names", [["hog"], ["hog", "hog"]])
def test_what_is_no_comparison(data: Path, cache: Cache, names: list[str]) -> None:
    with pytest.raises(UsageError, match="two or more different backbones are compared"):
        compared(data, names, cache)


# --- strange data


def test_a_layer_that_there_is_not(data: Path, cache: Cache) -> None:
    network = replace(NETWORK, features=FeatureConfig(("stage2", "stage33")))
    with pytest.raises(UsageError, match="stage33") as raised:
        probe(data, config(network=network), cache=cache)
    assert "stage3" in (raised.value.hint or "")


def test_weights_that_cannot_be_had(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for proxy in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:1")
    with pytest.raises(DependencyError) as raised:
        probe(data, network=NetworkConfig("squeezenet1_0"), cache=Cache(None))
    assert "lite0" in (raised.value.hint or "")


def test_one_picture_a_class(data: Path, cache: Cache) -> None:
    for kind in KINDS:
        for path in sorted((data / "train" / kind).iterdir())[1:]:
            path.unlink()
    for name in PROBES:
        found = probe(data, config(classifier=name), cache=cache)
        assert found.result.trained == 3
        assert found.result.evaluation is not None
    shutil.rmtree(data / "test")
    found = probe(data / "train", config(), learning_curve=True, cache=cache)
    assert found.result.evaluation is None
    assert any("nothing to test on" in note for note in found.result.notes)
    assert found.curve == found.advice == ()


def test_one_class(data: Path, cache: Cache) -> None:
    for kind in KINDS[1:]:
        shutil.rmtree(data / "train" / kind)
    with pytest.raises(DatasetMalformed, match="there is one class"):
        probe(data, config(), cache=cache)


def test_a_class_that_was_never_learned(data: Path, cache: Cache) -> None:
    (data / "test" / "dots").mkdir()
    save(data / "test" / "dots" / "1.png", texture("spots", 99, 48, 40))
    found = probe(data, config(), cache=cache)
    [failure] = found.result.failures
    assert "its label 'dots' is none that the model has learned" in failure.message
    assert found.result.evaluation is not None
    assert len(found.result.evaluation.paths) == 18


def test_very_different_numbers_of_pictures(data: Path, cache: Cache) -> None:
    for path in sorted((data / "train" / KINDS[0]).iterdir())[1:]:
        path.unlink()
    accuracy = {
        balanced: probe(data, config(balanced=balanced), cache=cache).result.evaluation for balanced in (False, True)
    }
    recall = {balanced: evaluation.per_class[0].recall for balanced, evaluation in accuracy.items() if evaluation}
    assert (recall[True] or 0) >= (recall[False] or 0)


def test_pictures_that_are_all_the_same(tmp_path: Path) -> None:
    for kind in ("one", "other"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for number in range(4):
            save(tmp_path / "data" / kind / f"{number}.png", np.full((40, 40, 3), 128, np.uint8))
    for name in PROBES:
        found = probe(tmp_path / "data", config(classifier=name), cache=Cache(None))
        assert any("is the same of all pictures: nothing can be learned" in note for note in found.result.notes)
        assert found.result.evaluation is not None
        assert found.result.evaluation.accuracy == 0.5


def test_a_picture_that_cannot_be_read(data: Path, cache: Cache) -> None:
    bad = [data / "train" / KINDS[0] / "bad.png", data / "test" / KINDS[1] / "bad.png"]
    for path in bad:
        path.write_bytes(b"no picture")
    found = probe(data, config(classifier="all"), cache=cache)
    assert [failure.path for failure in found.result.failures] == list(map(str, bad))
    assert found.result.trained == 36


def test_nothing_to_learn_from() -> None:
    with pytest.raises(UsageError, match="there is nothing to learn from"):
        probe()
