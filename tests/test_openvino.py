"""The same network by OpenVINO: what the Extractor gives, for any number of pictures and threads."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from small_networks import SIDE, backbone, pictures, small

from featkit.deep import openvino
from featkit.deep.computing import Computation, prepare
from featkit.deep.config import FeatureConfig, NetworkConfig
from featkit.deep.features import Extractor

pytest.importorskip("openvino", reason="the extra `fast` is not installed")

AT_ONCE = 4
# "pool" and "head" are the same numbers: each is a result of its own.
FEATURES = FeatureConfig(("act1", "bn2", "pool", "head"), "max")


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(backbone(small()), FEATURES)


@pytest.fixture(scope="module")
def compiled() -> openvino.Compiled:
    return openvino.Compiled(Extractor(backbone(small()), FEATURES), torch.float32, (SIDE, SIDE), AT_ONCE, 2)


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 1e-4) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.shape, one.dtype) == (other.shape, np.float32)
        assert np.abs(one - other).max(initial=0) <= tolerance * np.abs(other).max(initial=0)


@pytest.mark.parametrize("count", range(AT_ONCE + 1))
def test_as_many_pictures_as_it_was_compiled_for_and_fewer(
    count: int, extractor: Extractor, compiled: openvino.Compiled
) -> None:
    batch = pictures(count)
    assert compiled.shapes == extractor.shapes
    assert_close(compiled(batch), extractor(batch))


def test_a_result_depends_on_its_picture_alone(compiled: openvino.Compiled) -> None:
    batch = pictures(AT_ONCE)
    for number, alone in enumerate(batch):
        for one, together in zip(compiled(alone[None]), compiled(batch), strict=True):
            np.testing.assert_array_equal(one[0], together[number])


def test_results_stay_what_they_are(compiled: openvino.Compiled) -> None:
    """They are no views of memory that the next batch is written to."""
    first = compiled(pictures(AT_ONCE))
    kept = copy.deepcopy(first)
    compiled(pictures(AT_ONCE, seed=1))
    assert_close(first, kept, 0)


def test_pictures_as_they_are_decoded_and_mirrored(extractor: Extractor, compiled: openvino.Compiled) -> None:
    batch = pictures(AT_ONCE)
    batch.setflags(write=False)
    assert_close(compiled(batch), extractor(batch))
    assert_close(compiled(batch[:, :, ::-1]), extractor(batch[:, :, ::-1]))


def test_threads_side_by_side(compiled: openvino.Compiled) -> None:
    batches = [pictures(1 + seed % AT_ONCE, seed=seed) for seed in range(12)]
    expected = [compiled(batch) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        for together, alone in zip(pool.map(compiled, batches), expected, strict=True):
            assert_close(together, alone, 0)


def test_maps_and_unit_vectors() -> None:
    for features in (FeatureConfig(("conv2",), "none"), FeatureConfig(("conv2", "head"), "gem", normalize=True)):
        expected = Extractor(backbone(small()), features)
        made = openvino.Compiled(Extractor(backbone(small()), features), torch.float32, (SIDE, SIDE), AT_ONCE, 1)
        assert_close(made(pictures(3)), expected(pictures(3)))


def test_it_is_what_is_prepared_when_it_is_asked_for() -> None:
    config = NetworkConfig(features=FEATURES, device="cpu", runtime="openvino", precision="fp32")
    network = prepare(backbone(small()), config, count=1, jobs=2)
    assert network.computed == Computation("cpu", "openvino", "fp32")
    assert network.cosine == pytest.approx(1, abs=1e-6)
    assert network.refused == ()
    batch = pictures(8)
    assert_close(network.compute(batch), Extractor(backbone(small()), FEATURES)(batch))
