"""The maker of a network's features: the same as its parts one by one, and no torch where nothing is to be made."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SAMPLES
from small_networks import CONTRACT, SIDE, small

from featkit.cache import Cache
from featkit.deep import backbones, bfloat16, openvino
from featkit.deep.backbones import Backbone
from featkit.deep.config import AT_ONCE, FeatureConfig, NetworkConfig
from featkit.deep.features import Extractor
from featkit.deep.stages import stages
from featkit.errors import DependencyError, FileMissing, ImageDamaged, ModelMismatch, UsageError
from featkit.extraction.engine import Rows, extract
from featkit.extraction.makers import Maker, Source, from_parts, recorded, source_of
from featkit.extraction.networks import NetworkMaker, NetworkSource, network_maker
from featkit.images import DEFAULTS, decode_reduced, save

PHOTOS = [SAMPLES / "china.jpg", SAMPLES / "coffee.png", SAMPLES / "camera.png"]
SHUFFLENET = {"backbone": "shufflenet_v2_x0_5", "device": "cpu", "precision": "fp32"}


def maker_of(config: NetworkConfig, cache: Cache, count: int = 3) -> NetworkMaker:
    return network_maker(config, count=count, jobs=1, cache=cache)


def prepared(maker: NetworkMaker) -> np.ndarray:
    return np.stack([maker.prepared(path.read_bytes(), DEFAULTS, str(path)) for path in PHOTOS])


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever backbone is asked for is a small one, with weights that depend on a file's bytes; which were loaded."""
    found: list[str] = []

    def load(name: str, weights: str | None = None, *, seed: int = 0, progress: object = None) -> Backbone:
        found.append(name)
        if weights == "random":
            return Backbone(name, small(seed), CONTRACT, "random", None)
        assert weights is not None
        digest = sha256(Path(weights).read_bytes()).hexdigest()
        return Backbone(name, small(int(digest[:8], 16)), CONTRACT, weights, digest)

    monkeypatch.setattr(backbones, "load", load)
    return found


def config(*layers: str, pool: str = "avg", normalize: bool = False, **options: Any) -> NetworkConfig:
    features = FeatureConfig(layers or ("head",), pool, normalize)
    plain = {"weights": "random", "device": "cpu", "precision": "fp32", "runtime": "torch"}
    return NetworkConfig("small", features=features, **{**plain, **options})


class TestVectors:
    def test_they_are_those_of_the_network(self, cache: Cache) -> None:
        """Of pictures that are decoded and cropped as the weights want it."""
        features = FeatureConfig(("stage2", "head"))
        maker = maker_of(NetworkConfig(**SHUFFLENET, weights="random", seed=3, features=features), cache)
        backbone = backbones.load("shufflenet_v2_x0_5", "random", seed=3)
        assert maker.name == "shufflenet_v2_x0_5"
        assert maker.size == backbone.contract.crop == (224, 224)
        assert maker.layers == ("stage2", "head")
        assert maker.blocks == (48, 1024)
        assert maker.pictures_at_once == AT_ONCE["cpu"]

        pictures = prepared(maker)
        for path, picture in zip(PHOTOS, pictures, strict=True):
            reduced = decode_reduced(path.read_bytes(), 2 * backbone.contract.resize)
            expected = backbone.contract.cropped(reduced).permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(picture, expected)
        vectors = maker(pictures)
        assert (vectors.shape, vectors.dtype) == ((3, 48 + 1024), np.float32)
        expected_vectors = np.concatenate(Extractor(backbone, features)(pictures), 1)
        np.testing.assert_allclose(vectors, expected_vectors, rtol=1e-4, atol=1e-6)

    @pytest.mark.usefixtures("loads")
    def test_maps_are_laid_out_in_a_row(self, cache: Cache) -> None:
        maker = maker_of(config("conv2", "head", pool="none"), cache)
        pictures = prepared(maker)
        maps, head = Extractor(backbones.load("small", "random"), maker.config.features)(pictures)
        assert maker.description.shapes == ((12, 8, 8), (12,))
        assert maker.blocks == (12 * 8 * 8, 12)
        np.testing.assert_allclose(
            maker(pictures), np.concatenate([maps.reshape(3, -1), head], 1), rtol=1e-4, atol=1e-6
        )

    @pytest.mark.usefixtures("loads")
    def test_mirrored_pictures_and_none(self, cache: Cache) -> None:
        maker = maker_of(config(), cache)
        pictures = prepared(maker)
        np.testing.assert_array_equal(maker(pictures[:, :, ::-1]), maker(pictures[:, :, ::-1].copy()))
        assert maker(pictures[:0]).shape == (0, 12)

    @pytest.mark.usefixtures("loads")
    def test_a_picture_that_is_damaged(self, cache: Cache) -> None:
        maker = maker_of(config(), cache)
        data = PHOTOS[0].read_bytes()
        with pytest.raises(ImageDamaged) as caught:
            maker.prepared(data[: len(data) // 2], DEFAULTS, "cut.jpg")
        assert caught.value.path == "cut.jpg"


class TestAllLayers:
    def test_they_are_those_that_were_named(self, cache: Cache, loads: list[str]) -> None:
        """And are remembered."""
        names = stages(small(), (3, SIDE, SIDE))
        assert names == ("act1", "act2", "head")
        makers = [maker_of(config("all"), cache) for _ in range(2)]
        assert loads == ["small"]
        expected = maker_of(config(*names), cache)
        pictures = prepared(expected)
        for maker in makers:
            assert maker.layers == maker.source.layers == names
            assert maker.blocks == (8, 12, 12)
            assert maker.parts() == expected.parts()
            np.testing.assert_array_equal(maker(pictures), expected(pictures))
        assert as_json(makers[0].source) == as_json(expected.source)

    @pytest.mark.usefixtures("loads")
    def test_of_another_input(self, cache: Cache) -> None:
        assert maker_of(config("all", input=20), cache).layers == ("act1", "act2", "head")


def rows_of(maker: NetworkMaker, cache: Cache) -> Rows:
    paths = [str(path) for path in PHOTOS]
    [rows] = extract(paths, maker, mirrored=False, decode=DEFAULTS, cache=cache, jobs=1)
    return rows


class TestOneLayer:
    @pytest.mark.usefixtures("loads")
    @pytest.mark.parametrize("pool", ["avg", "none"])
    def test_is_the_same_network_s(self, cache: Cache, pool: str) -> None:
        for _ in range(2):  # loaded, and remembered
            maker = maker_of(config("act1", "conv2", "head", pool=pool), cache)
            pictures = prepared(maker)
            expected = np.split(maker(pictures), np.cumsum(maker.blocks)[:-1], axis=1)
            for layer, values in zip(maker.layers, expected, strict=True):
                one = maker.of_layer(layer)
                assert (one.layers, one.blocks) == ((layer,), (values.shape[1],))
                assert (one.size, one.pictures_at_once) == (maker.size, maker.pictures_at_once)
                np.testing.assert_array_equal(one(pictures), values)
                assert as_json(one.source) == as_json(maker_of(config(layer, pool=pool), cache).source)
                assert as_json(one.of_layer(layer).source) == as_json(one.source)

    def test_is_known_to_who_asks_for_it_later(self, cache: Cache, loads: list[str]) -> None:
        """As a model of its vectors does, which then needs no network for pictures that have vectors."""
        maker = maker_of(config("act1", "head"), cache)
        for layer in maker.layers:
            one = maker.of_layer(layer)
            assert opened(one.source, cache).parts() == maker_of(config(layer), cache).parts() == one.parts()
        assert len(loads) == 1
        vectors = maker_of(config("head"), cache)(prepared(maker))
        np.testing.assert_array_equal(vectors, maker(prepared(maker))[:, 8:])

    @pytest.mark.usefixtures("loads")
    def test_is_looked_at_for_itself_where_another_layer_decides(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """How close it comes is another matter then, or its last bits are."""
        monkeypatch.setattr(bfloat16, "works", lambda device: True)
        with monkeypatch.context() as patch:
            patch.setattr("featkit.deep.computing.LEAST_COSINE", 1.1)
            refused = maker_of(config("act1", "head", precision="bf16"), cache)
        assert refused.description.computed["precision"] == "fp32"
        assert maker_of(config("head", precision="bf16"), cache).description.computed["precision"] == "bf16"
        assert maker_of(config("conv1", "act1"), cache).description.depends_on == ("conv1",)
        assert maker_of(config("act1"), cache).description.depends_on == ()

    def test_loads_nothing_before_it_makes_something(self, cache: Cache, loads: list[str]) -> None:
        """And then what its whole has loaded, too."""
        maker_of(config("act1", "head"), cache)
        maker = maker_of(config("act1", "head"), cache)
        one = maker.of_layer("head")
        assert len(loads) == 1
        for each in (one, maker, one, maker.of_layer("act1")):
            each(np.zeros((1, SIDE, SIDE, 3), np.uint8))
        assert len(loads) == 2

    @pytest.mark.usefixtures("loads")
    def test_that_is_not_among_them(self, cache: Cache) -> None:
        with pytest.raises(ValueError, match="of act1, head, and not of conv2"):
            maker_of(config("act1", "head"), cache).of_layer("conv2")


class TestKept:
    """What is made once is not made again, whichever layers are asked for together."""

    def test_layers_of_an_earlier_pass(self, cache: Cache, loads: list[str]) -> None:
        whole = rows_of(maker_of(config("act1", "act2", "head"), cache), cache)
        assert not whole.cached
        act1, act2, head = np.split(whole.views[0], [8, 20], axis=1)
        for layers, expected in (
            (("act2",), [act2]),
            (("head", "act1"), [head, act1]),
            (("act1", "act2", "head"), [act1, act2, head]),
        ):
            maker = maker_of(config(*layers), cache)
            loaded = len(loads)
            for each in (maker, maker_of(config(*layers), cache)):
                found = rows_of(each, cache)
                assert found.cached
                np.testing.assert_array_equal(found.views[0], np.concatenate(expected, 1))
            assert len(loads) == loaded
            for layer in layers:
                assert rows_of(maker.of_layer(layer), cache).cached

    @pytest.mark.usefixtures("loads")
    def test_layers_are_added_to_those_that_are_there(self, cache: Cache) -> None:
        """In one entry of the cache for the same pictures."""
        for layers, cached in (
            (("act1",), False),
            (("head",), False),
            (("act1", "head"), True),
            (("act1", "act2"), False),
            (("head", "act2", "act1"), True),
        ):
            assert rows_of(maker_of(config(*layers), cache), cache).cached == cached, layers
        descriptions = 6  # of each that was asked for, and of act2
        assert cache.info().entries == descriptions + 1

    @pytest.mark.usefixtures("loads")
    def test_the_numbers_do_not_depend_on_what_was_there(self, cache: Cache) -> None:
        """To the last bit, as two runs write the same bytes: a layer that is computed otherwise beside others, since a
        convolution is not folded for it, is kept apart."""
        asked = [
            ("act1", "conv2", "head"),
            ("head",),
            ("conv1", "head"),
            ("head", "act1"),
            ("conv2",),
            ("act2", "head"),
        ]
        for layers in asked:
            maker = maker_of(config(*layers), cache)
            for _ in range(2):
                found = rows_of(maker, cache)
                np.testing.assert_array_equal(found.views[0], rows_of(maker, Cache(None)).views[0])
            assert found.cached

    @pytest.mark.usefixtures("loads")
    def test_what_makes_other_numbers_is_kept_apart(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bfloat16, "works", lambda device: True)
        file = tmp_path / "own.pth"
        file.write_text("weights")
        for options in (
            {},
            {"pool": "max"},
            {"normalize": True},
            {"seed": 1},
            {"input": 20},
            {"precision": "bf16"},
            {"weights": str(file)},
        ):
            assert not rows_of(maker_of(config("act1", "head", **options), cache), cache).cached, options
            assert rows_of(maker_of(config("head", **options), cache), cache).cached, options

    @pytest.mark.skipif(not openvino.is_installed(), reason="OpenVINO is an extra")
    def test_what_is_compiled_is_kept_as_it_was_asked_for(self, cache: Cache) -> None:
        """The compiler fuses a layer with what comes after it, unless it is asked for."""
        network = {"backbone": "shufflenet_v2_x0_5", "weights": "random", "precision": "fp32", "runtime": "openvino"}
        for layers, cached in (
            (("stage2", "head"), False),
            (("head",), False),
            (("stage2", "head"), True),
            (("head",), True),
        ):
            maker = maker_of(NetworkConfig(**network, input=64, features=FeatureConfig(layers)), cache)
            assert maker.description.depends_on == layers
            found = rows_of(maker, cache)
            assert found.cached == cached
            if cached:
                np.testing.assert_array_equal(found.views[0], rows_of(maker, Cache(None)).views[0])


class TestInput:
    """Pictures of another size than the network's own."""

    @pytest.mark.usefixtures("loads")
    def test_pictures_are_brought_to_it_by_the_contract(self, cache: Cache) -> None:
        maker = maker_of(config("act1", input=20, pool="none"), cache)
        contract = CONTRACT.of_side(20)
        assert contract.resize == 22  # 36 beside 32
        assert maker.size == (20, 20)
        assert maker.description.shapes == ((8, 10, 10),)
        assert maker.description.contract == contract.record()
        for path, picture in zip(PHOTOS, prepared(maker), strict=True):
            reduced = decode_reduced(path.read_bytes(), 2 * contract.resize)
            np.testing.assert_array_equal(picture, contract.cropped(reduced).permute(1, 2, 0).numpy())

    @pytest.mark.usefixtures("loads")
    def test_smaller_pictures_are_enlarged(self, cache: Cache, tmp_path: Path) -> None:
        """As they are where the network's own size is larger: 12 × 16 pixels to 22 × 29, and of that 20 × 20."""
        maker, pixels = maker_of(config(input=20), cache), np.full((16, 12, 3), 200, np.uint8)
        pixels[:, 6:] = 50
        save(tmp_path / "small.png", pixels)
        found = maker.prepared((tmp_path / "small.png").read_bytes(), DEFAULTS, "small.png")
        np.testing.assert_array_equal(found, CONTRACT.of_side(20).cropped(pixels).permute(1, 2, 0).numpy())
        assert (found[:, :7] > 195).all()
        assert (found[:, -7:] < 55).all()

    @pytest.mark.usefixtures("loads")
    def test_it_is_part_of_what_the_features_are(self, cache: Cache) -> None:
        own, same, other = (maker_of(config(input=side), cache) for side in (None, SIDE, 20))
        assert own.parts() == same.parts() != other.parts()
        for maker in (own, same, other):
            source = from_parts(as_json(maker.source), {})
            assert opened(source, cache).parts() == maker.parts()
        [(first, _), (second, _)] = (maker.source.parts() for maker in (own, other))
        with pytest.raises(ModelMismatch, match="wants its pictures otherwise"):
            opened(from_parts(json.loads(json.dumps({**first, "input": second["input"]})), {}), cache)

    @pytest.mark.parametrize(
        ("backbone", "side", "reason"),
        [
            ("vit_b_32", 128, "Wrong image height! Expected 224 but got 128!"),
            ("timm:vit_tiny_patch16_224", 128, "doesn't match model"),
            ("timm:swin_tiny_patch4_window7_224", 96, "doesn't match model"),
            ("alexnet", 16, "too small"),
            ("squeezenet1_1", 8, "too small"),
        ],
    )
    def test_a_network_that_does_not_take_it(self, cache: Cache, backbone: str, side: int, reason: str) -> None:
        with pytest.raises(UsageError, match=f"does not take 3x{side}x{side}: .*{reason}") as caught:
            maker_of(NetworkConfig(backbone, "random", input=side), cache)
        assert caught.value.message.startswith(backbone)
        assert caught.value.hint == "its own is 3x224x224"
        assert cache.info().entries == 0

    @pytest.mark.parametrize("side", [0, -1, 5000])
    def test_a_size_that_there_is_not(self, side: int) -> None:
        with pytest.raises(UsageError, match="1 to 4096 pixels a side"):
            NetworkConfig(input=side)

    @pytest.mark.parametrize("backbone", ["lite0", "swin_t", "inception_v3", "densenet121"])
    def test_networks_that_take_others(self, cache: Cache, backbone: str) -> None:
        maker = maker_of(NetworkConfig(backbone, "random", input=96, device="cpu", precision="fp32"), cache)
        assert maker.size == (96, 96)
        vectors = maker(np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8))
        assert vectors.shape == (2, sum(maker.blocks))
        assert np.isfinite(vectors).all()


class TestParts:
    @pytest.mark.usefixtures("loads")
    def test_they_differ_where_features_would(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bfloat16, "works", lambda device: True)
        files = [tmp_path / name for name in ("one.pth", "other.pth")]
        for file in files:
            file.write_text(file.name)
        configs = [
            config(),
            config("act1"),
            config("act1", "head"),
            config("head", "act1"),
            config(pool="gem"),
            config(normalize=True),
            config(seed=1),
            config(precision="bf16"),
            *(config(weights=str(file)) for file in files),
        ]
        found = [maker_of(each, cache).parts() for each in configs]
        assert all(arrays == {} for _, arrays in found)
        texts = [json.dumps(parts, sort_keys=True) for parts, _ in found]
        assert len(set(texts)) == len(configs)
        assert [json.dumps(maker_of(each, cache).parts()[0], sort_keys=True) for each in configs] == texts

    @pytest.mark.usefixtures("loads")
    def test_they_do_not_differ_where_features_would_not(self, cache: Cache, tmp_path: Path) -> None:
        """By the name of the file that the weights are in, and the seed that was not used."""
        files = [tmp_path / name for name in ("one.pth", "other.pth")]
        for file in files:
            file.write_text("weights")
        one, other = (maker_of(config(weights=str(file), seed=seed), cache).parts() for seed, file in enumerate(files))
        assert one == other

    @pytest.mark.usefixtures("loads")
    def test_they_are_the_same_whether_it_was_loaded_or_remembered(self, cache: Cache) -> None:
        first, second = (maker_of(config("act1", "head"), cache) for _ in range(2))
        assert first.parts() == second.parts()
        assert first.description == second.description


def as_json(source: Source) -> dict[str, Any]:
    config, arrays = source.parts()
    assert arrays == {}
    found: dict[str, Any] = json.loads(json.dumps(config))
    return found


def opened(source: Source, cache: Cache) -> Maker:
    return source.opened(count=3, cache=cache, jobs=1)


class TestSource:
    """What a model file keeps of it, and what becomes of that elsewhere."""

    @pytest.mark.usefixtures("loads")
    def test_from_its_parts_it_makes_the_same_vectors(self, cache: Cache, tmp_path: Path) -> None:
        file = tmp_path / "own.pth"
        file.write_text("weights")
        for options in ({"seed": 3}, {"weights": str(file)}, {"normalize": True}, {"pool": "none"}):
            maker = maker_of(config("act1", "head", **options), cache)
            source = from_parts(as_json(maker.source), {})
            assert (source.name, source.size) == (maker.name, maker.size) == ("small", (SIDE, SIDE))
            assert (source.blocks, source.variances) == (maker.blocks, maker.variances)
            pictures = prepared(maker)
            np.testing.assert_array_equal(opened(source, Cache(None))(pictures), maker(pictures))
            assert as_json(source) == as_json(maker.source)

    @pytest.mark.usefixtures("loads")
    def test_nothing_of_how_it_is_computed_is_kept(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """A head is not refused because torch is newer, or the machine another."""
        monkeypatch.setattr(bfloat16, "works", lambda device: True)
        plain, other = (maker_of(config(precision=precision), cache) for precision in ("fp32", "bf16"))
        assert other.description.computed["precision"] == "bf16"
        assert plain.parts() != other.parts()
        assert as_json(plain.source) == as_json(other.source)
        source = from_parts(as_json(plain.source), {})
        monkeypatch.setattr("featkit.extraction.networks._libraries", lambda names: {"torch": "99.0"})
        assert opened(source, cache).source.blocks == plain.blocks

    @pytest.mark.usefixtures("loads")
    def test_other_weights_are_refused(self, cache: Cache, tmp_path: Path) -> None:
        file, copy = tmp_path / "own.pth", tmp_path / "copy.pth"
        for each in (file, copy):
            each.write_text("weights")
        source = from_parts(as_json(maker_of(config(weights=str(file)), cache).source), {})
        file.write_text("others")
        was, now = (sha256(text).hexdigest()[:8] for text in (b"weights", b"others"))
        with pytest.raises(ModelMismatch) as caught:
            opened(source, cache)
        assert caught.value.message == f"the model was trained with the weights {was} of small, and these are {now}"
        assert caught.value.hint == "--weights FILE names those that it was trained with"
        assert caught.value.code == "mismatch"

        assert isinstance(source, NetworkSource)
        elsewhere = source.with_weights(str(copy))
        assert opened(elsewhere, cache).source.parts() == elsewhere.parts()
        with pytest.raises(ModelMismatch, match=f"the weights {was} of small, and these are random 0"):
            opened(source.with_weights("random"), cache)

    @pytest.mark.usefixtures("loads")
    def test_another_seed_is_another_network(self, cache: Cache) -> None:
        for seed in (0, 1):
            source = from_parts(as_json(maker_of(config(seed=seed), cache).source), {})
            assert opened(source, cache).source.weights == f"random {seed}"

    @pytest.mark.usefixtures("loads")
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"contract": {"mean": [0.5, 0.5, 0.5]}}, "mean is (0.485, 0.456, 0.406), and was [0.5, 0.5, 0.5]"),
            ({"contract": {"crop": [64, 64]}}, "crop is"),
            ({"contract": {"more": 1}}, "small wants its pictures otherwise here"),
            (
                {"shapes": [[12], [9, 8, 8]]},
                "the layer conv2 of small gives 12×8×8 values a picture here, and gave 9×8",
            ),
        ],
        ids=str,
    )
    def test_another_contract_or_shape_is_refused(self, cache: Cache, change: dict[str, Any], message: str) -> None:
        parts = as_json(maker_of(config("head", "conv2", pool="none"), cache).source)
        merged = {
            name: {**parts[name], **value} if isinstance(value, dict) else value for name, value in change.items()
        }
        source = from_parts({**parts, **merged}, {})
        with pytest.raises(ModelMismatch) as caught:
            opened(source, cache)
        assert message.replace("(", "[").replace(")", "]") in caught.value.message
        assert caught.value.hint is not None
        assert "train it again" in caught.value.hint

    @pytest.mark.parametrize(
        "change",
        [
            {"versions": {"features": 0, "maker": 0}},
            {"reduced_to": 4},
            {"backbone": 7},
            {"weights": "sha"},
            {"weights": None},
            {"weights": "random -1"},
            {"weights": "random 99999999999"},
            {"weights_file": 3},
            {"input": "32"},
            {"input": -1},
            {"contract": None},
            {"contract": {}},
            {"features": {"layers": ["head"], "pool": "no such", "normalize": False}},
            {"features": {"layers": [], "pool": "avg", "normalize": False}},
            {"features": {"layers": [3], "pool": "avg", "normalize": False}},
            {"features": {"layers": ["head"], "pool": "avg", "normalize": False, "more": 1}},
            {"shapes": []},
            {"shapes": [[12], [12]]},
            {"shapes": [[]]},
            {"shapes": [[0]]},
            {"shapes": [[12.0]]},
            {"shapes": 12},
            {"more": 1},
        ],
        ids=str,
    )
    @pytest.mark.usefixtures("loads")
    def test_a_config_that_no_network_has_is_refused(self, cache: Cache, change: dict[str, Any]) -> None:
        parts = as_json(maker_of(config(), cache).source)
        from_parts(parts, {})
        with pytest.raises(ValueError, match="no parts of a maker"):
            from_parts({**parts, **change}, {})

    @pytest.mark.usefixtures("loads")
    def test_of_what_a_file_of_features_says(self, cache: Cache, tmp_path: Path) -> None:
        """One of its layers, in which order and beside which others it was extracted."""
        file = tmp_path / "own.pth"
        file.write_text("weights")
        maker = maker_of(config("conv2", "act1", "head", weights=str(file)), cache)
        record = json.loads(json.dumps(recorded(maker)))
        assert record["computed"] == maker.description.computed
        for layer, width in (("act1", 8), ("conv2", 12), ("head", 12)):
            source = source_of(record, layer)
            assert source.blocks == (width,)
            assert as_json(source) == as_json(maker_of(config(layer, weights=str(file)), cache).source)
        with pytest.raises(ValueError, match="bn1"):
            source_of(record, "bn1")
        del record["shapes"]
        with pytest.raises(ValueError, match="no parts of a maker"):
            source_of(record, "head")

    def test_needs_no_torch(self, cache: Cache) -> None:
        parts = as_json(maker_of(NetworkConfig(**SHUFFLENET, weights="random"), cache).source)
        program = f"""if True:
            import json, sys
            from featkit.extraction.makers import from_parts
            source = from_parts(json.loads({json.dumps(parts)!r}), {{}})
            assert {{"torch", "torchvision", "timm", "openvino"}}.isdisjoint(sys.modules)
            print(json.dumps([source.parts()[0], source.size, source.blocks]))
        """
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
        assert json.loads(run.stdout) == [parts, [224, 224], [1024]]


class TestMemory:
    def test_a_second_one_loads_nothing_before_it_makes_something(self, cache: Cache, loads: list[str]) -> None:
        first = maker_of(config(), cache)
        assert loads == ["small"]
        second = maker_of(config(), cache)
        pictures = np.zeros((2, SIDE, SIDE, 3), np.uint8)
        assert second(pictures[:0]).shape == (0, 12)
        assert loads == ["small"]
        np.testing.assert_array_equal(second(pictures), first(pictures))
        second(pictures)
        assert loads == ["small"] * 2

    def test_a_second_one_needs_no_torch(self, cache: Cache) -> None:
        first = maker_of(NetworkConfig(**SHUFFLENET, weights="random"), cache)
        assert cache.folder is not None
        program = f"""if True:
            import json, sys
            from pathlib import Path
            from featkit.cache import Cache
            from featkit.deep.config import NetworkConfig
            from featkit.extraction.networks import network_maker
            config = NetworkConfig(**{SHUFFLENET!r}, weights="random")
            maker = network_maker(config, count=3, jobs=1, cache=Cache(Path({str(cache.folder)!r})))
            assert {{"torch", "torchvision", "timm", "openvino"}}.isdisjoint(sys.modules)
            print(json.dumps([maker.parts()[0], maker.size, maker.blocks, maker.pictures_at_once]))
        """
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
        expected = [first.parts()[0], first.size, first.blocks, first.pictures_at_once]
        assert json.loads(run.stdout) == json.loads(json.dumps(expected))

    @pytest.mark.parametrize("count", [3, 1000])
    def test_for_many_pictures_it_is_looked_at_anew(self, count: int, cache: Cache, loads: list[str]) -> None:
        """It may be compiled for these."""
        maker_of(config(), cache)
        maker_of(config(), cache, count)
        assert len(loads) == (1 if count == 3 else 2)

    def test_weights_that_have_changed(self, cache: Cache, tmp_path: Path, loads: list[str]) -> None:
        file = tmp_path / "own.pth"
        file.write_text("one")
        first = maker_of(config(weights=str(file)), cache)
        maker_of(config(weights=str(file)), cache)
        assert len(loads) == 1
        file.write_text("other")
        second = maker_of(config(weights=str(file)), cache)
        assert len(loads) == 2
        assert first.description.sha256 != second.description.sha256 == sha256(b"other").hexdigest()
        assert first.parts() != second.parts()

    def test_weights_that_are_gone(self, cache: Cache, tmp_path: Path) -> None:
        file = tmp_path / "own.pth"
        torch.save(backbones.load("shufflenet_v2_x0_5", "random").network.state_dict(), file)
        wanted = NetworkConfig(**SHUFFLENET, weights=str(file))
        assert maker_of(wanted, cache).description.weights == str(file)
        file.unlink()
        with pytest.raises(FileMissing):
            maker_of(wanted, cache)

    def test_weights_that_change_after_it_was_described(self, cache: Cache, tmp_path: Path, loads: list[str]) -> None:
        file = tmp_path / "own.pth"
        file.write_text("one")
        maker_of(config(weights=str(file)), cache)
        remembered = maker_of(config(weights=str(file)), cache)
        file.write_text("other")
        with pytest.raises(DependencyError, match="computed otherwise") as caught:
            remembered(np.zeros((1, SIDE, SIDE, 3), np.uint8))
        assert caught.value.hint == "run it again"

    @pytest.mark.usefixtures("loads")
    def test_a_machine_that_computes_otherwise_now(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """No vectors are given for what they are not, and the next run knows better."""
        wanted = config("bn1", "head", precision="auto")
        for fast in (True, False):
            monkeypatch.setattr(bfloat16, "is_fast", lambda device, fast=fast: fast)
            maker = maker_of(wanted, cache)
            assert maker.description.computed["precision"] == "bf16"
        with pytest.raises(DependencyError, match="small is computed otherwise now") as caught:
            maker(np.zeros((1, SIDE, SIDE, 3), np.uint8))
        assert caught.value.hint == "run it again"
        again = maker_of(wanted, cache)
        assert again.description.computed["precision"] == "fp32"
        assert again(np.zeros((1, SIDE, SIDE, 3), np.uint8)).shape == (1, 20)

    def test_without_a_cache(self, loads: list[str]) -> None:
        for _ in range(2):
            maker_of(config(), Cache(None))
        assert len(loads) == 2

    @pytest.mark.usefixtures("loads")
    def test_what_was_refused_is_told_of_what_is_remembered_too(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bfloat16, "works", lambda device: True)
        monkeypatch.setattr("featkit.deep.computing.LEAST_COSINE", 1.1)
        for _ in range(2):
            description = maker_of(config(precision="bf16"), cache).description
            assert description.computed == {"device": "cpu", "runtime": "torch", "precision": "fp32"}
            assert description.cosine is None
            [refused] = description.refused
            assert refused.startswith("torch, bf16: 0.9")

    def test_other_cards_are_let_be_seen(self, cache: Cache, loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """As it is done to compute on the processor, or on one of several: it is looked at anew, and is no error."""
        for visible, count in (("", 1), ("", 1), ("0,1", 2), ("", 2)):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
            maker_of(config(), cache)
            assert len(loads) == count

    @pytest.mark.usefixtures("loads")
    def test_an_error_is_not_remembered(self, cache: Cache) -> None:
        for _ in range(2):
            with pytest.raises(UsageError, match="no layer 'no-such-layer'"):
                maker_of(config("no-such-layer"), cache)
        assert cache.info().entries == 0
