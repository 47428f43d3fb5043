"""Pictures inside tar archives: found as any program wrote them, read from where they lie, and never anything else."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bad_pictures import pillow, scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featkit.archives import PictureFiles
from featkit.errors import (
    FileMissing,
    FileUnreadable,
    ImageDamaged,
    ImageEmpty,
    ImageUnknown,
    InputError,
    NotAFile,
)
from featkit.images import decode
from featkit.sources import expand

Member = tuple[str, bytes]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def ppm(number: int, side: int = 4) -> bytes:
    """A picture that is known by its number."""
    return b"P6 %d %d 255\n" % (side, side) + bytes([number]) * 3 * side * side


def tar(members: Sequence[Member | tarfile.TarInfo], form: str = "pax") -> bytes:
    """names and bytes; what is no file is given as its header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[form]) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            header = tarfile.TarInfo(member[0])
            header.size = len(member[1])
            archive.addfile(header, io.BytesIO(member[1]))
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write an archive, and give its path."""

    def write(members: Sequence[Member | tarfile.TarInfo] | bytes, name: str = "photos.tar", form: str = "pax") -> str:
        path = tmp_path / name
        path.write_bytes(members if isinstance(members, bytes) else tar(members, form))
        return str(path)

    return write


def names_in(path: str) -> list[str]:
    return [name.removeprefix(f"{path}/") for name in PictureFiles([path]).paths]


class TestWhatIsFound:
    @pytest.mark.parametrize("form", FORMATS)
    def test_pictures_in_their_order(self, form: str, write: Callable[..., str]) -> None:
        members = [(name, ppm(number)) for number, name in enumerate(["b.ppm", "a/10.ppm", "a/b/2.PPM", "a/1.ppm"])]
        path = write(members, form=form)
        files = PictureFiles([path])
        assert files.paths == tuple(f"{path}/{name}" for name, _ in members)
        for number, name in reversed(list(enumerate(files.paths))):
            assert files.read(name) == ppm(number)
            assert (decode(files.read(name)) == number).all()

    @pytest.mark.parametrize("form", ["gnu", "pax"])
    def test_names_that_are_long_or_not_ascii(self, form: str, write: Callable[..., str]) -> None:
        names = ["x" * 300 + "/" + "y" * 200 + ".ppm", "Straße/日本 1.ppm", "a\nb.ppm", "z.ppm"]
        assert names_in(write([(name, ppm(1)) for name in names], form=form)) == names

    @pytest.mark.parametrize("form", FORMATS)
    def test_names_that_are_not_utf_8(self, form: str, write: Callable[..., str]) -> None:
        name = os.fsdecode(b"caf\xe9.ppm")
        path = write([(name, ppm(7))], form=form)
        files = PictureFiles([path])
        assert [os.fsencode(each) for each in files.paths] == [os.fsencode(path) + b"/caf\xe9.ppm"]
        assert files.read(files.paths[0]) == ppm(7)

    def test_other_members_are_passed_over(self, write: Callable[..., str]) -> None:
        members: list[Member | tarfile.TarInfo] = [
            ("0001.json", b"{}"),
            ("0001.cls", b"3"),
            ("0001.ppm", ppm(1)),
            ("README", b"ppm"),
            (".ppm", ppm(2)),
            (".hidden.ppm", ppm(2)),
            ("._0001.ppm", ppm(2)),
            (".thumbnails/0001.ppm", ppm(2)),
            ("./0002.ppm", ppm(2)),
            ("../0003.ppm", ppm(3)),
        ]
        kinds = {
            "folder.ppm": tarfile.DIRTYPE,
            "link.ppm": tarfile.SYMTYPE,
            "hard.ppm": tarfile.LNKTYPE,
            "pipe.ppm": tarfile.FIFOTYPE,
            "device.ppm": tarfile.CHRTYPE,
            "block.ppm": tarfile.BLKTYPE,
        }
        for name, kind in kinds.items():
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "0001.ppm"
            members.insert(3, header)
        path = write(members)
        files = PictureFiles([path])
        assert names_in(path) == ["0001.ppm", "./0002.ppm", "../0003.ppm"]
        assert [files.read(name) for name in files.paths] == [ppm(1), ppm(2), ppm(3)]

    def test_a_file_with_holes_is_passed_over(self, tmp_path: Path) -> None:
        """GNU tar stores such a one in pieces."""
        with (tmp_path / "holes.pgm").open("wb") as file:
            file.write(b"P5 2000 2000 255\n")
            file.truncate(4_000_017)
        (tmp_path / "whole.ppm").write_bytes(ppm(1))
        for form in ("gnu", "posix"):
            path = tmp_path / f"{form}.tar"
            command = ["tar", "--sparse", f"--format={form}", "-cf", path, "-C", tmp_path, "holes.pgm", "whole.ppm"]
            if subprocess.run(command, capture_output=True).returncode != 0:
                pytest.skip("there is no GNU tar here")
            assert path.stat().st_size < 100_000
            assert names_in(str(path)) == ["whole.ppm"]

    def test_of_two_with_one_name_the_second_counts(self, write: Callable[..., str]) -> None:
        path = write([("a.ppm", ppm(1)), ("b.ppm", ppm(2)), ("a.ppm", ppm(3))])
        files = PictureFiles([path])
        assert names_in(path) == ["a.ppm", "b.ppm"]
        assert [files.read(name) for name in files.paths] == [ppm(3), ppm(2)]

    def test_files_and_several_archives(self, write: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "own.ppm").write_bytes(ppm(9))
        one, other = (write([("a.ppm", ppm(number))], f"{number}.TAR") for number in (1, 2))
        named = [other, str(tmp_path / "own.ppm"), one, str(tmp_path / "missing.ppm")]
        files = PictureFiles(named)
        assert files.paths == (f"{other}/a.ppm", named[1], f"{one}/a.ppm", named[3])
        assert [files.read(name) for name in files.paths[:3]] == [ppm(2), ppm(9), ppm(1)]
        with pytest.raises(FileMissing):
            files.read(named[3])

    def test_archives_are_named_and_not_looked_for(self, write: Callable[..., str], tmp_path: Path) -> None:
        """A folder stands for the pictures in it; a glob and a name are what they say."""
        path = write([("inside.ppm", ppm(1))])
        (tmp_path / "beside.ppm").write_bytes(ppm(2))
        assert expand([str(tmp_path)]) == [str(tmp_path / "beside.ppm")]
        assert PictureFiles(expand([path, str(tmp_path / "*.tar")])).paths == (f"{path}/inside.ppm",) * 2

    def test_a_folder_with_that_ending(self, tmp_path: Path) -> None:
        folder = tmp_path / "old.tar"
        folder.mkdir()
        (folder / "a.ppm").write_bytes(ppm(1))
        files = PictureFiles(expand([str(folder)]))
        assert files.paths == (str(folder / "a.ppm"),)
        assert files.read(files.paths[0]) == ppm(1)
        with pytest.raises(NotAFile, match="not a tar archive"):
            PictureFiles([str(folder)])

    def test_an_archive_without_its_end_mark(self, write: Callable[..., str]) -> None:
        """Some programs do not write those two blocks, and tar does not mind."""
        whole = tar([("a.ppm", ppm(1)), ("b.ppm", ppm(2))], "ustar")
        for blocks in (4, 5):
            assert names_in(write(whole[: blocks * 512])) == ["a.ppm", "b.ppm"]


class TestReading:
    def test_threads_in_any_order(self, write: Callable[..., str]) -> None:
        path = write([(f"{number}.ppm", ppm(number, side=40)) for number in range(60)])
        files = PictureFiles([path])
        order = np.random.default_rng(0).permutation(np.repeat(np.arange(60), 4))
        with ThreadPoolExecutor(4) as pool:
            for number, data in zip(order, pool.map(files.read, [files.paths[each] for each in order]), strict=True):
                assert data == ppm(number, side=40)

    def test_what_is_no_picture(self, write: Callable[..., str]) -> None:
        path = write([("empty.jpg", b""), ("text.jpg", b"this is a text")])
        files = PictureFiles([path])
        for name, error in zip(files.paths, (ImageEmpty, ImageUnknown), strict=True):
            with pytest.raises(error) as caught:
                files.read(name)
            assert caught.value.path == name

    def test_a_picture_that_was_cut_off_before_it_was_archived(self, write: Callable[..., str]) -> None:
        data = pillow(scene(), "JPEG")
        path = write([("cut.jpg", data[: len(data) // 2])])
        files = PictureFiles([path])
        with pytest.raises(ImageDamaged):
            decode(files.read(files.paths[0]))

    def test_an_archive_that_was_cut_off_since(self, write: Callable[..., str]) -> None:
        path = write([("a.ppm", ppm(1)), ("b.ppm", ppm(2, side=40))], form="ustar")
        files = PictureFiles([path])
        os.truncate(path, 2000)
        assert files.read(files.paths[0]) == ppm(1)
        with pytest.raises(ImageDamaged) as caught:
            files.read(files.paths[1])
        assert caught.value.path == files.paths[1]
        os.unlink(path)  # noqa: PTH108
        with pytest.raises(FileMissing) as gone:
            files.read(files.paths[0])
        assert gone.value.path == path


class TestRefusals:
    @pytest.mark.parametrize("name", ["a.tgz", "a.tar.gz", "a.TAR.BZ2", "a.tar.xz", "a.tar.zst"])
    def test_compressed_archives(self, name: str, write: Callable[..., str]) -> None:
        path = write(gzip.compress(tar([("a.ppm", ppm(1))])), name)
        with pytest.raises(InputError, match="compressed archive") as caught:
            PictureFiles([path])
        assert caught.value.path == path
        assert "uncompress it first" in str(caught.value.hint)

    def test_one_that_is_compressed_in_spite_of_its_name(self, write: Callable[..., str]) -> None:
        path = write(gzip.compress(tar([("a.ppm", ppm(1))])))
        with pytest.raises(InputError, match="no tar archive") as caught:
            PictureFiles([path])
        assert caught.value.path == path

    @pytest.mark.parametrize("data", [b"", b"\0" * 512, b"\0" * 10240, b"text " * 500, ppm(1)])
    def test_what_is_no_archive_or_has_nothing_in_it(self, data: bytes, write: Callable[..., str]) -> None:
        path = write(data)
        with pytest.raises(InputError, match=r"no tar archive|no picture") as caught:
            PictureFiles([path])
        assert caught.value.path == path

    def test_an_archive_without_pictures(self, write: Callable[..., str]) -> None:
        with pytest.raises(InputError, match="no picture in this archive"):
            PictureFiles([write([("a.txt", b"text"), (".a.ppm", ppm(1))])])

    def test_one_that_is_not_there_or_may_not_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(FileMissing):
            PictureFiles([str(tmp_path / "none.tar")])
        os.mkfifo(tmp_path / "pipe.tar")
        with pytest.raises(NotAFile):
            PictureFiles([str(tmp_path / "pipe.tar")])

    @pytest.mark.parametrize("form", FORMATS)
    def test_one_that_is_cut_off(self, form: str, write: Callable[..., str]) -> None:
        """Anywhere but between two members, where it might as well be whole."""
        members = [("a.ppm", ppm(1)), ("x" * 90 + ".ppm", ppm(2, side=20)), ("b.ppm", ppm(3))]
        whole = tar(members, form)
        for length in (1, 511, 513, 1023, 1025, 1535, 1600, 2047, 2700, 3071):
            with pytest.raises(InputError) as caught:
                PictureFiles([write(whole[:length])])
            assert not isinstance(caught.value, FileUnreadable)

    def test_a_header_that_is_damaged(self, write: Callable[..., str]) -> None:
        """Not only the first: what comes after it would be left out without a word."""
        whole = tar([(f"{number}.ppm", ppm(number)) for number in range(3)], "ustar")
        for start in (0, 1024, 2048):
            with pytest.raises(InputError, match="damaged"):
                PictureFiles([write(whole[:start] + b"\xff" + whole[start + 1 :])])

    def test_a_size_below_0(self, write: Callable[..., str]) -> None:
        """Which leads back to where it stands."""
        header = bytearray(tar([("a.ppm", b"")], "gnu")[:512])
        for size in (b"\xff" * 10 + b"\xfe\x00", b"\xff" * 11 + b"\x00"):  # -512, -256
            header[124:136] = size
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            with pytest.raises(InputError, match="damaged"):
                PictureFiles([write(bytes(header) * 3 + bytes(1024))])

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        form=st.sampled_from([*FORMATS, "sparse"]),
        changes=st.lists(st.tuples(st.integers(0, 4095), st.binary(min_size=1, max_size=12)), min_size=1, max_size=4),
        length=st.integers(0, 6000),
    )
    def test_whatever_is_damaged_is_an_error_of_ours(
        self, form: str, changes: list[tuple[int, bytes]], length: int, write: Callable[..., str]
    ) -> None:
        data = bytearray(SPARSE if form == "sparse" else tar([("é" * 45 + ".ppm", ppm(1)), ("b.ppm", ppm(2))], form))
        for at, replaced in changes:
            data[at : at + len(replaced)] = replaced
        for block in range(0, 2048, 512):  # with checksums that are right, more of it is believed
            data[block + 148 : block + 156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
        path = write(bytes(data[:length]))
        with contextlib.suppress(InputError):
            files = PictureFiles([path])
            for name in files.paths:
                files.read(name)


def _sparse() -> bytes:
    """The header of a file with holes, of which more blocks say where they are, as GNU tar has it."""
    header = bytearray(tar([("a.ppm", b"")], "gnu")[:512])
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"00000000000\0" + b"00000001000\0"
    header[482] = 1
    header[483:495] = b"00000010000\0"
    return bytes(header) + bytes(504) + b"\1" + bytes(7) + bytes(1024)


SPARSE = _sparse()
