"""The README's commands and its Python example run, and say what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
    # The set-up lines are what runs this test; the first line of all shows the idea with names of nobody's pictures.
    if not line.startswith("python3 -m venv") and "left.jpg right.jpg" not in line
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the samples, where commands run one after the other and see each other's files."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "samples", folder / "samples")
    return folder


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    scripts = sysconfig.get_path("scripts")
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'export PATH="{scripts}:$PATH"; {command}'],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, checkout: Path) -> None:
    run = shell(command, checkout)
    assert run.returncode == 0, run.stderr
    assert run.stdout
    assert "error" not in run.stderr


def test_the_first_command_prints_what_is_shown(checkout: Path) -> None:
    line = next(text for language, text in BLOCKS if language == "sh" and "venv" in text and "match" in text)
    shown = next(text for language, text in BLOCKS if language == "" and "reliable" in text)
    run = shell(line.split("&&")[-1].replace(".venv/bin/", "").strip(), checkout)
    assert run.returncode == 0
    assert run.stdout == shown
    assert (checkout / "matches.png").stat().st_size > 100_000


def test_learning_digits_prints_what_is_shown(checkout: Path) -> None:
    [command] = [line for line in COMMANDS if line.startswith("featkit classify")]
    [shown] = [text for language, text in BLOCKS if language == "" and "95 % interval" in text]
    printed = shell(f"{command} --force", checkout).stdout
    assert shown.endswith("…\n")
    assert printed.startswith(shown.removesuffix("…\n"))


def test_the_python_example_runs(checkout: Path) -> None:
    example = next(text for language, text in BLOCKS if language == "python")
    run = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, cwd=checkout)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("reliable 0.1")


def test_every_test_command_is_what_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- test command -->" in script
    assert re.search(r"<!-- test command -->\n```sh\npython3 .*pytest", README)
