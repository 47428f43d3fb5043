"""`featkit match --pairs auto` and `sequential:K`: what is matched, what is said of it, what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import FEATKIT, Run, complaint_of, records_of
from PIL import Image

from featkit.local.pairing import DEFAULT_PARTNERS

SMALL = ("--max-side", "64")


def pairs_of(completed: subprocess.CompletedProcess[bytes]) -> list[str]:
    """The pairs of a run with --json, by the stems of their names: "a b"."""
    return [f"{Path(record['a']).stem} {Path(record['b']).stem}" for record in records_of(completed)]


@pytest.fixture
def many(photos: Path) -> Path:
    """a, b and c (one building), other, and the same turned upside down: eight pictures."""
    for name in ("a", "b", "c", "other"):
        with Image.open(photos / f"{name}.jpg") as photo:
            photo.rotate(180).save(photos / f"{name}-turned.png")
    return photos


# --- what is matched


@pytest.mark.parametrize(
    "named",
    [["a.jpg", "b.jpg", "c.jpg", "other.jpg"], ["."], ["*.jpg"], ["-"], ["-", "-0"], ["--files-from", "list.txt"]],
    ids=" ".join,
)
def test_each_with_the_next_ones(featkit: Run, photos: Path, named: list[str]) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg", "other.jpg"]
    (photos / "list.txt").write_text("\n".join(names))
    stdin = "\0".join(names) if "-0" in named else "\n".join(names)

    run = featkit("match", *named, "--pairs", "sequential:2", "--json", *SMALL, stdin=stdin.encode())

    assert pairs_of(run) == ["a b", "a c", "b c", "b other", "c other"]


def test_each_with_what_looks_like_it(featkit: Run, many: Path) -> None:
    run = featkit("match", ".", "--pairs", "auto:5", "--json")

    reliable = {f"{r['a'][2:]} {r['b'][2:]}" for r in records_of(run) if r["verdict"] == "reliable"}
    everything = featkit("match", ".", "--json")
    all_reliable = {f"{r['a'][2:]} {r['b'][2:]}" for r in records_of(everything) if r["verdict"] == "reliable"}
    assert len(all_reliable) > 10
    assert len(reliable & all_reliable) >= 0.9 * len(all_reliable)
    assert len(pairs_of(run)) < len(pairs_of(everything)) == 28
    assert pairs_of(run) == [pair for pair in pairs_of(everything) if pair in pairs_of(run)]


def test_few_pictures_are_matched_all_with_all(featkit: Run, photos: Path) -> None:
    run = featkit("match", ".", "--pairs", "auto", "--json", *SMALL)

    assert pairs_of(run) == ["a b", "a c", "a other", "b c", "b other", "c other"]


def test_two_pictures_can_be_drawn(featkit: Run, photos: Path) -> None:
    assert featkit("match", "a.jpg", "b.jpg", "--pairs", "auto", "--draw", "drawn.png").returncode == 0
    assert (photos / "drawn.png").exists()


@pytest.mark.parametrize("pairs", ["auto:2", "sequential:2"])
def test_workers_and_the_cache_change_nothing(featkit: Run, many: Path, pairs: str) -> None:
    arguments = ("match", ".", "--pairs", pairs, *SMALL)

    runs = [featkit(*arguments, "--jobs", jobs, *more) for jobs, *more in (["1"], ["3"], ["2", "--no-cache"])]

    assert runs[0].stdout == runs[1].stdout == runs[2].stdout
    assert runs[0].stderr == runs[1].stderr == runs[2].stderr


def test_they_are_written_as_any_other_pairs(featkit: Run, many: Path) -> None:
    for pairs, count in {"auto:2": None, "sequential:1": 7}.items():
        name = pairs.replace(":", "") + ".h5"
        found = pairs_of(featkit("match", ".", "--pairs", pairs, "-o", name, "--json", *SMALL))
        [record] = records_of(featkit("match", "--check", name, "--json"))
        assert record["pairs"] == len(found) == (count or len(found))


def test_a_file_of_such_a_name_is_reached_by_its_folder(featkit: Run, photos: Path) -> None:
    (photos / "auto").write_text("c.jpg a.jpg\n")
    assert pairs_of(featkit("match", "--pairs", "./auto", "--json", *SMALL)) == ["c a"]


# --- what is said


def test_the_summary_says_how_many_of_the_possible_pairs_were_matched(featkit: Run, many: Path) -> None:
    sequential = featkit("match", ".", "--pairs", "sequential:2", *SMALL)
    auto = featkit("match", ".", "--pairs", "auto:2", *SMALL)

    assert sequential.stderr.startswith(b"13 of 28 possible pairs: ")
    assert auto.stderr.decode().split()[1:5] == ["of", "28", "possible", "pairs:"]
    assert 8 <= int(auto.stderr.split()[0]) <= 16
    assert featkit("match", ".", "--pairs", "auto:2", "--quiet", *SMALL).stderr == b""
    assert featkit("match", ".", "--pairs", "auto:2", "--json", *SMALL).stderr == b""


@pytest.mark.parametrize("pairs", ["auto:2", "sequential:2"])
def test_a_picture_that_cannot_be_read_is_one_error_and_the_rest_is_matched(
    featkit: Run, many: Path, pairs: str
) -> None:
    whole = featkit("match", ".", "--pairs", pairs, "--json", *SMALL)
    (many / "zz.jpg").write_bytes((many / "a.jpg").read_bytes()[:3000])

    run = featkit("match", ".", "--pairs", pairs, "--json", *SMALL)

    assert run.returncode == 1
    errors = [record for record in records_of(run) if record["type"] == "error"]
    assert [(error["path"], error["code"]) for error in errors] == [("./zz.jpg", "damaged")]
    assert [r for r in records_of(run) if r["type"] == "match"] != []
    assert len(records_of(run)) == len(records_of(whole)) + 1
    assert run.stderr.count(b"featkit: error: ./zz.jpg: ") == 1


def test_nothing_can_be_read(featkit: Run, photos: Path) -> None:
    run = featkit("match", "x.jpg", "y.jpg", "z.jpg", "--pairs", "auto:1")

    assert run.returncode == 2
    assert run.stderr.count(b"there is no such file") == 3


def test_the_help_tells_the_real_number(featkit: Run) -> None:
    text = " ".join(featkit("match", "--help").stdout.decode().split())
    assert f"({DEFAULT_PARTNERS})" in text[text.index("--pairs") :][:400]


# --- what is refused

STRANGE = {
    "--pairs sequential": "--pairs sequential lacks a number",
    "--pairs sequential:": "--pairs sequential takes a whole number, not ''",
    "--pairs sequential:0": "--pairs sequential:0 pairs nothing",
    "--pairs sequential:-2": "--pairs sequential takes a whole number, not '-2'",
    "--pairs sequential:1.5": "--pairs sequential takes a whole number, not '1.5'",
    "--pairs auto:x": "--pairs auto takes a whole number, not 'x'",
    "--pairs auto:0": "--pairs auto:0 pairs nothing",
    "--pairs auto:": "--pairs auto takes a whole number, not ''",
    "--pairs aut": "--pairs names all pictures itself",
    "--pairs auto -0": "-0 is about a list, and there is none",
    "--pairs auto:1 --draw d.png": "--draw and --draw-warp show one pair, and these are more",
    "--pairs sequential:1 --draw d.png": "--draw and --draw-warp show one pair, and these are 3",
    "--pairs auto:1 -o nowhere/m.npz": "there is no folder nowhere",
}


@pytest.mark.parametrize("arguments", STRANGE)
def test_what_makes_no_sense_is_refused_with_a_hint(featkit: Run, photos: Path, arguments: str) -> None:
    before = sorted(photos.rglob("*"))

    run = featkit("match", "a.jpg", "b.jpg", "c.jpg", "other.jpg", *arguments.split())

    assert run.returncode == 2
    message, hint = complaint_of(run).splitlines()
    assert STRANGE[arguments] in message
    assert hint.startswith("hint: ")
    assert sorted(photos.rglob("*")) == before  # not even a cache


@pytest.mark.parametrize("mistyped", ["aut", "seqential:3", "AUTO"])
def test_a_mistyped_word_is_taken_for_a_list_and_the_hint_names_the_words(
    featkit: Run, photos: Path, mistyped: str
) -> None:
    message, hint = complaint_of(featkit("match", "--pairs", mistyped)).splitlines()

    assert message == f"featkit: error: {mistyped}: there is no such list"
    assert "--pairs auto" in hint
    assert "sequential:K" in hint


@pytest.mark.parametrize("pairs", ["auto", "sequential:2"])
def test_pictures_are_needed(featkit: Run, photos: Path, pairs: str) -> None:
    assert "no picture to match" in complaint_of(featkit("match", "--pairs", pairs))


# --- thousands


@pytest.fixture
def crowd(photos: Path) -> Path:
    """A folder of 1,500 pictures that are 30 in truth, and a million pairs."""
    folder = photos / "crowd"
    folder.mkdir()
    with Image.open(photos / "a.jpg") as photo:
        for number in range(30):
            photo.crop((number, 0, number + 100, 80)).save(folder / f"{number:04}.jpg")
    for number in range(30, 1500):
        (folder / f"{number:04}.jpg").hardlink_to(folder / f"{number % 30:04}.jpg")
    return folder


def test_a_million_pairs_start_at_once_and_a_closed_pipe_ends_them(crowd: Path) -> None:
    start = time.perf_counter()

    run = subprocess.run(
        f"{sys.executable} -m featkit match crowd --quiet | head -3",
        shell=True,
        capture_output=True,
        cwd=crowd.parent,
        timeout=60,
    )

    assert len(run.stdout.splitlines()) == 3
    assert run.stderr == b""
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize("arguments", [[], ["--pairs", "auto"], ["--pairs", "auto", "--jobs", "1"]], ids=" ".join)
def test_an_interrupt_ends_it(crowd: Path, arguments: list[str]) -> None:
    """While matching, and while the pairs are being looked for."""
    process = subprocess.Popen(
        [*FEATKIT, "match", "crowd", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=crowd.parent,
        env={**os.environ, "FEATKIT_CACHE": "off"},
    )
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)

    assert process.returncode == 130
    assert stderr == b"featkit: interrupted\n"


def test_the_same_picture_under_many_names(crowd: Path, featkit: Run) -> None:
    names = [f"crowd/{number:04}.jpg" for number in range(0, 120, 30)]

    run = featkit("match", *names, "--pairs", "auto:1", "--json")

    assert {record["verdict"] for record in records_of(run)} == {"reliable"}
