"""How a network is computed: as fast as can be, and never far from what float32 of torch gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import backbone, pictures, small

from featkit.deep import bfloat16, computing, openvino
from featkit.deep.backbones import Backbone
from featkit.deep.computing import Computation, halving, like_photographs, prepare
from featkit.deep.config import FEWEST_TO_COMPILE_FOR, FeatureConfig, NetworkConfig
from featkit.deep.features import Extractor
from featkit.errors import DependencyError, UsageError

PLAIN = Computation("cpu", "torch", "fp32")
FEATURES = FeatureConfig(("bn1", "head"))
Change = Callable[[list[np.ndarray]], list[np.ndarray]]


class Altered:
    """Computes otherwise than it should."""

    def __init__(self, extractor: Extractor, change: Change) -> None:
        self.shapes, self.extractor, self.change = extractor.shapes, extractor, change

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        return self.change(self.extractor(pictures))


@pytest.fixture
def alter(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[tuple[str, str], Change]], None]:
    """Let what is computed by (runtime, precision) come out changed, and be there."""

    def alter(changes: dict[tuple[str, str], Change]) -> None:
        def made(backbone: Backbone, features: FeatureConfig, computed: Computation, jobs: int) -> Any:
            extractor = Extractor(backbone, features)
            change = changes.get((computed.runtime, computed.precision))
            return extractor if change is None else Altered(extractor, change)

        monkeypatch.setattr(computing, "_made", made)
        monkeypatch.setattr(bfloat16, "works", lambda device: True)
        monkeypatch.setattr(bfloat16, "is_fast", lambda device: True)
        monkeypatch.setattr(openvino, "is_installed", lambda: True)

    return alter


def prepared(count: int = FEWEST_TO_COMPILE_FOR, **options: Any) -> computing.Network:
    config = NetworkConfig(features=FEATURES, **{"device": "cpu", **options})
    return prepare(backbone(small()), config, count=count, jobs=2)


def noisy(amount: float) -> Change:
    rng = np.random.default_rng(0)
    return lambda found: [
        (each + amount * each.std() * rng.standard_normal(each.shape)).astype(np.float32) for each in found
    ]


def with_one(value: float) -> Change:
    """The last layer of the last picture has a value that it should not have."""

    def change(found: list[np.ndarray]) -> list[np.ndarray]:
        found[-1][-1, 0] = value
        return found

    return change


class TestChoice:
    def test_float32_by_torch_is_not_checked(self) -> None:
        network = prepared(runtime="torch", precision="fp32")
        assert (network.computed, network.cosine, network.refused) == (PLAIN, None, ())
        batch = pictures(3)
        for found, expected in zip(network.compute(batch), Extractor(backbone(small()), FEATURES)(batch), strict=True):
            np.testing.assert_array_equal(found, expected)

    def test_the_fastest_comes_first(self, alter: Callable[..., None]) -> None:
        alter({("openvino", "bf16"): noisy(0.001)})
        network = prepared()
        assert network.computed == Computation("cpu", "openvino", "bf16")
        assert network.cosine is not None
        assert 0.999 < network.cosine < 1
        assert network.refused == ()

    def test_few_pictures_are_not_compiled_for(self, alter: Callable[..., None]) -> None:
        alter({})
        for count, runtime in ((FEWEST_TO_COMPILE_FOR - 1, "torch"), (FEWEST_TO_COMPILE_FOR, "openvino")):
            assert prepared(count, precision="fp32").computed.runtime == runtime
        assert prepared(1, precision="fp32", runtime="openvino").computed.runtime == "openvino"

    def test_openvino_computes_on_the_processor_where_there_is_a_card(
        self, alter: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alter({})
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        network = prepared(device="auto", runtime="openvino", precision="fp32")
        assert network.computed == Computation("cpu", "openvino", "fp32")
        with pytest.raises(UsageError, match="on the processor"):
            NetworkConfig(device="cuda", runtime="openvino")

    def test_without_the_extra_the_error_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(DependencyError, match="not installed") as caught:
            prepared(runtime="openvino", precision="fp32")
        assert caught.value.hint == "pip install 'featkit[fast]'"
        assert prepared(10_000, runtime="auto", precision="fp32").computed == PLAIN

    @pytest.mark.parametrize("device", ["cuda", "mps"])
    def test_a_device_that_is_not_there(self, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        with pytest.raises(UsageError, match=f"no device {device} here") as caught:
            prepared(device=device)
        assert "--device" in str(caught.value.hint)
        assert prepared(device="auto", precision="fp32", runtime="torch").computed == PLAIN

    def test_bf16_where_it_does_not_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bfloat16, "works", lambda device: False)
        with pytest.raises(UsageError, match="bf16 does not work on this cpu") as caught:
            prepared(precision="bf16")
        assert "--precision auto" in str(caught.value.hint)

    def test_bf16_where_it_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bfloat16, "works", lambda device: True)
        network = prepared(precision="bf16", runtime="torch")
        assert network.computed == Computation("cpu", "torch", "bf16")
        assert network.cosine is not None
        assert 0.999 <= network.cosine < 1

    @pytest.mark.parametrize("option", ["device", "precision", "runtime"])
    def test_choices_that_there_are_not(self, option: str) -> None:
        with pytest.raises(UsageError, match=f"there is no {option} 'tpu'") as caught:
            NetworkConfig(**{option: "tpu"})
        assert "auto" in str(caught.value.hint)


class TestCheck:
    def test_what_is_far_off_is_not_taken(self, alter: Callable[..., None]) -> None:
        alter({("openvino", "bf16"): noisy(0.5)})
        network = prepared()
        assert network.computed == Computation("cpu", "openvino", "fp32")
        assert network.cosine == pytest.approx(1)
        [(refused, cosine)] = network.refused
        assert refused == Computation("cpu", "openvino", "bf16")
        assert cosine < 0.999

    def test_where_nothing_else_is_close_torch_computes_in_float32(self, alter: Callable[..., None]) -> None:
        alter({("openvino", "bf16"): noisy(0.5), ("openvino", "fp32"): noisy(0.5)})
        network = prepared()
        assert (network.computed, network.cosine) == (PLAIN, None)
        assert [computed.precision for computed, _ in network.refused] == ["bf16", "fp32"]
        batch = pictures(2)
        for found, expected in zip(network.compute(batch), Extractor(backbone(small()), FEATURES)(batch), strict=True):
            np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e4])
    def test_one_wrong_value_in_one_layer_of_one_picture(self, value: float, alter: Callable[..., None]) -> None:
        alter({("openvino", "fp32"): with_one(value)})
        network = prepared(precision="fp32")
        assert network.computed == PLAIN
        [(_, cosine)] = network.refused
        assert -1 <= cosine < 0.999

    def test_what_is_nothing_but_zeros_is_to_be_that(self, alter: Callable[..., None]) -> None:
        """Of one layer: two of zeros are alike, and one of them is not."""
        for change, expected in ((lambda found: found, True), (lambda found: [each * 0 for each in found], False)):
            alter({("torch", "bf16"): change})
            network = prepared(runtime="torch", precision="bf16")
            assert (network.computed.precision == "bf16") == expected
        dead = small()
        dead.get_submodule("bn2").weight.data.zero_()  # type: ignore[union-attr,operator]
        dead.get_submodule("bn2").bias.data.fill_(-1)  # type: ignore[union-attr,operator]
        config = NetworkConfig(features=FeatureConfig(), device="cpu", runtime="torch", precision="bf16")
        assert prepare(backbone(dead), config, count=1, jobs=1).cosine == 1


class TestLikePhotographs:
    def test_they_are_always_the_same(self) -> None:
        one, other = (like_photographs(3, (40, 24)) for _ in range(2))
        assert (one.shape, one.dtype) == ((3, 24, 40, 3), np.uint8)
        np.testing.assert_array_equal(one, other)
        assert not np.array_equal(one[0], one[1])

    def test_their_amplitude_falls_as_1_by_f(self) -> None:
        side = 128
        grey = like_photographs(4, (side, side)).mean(3)
        amplitude = np.abs(np.fft.fft2(grey)).mean(0)
        frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
        middle = (frequency > 2 / side) & (frequency < 0.25)
        slope = np.polyfit(np.log(frequency[middle]), np.log(amplitude[middle]), 1)[0]
        assert slope == pytest.approx(-1, abs=0.1)

    def test_they_are_neither_flat_nor_clipped_much(self) -> None:
        found = like_photographs(4, (64, 48))
        assert ((found == 0) | (found == 255)).mean() < 0.05
        assert (found.reshape(4, -1).std(1) > 30).all()
        red, green = (found[..., channel].ravel().astype(float) for channel in (0, 1))
        assert 0.8 < np.corrcoef(red, green)[0, 1] < 0.99


class TestHalving:
    @staticmethod
    def limited(most: int, asked: list[int]) -> Callable[[np.ndarray], list[np.ndarray]]:
        """Computes two layers, of at most so many pictures at a time."""

        def compute(pictures: np.ndarray) -> list[np.ndarray]:
            asked.append(len(pictures))
            if len(pictures) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            values = pictures.reshape(len(pictures), -1).astype(np.float32)
            return [values[:, :2], values.mean(1, keepdims=True)]

        return compute

    @pytest.mark.parametrize(("most", "expected"), [(9, [9]), (5, [9, 4, 5]), (2, [9, 4, 2, 2, 5, 2, 3, 1, 2])])
    def test_as_few_parts_as_fit(self, most: int, expected: list[int]) -> None:
        asked: list[int] = []
        batch = pictures(9, side=4)
        found = halving(self.limited(most, asked), batch)
        assert asked == expected
        for layer, wanted in zip(found, self.limited(9, [])(batch), strict=True):
            np.testing.assert_array_equal(layer, wanted)

    def test_one_picture_that_does_not_fit(self) -> None:
        with pytest.raises(torch.OutOfMemoryError):
            halving(self.limited(0, []), pictures(4, side=4))

    def test_a_card_is_given_halves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As `prepare` has it there, which computes here instead."""
        asked: list[int] = []
        extractor = Extractor(backbone(small()), FEATURES)
        limit = self.limited(2, asked)

        def call(self: Extractor, pictures: np.ndarray) -> list[np.ndarray]:
            limit(pictures)
            return plainly(self, pictures)

        batch = pictures(4)
        expected = extractor(batch)
        plainly = Extractor.__call__
        card = computing._OneAtATime(extractor)
        monkeypatch.setattr(Extractor, "__call__", call)
        assert card.shapes == extractor.shapes
        for found, wanted in zip(card(batch), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        assert asked == [4, 2, 2]
