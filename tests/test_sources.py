"""What the user pointed at becomes a list of names, in a stated order."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featkit import sources
from featkit.errors import FileMissing, FileUnreadable, InputError, ListMalformed, NotAFile


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names(found: list[str], folder: Path) -> list[str]:
    return [str(Path(name).relative_to(folder)) for name in found]


# --- expand


def test_files_are_kept_in_the_order_given_even_if_missing() -> None:
    given_names = ["z.jpg", "a.jpg", "no such file.png", "z.jpg", "notes.txt"]
    assert sources.expand(given_names) == given_names


def test_a_folder_is_its_pictures_in_natural_order(tmp_path: Path) -> None:
    touch(
        tmp_path, "img10.jpg", "img2.jpg", "IMG3.JPG", "notes.txt", ".hidden.png", "._img2.jpg", "a.webp", "sub/b.png"
    )
    (tmp_path / "folder.png").mkdir()
    assert names(sources.expand([str(tmp_path)]), tmp_path) == ["a.webp", "img2.jpg", "IMG3.JPG", "img10.jpg"]


def test_recursive_adds_the_sub_folders_after_the_files(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a2/x.png", "a10/y.png", "a2/deep/z.png", ".git/no.png")
    (tmp_path / "a2" / "loop").symlink_to(tmp_path)
    found = names(sources.expand([str(tmp_path)], recursive=True), tmp_path)
    assert found == ["b.png", "a2/x.png", "a2/deep/z.png", "a10/y.png"]


def test_a_glob_that_names_no_file_is_its_matches(tmp_path: Path) -> None:
    touch(tmp_path, "img10.jpg", "img2.jpg", "img1.png", "sub/img3.jpg")
    assert names(sources.expand([str(tmp_path / "*.jpg")]), tmp_path) == ["img2.jpg", "img10.jpg"]
    assert names(sources.expand([str(tmp_path / "**" / "*3.jpg")]), tmp_path) == ["sub/img3.jpg"]
    assert names(sources.expand([str(tmp_path / "s*")]), tmp_path) == ["sub/img3.jpg"]


def test_an_existing_name_with_brackets_is_no_glob(tmp_path: Path) -> None:
    touch(tmp_path, "img[1].jpg", "img1.jpg")
    assert names(sources.expand([str(tmp_path / "img[1].jpg")]), tmp_path) == ["img[1].jpg"]


def test_names_of_any_bytes_survive(tmp_path: Path) -> None:
    odd = ["a b.png", " leading.png", "two\nlines.png"]
    touch(tmp_path, *odd)
    try:
        touch(tmp_path, os.fsdecode(b"\xff.png"))
        odd.append(os.fsdecode(b"\xff.png"))
    except OSError:  # a file system that takes UTF-8 alone
        pass
    assert sorted(names(sources.expand([str(tmp_path)]), tmp_path)) == sorted(odd)


def test_a_folder_without_pictures_is_an_error_that_helps(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(InputError, match="no picture") as caught:
        sources.expand([str(tmp_path)])
    assert ".jpg" in str(caught.value.hint)
    touch(tmp_path, "sub/a.png")
    with pytest.raises(InputError) as caught:
        sources.expand([str(tmp_path)])
    assert "--recursive" in str(caught.value.hint)
    assert caught.value.path == str(tmp_path)


def test_a_glob_without_matches_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file matches"):
        sources.expand([str(tmp_path / "*.jpg")])


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FileUnreadable, match="Permission denied"):
        sources.expand([str(tmp_path)])


def test_natural_order_is_total() -> None:
    ordered = ["1", "2", "10", "a", "A1", "a1", "a01", "a2b10", "a2b9"]
    keys = [sources.natural_key(name) for name in ordered]
    assert len(set(map(str, keys))) == len(ordered)
    assert sorted(["img10", "img9", "Img8"], key=sources.natural_key) == ["Img8", "img9", "img10"]


@given(st.lists(st.text()))
def test_any_names_can_be_sorted(texts: list[str]) -> None:
    backwards = texts[::-1]
    assert sorted(texts, key=sources.natural_key) == sorted(backwards, key=sources.natural_key)


# --- lists


def test_a_list_has_a_name_a_line() -> None:
    stream = io.BytesIO(b"a.jpg\n\nb c.jpg\r\n \n trailing space .png\nlast")
    assert sources.read_list(stream) == ["a.jpg", "b c.jpg", " trailing space .png", "last"]


def test_a_list_with_nul_holds_any_name() -> None:
    stream = io.BytesIO(b"a.jpg\0two\nlines.png\0\xff.png\0\0last")
    assert sources.read_list(stream, nul=True) == ["a.jpg", "two\nlines.png", os.fsdecode(b"\xff.png"), "last"]


def test_names_that_are_not_utf_8_survive_a_list() -> None:
    (name,) = sources.read_list(io.BytesIO(b"caf\xe9.jpg\n"))
    assert os.fsencode(name) == b"caf\xe9.jpg"


def test_an_editors_byte_order_mark_is_no_name() -> None:
    assert sources.read_list(io.BytesIO(b"\xef\xbb\xbfa.jpg\r\n")) == ["a.jpg"]


def test_an_empty_list_is_empty() -> None:
    assert sources.read_list(io.BytesIO(b"")) == []
    assert sources.read_list(io.BytesIO(b""), nul=True) == []


@pytest.mark.parametrize(
    ("content", "nul", "words"),
    [
        (b"a.jpg\nb.jpg\0c.jpg\0", False, "line 2 holds a NUL"),
        (b"a.jpg\nb.jpg\n", True, "no NUL"),
        ("a.jpg\n".encode("utf-16"), False, "UTF-16"),
    ],
)
def test_a_list_of_another_kind_is_recognised(content: bytes, nul: bool, words: str) -> None:
    with pytest.raises(ListMalformed, match=words) as caught:
        sources.read_list(io.BytesIO(content), nul=nul)
    assert caught.value.hint


# --- pairs


def test_pairs_are_separated_by_a_tab_or_by_one_space() -> None:
    stream = io.BytesIO(b"# made by hand\na.jpg b.jpg\n\nwith space.jpg\tother one.jpg\r\nc d\n")
    assert sources.read_pairs(stream) == [("a.jpg", "b.jpg"), ("with space.jpg", "other one.jpg"), ("c", "d")]


def test_pairs_with_nul_are_taken_two_by_two() -> None:
    stream = io.BytesIO(b"a b\0c\nd\0#e\0f\0")
    assert sources.read_pairs(stream, nul=True) == [("a b", "c\nd"), ("#e", "f")]
    with pytest.raises(ListMalformed, match="no partner: there are 3"):
        sources.read_pairs(io.BytesIO(b"a\0b\0c\0"), nul=True)


@pytest.mark.parametrize("line", [b"alone.jpg", b"a b c", b"a  b", b"a\tb\tc", b"a\t", b"\tb", b" b", b"a "])
def test_a_malformed_pair_names_its_line(line: bytes) -> None:
    with pytest.raises(ListMalformed, match="line 3 ") as caught:
        sources.read_pairs(io.BytesIO(b"# comment\na b\n" + line + b"\n"))
    assert "tab" in str(caught.value.hint)


@given(st.lists(st.tuples(*[st.text(st.characters(blacklist_characters="\t\n\r\0#", codec="utf-8"), min_size=1)] * 2)))
def test_pairs_written_with_tabs_come_back(pairs: list[tuple[str, str]]) -> None:
    pairs = [pair for pair in pairs if all(name.strip() for name in pair)]
    content = "".join(f"{a}\t{b}\n" for a, b in pairs).encode()
    if not content.startswith(b"\xef\xbb\xbf"):
        assert sources.read_pairs(io.BytesIO(content)) == pairs


# --- where lists come from


def test_a_list_is_opened_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a.jpg\n")
    with sources.open_list(str(tmp_path / "list.txt")) as stream:
        assert sources.read_list(stream) == ["a.jpg"]


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\n")))
    with sources.open_list("-") as stream:
        assert sources.read_list(stream) == ["a.jpg"]
    assert not sys.stdin.closed


def test_a_list_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, error in ((tmp_path / "none", FileMissing), (tmp_path, NotAFile), (tmp_path / "none" / "x", FileMissing)):
        with pytest.raises(error), sources.open_list(str(name)):
            pass
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(FileUnreadable, match="closed"), sources.open_list("-"):
        pass


def test_errors_of_whoever_reads_a_list_stay_their_own(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a.jpg\n")
    with pytest.raises(FileNotFoundError), sources.open_list(str(tmp_path / "list.txt")):
        raise FileNotFoundError
