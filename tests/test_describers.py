"""What describes pictures: the same numbers as the library's own, each picture apart, in order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from textures import texture

import featkit
from featkit import images
from featkit.cache import Cache, open_cache
from featkit.deep.config import FeatureConfig, NetworkConfig
from featkit.errors import DependencyError, UsageError
from featkit.extraction.config import CLASSICAL, ExtractConfig
from featkit.extraction.describers import Described, Describer, Vectors, describer
from featkit.extraction.makers import ClassicalMaker, make
from featkit.extraction.tables import Table, joined
from featkit.images import DecodeOptions, Pixels
from featkit.local.features import DETECTORS, DetectorConfig, detect

NO_CACHE = Cache(None)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Of 20 pictures, of which the third is none, the sixth is missing and the ninth is cut short."""
    found = []
    for number in range(20):
        path = tmp_path / f"{number}.png"
        images.save(path, texture(("across", "spots")[number % 2], number, 70, 60))
        found.append(str(path))
    Path(found[2]).write_text("no picture")
    Path(found[5]).unlink()
    Path(found[8]).write_bytes(Path(found[8]).read_bytes()[:-50])
    return found


def made(config: ExtractConfig, cache: Cache = NO_CACHE) -> Describer:
    return describer(config, count=20, cache=cache, jobs=2)


def described(
    config: ExtractConfig, paths: Sequence[str], *, cache: Cache = NO_CACHE, jobs: int = 2
) -> list[Described]:
    return list(made(config, cache)(paths, images.read_bytes, cache=cache, jobs=jobs))


@pytest.mark.parametrize("name", ["sift", "orb", "affine-sift", "aliked"])
def test_keypoints_are_the_library_s(paths: list[str], name: str) -> None:
    try:
        config = ExtractConfig(features=name, max_keypoints=40, max_side=64)
        tables = [each.table for each in described(config, paths[:4])]
    except DependencyError:
        pytest.skip("the extra is not installed")
    assert [table.paths for table in tables] == [(path,) for path in paths[:4]]
    for table, path in zip(tables, paths, strict=False):
        if path == paths[2]:
            assert table.errors == ("unknown-format: this is a text file, not a picture",)
            assert {len(values) for values in table.values.values()} == {0}
            continue
        expected = detect(images.load(path).pixels, DetectorConfig(name, 40, 64))
        assert len(expected) > 0
        for part in ("xy", "size", "angle", "descriptors"):
            found, others = table.values[f"{name}.{part}"], getattr(expected, part)
            if name == "aliked":  # torch sums in another order with one thread
                np.testing.assert_allclose(found, others, atol=2e-3 if part == "descriptors" else 1e-4)
            else:
                np.testing.assert_array_equal(found, others, strict=True)
            assert table.counts[f"{name}.{part}"].tolist() == [len(expected)]


@pytest.mark.parametrize("name", CLASSICAL)
def test_vectors_are_those_of_the_maker(paths: list[str], name: str) -> None:
    size = (48, 40)
    table = featkit.extract(paths, features=name, size=size, cache=NO_CACHE)
    maker = make(name, size, lambda: np.zeros((0, 40, 48, 3), np.uint8))
    assert [error.partition(":")[0] for error in table.errors] == [
        {2: "unknown-format", 5: "missing", 8: "damaged"}.get(row, "") for row in range(20)
    ]
    for row, path in enumerate(paths):
        if table.errors[row]:
            assert np.isnan(table.values[name][row]).all()
            continue
        expected = maker(images.fit_to(images.load(path).pixels, size)[None])[0]
        np.testing.assert_array_equal(table.values[name][row], expected, strict=True)


@pytest.mark.parametrize("config", [ExtractConfig("sift", max_keypoints=50), ExtractConfig("hog", size=(192, 192))])
def test_tables_fit_the_fields_and_do_not_depend_on_threads_or_the_cache(
    paths: list[str], tmp_path: Path, config: ExtractConfig
) -> None:
    cache = Cache(tmp_path / "cache")
    runs = [
        described(config, paths, jobs=1),
        described(config, paths, jobs=3),
        described(config, paths, cache=cache),
        described(config, paths, cache=cache, jobs=1),
    ]
    fields = made(config).fields
    first, *others = (joined((each.table for each in run), fields) for run in runs)
    assert first.paths == tuple(paths)
    first.check(fields)
    for other in others:
        assert (other.errors, other.digests) == (first.errors, first.digests)
        for field in fields:
            np.testing.assert_array_equal(other.values[field.name], first.values[field.name], strict=True)
    assert not any(each.cached for each in runs[2])
    for each in runs[3]:
        assert each.cached or any(each.table.errors)
        assert each.seconds >= 0


def test_half_precision(paths: list[str]) -> None:
    config = ExtractConfig("pixels", size=(8, 8), dtype="float16")
    [each] = described(config, paths[:2])
    assert each.table.values["pixels"].dtype == np.float16
    with pytest.raises(UsageError, match="values too large for float16"):
        list(
            Vectors(Loud("pixels", (8, 8)), ("pixels",), ((192,),), "float16", DecodeOptions())(
                paths[:2], images.read_bytes, cache=NO_CACHE, jobs=1
            )
        )


class Loud(ClassicalMaker):
    def __call__(self, pictures: Pixels) -> np.ndarray:
        return super().__call__(pictures) * np.float32(1e9)


def test_the_config_tells_what_makes_a_difference() -> None:
    plain = ExtractConfig("hog")
    random = NetworkConfig(weights="random")
    different = [
        plain,
        replace(plain, size=(64, 64)),
        replace(plain, decode=DecodeOptions(max_pixels=9)),
        ExtractConfig("pixels"),
        ExtractConfig("sift"),
        ExtractConfig("sift", max_keypoints=9),
        ExtractConfig("sift", max_side=99),
        ExtractConfig("orb"),
        ExtractConfig(network=random),
        ExtractConfig(network=replace(random, seed=1)),
        ExtractConfig(network=replace(random, features=FeatureConfig(pool="max"))),
        ExtractConfig(network=replace(random, features=FeatureConfig(normalize=True))),
    ]
    found = [json.dumps(made(config).config, sort_keys=True) for config in different]
    assert len(set(found)) == len(different)
    assert found[0] == json.dumps(made(replace(plain, dtype="float16")).config, sort_keys=True)  # the fields tell
    assert made(plain).fields != made(replace(plain, dtype="float16")).fields


def test_several_layers_in_one_pass(paths: list[str]) -> None:
    """The same numbers as one after the other, for the pictures that can be read, and the first layer computed once."""
    layers = ("blocks.1", "blocks.4", "head")
    calls = 0

    def count(module: torch.nn.Module, *rest: object) -> None:
        nonlocal calls
        calls += isinstance(module, torch.nn.Conv2d) and module.in_channels == 3

    def of(*names: str) -> Table:
        network = NetworkConfig(features=FeatureConfig(names, pool="gem"), runtime="torch", device="cpu")
        return featkit.extract(paths[:12], network=network, cache=NO_CACHE, jobs=2)

    together = of(*layers)
    hook = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        calls = 0
        assert of(*layers).paths == together.paths
        at_once, calls = calls, 0
        alone = [of(name) for name in layers]
    finally:
        hook.remove()
    assert calls == 3 * at_once > 0
    for name, table in zip(layers, alone, strict=True):
        assert table.errors == together.errors
        np.testing.assert_array_equal(table.values[name], together.values[name], strict=True)


def test_what_makes_no_sense_is_refused() -> None:
    for options, message in {
        (("features", "sifd"),): "there are no features 'sifd'",
        (("features", "hog"), ("max_keypoints", 3)): "about keypoints",
        (("features", "hog"), ("size", (0, 3))): "1 to 4096 pixels",
        (("dtype", "uint8"),): "there is no dtype",
    }.items():
        with pytest.raises(UsageError, match=message):
            ExtractConfig(**dict(options))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="max-keypoints must be"):
        made(ExtractConfig("sift", max_keypoints=0))


def test_the_library_uses_the_user_s_cache(paths: list[str]) -> None:
    featkit.extract(paths[:1], features="sift")
    config = ExtractConfig("sift")
    assert [each.cached for each in described(config, paths[:2], cache=open_cache())] == [True, False]
    assert set(DETECTORS).isdisjoint(CLASSICAL)
