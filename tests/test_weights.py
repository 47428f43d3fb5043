"""Weights out of files, torch hub's folder and addresses; and whatever else may be found there."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import NOWHERE, Trap, served
from safetensors.torch import save_file

from featkit.deep.weights import at_address, hub_file, of_file, sha256
from featkit.errors import DependencyError, FileMissing, InputError, NotAFile, OutputError

VALUES = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.zeros(2)}


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch"


@pytest.mark.parametrize(
    "content",
    [
        VALUES,
        {"state_dict": VALUES, "epoch": 3},
        {"model": VALUES, "optimizer": {"lr": 0.1}},
    ],
    ids=["plain", "state_dict", "model"],
)
def test_what_training_scripts_save(tmp_path: Path, content: dict) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(saved(content))
    found = of_file(file)
    assert found.keys() == VALUES.keys()
    torch.testing.assert_close(found["layer.weight"], VALUES["layer.weight"])


def test_safetensors(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(VALUES, file)
    torch.testing.assert_close(dict(of_file(str(file))), VALUES)
    assert sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(saved({"state_dict": VALUES, "extra": Trap(tmp_path / "sprung")}))
    with pytest.raises(InputError, match=r"no weights can be read from it: [^.]*$"):
        of_file(file)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_damaged_files(tmp_path: Path, name: str, keep: int) -> None:
    file = tmp_path / name
    if file.suffix == ".safetensors":
        save_file(VALUES, file)
    else:
        file.write_bytes(saved(VALUES))
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError) as caught:
        of_file(file)
    assert caught.value.path == str(file)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.zeros(3), {"state_dict": {"a": "b"}}])
def test_files_that_hold_something_else(tmp_path: Path, content: object) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(saved(content))
    with pytest.raises(InputError, match="no weights: names and tensors"):
        of_file(file)


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        of_file(tmp_path / "none.pth")
    with pytest.raises(NotAFile):
        of_file(tmp_path)


def test_what_is_in_the_hub_folder_is_not_downloaded() -> None:
    address = f"{NOWHERE}/models/resnet-0badc0de.pth"
    here = hub_file(address)
    here.parent.mkdir(parents=True)
    here.write_bytes(b"whatever is there")
    assert at_address(address) == here


def test_a_download(torch_home: Path) -> None:
    data = saved(VALUES) + bytes(3 << 20)
    name = f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    told: list[tuple[int, int]] = []
    with served({f"/models/{name}": (200, {}, data)}) as address:
        file = at_address(f"{address}/models/{name}", lambda done, total: told.append((done, total)))
    assert file == torch_home / "hub" / "checkpoints" / name
    assert file.read_bytes() == data
    assert len(told) > 2
    assert told == sorted(told)
    assert told[-1] == (len(data), len(data))
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((404, {}, b"not here"), "Not Found"),
        ((500, {}, b""), "Internal Server Error"),
        ((200, {"Content-Length": "5000"}, b"cut"), "3 "),
        ((200, {}, b"another file"), "not what its name says"),
    ],
    ids=["missing", "failing", "cut off", "another"],
)
def test_a_download_that_fails_leaves_nothing(answer: tuple, reason: str) -> None:
    with served({"/net-01234567.pth": answer}) as server:
        address = f"{server}/net-01234567.pth"
        with pytest.raises(DependencyError, match="cannot be downloaded") as caught:
            at_address(address)
    assert reason in caught.value.message
    assert not list(hub_file(address).parent.iterdir())


def test_without_a_network_the_error_says_what_helps(torch_home: Path) -> None:
    with pytest.raises(DependencyError) as caught:
        at_address(f"{NOWHERE}/models/net-01234567.pth")
    assert "net-01234567.pth" in caught.value.message
    assert str(torch_home / "hub" / "checkpoints") in caught.value.message
    hint = caught.value.hint or ""
    assert f"{NOWHERE}/models/net-01234567.pth" in hint
    assert "--weights FILE" in hint
    assert "lite0" in hint


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file" / "torch"))
    with pytest.raises(OutputError) as caught:
        at_address(f"{NOWHERE}/net.pth")
    assert "TORCH_HOME" in (caught.value.hint or "")


def test_a_folder_that_cannot_be_written_to(torch_home: Path, plain_user: list[str]) -> None:
    folder = torch_home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    program = f"from featkit.deep.weights import at_address; at_address({NOWHERE!r} + '/net.pth')"
    done = subprocess.run([*plain_user, sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1].startswith("featkit.errors.OutputError")
    assert "cannot be written to" in done.stderr
