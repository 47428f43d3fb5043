"""What the tests share: where the outside data is, an isolated cache, a way to run the CLI, and the tolerances."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pty
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
SHARED_DATA = ROOT.parent / "shared" / "data"

#: Absolute tolerances, one table for all tests: what is compared, and how close it must come.
TOLERANCE = {
    "homography_px": 0.5,  # mean corner error on an exact warp of a textured photo
    "keypoint_bias_px": 0.06,  # mean displacement of matched keypoints from the truth, in x and in y
    "exact_points_px": 1e-3,  # corners, from exact correspondences in float32
    "coordinates_px": 1e-4,  # float32 keypoints of pictures up to 4096 pixels
    "float32": 1e-5,
    "float64": 1e-10,
}


@pytest.fixture(scope="session")
def samples() -> Path:
    return SAMPLES


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the measurement photos (../shared/data) are not beside this checkout")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("FEATKIT_CACHE", str(tmp_path / "cache"))


def pytest_collection_finish() -> None:
    """One thread for torch: those that wait for one another take twenty times as long where other work goes on."""
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


Run = Callable[..., "subprocess.CompletedProcess[bytes]"]

# -W error: a warning that reaches a user's terminal from a library is a defect, so it fails loudly here.
FEATKIT = [sys.executable, "-W", "error", "-m", "featkit"]


@pytest.fixture
def featkit(tmp_path: Path) -> Run:
    """Run `featkit ARGUMENTS…` as a process of its own, in `tmp_path`; output as bytes.

    prefix: a command that runs it, as of `plain_user`. largest_file: the limit on bytes a file, as on a full disk.
    Environment variables are given by keyword; None takes one away.
    """

    def run(
        *arguments: str | bytes | Path,
        stdin: bytes | None = None,
        cwd: Path | None = None,
        prefix: Sequence[str] = (),
        largest_file: int | None = None,
        **environment: str | None,
    ) -> subprocess.CompletedProcess[bytes]:
        def limit() -> None:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        variables = {**os.environ, **environment}
        return subprocess.run(
            [*prefix, *FEATKIT, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            cwd=cwd or tmp_path,
            env={name: value for name, value in variables.items() if value is not None},
            preexec_fn=limit,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def plain_user() -> list[str]:
    """The prefix of a command that may not read or write what the permissions forbid, whoever runs the tests."""
    if os.geteuid() != 0:
        return []
    prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    if not shutil.which("setpriv") or subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("root may read and write everything, and cannot give that up here")
    return prefix


@pytest.fixture(scope="session")
def _small_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, sample in {"a": "china", "b": "china-left", "c": "china-right", "other": "coffee"}.items():
        with Image.open(next(SAMPLES.glob(f"{sample}.*g"))) as photo:
            photo.thumbnail((240, 240))
            photo.convert("RGB").save(folder / f"{name}.jpg", quality=92)
    return folder


@pytest.fixture
def photos(_small_photos: Path, tmp_path: Path) -> Path:
    """`tmp_path`, where `featkit` runs, with a.jpg, b.jpg and c.jpg, which show one building, and other.jpg."""
    shutil.copytree(_small_photos, tmp_path, dirs_exist_ok=True)
    return tmp_path


def records_of(completed: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    """What a run with --json printed."""
    return [json.loads(line) for line in completed.stdout.splitlines()]


def complaint_of(completed: subprocess.CompletedProcess[bytes]) -> str:
    """What a run said on stderr, once it is sure that it is an error as a user should see it."""
    text = completed.stderr.decode()
    assert text.startswith("featkit: error: "), text
    assert "Traceback" not in text
    assert "defect" not in text
    return text


def on_terminal(folder: Path, *arguments: str, stdout: str | None = None, **environment: str) -> tuple[int, str]:
    """Run featkit on a terminal, with stdout into a file if one is named: exit status, and what the terminal shows."""
    reader, terminal = pty.openpty()
    target = terminal if stdout is None else os.open(folder / stdout, os.O_WRONLY | os.O_CREAT)
    process = subprocess.Popen(
        [*FEATKIT, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=target,
        stderr=terminal,
        cwd=folder,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment},
    )
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(reader, 65536):
            shown += piece
    except OSError:  # so Linux says that the other end is closed
        pass
    os.close(reader)
    return process.wait(), shown.decode()


#: Of a command line that is refused: exit status, stderr, names of the files it made.
Refusal = tuple[int, str, list[str]]


def tried(lines: Sequence[str], folder: Path, cache: Path) -> dict[str, Refusal]:
    """What comes of each command line, tried one after the other by one process, in a folder."""
    program = """if True:
        import contextlib, io, json, os, sys
        from featkit.cli.app import run
        found = {}
        for line in json.load(sys.stdin):
            before = set(os.listdir())
            with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
                status = run(line.split())
            found[line] = status, errors.getvalue(), sorted(set(os.listdir()) - before)
        print(json.dumps(found))
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=json.dumps(list(lines)).encode(),
        capture_output=True,
        cwd=folder,
        env={**os.environ, "FEATKIT_CACHE": str(cache)},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr.decode()
    return {line: (status, errors, made) for line, (status, errors, made) in json.loads(run.stdout).items()}


@contextlib.contextmanager
def served(answers: Mapping[str, tuple[int, Mapping[str, str], bytes]]) -> Iterator[str]:
    """A server on this machine: its address. answers: path -> status, headers and body; 404 for others."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answers.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


#: Nobody listens there, which is known at once.
NOWHERE = "http://127.0.0.1:9"


class Trap:
    """Whoever unpickles it makes a file."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.sprung,)
