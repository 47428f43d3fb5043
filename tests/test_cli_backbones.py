"""`featkit backbones`, as users call it: what there is, and what is in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Run, complaint_of, records_of, tried

RESNET18_STAGES = {"layer1": [64, 56, 56], "layer2": [128, 28, 28], "layer3": [256, 14, 14], "layer4": [512, 7, 7]}


def test_the_list(featkit: Run, tmp_path: Path) -> None:
    done = featkit("backbones", TORCH_HOME=str(tmp_path))
    assert done.returncode == 0
    title, *lines = done.stdout.decode().splitlines()
    assert title.split() == ["name", "parameters", "input", "dims", "weights"]
    assert lines[0].split() == ["lite0", "4.65M", "3x224x224", "1280", "here"]
    assert ["resnet50", "25.6M", "3x224x224", "2048", "-"] in [line.split() for line in lines]
    assert len({line.index("3x") + len("3x224x224") for line in lines}) == 1  # they are aligned
    assert "timm:" in done.stderr.decode()


def test_a_pattern_and_weights_that_are_here(featkit: Run, shared_data: Path) -> None:
    done = featkit("backbones", "squeezenet*", "--json", TORCH_HOME=str(shared_data / "torch"))
    first, second = records_of(done)
    assert first == {
        **{"v": 1, "type": "backbone", "name": "squeezenet1_0", "parameters": 1_248_424},
        **{"input": [3, 224, 224], "dims": 512, "weights_here": True},
    }
    assert (second["name"], second["weights_here"]) == ("squeezenet1_1", False)
    assert done.stderr == b""


def test_timms(featkit: Run, tmp_path: Path) -> None:
    done = featkit("backbones", "timm:test_vit*", "--json", HF_HOME=str(tmp_path))
    found = {each["name"]: each for each in records_of(done)}
    assert found["timm:test_vit.r160_in1k"]["input"] == [3, 160, 160]
    assert found["timm:test_vit.r160_in1k"]["dims"] == 64
    assert done.stderr == b""


def test_the_layers_of_one(featkit: Run) -> None:
    done = featkit("backbones", "resnet18")
    assert done.returncode == 0
    title, *lines = done.stdout.decode().splitlines()
    assert title.split() == ["name", "kind", "output", "parameters", "multiply-adds", "field", "stride", "extract"]
    assert lines[0].split() == ["conv1", "Conv2d", "64x112x112", "9,408", "118M", "7", "2", "yes"]
    assert lines[-3] == "resnet18, 3x224x224: 11,689,512 parameters, 1.81G multiply-adds"
    assert lines[-2] == "head, which is extracted by default: what goes into fc, 512 dimensions"
    assert lines[-1] == "--layers all, in order of depth: layer1, layer2, layer3, layer4, head"
    assert "layer4.1.conv2" in done.stdout.decode()
    assert "layer2.0.downsample.0" not in done.stdout.decode()
    assert "--depth 4 shows all" in done.stderr.decode()


def test_the_layers_as_records(featkit: Run) -> None:
    *layers, whole = records_of(featkit("backbones", "resnet18", "--json"))
    found = {layer["name"]: layer for layer in layers}
    assert {name: found[name]["output"] for name in RESNET18_STAGES} == RESNET18_STAGES
    assert found["layer2.0.downsample.0"] == {
        **{"v": 1, "type": "layer", "name": "layer2.0.downsample.0", "kind": "Conv2d", "output": [128, 28, 28]},
        **{"parameters": 64 * 128, "multiply_adds": 64 * 128 * 28 * 28, "receptive_field": 43, "stride": 8},
        "extractable": True,
    }
    parts = ("conv1", "bn1", *RESNET18_STAGES, "fc")
    assert sum(found[part]["parameters"] for part in parts) == whole["parameters"]
    assert sum(found[part]["multiply_adds"] for part in parts) == whole["multiply_adds"]
    assert (whole["type"], whole["name"], whole["head"], whole["dims"]) == ("backbone", "resnet18", "fc", 512)
    assert whole["stages"] == [*RESNET18_STAGES, "head"]


def test_another_input_and_depth(featkit: Run) -> None:
    *layers, whole = records_of(featkit("backbones", "vgg11", "--input", "3x64x96", "--depth", "1", "--json"))
    assert [(layer["name"], layer["output"]) for layer in layers] == [
        ("features", [512, 2, 3]),
        ("avgpool", [512, 7, 7]),
        ("classifier", [1000]),
    ]
    assert whole["input"] == [3, 64, 96]


def test_an_input_of_one_number_is_a_square(featkit: Run) -> None:
    one, other = (featkit("backbones", "vgg11", "--input", each, "--json") for each in ("64", "3x64x64"))
    assert one.stdout == other.stdout
    assert records_of(one)[-1]["input"] == [3, 64, 64]


def test_a_layer_without_one_tensor_cannot_be_extracted(featkit: Run) -> None:
    found = {each["name"]: each for each in records_of(featkit("backbones", "vit_b_32", "--json"))}
    attention = found["encoder.layers.encoder_layer_0.self_attention"]
    assert (attention["output"], attention["extractable"]) == (None, False)
    assert found["encoder.layers.encoder_layer_0"]["extractable"]


def test_a_network_without_a_head(featkit: Run) -> None:
    done = featkit("backbones", "timm:gemma4_vit_167m_enc", "--quiet")
    *_, whole, stages = done.stdout.decode().splitlines()
    assert whole.startswith("timm:gemma4_vit_167m_enc, 3x")
    assert stages.endswith("blocks.14, blocks.15")
    assert done.stderr == b""


WRONG = {
    "backbones resnet5o": "did you mean resnet50",
    "backbones nonesuch*": "timm:",
    "backbones timm:nonesuch": "timm has no network",
    "backbones timm:resnet18.nonesuch": "timm:resnet18.a1_in1k",
    "backbones resnet18 --input 22a": "one whole number, or three, not '22a'",
    "backbones resnet18 --input 0": "1 pixel",
    "backbones resnet18 --input 3x224": "3x224x224",
    "backbones resnet18 --input 1x224x224": "3 channels",
    "backbones resnet18 --input 3x0x224": "1 pixel",
    "backbones vit_b_16 --input 3x200x200": "its own is 3x224x224",
    "backbones vit_b_16 --input 200": "vit_b_16 does not take 3x200x200: Wrong image height",
    "backbones timm:vit_tiny_patch16_224 --input 3x200x200": "its own is 3x224x224",
    "backbones alexnet --input 3x8x8": "its own is 3x224x224",
    "backbones resnet18 --depth 0": "--depth",
    "backbones --input 3x224x224": "name one",
    "backbones resnet* --depth 2": "name one",
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("wrong")
    return tried(list(WRONG), folder, folder / "cache")


@pytest.mark.parametrize("line", WRONG)
def test_what_is_refused(line: str, refusals: dict) -> None:
    status, errors, made = refusals[line]
    assert status == 2
    assert errors.startswith("featkit: error: ")
    assert WRONG[line] in errors
    assert "defect" not in errors
    assert not made


def test_a_size_that_does_not_fit_is_no_traceback(featkit: Run) -> None:
    done = featkit("backbones", "vit_b_16", "--input", "3x225x225", "--json")
    assert done.returncode == 2
    assert "3x225x225" in complaint_of(done)
    assert [each["type"] for each in records_of(done)] == ["error"]
