"""What comes out of a network's layers: as plain hooks have it, pooled by the formulas, and for each picture alone."""

from __future__ import annotations

import copy
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import CONTRACT, SIDE, Small, backbone, pictures, seeded, small, unsettle
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer

from featkit.deep import backbones
from featkit.deep.config import FeatureConfig
from featkit.deep.features import Extractor
from featkit.deep.stages import stages
from featkit.errors import UsageError

# Of what was folded and laid out otherwise: float32 that is summed in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def hooked(network: nn.Module, batch: np.ndarray, layer: str) -> Tensor:
    """What the layer of the untouched network gives last in a pass; "head": what goes into the last linear one."""
    found: list[Tensor] = []
    network = copy.deepcopy(network).eval()
    if layer == "head":
        *_, module = (each for each in network.modules() if isinstance(each, nn.Linear))
        module.register_forward_pre_hook(lambda _, given: found.append(given[0].clone()))
    else:
        network.get_submodule(layer).register_forward_hook(lambda _, given, output: found.append(output.clone()))
    with torch.no_grad():
        network(CONTRACT.normalised(torch.from_numpy(batch).permute(0, 3, 1, 2)))
    return found[-1]


def of(network: nn.Module, batch: np.ndarray, *layers: str, pool: str = "avg", **options: Any) -> list[np.ndarray]:
    """What an Extractor of a copy gives."""
    return Extractor(backbone(copy.deepcopy(network)), FeatureConfig(layers, pool, **options))(batch)


@pytest.fixture(scope="module")
def transformer() -> nn.Module:
    """Patches of 8 × 8 pixels: 16 places and a class token, in 24 channels."""
    network = seeded(VisionTransformer, SIDE, 8, 2, 2, 24, 48, num_classes=5)
    nn.init.normal_(network.heads.head.weight)  # torchvision's are 0
    return network


class TestPooling:
    @pytest.mark.parametrize("layer", ["conv1", "bn1", "act1", "conv2", "bn2", "act2"])
    def test_maps(self, layer: str) -> None:
        network, batch = small(), pictures(3)
        values = hooked(network, batch, layer)
        expected = {
            "avg": values.mean((2, 3)),
            "max": values.amax((2, 3)),
            "gem": values.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3),
            "none": values,
        }
        for pool, wanted in expected.items():
            [found] = of(network, batch, layer, pool=pool)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, wanted, **CLOSE, err_msg=pool)

    def test_what_was_pooled_by_the_network(self) -> None:
        network, batch = small(), pictures(2)
        for pool in ("avg", "max", "gem", "none"):
            head, scores = of(network, batch, "head", "fc", pool=pool)
            np.testing.assert_allclose(head, hooked(network, batch, "head"), **CLOSE)
            np.testing.assert_allclose(scores, hooked(network, batch, "fc"), **CLOSE)

    def test_unit_length(self) -> None:
        network, batch = small(), pictures(3)
        plain, unit = (of(network, batch, "act1", "head", normalize=each) for each in (False, True))
        for one, other in zip(plain, unit, strict=True):
            np.testing.assert_allclose(np.linalg.norm(other, axis=1), 1, rtol=1e-5)
            np.testing.assert_allclose(other, one / np.linalg.norm(one, axis=1, keepdims=True), rtol=1e-5)

    def test_tokens(self, transformer: nn.Module) -> None:
        batch = pictures(2)
        layer = "encoder.layers.encoder_layer_0"
        values = hooked(transformer, batch, layer)
        assert values.shape == (2, 17, 24)
        expected = {
            "avg": values[:, 1:].mean(1),
            "max": values[:, 1:].amax(1),
            "gem": values[:, 1:].clamp(min=1e-6).pow(3).mean(1).pow(1 / 3),
            "cls": values[:, 0],
            "none": values,
        }
        for pool, wanted in expected.items():
            [found] = of(transformer, batch, layer, pool=pool)
            np.testing.assert_allclose(found, wanted, **CLOSE, err_msg=pool)

    def test_the_head_of_a_transformer_is_its_class_token(self, transformer: nn.Module) -> None:
        last, head = of(transformer, pictures(2), "encoder.ln", "head", pool="cls")
        np.testing.assert_allclose(last, head, **CLOSE)

    def test_maps_with_their_channels_last(self) -> None:
        network = seeded(SwinTransformer, [4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=5)
        batch = pictures(2)
        values = hooked(network, batch, "features.1")
        assert values.shape == (2, 8, 8, 24)
        for pool, wanted in {"avg": values.mean((1, 2)), "max": values.amax((1, 2)), "none": values}.items():
            np.testing.assert_allclose(of(network, batch, "features.1", pool=pool)[0], wanted, **CLOSE, err_msg=pool)

    @pytest.mark.parametrize("side", [64, 96])
    def test_maps_of_as_many_channels_as_places(self, side: int) -> None:
        """24 × 24 places of 24 channels, last: which are which is seen of a picture of another size."""
        network = seeded(SwinTransformer, [4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=5)
        batch, contract = pictures(2, side), CONTRACT.of_side(side)
        values = hooked(network, batch, "features.1")
        assert values.shape == (2, side // 4, side // 4, 24)
        extractor = Extractor(backbone(copy.deepcopy(network), contract), FeatureConfig(("features.1",)))
        np.testing.assert_allclose(extractor(batch)[0], values.mean((1, 2)), **CLOSE)

    def test_maps_of_as_many_channels_as_places_with_the_channels_first(self) -> None:
        batch, contract = pictures(2, 16), CONTRACT.of_side(16)
        values = hooked(small(), batch, "conv1")
        assert values.shape == (2, 8, 8, 8)
        extractor = Extractor(backbone(small(), contract), FeatureConfig(("conv1",)))
        np.testing.assert_allclose(extractor(batch)[0], values.mean((2, 3)), **CLOSE)

    def test_maps_of_as_many_channels_as_places_of_a_network_that_takes_one_size(self) -> None:
        class Strict(Small):
            def forward(self, batch: Tensor) -> Tensor:
                assert batch.shape[-1] == 16
                found: Tensor = super().forward(batch)
                return found

        network, batch = unsettle(seeded(Strict)).eval(), pictures(2, 16)
        extractor = Extractor(backbone(copy.deepcopy(network), CONTRACT.of_side(16)), FeatureConfig(("conv1",)))
        np.testing.assert_allclose(extractor(batch)[0], hooked(network, batch, "conv1").mean((2, 3)), **CLOSE)

    def test_shapes_are_those_of_one_picture(self, transformer: nn.Module) -> None:
        for network, layers, pool, expected in (
            (small(), ("conv1", "head"), "none", ((8, 16, 16), (12,))),
            (small(), ("conv1", "head"), "max", ((8,), (12,))),
            (transformer, ("encoder", "conv_proj"), "none", ((17, 24), (24, 4, 4))),
        ):
            extractor = Extractor(backbone(copy.deepcopy(network)), FeatureConfig(layers, pool))
            assert extractor.shapes == expected
            assert tuple(each.shape for each in extractor(pictures(3))) == tuple((3, *shape) for shape in expected)
            assert tuple(each.shape for each in extractor(pictures(0))) == tuple((0, *shape) for shape in expected)


class TestPasses:
    def test_a_result_depends_on_its_picture_alone(self) -> None:
        extractor = Extractor(backbone(small()), FeatureConfig(("bn1", "act2", "head")))
        batch = pictures(8)
        together = extractor(batch)
        for number in range(8):
            for one, all_of_them in zip(extractor(batch[number : number + 1]), together, strict=True):
                np.testing.assert_allclose(one[0], all_of_them[number], rtol=1e-5, atol=1e-6)

    def test_layers_come_in_the_order_they_are_named(self) -> None:
        network, batch = small(), pictures(2)
        one, other = of(network, batch, "conv1", "act2"), of(network, batch, "act2", "conv1")
        for found, expected in zip(one, reversed(other), strict=True):
            np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_to_the_last_bit_a_layer_is_the_same_whichever_others_are_taken(self, dtype: torch.dtype) -> None:
        """Unless one of these keeps a convolution from being folded, which is told."""
        names = ["conv1", "bn1", "act1", "conv2", "bn2", "act2", "pool", "head", "fc"]
        batch, found = pictures(5), {}
        rng = np.random.default_rng(0)
        chosen = [[name] for name in names] + [list(rng.permutation(names)[: rng.integers(2, 9)]) for _ in range(20)]
        for layers in chosen:
            extractor = Extractor(backbone(small()), FeatureConfig(tuple(layers)), dtype=dtype)
            assert extractor.depends_on == tuple(f"conv{n}" for n in (1, 2) if {f"conv{n}", f"bn{n}"} & {*layers})
            for name, values in zip(layers, extractor(batch), strict=True):
                expected = found.setdefault((name, extractor.depends_on), values)
                np.testing.assert_array_equal(values, expected)

    @pytest.mark.parametrize("name", ["lite0", "shufflenet_v2_x0_5", "squeezenet1_1", "timm:test_vit", "resnet18"])
    def test_so_it_is_with_the_stages_of_known_networks(self, name: str) -> None:
        shape = (3, 160, 160)
        names = stages(backbones.load(name, "random").network, shape)
        batch = pictures(3, 160)

        def made(*layers: str) -> list[np.ndarray]:
            loaded = backbones.of_input(backbones.load(name, "random"), 160)
            extractor = Extractor(loaded, FeatureConfig(layers))
            assert extractor.depends_on == ()
            return extractor(batch)

        for layer, values in zip(names, made(*names), strict=True):
            np.testing.assert_array_equal(made(layer)[0], values, err_msg=layer)

    def test_what_computes_in_place_changes_nothing_that_was_taken(self) -> None:
        network, batch = small(), pictures(2)
        [found] = of(network, batch, "bn1", pool="none")
        assert (found < 0).any()  # the ReLU after it writes over these
        np.testing.assert_allclose(found, hooked(network, batch, "bn1"), **CLOSE)

    def test_it_ends_with_the_last_layer(self) -> None:
        calls = []
        network = small()
        extractor = Extractor(backbone(network), FeatureConfig(("act2", "conv1")))
        network.get_submodule("pool").register_forward_hook(lambda *_: calls.append(1))
        extractor(pictures(2))
        assert not calls
        with torch.no_grad():
            extractor.tensors(torch.zeros(1, 3, SIDE, SIDE), to_the_end=True)
        assert calls == [1]

    def test_of_a_module_that_is_called_twice_the_last_counts(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem, self.block, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

            def forward(self, batch: Tensor) -> Tensor:
                first = self.block(self.stem(batch)).relu()
                return self.fc(self.block(first * 2).mean((2, 3)))

        network, batch = seeded(Twice), pictures(2)
        [found] = of(network, batch, "block", pool="none")
        np.testing.assert_allclose(found, hooked(network, batch, "block"), **CLOSE)

    def test_what_an_error_leaves_is_not_taken_for_the_next_result(self) -> None:
        extractor = Extractor(backbone(small()), FeatureConfig(("act1", "act2")))
        batch = pictures(2)
        expected = extractor(batch)
        with pytest.raises(RuntimeError):
            extractor.tensors(torch.zeros(1, 5, SIDE, SIDE))
        for found, wanted in zip(extractor(batch), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)

    def test_threads_side_by_side(self) -> None:
        extractor = Extractor(backbone(small()), FeatureConfig(("bn1", "head")))
        batches = [pictures(1 + seed % 3, seed=seed) for seed in range(12)]
        expected = [extractor(batch) for batch in batches]
        with ThreadPoolExecutor(4) as pool:
            for together, alone in zip(pool.map(extractor, batches), expected, strict=True):
                for found, wanted in zip(together, alone, strict=True):
                    np.testing.assert_array_equal(found, wanted)

    def test_pictures_as_they_are_decoded_and_mirrored(self) -> None:
        """Read-only, and views of others: without a warning, which would be an error here."""
        extractor = Extractor(backbone(small()), FeatureConfig())
        batch = pictures(2)
        mirrored, read_only = batch[:, :, ::-1], batch.copy()
        read_only.setflags(write=False)
        np.testing.assert_array_equal(extractor(read_only)[0], extractor(batch)[0])
        np.testing.assert_array_equal(extractor(mirrored)[0], extractor(mirrored.copy())[0])

    def test_the_graph_gives_the_same(self) -> None:
        extractor = Extractor(backbone(small()), FeatureConfig(("conv2", "head")))
        batch = pictures(2)
        with torch.no_grad():
            for found, wanted in zip(extractor.graph()(torch.from_numpy(batch)), extractor(batch), strict=True):
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)

    def test_in_bfloat16_the_results_are_float32_all_the_same(self) -> None:
        batch = pictures(2)
        extractor = Extractor(backbone(small()), FeatureConfig(("act1", "head")), dtype=torch.bfloat16)
        for found, wanted in zip(extractor(batch), of(small(), batch, "act1", "head"), strict=True):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, wanted, rtol=0.05, atol=0.05)
            assert not np.array_equal(found, wanted)

    def test_what_another_module_ends_with_stays_what_it_is(self) -> None:
        """The convolution inside is not folded with the normalisation that comes after it outside."""
        for wrapped in (nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity())):
            parts = OrderedDict(block=wrapped, bn=nn.BatchNorm2d(4), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten())
            network = unsettle(nn.Sequential(parts).append(nn.Linear(4, 2))).eval()
            batch = pictures(2)
            for layer in ("block", *(f"block.{number}" for number in range(len(wrapped)))):
                [found] = of(network, batch, layer, pool="none")
                np.testing.assert_allclose(found, hooked(network, batch, layer), **CLOSE, err_msg=layer)


class TestRefusals:
    def test_a_layer_that_there_is_not(self) -> None:
        for layer, near in (("conv3", "conv1"), ("heads", "head"), ("act_1", "act1")):
            with pytest.raises(UsageError, match=f"no layer '{layer}'") as caught:
                of(small(), pictures(1), layer)
            assert "did you mean" in str(caught.value.hint)
            assert near in str(caught.value.hint)

    @pytest.mark.parametrize("layer", ["", "something else"])
    def test_a_layer_that_is_near_none(self, layer: str) -> None:
        with pytest.raises(UsageError, match="no layer") as caught:
            of(small(), pictures(1), layer)
        assert caught.value.hint == "featkit backbones NAME lists its layers"

    def test_a_layer_that_nothing_goes_through(self) -> None:
        network = small()
        network.add_module("aside", nn.Linear(3, 3))
        network.forward = lambda batch: nn.Sequential(*list(network)[:-1])(batch)  # type: ignore[method-assign]
        with pytest.raises(UsageError, match="nothing goes through the layer 'aside'") as caught:
            of(network, pictures(1), "aside")
        assert caught.value.hint is not None

    def test_class_tokens_where_there_are_none(self, transformer: nn.Module) -> None:
        for network, layer in ((small(), "conv1"), (transformer, "conv_proj"), (seeded(Registers, False), "tokens")):
            with pytest.raises(UsageError, match="has no class token") as caught:
                of(network, pictures(1), layer, pool="cls")
            assert "transformers" in str(caught.value.hint)

    def test_registers_are_no_places(self) -> None:
        """timm's transformers may have places before the first patch, of which the first is a class token or not."""
        batch = pictures(2)
        for with_class in (False, True):
            network = seeded(Registers, with_class)
            values = hooked(network, batch, "tokens")
            before = 2 + with_class
            np.testing.assert_allclose(of(network, batch, "tokens")[0], values[:, before:].mean(1), **CLOSE)
        np.testing.assert_allclose(of(network, batch, "tokens", pool="cls")[0], values[:, 0], **CLOSE)

    def test_what_is_no_tensor(self, transformer: nn.Module) -> None:
        with pytest.raises(UsageError, match="no vector and no map"):
            of(transformer, pictures(1), "encoder.layers.encoder_layer_0.self_attention")

    def test_what_is_not_of_one_picture_each(self) -> None:
        """A layer that takes the parts of all pictures as one batch, as windows of attention."""

        class Windows(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inside, self.fc = nn.Linear(3, 4), nn.Linear(4, 2)

            def forward(self, batch: Tensor) -> Tensor:
                windows = batch.unflatten(3, (4, -1)).permute(0, 3, 2, 4, 1).flatten(0, 1).flatten(1, 2)
                return self.fc(self.inside(windows).mean(1).unflatten(0, (-1, 4)).mean(1))

        with pytest.raises(UsageError, match="'inside'"):
            of(seeded(Windows), pictures(1), "inside")

    def test_a_configuration_that_makes_no_sense(self) -> None:
        for options in (
            {"layers": ()},
            {"layers": ("a", "a")},
            {"pool": "sum"},
            {"pool": "none", "normalize": True},
        ):
            with pytest.raises(UsageError) as caught:
                FeatureConfig(**options)  # type: ignore[arg-type]
            assert caught.value.hint


class Registers(nn.Module):
    """Places of a transformer of timm: a class token, if there is one, two registers, and 16 patches."""

    def __init__(self, with_class: bool) -> None:
        super().__init__()
        self.has_class_token, self.num_prefix_tokens = with_class, 2 + with_class
        self.patches, self.tokens, self.fc = nn.Conv2d(3, 6, 8, 8), nn.Identity(), nn.Linear(6, 2)

    def forward(self, batch: Tensor) -> Tensor:
        places = self.patches(batch).flatten(2).transpose(1, 2)
        first = torch.arange(self.num_prefix_tokens).view(1, -1, 1).expand(len(batch), -1, 6) + 10.0
        return self.fc(self.tokens(torch.cat([first, places], 1))[:, 0])


def test_what_is_compared_here_was_folded() -> None:
    """So these tests say something of that, too."""
    network = small()
    assert isinstance(network, Small)
    Extractor(backbone(network), FeatureConfig())
    assert isinstance(network.bn1, nn.Identity)
