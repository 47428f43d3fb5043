"""A file of poses gives back what went in, knows its photos by their bytes, and is refused in one way if it is none."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from known_cameras import camera, turned
from PIL import Image

from featkit.errors import FileMissing, FileUnreadable, OutputExists, PosesMalformed, UsageError
from featkit.stitching.photos import Source
from featkit.stitching.poses import Pair, Poses, chosen, read_poses, write_poses
from featkit.stitching.views import View

SIZE = (32, 24)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`tmp_path`, with 1.png … 5.png, each of another colour."""
    for number in range(1, 6):
        Image.new("RGB", SIZE, (40 * number, 10, 90)).save(tmp_path / f"{number}.png")
    return tmp_path


def source(path: Path) -> Source:
    return Source(str(path), sha256(path.read_bytes()).hexdigest(), SIZE)


@pytest.fixture
def panoramas(folder: Path) -> list[Poses]:
    """Three photos from one place, and two of something flat."""
    turning = Poses(
        "rotation",
        tuple(source(folder / f"{number}.png") for number in (1, 2, 3)),
        tuple(camera(turned(20.0 * number, 1 / 3), 31.7, SIZE, (-0.1 / 3, 1e-3)) for number in range(3)),
        (Pair(0, 1, 120, 0.123456789), Pair(1, 2, 80, None)),
        0.3,
        1.7,
    )
    flat = Poses(
        "planar",
        tuple(source(folder / f"{number}.png") for number in (4, 5)),
        (View(SIZE, np.eye(3)), View(SIZE, np.array([[1.1, 0.01, 12], [-0.02, 1, 3], [1e-5, 0, 1]]))),
        (Pair(0, 1, 33, 0.5),),
        None,
        None,
    )
    return [turning, flat]


def assert_same(found: list[Poses], expected: list[Poses]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.model, one.pairs) == (other.model, other.pairs)
        assert (one.held_out_median_px, one.held_out_p95_px) == (other.held_out_median_px, other.held_out_p95_px)
        for seen, known in zip(one.sources, other.sources, strict=True):
            assert (seen.sha256, seen.size) == (known.sha256, known.size)
            assert Path(seen.path).samefile(known.path)
        for view, same in zip(one.views, other.views, strict=True):
            assert (view.size, view.focal_px, view.distortion) == (same.size, same.focal_px, same.distortion)
            np.testing.assert_array_equal(view.to_world, same.to_world)


class TestThereAndBack:
    def test_every_digit(self, panoramas: list[Poses], folder: Path) -> None:
        write_poses(folder / "poses.json", panoramas)
        assert_same(read_poses(folder / "poses.json"), panoramas)

    def test_it_is_a_record(self, panoramas: list[Poses], folder: Path) -> None:
        write_poses(folder / "poses.json", panoramas)
        content = json.loads((folder / "poses.json").read_text())
        assert (content["v"], content["type"]) == (1, "poses")
        assert [image["path"] for image in content["panoramas"][0]["images"]] == ["1.png", "2.png", "3.png"]

    def test_paths_are_relative_to_the_file(
        self, panoramas: list[Poses], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The whole folder may move, and be read from anywhere."""
        (folder / "below").mkdir()
        write_poses(folder / "below" / "poses.json", panoramas)
        moved = folder.with_name(folder.name + "-moved")
        shutil.move(folder, moved)
        monkeypatch.chdir(moved / "below")

        found = read_poses("poses.json")

        assert [Path(each.path).resolve() for each in found[1].sources] == [moved / "4.png", moved / "5.png"]

    def test_a_path_elsewhere(self, panoramas: list[Poses], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        (folder / "out").mkdir()
        write_poses("out/poses.json", panoramas)
        found = read_poses("out/poses.json")
        assert [each.path for each in found[0].sources] == ["1.png", "2.png", "3.png"]

    def test_an_older_file_is_kept(self, panoramas: list[Poses], folder: Path) -> None:
        (folder / "poses.json").write_text("mine")
        with pytest.raises(OutputExists):
            write_poses(folder / "poses.json", panoramas)
        assert (folder / "poses.json").read_text() == "mine"
        write_poses(folder / "poses.json", panoramas, force=True)
        assert_same(read_poses(folder / "poses.json"), panoramas)

    def test_no_panorama_at_all(self, folder: Path) -> None:
        write_poses(folder / "poses.json", [])
        assert read_poses(folder / "poses.json") == []


class TestChoosing:
    def paths(self, folder: Path, *numbers: int) -> list[str]:
        return [str(folder / f"{number}.png") for number in numbers]

    def test_nothing_named_is_everything(self, panoramas: list[Poses]) -> None:
        assert chosen(panoramas, []) == (panoramas, {})

    def test_some_of_the_photos(self, panoramas: list[Poses], folder: Path) -> None:
        """Of the pairs those are left of which both photos are; in the order of the file."""
        [found], left = chosen(panoramas, self.paths(folder, 3, 2))
        assert left == {}
        assert [each.path for each in found.sources] == self.paths(folder, 2, 3)
        assert found.views == panoramas[0].views[1:]
        assert found.pairs == (Pair(0, 1, 80, None),)

    def test_of_two_panoramas(self, panoramas: list[Poses], folder: Path) -> None:
        found, left = chosen(panoramas, self.paths(folder, 1, 3, 4, 5))
        assert left == {}
        assert [len(each.sources) for each in found] == [2, 2]
        assert [each.pairs for each in found] == [(), panoramas[1].pairs]

    def test_one_photo_of_a_panorama_is_none(self, panoramas: list[Poses], folder: Path) -> None:
        [found], left = chosen(panoramas, self.paths(folder, 1, 4, 5))
        assert found.model == "planar"
        assert left == {str(folder / "1.png"): "no other photo of its panorama is named"}

    def test_a_photo_that_was_renamed(self, panoramas: list[Poses], folder: Path) -> None:
        (folder / "elsewhere").mkdir()
        (folder / "2.png").rename(folder / "elsewhere" / "b.png")
        new = str(folder / "elsewhere" / "b.png")
        [found], _ = chosen(panoramas, [new, *self.paths(folder, 1)])
        assert [each.path for each in found.sources] == [*self.paths(folder, 1), new]

    def test_a_photo_that_has_changed(self, panoramas: list[Poses], folder: Path) -> None:
        Image.new("RGB", SIZE).save(folder / "2.png")
        [found], left = chosen(panoramas, self.paths(folder, 1, 2, 3))
        assert [each.path for each in found.sources] == self.paths(folder, 1, 3)
        assert list(left) == self.paths(folder, 2)
        assert "it is not in the file of poses" in left[str(folder / "2.png")]

    def test_a_photo_that_is_named_twice(self, panoramas: list[Poses], folder: Path) -> None:
        copy_of_1 = str(shutil.copy(folder / "1.png", folder / "copy.png"))
        [found], left = chosen(panoramas, [*self.paths(folder, 1, 2), copy_of_1])
        assert [each.path for each in found.sources] == self.paths(folder, 1, 2)
        assert left == {copy_of_1: f"it is the same picture as {folder / '1.png'}"}

    def test_too_few(self, panoramas: list[Poses], folder: Path) -> None:
        for numbers in ([1], [1, 4]):
            with pytest.raises(UsageError, match="no two of these photos"):
                chosen(panoramas, self.paths(folder, *numbers))

    def test_a_photo_that_is_not_there(self, panoramas: list[Poses], folder: Path) -> None:
        with pytest.raises(FileMissing):
            chosen(panoramas, [*self.paths(folder, 1, 2), str(folder / "6.png")])


# --- files that are none


def walk(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a JSON document is."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, each in inner for place in walk(each, (*at, key)))]


def changed(document: Any, at: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value there; `...` takes it away."""
    if not at:
        return value
    document = copy.deepcopy(document)
    inner = document
    for key in at[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return document


@pytest.fixture
def document(panoramas: list[Poses], folder: Path) -> Any:
    write_poses(folder / "good.json", panoramas)
    return json.loads((folder / "good.json").read_text())


def refusal(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PosesMalformed) as caught:
        read_poses(path)
    assert caught.value.path == str(path)
    assert caught.value.hint
    return caught.value.message


IMAGE = ("panoramas", 0, "images", 0)
ZEROS = [[0.0] * 3] * 3
Change = Callable[[Any], Any]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
anything = json_values | st.just(...)


class TestMalformed:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "it is no JSON, or not all of it"),
            ("{", "it is no JSON, or not all of it"),
            ("[]", "not of poses"),
            ("null", "not of poses"),
            ('"poses"', "not of poses"),
            ("{}", "not of poses"),
            ('{"type": "poses"}', "version None"),
            ('{"type": "poses", "v": 2}', "version 2"),
            ('{"type": "poses", "v": 1}', "no 'panoramas'"),
            ('{"type": "poses", "v": 1, "panoramas": {}}', "list"),
            ('{"type": "poses", "v": 1, "panoramas": [1]}', ""),
            ('{"type": "poses", "v": 1, "panoramas": [NaN]}', "NaN"),
            ('{"type": "match", "v": 1}', "not of poses"),
            pytest.param("[" * 100_000, "", id="deep"),
            (b"\xff\xfe\x00{", ""),
            (b"\x89PNG\r\n\x1a\n", ""),
            pytest.param('{"type": "poses", "v": 1, "panoramas": ' + "9" * 5000 + "}", "", id="long"),
        ],
        ids=repr,
    )
    def test_it_is_something_else(self, text: str | bytes, reason: str, tmp_path: Path) -> None:
        assert reason in refusal(tmp_path / "poses.json", text)

    @pytest.mark.parametrize(
        ("at", "value", "reason"),
        [
            (("panoramas", 0, "model"), "fisheye", "model"),
            (("panoramas", 0, "model"), "planar", "focal"),
            (("panoramas", 1, "model"), "rotation", "focal"),
            (("panoramas", 0, "images"), [], "two photos"),
            (("panoramas", 0, "pairs", 0, "a"), 3, "between 0 and 2"),
            (("panoramas", 0, "pairs", 0, "a"), -1, "between 0 and 2"),
            (("panoramas", 0, "pairs", 0, "b"), True, "True"),
            (("panoramas", 0, "pairs", 0, "matches"), 1.5, "1.5"),
            (("panoramas", 0, "pairs", 0, "held_out_px"), "1", "'1'"),
            (("panoramas", 0, "held_out_px"), ..., "held_out_px"),
            ((*IMAGE, "path"), 5, "text"),
            ((*IMAGE, "sha256"), None, "text"),
            ((*IMAGE, "size"), [0, 24], "between"),
            ((*IMAGE, "size"), [32], ""),
            ((*IMAGE, "size"), [32, 24, 3], ""),
            ((*IMAGE, "size"), [10**7, 24], "between"),
            ((*IMAGE, "to_world"), [[1, 0], [0, 1]], "inverted"),
            ((*IMAGE, "to_world"), [[1, 0, 0], [0, 1, 0]], "inverted"),
            ((*IMAGE, "to_world"), [[1, 0, 0], [0, 1], [0, 0, 1]], ""),
            ((*IMAGE, "to_world"), [], ""),
            ((*IMAGE, "to_world"), ZEROS, "inverted"),
            ((*IMAGE, "to_world"), [[1, 2, 3], [2, 4, 6], [0, 0, 1]], "inverted"),
            ((*IMAGE, "to_world", 1, 1), 1e300, "1e+300"),
            ((*IMAGE, "to_world", 1, 1), None, "None"),
            ((*IMAGE, "focal_px"), 0, "focal"),
            ((*IMAGE, "focal_px"), -31.0, "focal"),
            ((*IMAGE, "focal_px"), None, "focal"),
            ((*IMAGE, "distortion"), [0.1], ""),
            ((*IMAGE, "distortion"), {"k1": 0, "k2": 0}, "'k1'"),
        ],
        ids=str,
    )
    def test_a_value_that_makes_no_sense(
        self, at: tuple[Any, ...], value: Any, reason: str, document: Any, tmp_path: Path
    ) -> None:
        assert reason in refusal(tmp_path / "poses.json", json.dumps(changed(document, at, value)))

    def test_infinite_numbers(self, document: Any, tmp_path: Path) -> None:
        for value in (np.inf, -np.inf, np.nan):
            text = json.dumps(changed(document, (*IMAGE, "focal_px"), value))
            assert "is no number" in refusal(tmp_path / "poses.json", text)

    @given(data=st.data())
    @settings(
        max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_whatever_else_it_holds(self, data: st.DataObject, document: Any, tmp_path: Path) -> None:
        """Up to three values of a good file replaced: it is read, or refused, and never anything else."""
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.sampled_from(walk(document)[1:]))
            document = changed(document, at, data.draw(anything))
        path = tmp_path / "poses.json"
        path.write_text(json.dumps(document))
        for poses in _read_or_refused(path):
            assert len(poses.sources) == len(poses.views) >= 2
            for view in poses.views:
                assert np.isfinite(np.linalg.inv(view.to_world)).all()
                assert (view.focal_px is None) == (poses.model == "planar")

    @given(data=st.data())
    @settings(
        max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_bytes_lost_and_swapped(self, data: st.DataObject, document: Any, tmp_path: Path) -> None:
        text = bytearray(json.dumps(document).encode())
        first = data.draw(st.integers(0, len(text) - 1))
        text[first : first + data.draw(st.integers(0, 300))] = data.draw(st.binary(max_size=4))
        path = tmp_path / "poses.json"
        path.write_bytes(text)
        assert all(len(poses.views) >= 2 for poses in _read_or_refused(path))

    def test_too_large_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "poses.json"
        with path.open("wb") as file:
            file.truncate((64 << 20) + 1)
        with pytest.raises(PosesMalformed, match="too large"):
            read_poses(path)


def _read_or_refused(path: Path) -> list[Poses]:
    """Nothing where the file is refused; any other exception is a defect."""
    try:
        return read_poses(path)
    except PosesMalformed:
        return []


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        read_poses(tmp_path / "poses.json")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable):
        read_poses(tmp_path)
