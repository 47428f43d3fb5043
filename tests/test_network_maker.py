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
from featkit.deep import backbones, bfloat16
from featkit.deep.backbones import Backbone
from featkit.deep.config import AT_ONCE, FeatureConfig, NetworkConfig
from featkit.deep.features import Extractor
from featkit.errors import DependencyError, FileMissing, ImageDamaged, UsageError
from featkit.extraction.networks import NetworkMaker, network_maker
from featkit.images import DEFAULTS, decode_reduced

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
