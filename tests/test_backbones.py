"""Networks by name: as their libraries load them, from wherever their weights are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from conftest import NOWHERE, SAMPLES, Trap, served
from PIL import Image
from safetensors.torch import save, save_file
from torch import nn

from featkit.deep import backbones
from featkit.deep.backbones import Backbone, classifier, dimensions, load, named, names, outline
from featkit.deep.weights import hub_file
from featkit.errors import DependencyError, FileMissing, InputError, UsageError

#: Of timm's, a hundredth of the usual size.
SMALL = "timm:test_vit.r160_in1k"
REPOSITORY, COMMIT = "timm/test_vit.r160_in1k", "0" * 39 + "1"


@pytest.fixture(autouse=True)
def _own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's weights, or asks the hub for any."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def assert_same(one: nn.Module, other: nn.Module, side: int) -> None:
    pictures = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(one.eval()(pictures), other.eval()(pictures))


def test_every_network_can_be_had() -> None:
    """A contract, a head and the parameters that torchvision tells of."""
    # With the head that helped to learn, and for the weights that are not the default's pictures.
    otherwise = {"inception_v3": 23_834_568, "vit_h_14": 633_470_440}
    for name in names():
        network, contract = outline(name), backbones.contract_of(name)
        assert min(contract.crop) >= 224
        assert dimensions(network) > 0
        if not name.startswith("lite"):
            told = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
            assert sum(each.numel() for each in network.parameters()) == otherwise.get(name, told)
    assert {"lite0", "resnet50", "vit_b_16", "squeezenet1_0"} <= set(names())
    assert not any("fcn" in name or "rcnn" in name or "r3d" in name for name in names())


@pytest.mark.parametrize(
    ("name", "module", "dims"),
    [
        ("lite0", "classifier", 1280),
        ("resnet50", "fc", 2048),
        ("vgg16", "classifier.6", 4096),
        ("squeezenet1_1", "classifier.1", 512),
        ("vit_b_32", "heads.head", 768),
        ("swin_t", "head", 768),
        ("convnext_tiny", "classifier.2", 768),
        ("mobilenet_v3_small", "classifier.3", 1024),
        ("googlenet", "fc", 1024),
        ("timm:legacy_seresnet18", "last_linear", 512),
        ("timm:xception41", "head.fc", 2048),
        ("timm:deit_tiny_distilled_patch16_224", "head", 192),
        ("timm:vit_small_patch14_dinov2", "head", 384),  # without classes
        ("timm:vit_base_patch32_clip_224.laion2b_ft_in12k_in1k", "head", 768),
        ("timm:vit_tiny_r_s16_p8_224", "head", 192),  # tries itself while it is made
        ("timm:mobilenetv3_small_050", "classifier", 1024),
    ],
)
def test_what_goes_into_the_classifier(name: str, module: str, dims: int) -> None:
    network = outline(name)
    width, height = backbones.contract_of(name).crop
    given: list[torch.Size] = []
    network.get_submodule(module).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].shape))
    network(torch.zeros(1, 3, height, width, device="meta"))
    assert classifier(network) == module
    assert given[0][1] == dimensions(network) == dims


def test_a_network_that_makes_words() -> None:
    with pytest.raises(UsageError, match="no head"):
        classifier(outline("timm:gemma4_vit_167m_enc"))


@pytest.mark.parametrize(("photo", "classes"), [("coffee.png", 967), ("camera.png", 872), ("chelsea.png", 282)])
def test_lite0_knows_what_it_sees(photo: str, classes: int) -> None:
    """espresso, tripod, tiger cat: weights and contract go together."""
    backbone = load("lite0")
    pixels = np.array(Image.open(SAMPLES / photo).convert("RGB"))
    pictures = backbone.contract.normalised(backbone.contract.cropped(pixels)[None])
    assert backbone.network(pictures).argmax() == classes
    assert backbone.sha256 is not None
    assert backbone.sha256.startswith("579344248a93e230")
    assert not any(each.requires_grad for each in backbone.network.parameters())


def as_published(name: str, network: nn.Module) -> Mapping[str, torch.Tensor]:
    """As torchvision's files have it: those of DenseNets are of 2017."""
    values = network.state_dict()
    if not name.startswith("densenet"):
        return values
    old = {re.sub(r"(denselayer.*\.(?:norm|conv))([12])\.", r"\1.\2.", each): values[each] for each in values}
    return {each: value for each, value in old.items() if not each.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("resnet18", {}),
        ("densenet121", {}),
        ("googlenet", {"aux_logits": True, "init_weights": False}),
        ("inception_v3", {"init_weights": False}),
        ("mnasnet0_5", {}),
        ("regnet_x_400mf", {}),
        ("mobilenet_v3_small", {}),
        ("maxvit_t", {}),
    ],
)
def test_as_torchvision_loads_them(name: str, more: dict[str, Any]) -> None:
    """The same file, from the same folder, by its own loader."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    file = hub_file(weights.url)
    file.parent.mkdir(parents=True)
    torch.save(as_published(name, torchvision.models.get_model(name, weights=None, **more)), file)
    assert backbones.is_here(name)
    backbone = load(name)
    assert backbone.source == str(file)
    assert_same(backbone.network, torchvision.models.get_model(name, weights=weights), backbone.contract.crop[0])


def test_the_file_that_is_beside_the_checkout(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not backbones.is_here("squeezenet1_0")
    monkeypatch.setenv("TORCH_HOME", str(shared_data / "torch"))
    assert backbones.is_here("squeezenet1_0")
    theirs = torchvision.models.squeezenet1_0(weights="DEFAULT")
    assert_same(load("squeezenet1_0").network, theirs, 224)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["squeezenet1_1", "mnasnet0_5", "lite0", SMALL])
def test_weights_out_of_a_file(tmp_path: Path, name: str, suffix: str) -> None:
    written = load(name, "random", seed=3)
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": written.network.state_dict()}, file)
    else:
        save_file(written.network.state_dict(), file)
    read = load(name, str(file))
    assert read.source == str(file)
    assert_same(read.network, written.network, read.contract.crop[0])


def test_half_precision_is_brought_to_full(tmp_path: Path) -> None:
    written = load("squeezenet1_1", "random")
    torch.save({name: value.half() for name, value in written.network.state_dict().items()}, tmp_path / "half.pth")
    read = load("squeezenet1_1", str(tmp_path / "half.pth"))
    assert {each.dtype for each in read.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["squeezenet1_1", "lite0", SMALL])
def test_the_weights_of_another_network(tmp_path: Path, name: str) -> None:
    file = tmp_path / "other.pth"
    torch.save(torchvision.models.alexnet().features.state_dict(), file)
    with pytest.raises(InputError, match="these are not the weights of") as caught:
        load(name, str(file))
    assert name in caught.value.message
    assert caught.value.path == str(file)


@pytest.mark.parametrize("name", ["squeezenet1_1", SMALL])
def test_files_that_are_no_weights(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileMissing):
        load(name, str(tmp_path / "none.pth"))
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\0" * 20)
    (tmp_path / "cut.npz").write_bytes(b"PK")
    for file in ("trap.pth", "cut.safetensors", "cut.npz"):
        with pytest.raises(InputError) as caught:
            load(name, str(tmp_path / file))
        assert caught.value.path == str(tmp_path / file)
    assert not (tmp_path / "sprung").exists()


def test_random_weights_are_those_of_their_seed() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (load("squeezenet1_1", "random", seed=seed).network.state_dict() for seed in (1, 1, 2))
    torch.testing.assert_close(one, same)
    assert not torch.equal(one["features.0.weight"], other["features.0.weight"])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_timms_out_of_the_hubs_cache(tmp_path: Path) -> None:
    written = load(SMALL, "random")
    assert not backbones.is_here(SMALL)
    folder = tmp_path / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    file = folder / "snapshots" / COMMIT / "model.safetensors"
    save_file(written.network.state_dict(), file)
    assert backbones.is_here(SMALL)
    read = load(SMALL)
    assert read.source == str(file)
    assert_same(read.network, written.network, 160)


def test_timms_that_are_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DependencyError) as caught:
        load(SMALL)
    assert REPOSITORY in caught.value.message
    assert str(tmp_path / "hub") in caught.value.message
    assert "HF_HUB_OFFLINE" in caught.value.message
    assert "--weights FILE" in (caught.value.hint or "")


def test_timms_that_come_from_elsewhere() -> None:
    """Not all are on the hub."""
    name = "timm:gcvit_xxtiny"
    file = hub_file(timm.get_pretrained_cfg("gcvit_xxtiny").url)
    assert not backbones.is_here(name)
    file.parent.mkdir(parents=True)
    written = load(name, "random")
    torch.save(written.network.state_dict(), file)
    assert backbones.is_here(name)
    assert load(name).source == str(file)


def loaded_by_process(**environment: str) -> subprocess.CompletedProcess[str]:
    """SMALL with its own weights; prints where from, and what was told of the download."""
    program = f"""if True:
        import json
        from featkit.deep.backbones import load
        from featkit.errors import FeatkitError
        told = []
        try:
            found = load({SMALL!r}, progress=lambda *counts: told.append(counts))
            print(json.dumps([found.source, found.sha256, told]))
        except FeatkitError as error:
            print(json.dumps([type(error).__name__, error.message, error.hint]))
    """
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_timms_are_downloaded_once(tmp_path: Path) -> None:
    data = save(timm.create_model("test_vit").state_dict())
    path = f"/{REPOSITORY}/resolve/main/model.safetensors"
    headers = {"ETag": '"abc"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(data))}
    home = {"HF_HOME": str(tmp_path / "home")}
    with served({path: (200, headers, data), path.replace("main", COMMIT): (200, headers, data)}) as address:
        first = loaded_by_process(HF_ENDPOINT=address, **home)
    source, digest, told = json.loads(first.stdout)
    assert first.stderr == ""
    assert Path(source).read_bytes() == data
    assert told[-1] == [len(data), len(data)]
    second = loaded_by_process(HF_HUB_OFFLINE="1", HF_ENDPOINT=NOWHERE, **home)
    assert json.loads(second.stdout) == [source, digest, []]
    assert second.stderr == ""


def test_timms_without_a_network(tmp_path: Path) -> None:
    done = loaded_by_process(HF_ENDPOINT=NOWHERE, HF_HOME=str(tmp_path / "home"))
    kind, message, hint = json.loads(done.stdout)
    assert done.stderr == ""
    assert kind == "DependencyError"
    assert f"model.safetensors of {REPOSITORY}" in message
    assert str(tmp_path / "home") in message
    assert f"{NOWHERE}/{REPOSITORY}/resolve/main/model.safetensors" in hint


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("resnet5o", "there is no backbone", "resnet50"),
        ("fcn_resnet50", "there is no backbone", "resnet50"),
        ("", "there is no backbone", "featkit backbones"),
        ("timm:resnet5o", "timm has no network", "timm:resnet50"),
        ("timm:", "timm has no network", "timm:"),
        ("timm:hf-hub:someone/net", "timm has no network", None),
        ("timm:resnet18.nonesuch", "no weights 'nonesuch'", "timm:resnet18.a1_in1k"),
        ("timm:convnext_atto_rms", "timm has no weights for", "--weights random"),
        ("timm:vit_base_patch16_sapiens2", "cannot be used: its pictures are brought to 768 × 1024", None),
    ],
)
def test_names_that_do_not_work(name: str, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(name)
    assert hint is None or hint in (caught.value.hint or "")


def test_patterns() -> None:
    assert named("resnet?8") == ("resnet18",)
    assert named("lite*") == ("lite0", "lite1", "lite2")
    assert "timm:vit_small_patch14_dinov2.lvd142m" in named("timm:*dinov2*")
    assert named("timm:*sapiens2*") == ()  # of a size that is no square
    assert named("nonesuch*") == ()


def test_a_backbone_says_what_it_is() -> None:
    backbone = load("resnet18", "random")
    assert isinstance(backbone, Backbone)
    assert (backbone.name, backbone.source, backbone.sha256) == ("resnet18", "random", None)
    assert not backbone.network.training
