"""Models of a network's features: the same predictions wherever they are loaded, or an error that says why not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Run

from featkit.cache import Cache
from featkit.deep import backbones
from featkit.deep.config import FeatureConfig, NetworkConfig
from featkit.errors import ModelDamaged, ModelMismatch, UsageError
from featkit.extraction.engine import extract
from featkit.extraction.makers import Maker, make
from featkit.extraction.networks import NetworkSource, network_maker
from featkit.images import DEFAULTS
from featkit.learning.config import ClassifyConfig
from featkit.learning.fitting import fit_model
from featkit.learning.model import Model, Prediction, load_model
from featkit.learning.model_files import read_model, write_model

PICTURES = sorted(map(str, SAMPLES.glob("*.*g")))[:8]
LABELS = ["one", "other"] * 4


def fitted(maker: Maker, views: list[np.ndarray], classifier: str) -> Model:
    steps = fit_model(maker.source, views, LABELS, ClassifyConfig(classifier=classifier, flip=False), seconds={})
    while True:
        try:
            next(steps)
        except StopIteration as last:
            return last.value.model


def learned(config: NetworkConfig, cache: Cache) -> Model:
    maker = network_maker(config, count=len(PICTURES), jobs=1, cache=cache)
    rows = list(extract(PICTURES, maker, mirrored=False, decode=DEFAULTS, cache=cache, jobs=1))
    views = [np.concatenate([each.views[0] for each in rows])]
    return fitted(maker, views, "ridge")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def model(cache: Cache) -> Model:
    features = FeatureConfig(("stage2", "head"))
    return learned(NetworkConfig("shufflenet_v2_x0_5", "random", features=features), cache)


def predictions(model: Model, cache: Cache) -> list[Prediction]:
    found = list(model.predict(PICTURES, cache=cache))
    assert all(isinstance(each, Prediction) for each in found)
    return found  # type: ignore[return-value]


def test_loaded_it_is_the_same(model: Model, cache: Cache, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("model.fk", "again.fk")]
    model.save(paths[0])
    loaded = load_model(paths[0])
    loaded.save(paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert {each.label for each in predictions(model, cache)} == {"one", "other"}
    assert predictions(loaded, Cache(None)) == predictions(model, cache)


def test_another_process_predicts_the_same(model: Model, cache: Cache, tmp_path: Path, featkit: Run) -> None:
    model.save(tmp_path / "model.fk")
    run = featkit("predict", tmp_path / "model.fk", *PICTURES, "--json", "--no-cache")
    assert run.returncode == 0
    expected = [each.record() for each in predictions(model, cache)]
    assert [json.loads(line) for line in run.stdout.splitlines()] == json.loads(json.dumps(expected))


def test_weights_elsewhere(cache: Cache, tmp_path: Path) -> None:
    import torch

    files = [tmp_path / name for name in ("own.pth", "moved.pth", "other.pth")]
    torch.save(backbones.load("shufflenet_v2_x0_5", "random").network.state_dict(), files[0])
    torch.save(backbones.load("shufflenet_v2_x0_5", "random", seed=1).network.state_dict(), files[2])
    trained = learned(NetworkConfig("shufflenet_v2_x0_5", str(files[0])), cache)
    trained.save(tmp_path / "model.fk")
    expected = predictions(trained, cache)
    files[0].rename(files[1])
    moved = load_model(tmp_path / "model.fk", weights=str(files[1]))
    assert predictions(moved, cache) == expected
    with pytest.raises(ModelMismatch, match="these are"):
        predictions(load_model(tmp_path / "model.fk", weights=str(files[2])), cache)


def test_weights_of_no_network(tmp_path: Path) -> None:
    maker = make("pixels", (8, 8), lambda: np.zeros((0, 8, 8, 3), np.uint8))
    views = [np.random.default_rng(0).random((8, 192), np.float32)]
    fitted(maker, views, "ridge").save(tmp_path / "model.fk")
    with pytest.raises(UsageError, match="pixels, without a network") as caught:
        load_model(tmp_path / "model.fk", weights="own.pth")
    assert caught.value.hint == "leave out --weights"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda maker: maker["contract"].update(resize=300), ModelMismatch),
        (lambda maker: maker.update(shapes=[[48], [1023]]), ModelDamaged),
        (lambda maker: maker["versions"].update(maker=0), ModelDamaged),
        (lambda maker: maker.update(backbone="no-such-network"), UsageError),
    ],
    ids=["contract", "shapes", "versions", "backbone"],
)
def test_a_file_of_another_network(
    model: Model, cache: Cache, tmp_path: Path, change: object, error: type[Exception]
) -> None:
    model.save(tmp_path / "model.fk")
    config, arrays = read_model(tmp_path / "model.fk")
    assert isinstance(model.source, NetworkSource)
    change(config["maker"])  # type: ignore[operator]
    write_model(tmp_path / "model.fk", config, arrays, force=True)
    with pytest.raises(error):
        predictions(load_model(tmp_path / "model.fk"), cache)
