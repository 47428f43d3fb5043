"""Features that were written earlier: their labels, their vectors, what made them, and the models that fit them."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_pictures import pillow
from conftest import TOLERANCE
from feature_tables import FIELDS, make_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_networks import CONTRACT, small
from textures import KINDS, save_textures, texture

from featkit import images
from featkit.cache import Cache
from featkit.datasets import Dataset, Split, read_dataset
from featkit.deep import backbones
from featkit.deep.backbones import Backbone
from featkit.deep.config import FeatureConfig, NetworkConfig
from featkit.errors import DatasetMalformed, FeatkitError, FeaturesDamaged, ModelMismatch, UsageError
from featkit.extraction import engine, formats, shards
from featkit.extraction.config import ExtractConfig
from featkit.extraction.describers import describer
from featkit.extraction.engine import extract
from featkit.extraction.formats import FORMATS, Features
from featkit.extraction.makers import Maker, make
from featkit.extraction.networks import NetworkSource, network_maker
from featkit.extraction.shards import Plan
from featkit.extraction.tables import Field, Table
from featkit.images import DEFAULTS
from featkit.learning import stored
from featkit.learning.config import ClassifyConfig
from featkit.learning.fitting import fit_model
from featkit.learning.model import Model, Prediction, load_model
from featkit.learning.pipeline import classify
from featkit.learning.testing import Classified, evaluate_steps

NO_CACHE = Cache(None)
#: Those of one array only; a name of each format.
PLAIN_FIELDS = FIELDS[:1]
every_format = pytest.mark.parametrize("format", FORMATS)


def written(path: Path, tables: Sequence[Table], fields: Sequence[Field], config: Any = None) -> Features:
    """As `featkit extract` writes them, to a file or a folder."""
    if path.suffix:
        formats.write(path, tables, fields, config or {}, sum(map(len, tables)))
    else:
        [table] = tables
        plan = Plan(table.paths, tuple(fields), config or {}, max(1, len(table) // 2))
        shards.prepare(path, plan)
        for index in range(plan.shards):
            places = plan.places(index)
            shards.write(path, plan, index, table.part(places.start, places.stop))
        assert shards.complete(path, plan)
    return formats.read(path)


def named(folder: Path, format: str) -> Path:
    return folder / ("features" if format == formats.FOLDER else f"features.{format}")


def features_of(paths: Sequence[str], path: Path, **options: Any) -> Features:
    """Of pictures, by `extract`'s own describers."""
    made = describer(ExtractConfig(**options), count=len(paths), cache=NO_CACHE, jobs=1)
    tables = [each.table for each in made(paths, images.read_bytes, cache=NO_CACHE, jobs=1)]
    return written(path, tables, made.fields, made.config)


def paths_only(tmp_path: Path, paths: Sequence[str]) -> Features:
    return written(tmp_path / "features.npz", [make_table(paths, PLAIN_FIELDS, fail=0)], PLAIN_FIELDS)


def a_split(**labels: str) -> Split:
    """cat_1="cat" is cat/1.jpg"""
    return Split(tuple(f"{name.replace('_', '/')}.jpg" for name in labels), tuple(labels.values()))


def a_dataset(folder: str, train: Split, test: Split | None = None, validation: Split | None = None) -> Dataset:
    def there(split: Split | None) -> Split | None:
        return split and replace(split, paths=tuple(f"{folder}{path}" for path in split.paths))

    return Dataset(there(train) or train, there(validation), there(test), ())


# --- vectors


@every_format
def test_vectors_are_the_values_in_the_order_asked_for(tmp_path: Path, format: str) -> None:
    """Of any shape and dtype, laid out in a row; of what failed, what is not there and what is not finite, an error."""
    fields = PLAIN_FIELDS if format == "npy" else FIELDS
    table = make_table([f"{number}.jpg" for number in range(40)], fields)
    broken = table.errors.index("")
    table.values["head"][broken, 1] = np.inf
    features = written(named(tmp_path, format), [table], fields)
    asked = ["38.jpg", "3.jpg", "gone.jpg", *(f"{number}.jpg" for number in range(37, 1, -1)), "3.jpg", "0.jpg"]

    for field in fields:
        if field.ragged:
            continue
        found = stored.vectors(features, field.name, asked)

        rows = [int(path.split(".")[0]) if path != "gone.jpg" else -1 for path in asked]
        lost = [row for row in rows if row < 0 or table.errors[row] or (field.name == "head" and row == broken)]
        assert found.indices.tolist() == [place for place, row in enumerate(rows) if row not in lost]
        [view] = found.views
        expected = table.values[field.name][[rows[place] for place in found.indices]]
        np.testing.assert_array_equal(view, expected.reshape(len(view), -1).astype(np.float32), strict=True)
        assert [failure.path for failure in found.failures] == [
            path for path, row in zip(asked, rows, strict=True) if row in lost
        ]
        assert found.cached
    messages = {failure.path: (failure.code, failure.message) for failure in found.failures}
    messages.pop(f"{broken}.jpg", None)
    assert messages.pop("gone.jpg") == ("input", "there are no features of it")
    assert set(messages.values()) == {("damaged", "it is cut short – after 7 bytes")}


def test_what_is_not_finite_says_so(tmp_path: Path) -> None:
    table = make_table(["a.jpg", "b.jpg", "c.jpg"], PLAIN_FIELDS, fail=0)
    table.values["head"][1, 2] = np.nan
    features = written(tmp_path / "features.npz", [table], PLAIN_FIELDS)

    found = stored.vectors(features, "head", table.paths)

    assert found.indices.tolist() == [0, 2]
    [failure] = found.failures
    assert (failure.path, failure.message) == ("b.jpg", "its features are not finite")
    assert failure.hint


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)), st.integers(1, 5))
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_failures_leave_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: list[int], failed: set[int], at_once: int
) -> None:
    """In memory or on the disk, however many rows are moved at a time."""
    monkeypatch.setattr(stored, "_ROWS", at_once)
    monkeypatch.setattr("featkit.learning.rows.IN_MEMORY_BYTES", 0 if at_once % 2 else 1 << 20)
    values = np.arange(24, dtype=np.float32).reshape(12, 2)
    values[sorted(failed)] = np.nan
    errors = tuple("missing: gone" if row in failed else "" for row in range(12))
    table = Table(tuple(f"{row}" for row in range(12)), ("",) * 12, errors, {"v": values}, {})
    field = Field("v", "float32", (2,))
    formats.write(tmp_path / "features.npz", [table], [field], {}, 12, force=True)

    found = stored.vectors(formats.read(tmp_path / "features.npz"), "v", [str(row) for row in order])

    kept = [place for place, row in enumerate(order) if row not in failed]
    assert found.indices.tolist() == kept
    np.testing.assert_array_equal(found.views[0], values[[order[place] for place in kept]])
    assert [failure.path for failure in found.failures] == [str(row) for row in order if row in failed]


def test_no_more_is_held_than_the_vectors_and_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featkit.extraction.array_streams._BYTES_AT_ONCE", 1 << 20)
    field = Field("head", "float32", (1024,))
    tables = [make_table([f"{start}-{row}.jpg" for row in range(256)], [field], fail=0.2) for start in range(16)]
    features = written(tmp_path / "features.npz", tables, [field])
    paths = [path for table in tables for path in table.paths]
    del tables
    stored.vectors(features, "head", paths[:1])  # What is loaded late is loaded.
    tracemalloc.start()

    found = stored.vectors(features, "head", paths)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.indices) + len(found.failures) == 4096
    assert peak < 4 * 1024 * 4096 + (10 << 20)  # the vectors are 16 MiB; all tables would be as much again


def test_rows_come_with_their_paths(tmp_path: Path) -> None:
    table = make_table([f"{number}.jpg" for number in range(9)], PLAIN_FIELDS)
    features = written(tmp_path / "features", [table], PLAIN_FIELDS)

    found = list(stored.rows(features, "head"))

    assert [path for paths, _ in found for path in paths] == list(table.paths)
    assert [rows.start for _, rows in found] == [0, 4, 8]
    for paths, rows in found:
        assert rows.digests == table.digests[rows.start : rows.start + len(paths)]
        assert len(rows.indices) + len(rows.failures) == len(paths)
        np.testing.assert_array_equal(rows.views[0], table.values["head"][rows.indices])


def test_layers_are_vectors(tmp_path: Path) -> None:
    features = written(tmp_path / "features.npz", [make_table(["a.jpg"])], FIELDS)

    assert stored.layers_of(features) == ("head", "blocks.5", "codes", "sharpness")
    for name in ("sift.descriptors", "blocks.6"):
        with pytest.raises(UsageError, match=f"there are no vectors '{name}'") as caught:
            stored.vectors(features, name, ["a.jpg"])
        assert caught.value.hint == "there are: head, blocks.5, codes, sharpness"


def test_keypoints_are_none(tmp_path: Path) -> None:
    features = written(tmp_path / "features.npz", [make_table(["a.jpg"], FIELDS[4:])], FIELDS[4:])

    for use in (stored.layers_of, lambda features: stored.vectors(features, "sift.xy", ["a.jpg"])):
        with pytest.raises(UsageError, match="these are keypoints") as caught:
            use(features)
        assert "--features hog" in str(caught.value.hint)


def test_damage_is_told(tmp_path: Path) -> None:
    table = make_table([f"{number}.jpg" for number in range(9)], PLAIN_FIELDS)
    features = written(tmp_path / "features.npy", [table], PLAIN_FIELDS)
    data = bytearray((tmp_path / "features.npy").read_bytes())
    data[-1] ^= 1
    (tmp_path / "features.npy").write_bytes(data)

    with pytest.raises(FeaturesDamaged):
        stored.vectors(features, "head", table.paths)


# --- labels


@every_format
def test_folders_are_labels(tmp_path: Path, format: str) -> None:
    """Of pictures that failed, too."""
    paths = ["d/train/cat/2.jpg", "d/train/dog/1.jpg", "d/train/cat/1.jpg", "d/test/dog/3.jpg"]
    features = written(named(tmp_path, format), [make_table(paths, PLAIN_FIELDS, fail=0.5)], PLAIN_FIELDS)

    found = stored.labelled(features, None)

    assert found.train == Split(("d/train/cat/1.jpg", "d/train/cat/2.jpg", "d/train/dog/1.jpg"), ("cat", "cat", "dog"))
    assert found.test == Split(("d/test/dog/3.jpg",), ("dog",))
    assert (found.validation, found.failures) == (None, ())


TRAIN, TEST = a_split(cat_1="cat", dog_2="dog"), a_split(cat_3="cat")


@pytest.mark.parametrize(
    ("recorded", "folder"),
    [
        ("", ""),
        ("./", ""),
        ("", "{here}/"),
        ("{here}/", ""),
        ("data/", "elsewhere/data/"),
        ("/far/away/", "/far/too/"),
        ("photos.tar/", "photos/"),
        ("photos.tar/./", "/photos/"),
    ],
)
def test_labels_of_data_are_matched_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: str, folder: str
) -> None:
    """As the same text or the same place; else below the folder that all are in, where they were moved since."""
    monkeypatch.chdir(tmp_path)
    recorded, folder = (each.format(here=tmp_path) for each in (recorded, folder))
    names = [f"{recorded}{path}" for path in (*TEST.paths, *TRAIN.paths, "cat/of another class.jpg")]
    features = paths_only(tmp_path, names)

    found = stored.labelled(features, a_dataset(folder, TRAIN, TEST))

    assert found.train == Split((names[1], names[2]), ("cat", "dog"))
    assert found.test == Split((names[0],), ("cat",))
    assert (found.validation, found.failures) == (None, ())


def test_where_some_are_where_they_were_no_others_are_guessed(tmp_path: Path) -> None:
    """Both folders have a cat/1.jpg."""
    features = paths_only(tmp_path, ["/data/old/cat/1.jpg", "/data/old/dog/2.jpg"])
    data = Dataset(
        Split(("/data/new/cat/1.jpg", "/data/old/dog/2.jpg"), ("cat", "dog")), None, None, (FeatkitError("before"),)
    )

    found = stored.labelled(features, data)

    assert found.train.paths == ("/data/old/dog/2.jpg",)
    before, missing = found.failures
    assert before.message == "before"
    assert (missing.path, missing.message) == ("/data/new/cat/1.jpg", "there are no features of it")


def test_missing_pictures_are_told_once(tmp_path: Path) -> None:
    features = paths_only(tmp_path, ["/cat/0.jpg"])
    paths = tuple(f"/cat/{number}.jpg" for number in range(20))

    failures = stored.labelled(features, Dataset(Split(paths, ("cat",) * 20), None, None, ())).failures

    assert [failure.path for failure in failures] == [*(f"/cat/{number}.jpg" for number in range(1, 6)), features.path]
    assert failures[-1].message == "and 14 more: there are no features of it"
    assert all(failure.hint for failure in failures)


def test_a_picture_named_twice_is_learned_or_tested_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    features = paths_only(tmp_path, ["cat/1.jpg", "dog/2.jpg"])
    train = Split(("cat/1.jpg", "dog/../cat/1.jpg"), ("cat", "dog"))
    test = Split((f"{tmp_path}/cat/1.jpg", "dog/2.jpg"), ("cat", "dog"))

    found = stored.labelled(features, Dataset(train, None, test, ()))

    assert found.train == Split(("cat/1.jpg",), ("cat",))
    assert found.test == Split(("dog/2.jpg",), ("dog",))
    assert [failure.path for failure in found.failures] == ["dog/../cat/1.jpg", f"{tmp_path}/cat/1.jpg"]
    assert {failure.message for failure in found.failures} == {"it is the same picture as one before"}


@pytest.mark.parametrize(
    ("kept", "told"),
    [((), "train"), (("test", "validation"), "train"), (("train", "validation"), "test"), (("train",), "test")],
    ids=str,
)
def test_what_is_used_has_features(tmp_path: Path, kept: tuple[str, ...], told: str) -> None:
    """To learn from, and to test on; the message shows a path of either side."""
    splits = {"train": "/d/1.jpg", "validation": "/d/2.jpg", "test": "/d/3.jpg"}
    features = paths_only(tmp_path, [splits[name] for name in kept] or ["/e/f/9.jpg"])
    data = Dataset(**{name: Split((path,), ("cat",)) for name, path in splits.items()}, failures=())

    with pytest.raises(DatasetMalformed, match=f"pictures of {told} .* as {splits[told]}") as caught:
        stored.labelled(features, data)

    assert caught.value.hint == f"there are features of {splits[kept[0]] if kept else '/e/f/9.jpg'}"


def test_what_is_not_used_need_not_have_them(tmp_path: Path) -> None:
    features = paths_only(tmp_path, ["/d/1.jpg", "/d/3.jpg"])
    train, validation, test = (Split((f"/d/{number}.jpg",), ("cat",)) for number in (1, 2, 3))

    found = stored.labelled(features, Dataset(train, validation, test, ()))

    assert (found.train, found.validation, found.test) == (train, None, test)
    assert [failure.path for failure in found.failures] == ["/d/2.jpg"]


def test_without_pictures(tmp_path: Path) -> None:
    features = paths_only(tmp_path, [])

    for data in (None, a_dataset("", TRAIN)):
        with pytest.raises(DatasetMalformed) as caught:
            stored.labelled(features, data)
        assert caught.value.hint


# --- what made them


@pytest.fixture(scope="session")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and test/ with pictures of three classes, and in test/ one that is cut off."""
    folder = tmp_path_factory.mktemp("textures")
    save_textures(folder / "train", 8, size=(40, 32))
    save_textures(folder / "test", 4, first=8, size=(40, 32))
    (folder / "test" / "down" / "cut.png").write_bytes(pillow(texture("down", 99), "PNG")[:-200])
    return folder


def pictures_in(folder: Path) -> list[str]:
    found = read_dataset(str(folder))
    return [path for split in (found.train, found.test) if split for path in split.paths]


@pytest.fixture(scope="session")
def paths(textures: Path) -> list[str]:
    return pictures_in(textures)


@pytest.fixture(scope="session")
def hog(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> Features:
    return features_of(paths, tmp_path_factory.mktemp("hog") / "features.npz", features="hog", size=(32, 32))


@pytest.fixture(scope="session")
def hog_model(textures: Path) -> Model:
    return classify(textures, size=(32, 32), classifier="logreg", cache=NO_CACHE).model


def test_hog_is_what_classify_makes(paths: list[str], hog: Features) -> None:
    maker = make("hog", (32, 32), lambda: np.zeros((0, 32, 32, 3), np.uint8))
    made = list(extract(paths, maker, mirrored=False, decode=DEFAULTS, cache=NO_CACHE, jobs=1))

    found = stored.vectors(hog, "hog", paths)

    np.testing.assert_array_equal(found.views[0], np.concatenate([rows.views[0] for rows in made]))
    assert found.indices.tolist() == [index for rows in made for index in rows.indices]
    [failure], [expected] = found.failures, [each for rows in made for each in rows.failures]
    assert (failure.path, failure.code, failure.message) == (expected.path, expected.code, expected.message)
    assert stored.source(hog, "hog").parts() == maker.parts()


@pytest.mark.parametrize("name", ["pixels", "hog-skimage"])
def test_other_features_without_a_network(paths: list[str], tmp_path: Path, name: str) -> None:
    features = features_of(paths[:2], tmp_path / "features.parquet", features=name, size=(32, 32), dtype="float16")

    source = stored.source(features, name)

    maker = source.opened(count=2, cache=NO_CACHE, jobs=1)
    pixels = np.stack([maker.prepared(Path(path).read_bytes(), DEFAULTS, path) for path in paths[:2]])
    np.testing.assert_allclose(stored.vectors(features, name, paths[:2]).views[0], maker(pixels), atol=1e-3)


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever backbone is asked for is a small one, with random weights of its seed."""

    def load(name: str, weights: str | None = None, *, seed: int = 0, progress: object = None) -> Backbone:
        contract = CONTRACT if name != "squashed" else replace(CONTRACT, rule="squash")
        return Backbone(name, small(seed), contract, "random", None)

    monkeypatch.setattr(backbones, "load", load)


def network(*layers: str, backbone: str = "small", seed: int = 0, **options: Any) -> NetworkConfig:
    return NetworkConfig(
        backbone,
        "random",
        seed=seed,
        features=FeatureConfig(layers or ("head",), **options),
        device="cpu",
        precision="fp32",
        runtime="torch",
    )


def fitted(maker: Maker, paths: Sequence[str]) -> Model:
    """With a head for the classes that the folders name."""
    rows = list(extract(paths, maker, mirrored=False, decode=DEFAULTS, cache=NO_CACHE, jobs=1))
    labels = [Path(paths[index]).parent.name for each in rows for index in each.indices]
    views = [np.concatenate([each.views[0] for each in rows])]
    config = ClassifyConfig(classifier="ridge", reduce="none")
    steps = fit_model(maker.source, views, labels, config, seconds={})
    while True:
        try:
            next(steps)
        except StopIteration as last:
            return last.value.model


def network_model(paths: Sequence[str], *layers: str, **options: Any) -> Model:
    config = network(*layers, **options)
    return fitted(network_maker(config, count=len(paths), jobs=1, cache=NO_CACHE), paths)


@pytest.mark.usefixtures("small_network")
def test_each_layer_of_a_network_has_its_source(paths: list[str], tmp_path: Path) -> None:
    config = network("conv2", "act1", "head", pool="max", normalize=True)
    features = features_of(paths[:3], tmp_path / "features.npz", network=config)
    whole = network_maker(config, count=3, jobs=1, cache=NO_CACHE)

    for number, name in enumerate(("conv2", "act1", "head")):
        source = stored.source(features, name)
        assert isinstance(source, NetworkSource)
        assert (source.layers, source.blocks) == ((name,), (whole.blocks[number],))
        assert source.parts()[0]["features"] == {"layers": [name], "pool": "max", "normalize": True}
        maker = source.opened(count=3, cache=NO_CACHE, jobs=1)
        pixels = np.stack([maker.prepared(Path(path).read_bytes(), DEFAULTS, path) for path in paths[:3]])
        found = stored.vectors(features, name, paths[:3]).views[0]
        np.testing.assert_allclose(found, maker(pixels), atol=TOLERANCE["float32"])


@pytest.mark.usefixtures("small_network")
def test_maps_are_vectors_too(paths: list[str], tmp_path: Path) -> None:
    features = features_of(paths[:2], tmp_path / "features.npz", network=network("conv2", pool="none"))

    assert stored.source(features, "conv2").blocks == (12 * 8 * 8,)
    assert stored.vectors(features, "conv2", paths[:2]).views[0].shape == (2, 12 * 8 * 8)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.clear(),
        lambda config: config.update(maker=7),
        lambda config: config["maker"].pop("hog"),
        lambda config: config["maker"].update(name="patches"),
        lambda config: config["maker"].update(hog={**config["maker"]["hog"], "cells": 5}),
        lambda config: config["maker"]["versions"].update(hog=0),
        lambda config: config.update(engine=engine.VERSION + 1),
    ],
    ids=["none", "no maker", "not whole", "another", "another width", "another version", "another engine"],
)
def test_features_of_which_nobody_knows_what_made_them(hog: Features, change: Callable[[Any], None]) -> None:
    """Their labels and vectors are what they are; a model could not be used."""
    config = {**hog.config, "maker": {**hog.config["maker"], "versions": {**hog.config["maker"]["versions"]}}}
    change(config)
    features = replace(hog, config=config)

    with pytest.raises(UsageError, match="what made these features of 'hog' is not known here") as caught:
        stored.source(features, "hog")

    assert caught.value.path == hog.path
    assert "featkit extract" in str(caught.value.hint)


@pytest.mark.usefixtures("small_network")
def test_features_of_an_older_featkit(paths: list[str], tmp_path: Path) -> None:
    """Which did not say all that is needed."""
    features = features_of(paths[:1], tmp_path / "features.npz", network=network())
    maker = {name: value for name, value in features.config["maker"].items() if name != "shapes"}

    with pytest.raises(UsageError, match="not known here"):
        stored.source(replace(features, config={**features.config, "maker": maker}), "head")


# --- models


def said(found: Iterator[Prediction | FeatkitError]) -> list[Any]:
    return [each if isinstance(each, Prediction) else (each.path, each.code, each.message) for each in found]


def test_the_predictions_of_pictures(hog: Features, hog_model: Model, paths: list[str], tmp_path: Path) -> None:
    """In their order, with the errors at their places; as of a model that was saved, and of pictures that are gone."""
    hog_model.save(tmp_path / "model.fk")
    expected = said(hog_model.predict(paths, top=2, cache=NO_CACHE))
    assert sum(isinstance(each, Prediction) for each in expected) == len(paths) - 1

    model = load_model(tmp_path / "model.fk")
    found = said(model.predict_rows(stored.rows_for(model, hog), top=2))

    assert [each for each in found if isinstance(each, tuple)] == [each for each in expected if isinstance(each, tuple)]
    for each, other in zip(found, expected, strict=True):
        if isinstance(each, Prediction):
            assert (each.path, each.label) == (other.path, other.label)
            assert each.score == pytest.approx(other.score, abs=TOLERANCE["float32"])
    with pytest.raises(UsageError, match="there is 1 label or more"):
        list(model.predict_rows(stored.rows_for(model, hog), top=0))


@pytest.mark.usefixtures("small_network")
def test_a_head_on_one_of_several_layers(paths: list[str], tmp_path: Path) -> None:
    features = features_of(paths, tmp_path / "features.h5", network=network("act1", "conv2", "head"), dtype="float16")
    model = network_model(paths, "conv2")

    found = said(model.predict_rows(stored.rows_for(model, features)))

    expected = said(model.predict(paths, cache=NO_CACHE))
    assert stored.layer_for(model, features) == "conv2"
    for each, other in zip(found, expected, strict=True):
        if isinstance(each, Prediction):
            assert each.score == pytest.approx(other.score, abs=1e-2)
        else:
            assert each == other


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize(
    ("config", "ours", "theirs"),
    [
        (network("act1", "conv2"), "small, layer head", "small, layer act1, conv2"),
        (network(seed=3), "small, weights random 0", "small, weights random 3"),
        (network(backbone="other"), "small, weights random 0, layer head", "other, weights random 0, layer head"),
        (network(pool="max"), "small, pool avg", "small, pool max"),
        (network(normalize=True), "small, normalize False", "small, normalize True"),
        (network(backbone="squashed"), "small, weights random 0, layer head", "squashed, weights random 0, layer head"),
        (None, "small, weights random 0, layer head", "hog"),
    ],
    ids=["layer", "weights", "backbone", "pooling", "normalisation", "contract", "none"],
)
def test_a_head_of_other_features(
    paths: list[str], hog: Features, tmp_path: Path, config: NetworkConfig | None, ours: str, theirs: str
) -> None:
    features = hog if config is None else features_of(paths[:1], tmp_path / "features.npz", network=config)
    model = network_model(paths)

    for use in (stored.layer_for, stored.rows_for, lambda *each: list(stored.evaluate_steps(*each, None))):
        with pytest.raises(ModelMismatch) as caught:
            use(model, features)
        assert caught.value.message == f"the head was trained on {ours}; these are features of {theirs}"
        assert (caught.value.code, caught.value.path) == ("mismatch", features.path)
        assert caught.value.hint


@pytest.mark.usefixtures("small_network")
def test_a_contract_of_the_same_network(paths: list[str], tmp_path: Path) -> None:
    features = features_of(paths[:1], tmp_path / "features.npz", network=network())
    model = network_model(paths)
    source = model.source
    assert isinstance(source, NetworkSource)
    weights = "0123456789abcdef" * 4
    other = replace(source, contract={**source.contract, "resize": 64}, sha256=weights)

    with pytest.raises(ModelMismatch) as caught:
        stored.layer_for(replace(model, source=other), features)

    assert caught.value.message == (
        "the head was trained on small, weights 01234567…, contract resize 64; "
        "these are features of small, weights random 0, contract resize 36"
    )


@pytest.mark.parametrize(
    ("options", "ours", "theirs"),
    [
        ({"size": (24, 32)}, "hog, size 24 × 32", "hog, size 32 × 32"),
        ({"features": "pixels", "size": (32, 32)}, "pixels", "hog"),
        ({"features": "patches", "dictionary": 20, "stride": 4, "size": (32, 32)}, "patches", "hog"),
    ],
    ids=["size", "features", "learned"],
)
def test_a_head_of_other_features_without_a_network(
    textures: Path, hog: Features, options: dict[str, Any], ours: str, theirs: str
) -> None:
    model = classify(textures, classifier="ridge", cache=NO_CACHE, **options).model

    with pytest.raises(ModelMismatch) as caught:
        stored.layer_for(model, hog)

    assert caught.value.message == f"the head was trained on {ours}; these are features of {theirs}"


def test_a_head_that_looks_at_mirror_images(hog_model: Model, hog: Features) -> None:
    """Its predictions would be others."""
    with pytest.raises(ModelMismatch, match="mirror images"):
        stored.layer_for(replace(hog_model, mirrored=True), hog)


def test_keypoints_have_no_model(hog_model: Model, textures: Path, tmp_path: Path) -> None:
    picture = str(textures / "train" / "down" / "0.png")
    features = features_of([picture], tmp_path / "features.npz", features="orb")

    with pytest.raises(UsageError, match="these are keypoints"):
        stored.layer_for(hog_model, features)


def evaluation_of(steps: Iterator[Any]) -> tuple[Any, tuple[FeatkitError, ...]]:
    *_, last = steps
    assert isinstance(last, Classified)
    return last.evaluation, last.failures


def test_the_evaluation_of_pictures(hog: Features, hog_model: Model, textures: Path) -> None:
    """By their folders, and by the data, of which only what is tested need have features."""
    expected, failures = evaluation_of(evaluate_steps(hog_model, read_dataset(str(textures)), cache=NO_CACHE))
    data = read_dataset(str(textures))
    more = replace(data, train=Split(("not extracted.jpg",), ("down",)))
    for labels in (None, data, more):
        found, told = evaluation_of(stored.evaluate_steps(hog_model, hog, labels))
        assert sorted(found.paths) == sorted(expected.paths)
        assert found.accuracy == expected.accuracy
        np.testing.assert_array_equal(found.confusion, expected.confusion)
        assert [(each.path, each.code) for each in told] == [(each.path, each.code) for each in failures]


def test_an_evaluation_of_what_is_all_unknown(hog: Features, hog_model: Model, textures: Path) -> None:
    test = read_dataset(str(textures)).test
    assert test is not None
    other = Dataset(Split(test.paths, ("unknown",) * len(test.paths)), None, None, ())

    with pytest.raises(DatasetMalformed, match=r"there is no picture to test on; .* cannot be used"):
        evaluation_of(stored.evaluate_steps(hog_model, hog, other))


def test_moved_pictures_are_evaluated_all_the_same(hog_model: Model, textures: Path, tmp_path: Path) -> None:
    """With their data elsewhere, and nothing where the features were made."""
    shutil.copytree(textures, tmp_path / "old")
    features = features_of(pictures_in(tmp_path / "old"), tmp_path / "features.npz", features="hog", size=(32, 32))
    (tmp_path / "old").rename(tmp_path / "new")
    data = read_dataset(str(tmp_path / "new"))

    moved = stored.labelled(features, data)

    assert moved.train.labels == data.train.labels
    assert all(path.startswith(str(tmp_path / "old")) for path in moved.train.paths)
    assert sorted(set(moved.train.labels)) == sorted(KINDS)
