"""`featkit match` as a user meets it: what may be named, what is printed and written, what is refused, how it ends."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, complaint_of, on_terminal, records_of
from PIL import Image

from featkit import DecodeOptions, MatchConfig
from featkit.images import load
from featkit.local.features import DEFAULT_KEYPOINTS, DETECTORS
from featkit.local.geometry import MODELS
from featkit.local.interchange import FORMATS

ALL_PAIRS = [("a", "b"), ("a", "c"), ("a", "other"), ("b", "c"), ("b", "other"), ("c", "other")]


def pairs_of(completed: subprocess.CompletedProcess[bytes]) -> list[tuple[str, str]]:
    """The pairs of a run with --json, by the stems of their names."""
    return [(Path(record["a"]).stem, Path(record["b"]).stem) for record in records_of(completed)]


def lasting(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without what may differ between two runs."""
    return [{key: value for key, value in record.items() if key not in ("seconds", "cached")} for record in records]


# --- what is named


def test_two_pictures(featkit: Run, photos: Path) -> None:
    run = featkit("match", "a.jpg", "b.jpg")

    assert run.returncode == 0
    assert run.stderr == b""
    line = run.stdout.decode()
    assert re.fullmatch(r"a\.jpg  b\.jpg  reliable · \d+ of \d+ matches agree · corners ±0\.\d px\n", line), line


def test_the_record_of_a_pair(featkit: Run, photos: Path) -> None:
    [record] = records_of(featkit("match", "a.jpg", "b.jpg", "--json"))

    assert {key: record[key] for key in ("v", "type", "a", "b", "detector", "model", "verdict", "cached")} == {
        "v": 1,
        "type": "match",
        "a": "a.jpg",
        "b": "b.jpg",
        "detector": "sift",
        "model": "homography",
        "verdict": "reliable",
        "cached": [False, False],
    }
    assert record["size_a"] == list(load(photos / "a.jpg").size)
    assert record["size_b"] == list(load(photos / "b.jpg").size)
    assert min(record["keypoints"]) >= record["matches"] >= record["inliers"] > 50
    assert np.shape(record["matrix"]) == (3, 3)
    assert 0 < record["uncertainty_px"] < 3
    assert set(record["seconds"]) == {"extract", "match", "estimate", "second_look"}


def test_the_same_from_python(featkit: Run, photos: Path) -> None:
    from featkit import match

    [record] = records_of(featkit("match", "a.jpg", "b.jpg", "--detector", "orb", "--max-keypoints", "500", "--json"))

    result = match(photos / "a.jpg", photos / "b.jpg", detector="orb", max_keypoints=500)

    assert result.verdict == record["verdict"]
    assert result.matrix is not None
    assert result.matrix.tolist() == record["matrix"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.jpg", "b.jpg", "c.jpg", "other.jpg"],
        ["."],
        ["*.jpg"],
        ["--files-from", "list.txt"],
        ["--files-from", "list0.txt", "-0"],
        ["-"],
        ["-", "-0"],
        ["a.jpg", "--files-from", "-", "--jobs", "2"],
        [".", "*.jpg", "./a.jpg"],
    ],
    ids=shlex.join,
)
def test_many_pictures_are_matched_all_with_all(featkit: Run, photos: Path, arguments: list[str]) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg", "other.jpg"]
    (photos / "list.txt").write_text("\r\n".join(names))
    (photos / "list0.txt").write_text("\0".join(names))
    stdin = "\0".join(names) if "-0" in arguments else "\n".join(names)

    run = featkit("match", *arguments, "--json", "--max-side", "64", stdin=stdin.encode())

    assert pairs_of(run) == ALL_PAIRS


@pytest.mark.parametrize("separator", ["\t", " "])
def test_pairs_of_a_list(featkit: Run, photos: Path, separator: str) -> None:
    text = separator.join(["c.jpg", "a.jpg"]) + "\n# a comment\n\n" + separator.join(["a.jpg", "c.jpg"]) + "\n"
    (photos / "pairs.txt").write_text(text)

    from_file = featkit("match", "--pairs", "pairs.txt", "--json")
    from_stdin = featkit("match", "--pairs", "-", "--json", stdin=text.encode())

    assert pairs_of(from_file) == pairs_of(from_stdin) == [("c", "a"), ("a", "c")]


def test_each_picture_is_described_once(featkit: Run, photos: Path) -> None:
    """In six pairs without a cache: each picture's seconds add up the same wherever it appears."""
    found = records_of(featkit("match", ".", "--json", "--no-cache"))

    seconds = {tuple(pair): record["seconds"]["extract"] for pair, record in zip(ALL_PAIRS, found, strict=True)}
    one_way = seconds["a", "b"] + seconds["c", "other"]
    assert one_way == pytest.approx(seconds["a", "c"] + seconds["b", "other"], abs=0.0003)
    assert one_way == pytest.approx(seconds["a", "other"] + seconds["b", "c"], abs=0.0003)


# --- how it ends


def test_exit_status(featkit: Run, photos: Path) -> None:
    assert featkit("match", "a.jpg", "b.jpg").returncode == 0
    assert featkit("match", "a.jpg", "b.jpg", "other.jpg").returncode == 0
    assert featkit("match", "a.jpg", "b.jpg", "missing.jpg").returncode == 1
    assert featkit("match", "a.jpg", "missing.jpg").returncode == 2
    assert featkit("match", "a.jpg", "other.jpg").returncode == 3
    assert featkit("match", "a.jpg", "other.jpg", "--model", "none").returncode == 0


def test_a_summary_of_many_pairs(featkit: Run, photos: Path) -> None:
    arguments = ("match", "a.jpg", "b.jpg", "other.jpg")

    assert featkit(*arguments).stderr == b"3 pairs: 1 reliable, 0 doubtful, 2 none\n"
    assert featkit(*arguments, "missing").stderr.endswith(b"2 none; 1 picture could not be read\n")
    assert featkit(*arguments, "--quiet").stderr == b""
    assert featkit(*arguments, "--json").stderr == b""


@pytest.mark.parametrize("pair", ["flat.png flat.png", "flat.png dot.png", "dot.png a.jpg"])
@pytest.mark.parametrize("detector", ["sift", "orb", "affine-sift"])
def test_pictures_without_texture_are_no_error(featkit: Run, photos: Path, pair: str, detector: str) -> None:
    Image.new("RGB", (300, 200), "teal").save(photos / "flat.png")
    Image.new("RGB", (2, 2), "teal").save(photos / "dot.png")

    run = featkit("match", *pair.split(), "--detector", detector, "--draw", "drawn.png", "--json")

    assert run.returncode == 3
    [record] = records_of(run)
    assert (record["verdict"], record["matches"], record["matrix"]) == ("none", 0, None)
    assert load(photos / "drawn.png").size[0] > 0


def test_a_picture_matches_itself(featkit: Run, photos: Path) -> None:
    [record] = records_of(featkit("match", "a.jpg", "./a.jpg", "--json"))

    assert record["inliers"] == record["keypoints"][0]
    assert np.array(record["matrix"]) == pytest.approx(np.eye(3), abs=1e-3)


# --- what is written


@pytest.mark.parametrize("format_", FORMATS)
def test_files_are_the_same_cold_and_warm_and_with_any_number_of_workers(
    featkit: Run, photos: Path, format_: str
) -> None:
    def run(name: str, *arguments: str) -> list[dict[str, Any]]:
        completed = featkit("match", "a.jpg", "b.jpg", "other.jpg", "-o", name + format_, "--json", *arguments)
        assert completed.returncode == 0
        return records_of(completed)

    cold = run("cold", "--jobs", "1")
    warm = run("warm", "--jobs", "2")
    uncached = run("uncached", "--jobs", "2", "--no-cache")

    assert lasting(cold) == lasting(warm) == lasting(uncached)
    assert [record["cached"] for record in cold] == [[False, False]] * 3
    assert [record["cached"] for record in warm] == [[True, True]] * 3
    files = [(photos / (name + format_)).read_bytes() for name in ("cold", "warm", "uncached")]
    assert files[0] == files[1] == files[2]


def test_pictures_are_the_same_cold_and_warm(featkit: Run, photos: Path) -> None:
    for name, jobs in {"cold": "1", "warm": "2"}.items():
        run = featkit(
            "match", "a.jpg", "b.jpg", "--draw", f"{name}.png", "--draw-warp", f"{name}-warp.png", "--jobs", jobs
        )
        assert run.returncode == 0

    for kind in (".png", "-warp.png"):
        assert (photos / f"cold{kind}").read_bytes() == (photos / f"warm{kind}").read_bytes()
        assert load(photos / f"cold{kind}").size > (240, 100)


@pytest.mark.parametrize("format_", FORMATS)
def test_stdout_gets_the_same_bytes_as_a_file(featkit: Run, photos: Path, format_: str) -> None:
    featkit("match", "a.jpg", "b.jpg", "-o", "matches" + format_)

    run = featkit("match", "a.jpg", "b.jpg", "-o", "-", "--format", format_.lstrip("."))

    assert run.returncode == 0
    assert run.stdout == (photos / ("matches" + format_)).read_bytes()
    assert run.stderr == b""


@pytest.mark.parametrize("format_", FORMATS)
def test_check_tells_whole_files_from_damaged_ones(featkit: Run, photos: Path, format_: str) -> None:
    name = "matches" + format_
    featkit("match", "a.jpg", "b.jpg", "c.jpg", "-o", name)
    whole = featkit("match", "--check", name)
    [record] = records_of(featkit("match", "--check", name, "--json"))
    (photos / name).write_bytes((photos / name).read_bytes()[:-1000])
    cut = featkit("match", "--check", name, "--json")

    assert whole.returncode == 0
    assert whole.stdout.startswith(f"{name}: whole, {format_}, 3 images, 3 pairs, ".encode())
    assert (record["type"], record["images"], record["pairs"], record["problems"]) == ("check", 3, 3, [])
    assert cut.returncode == 2
    assert name in complaint_of(cut)
    [record] = records_of(cut)
    assert record.get("code") == "not-whole" or record["problems"]


def test_hloc_lists_name_pairs_in_both_orders(featkit: Run, photos: Path) -> None:
    """All are matched and printed, and each pair is in the file once."""
    (photos / "pairs.txt").write_text("a.jpg b.jpg\nb.jpg a.jpg\n./a.jpg ./b.jpg\n")

    run = featkit("match", "--pairs", "pairs.txt", "-o", "matches.h5", "--json")

    assert pairs_of(run) == [("a", "b"), ("b", "a"), ("a", "b")]
    [record] = records_of(featkit("match", "--check", "matches.h5", "--json"))
    assert (record["images"], record["pairs"]) == (2, 1)


def test_names_in_files_are_relative_to_the_folder_of_all_pictures(featkit: Run, photos: Path) -> None:
    (photos / "left").mkdir()
    (photos / "a.jpg").rename(photos / "left" / "a.jpg")

    featkit("match", photos / "left" / "a.jpg", "b.jpg", "-o", "matches.json")

    names = [image["name"] for image in json.loads((photos / "matches.json").read_bytes())["images"]]
    assert names == ["left/a.jpg", "b.jpg"]


def test_nothing_is_overwritten_unasked(featkit: Run, photos: Path) -> None:
    for option, name in {"-o": "old.npz", "--draw": "old.png", "--draw-warp": "old.jpg"}.items():
        (photos / name).write_bytes(b"precious")

        refused = featkit("match", "a.jpg", "b.jpg", option, name)
        assert refused.returncode == 2
        assert f"{name}: exists already\nhint: --force" in complaint_of(refused)
        assert (photos / name).read_bytes() == b"precious"

        assert featkit("match", "a.jpg", "b.jpg", option, name, "--force").returncode == 0
        assert (photos / name).read_bytes() != b"precious"


def test_a_run_that_reads_nothing_writes_nothing(featkit: Run, photos: Path) -> None:
    run = featkit("match", "a.jpg", "missing.jpg", "-o", "matches.npz", "--draw", "drawn.png")

    assert run.returncode == 2
    assert not (photos / "matches.npz").exists()
    assert not (photos / "drawn.png").exists()


def test_no_transformation_is_no_picture_of_one(featkit: Run, photos: Path) -> None:
    run = featkit("match", "a.jpg", "other.jpg", "--draw-warp", "warped.png", "--draw", "drawn.png")

    assert run.returncode == 3
    assert b"featkit: warning: warped.png is not written: there is no transformation to show\n" in run.stderr
    assert sorted(path.name for path in photos.glob("*.png")) == ["drawn.png"]


def test_a_picture_that_changes_meanwhile_is_not_drawn_over_old_matches(featkit: Run, photos: Path) -> None:
    program = """if True:
        import sys, pathlib
        from featkit.cli import app, match_run
        load = match_run.load
        def replaced(path, options):
            pathlib.Path(path).write_bytes(pathlib.Path("c.jpg").read_bytes())
            return load(path, options)
        match_run.load = replaced
        sys.exit(app.run(["match", "a.jpg", "b.jpg", "--draw", "drawn.png"]))
    """
    featkit("match", "a.jpg", "b.jpg")  # from now on the features come from the cache, and the pixels do not

    run = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=photos, timeout=60)

    assert run.returncode == 2
    assert "it was changed while featkit was at work" in complaint_of(run)
    assert not (photos / "drawn.png").exists()


# --- what is refused

STRANGE = {
    "a.jpg b.jpg --model none --threshold 2": "--threshold belongs to a model",
    "a.jpg b.jpg --model fundamental --draw-warp w.png": "--draw-warp needs a transformation",
    "a.jpg b.jpg --model none --draw-warp w.png": "--draw-warp needs a transformation",
    "a.jpg b.jpg c.jpg --draw d.png": "--draw and --draw-warp show one pair, and these are 3",
    "a.jpg b.jpg --draw d.png --draw-warp ./d.png": "name the same file",
    "a.jpg b.jpg --draw ./b.jpg --force": "./b.jpg: a picture that is matched would be overwritten",
    "a.jpg b.jpg --draw d.gif": "pictures cannot be written as '.gif'",
    "a.jpg b.jpg -o m.mat": "m.mat: there is no match file format .mat",
    "a.jpg b.jpg -o npz": "npz: the match file's name has no ending",
    "a.jpg b.jpg -o nowhere/m.npz": "nowhere/m.npz: there is no folder nowhere",
    "a.jpg a.jpg -o m.npz": "-o holds no pair of a picture with itself",
    "a.jpg b.jpg --format npz": "--format is for -o -",
    "a.jpg b.jpg -o -": "-o - needs --format",
    "a.jpg b.jpg -o - --format mat": "-o - knows no --format mat",
    "a.jpg b.jpg -o - --format npz --json": "-o - and --json both want stdout",
    "a.jpg b.jpg -o - --format npz --explain": "-o - and --explain both want stdout",
    "a.jpg b.jpg --jobs 0": "--jobs must be at least 1",
    "a.jpg b.jpg --ratio 0": "--ratio must lie above 0 and not above 1",
    "a.jpg b.jpg --ratio 2": "--ratio must lie above 0 and not above 1",
    "a.jpg b.jpg --ratio nan": "--ratio must lie above 0 and not above 1",
    "a.jpg b.jpg --ratio high": "'high' is not a valid float",
    "a.jpg b.jpg --one-way --ratio 1": "--one-way with --ratio 1 keeps every keypoint's nearest neighbour",
    "a.jpg b.jpg --max-keypoints 2": "--max-keypoints 2 cannot fix a homography",
    "a.jpg b.jpg --detector surf": "there is no detector 'surf'",
    "a.jpg b.jpg --model rigid": "there is no model 'rigid'",
    "a.jpg b.jpg --threshold 0": "--threshold must lie between",
    "a.jpg b.jpg --float-range 5": "--float-range takes two numbers, not '5'",
    "a.jpg b.jpg --float-range 1,0": "--float-range needs LOW below HIGH",
    "a.jpg b.jpg --treshold 2": "no such option: --treshold",
    "a.jpg b.jpg -o": "option '-o' requires an argument",
    "a.jpg b.jpg -0": "-0 is about a list, and there is none",
    "a.jpg b.jpg --check m.npz": "--check looks at a file that is there",
    "--check m.npz --effort wide": "--check looks at a file that is there",
    "--check m.npz --mask-a a.jpg": "--check looks at a file that is there",
    "--pairs pairs.txt a.jpg": "--pairs names all pictures itself",
    "--pairs empty.txt": "empty.txt: the list of pairs is empty",
    "--pairs broken.txt": "line 2 is not a pair of names: 'a.jpg'",
    "--check m.mat": "m.mat: there is no match file format .mat",
    "- a.jpg": "- means that all names come on stdin",
    "-": "no picture to match, it takes two",
    "a.jpg": "only one picture to match, it takes two",
    "": "no picture to match, it takes two",
    "empty": "empty: there is no picture in this folder",
}


@pytest.mark.parametrize("arguments", STRANGE)
def test_what_makes_no_sense_is_refused_with_a_hint(featkit: Run, photos: Path, arguments: str) -> None:
    (photos / "pairs.txt").write_text("a.jpg b.jpg\n")
    (photos / "broken.txt").write_text("a.jpg b.jpg\na.jpg\n")
    (photos / "empty.txt").touch()
    (photos / "empty").mkdir()
    before = sorted(photos.rglob("*"))

    run = featkit("match", *arguments.split())

    assert run.returncode == 2
    assert run.stdout == b"" or "--json" in arguments
    message, hint = complaint_of(run).splitlines()
    assert STRANGE[arguments] in message
    assert hint.startswith("hint: ")
    assert sorted(photos.rglob("*")) == before


def test_plain_mistakes_need_no_hint(featkit: Run, photos: Path) -> None:
    for arguments, message in {
        ("a.jpg", "missing.jpg"): "missing.jpg: there is no such file\n",
        ("a.jpg", "*.tiff"): "*.tiff: no file matches this pattern\n",
        ("a.jpg", ""): "'': there is no such file\n",
        ("--pairs", "missing.txt"): "missing.txt: there is no such list\n",
        ("--check", "missing.npz"): "missing.npz: there is no such file\n",
    }.items():
        assert complaint_of(featkit("match", *arguments)) == f"featkit: error: {message}"


def test_a_mistake_is_a_record_too(featkit: Run, photos: Path) -> None:
    run = featkit("match", "a.jpg", "b.jpg", "--ratio", "2", "--json")

    [record] = records_of(run)
    assert (record["type"], record["path"], record["code"]) == ("error", None, "usage")


# --- help


def test_featkit_alone_prints_help(featkit: Run) -> None:
    alone, asked = featkit(), featkit("--help")

    assert alone.returncode == asked.returncode == 0
    assert alone.stdout == asked.stdout
    assert b"match" in alone.stdout
    assert b"cache" in alone.stdout


def test_a_mistyped_command_gets_a_suggestion(featkit: Run) -> None:
    run = featkit("macth", "a.jpg", "b.jpg")

    assert run.returncode == 2
    assert "did you mean 'match'" in complaint_of(run).lower()
    assert "hint: see `featkit --help`" in complaint_of(run)


def test_the_installed_command_is_this_one() -> None:
    [command] = entry_points(group="console_scripts", name="featkit")
    assert command.value == "featkit.__main__:main"


def test_the_help_tells_the_real_defaults(featkit: Run) -> None:
    text = " ".join(featkit("match", "--help").stdout.decode().split())
    lines = {part.split()[0]: part for part in re.split(r" (?:-\w, )?(?=--\w)", text)}
    defaults = MatchConfig()

    assert f"({defaults.ratio})" in lines["--ratio"]
    assert f"({defaults.threshold})" in lines["--threshold"]
    assert f"({defaults.seed})" in lines["--seed"]
    assert f"({defaults.max_side};" in lines["--max-side"]
    assert f"{defaults.detector} (default)" in lines["--detector"]
    assert all(name in lines["--detector"] for name in DETECTORS)
    assert f"{defaults.model} (default" in lines["--model"]
    assert all(name in lines["--model"] for name in MODELS)
    assert "Both must be each other's nearest (default)" in lines["--one-way"]
    assert defaults.mutual
    for detector, count in DEFAULT_KEYPOINTS.items():
        assert f"{count} for {detector}" in lines["--max-keypoints"]
    assert f"[default: {DecodeOptions().max_pixels}]" in lines["--max-pixels"]
    assert all(name in lines["--output"] for name in FORMATS)
    assert all(name.lstrip(".") in lines["--format"] for name in FORMATS)


@pytest.mark.parametrize("columns", ["20", "80"])
def test_the_help_fits_any_terminal_and_locale(featkit: Run, columns: str) -> None:
    run = featkit("match", "--help", COLUMNS=columns, LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert run.returncode == 0
    assert run.stderr == b""


# --- terminals


def test_progress_is_shown_on_a_terminal(photos: Path) -> None:
    status, shown = on_terminal(photos, "match", "a.jpg", "b.jpg", "c.jpg", stdout="found.txt")

    assert status == 0
    assert "matching" in shown
    assert "3/3" in shown
    assert "reliable · " not in shown
    assert (photos / "found.txt").read_text().count("reliable · ") == 3


def test_results_on_a_terminal_are_whole_lines_above_the_bar(photos: Path) -> None:
    status, shown = on_terminal(photos, "match", *("./" * 40 + name for name in ("a.jpg", "b.jpg", "c.jpg")))

    assert status == 0
    assert len(re.findall(r"/a\.jpg  (\./)+b\.jpg  reliable · [^\r\n]*px\r\n", shown)) == 1


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_no_progress_is_shown_if_unwanted(photos: Path, option: str) -> None:
    _, shown = on_terminal(photos, "match", "a.jpg", "b.jpg", "c.jpg", option, stdout="found.txt")
    assert shown == ""


def test_no_colour_and_plain_terminals(photos: Path) -> None:
    _, without_colour = on_terminal(photos, "match", "a.jpg", "b.jpg", "c.jpg", stdout="1.txt", NO_COLOR="1")
    _, plain = on_terminal(photos, "match", "a.jpg", "b.jpg", "c.jpg", stdout="2.txt", TERM="dumb")

    assert "matching" in without_colour
    assert not re.search(r"\x1b\[[\d;]*m", without_colour)
    assert plain == "3 pairs: 3 reliable, 0 doubtful, 0 none\r\n"


def test_binary_output_does_not_go_onto_a_terminal(photos: Path) -> None:
    status, shown = on_terminal(photos, "match", "a.jpg", "b.jpg", "-o", "-", "--format", "npz")

    assert status == 2
    assert shown.startswith("featkit: error: binary output does not go onto a terminal\r\nhint: ")
