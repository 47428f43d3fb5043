"""Labelled pictures: where they lie, what a table says of them, what is refused, and what is held out."""

from __future__ import annotations

import os
import re
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.archives import PictureFiles
from featkit.datasets import Dataset, Split, dataset_of_paths, hold_out, read_dataset
from featkit.errors import (
    DatasetMalformed,
    FeatkitError,
    FileMissing,
    FileUnreadable,
    InputError,
    UsageError,
)


def touch(folder: Path, *names: str) -> None:
    """Files whose content is no picture: nothing here opens one."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def labelled(split: Split | None, folder: Path) -> list[tuple[str, str]]:
    """(path below folder, label) of each picture."""
    assert split is not None
    return [(str(Path(path).relative_to(folder)), label) for path, label in zip(split.paths, split.labels, strict=True)]


def about(failures: tuple[FeatkitError, ...], folder: Path) -> list[str]:
    """What the failures are about, once it is sure that each is an InputError that says something."""
    assert all(isinstance(failure, InputError) and failure.message and failure.path for failure in failures)
    return [str(Path(failure.path or "").relative_to(folder)) for failure in failures]


class TestClassFolders:
    def test_the_name_of_the_folder_is_the_label_and_the_order_is_natural(self, tmp_path: Path) -> None:
        touch(tmp_path, "b10/img10.jpg", "b10/img2.PNG", "b2/x.webp", "b10/notes.txt", "b10/.hidden.png", ".git/a.png")

        dataset = read_dataset(str(tmp_path))

        assert labelled(dataset.train, tmp_path) == [
            ("b2/x.webp", "b2"),
            ("b10/img2.PNG", "b10"),
            ("b10/img10.jpg", "b10"),
        ]
        assert (dataset.validation, dataset.test, dataset.failures) == (None, None, ())

    def test_folders_inside_belong_to_their_class(self, tmp_path: Path) -> None:
        touch(tmp_path, "cat/old/2019/a.jpg", "cat/b.jpg", "dog/c.jpg")
        (tmp_path / "cat" / "loop").symlink_to(tmp_path)

        found = labelled(read_dataset(str(tmp_path)).train, tmp_path)

        assert found == [("cat/b.jpg", "cat"), ("cat/old/2019/a.jpg", "cat"), ("dog/c.jpg", "dog")]

    def test_a_link_to_a_folder_is_a_class(self, tmp_path: Path) -> None:
        touch(tmp_path, "elsewhere/pictures/a.jpg", "data/dog/b.jpg")
        (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere" / "pictures")

        assert read_dataset(str(tmp_path / "data")).train.labels == ("cat", "dog")

    def test_a_class_without_pictures_is_a_failure_and_the_rest_stands(self, tmp_path: Path) -> None:
        touch(tmp_path, "cat/a.jpg", "dog/b.jpg", "eel/notes.txt")
        (tmp_path / "fox").mkdir()

        dataset = read_dataset(str(tmp_path))

        assert dataset.train.labels == ("cat", "dog")
        assert about(dataset.failures, tmp_path) == ["eel", "fox"]
        assert all("no picture" in failure.message and failure.hint for failure in dataset.failures)

    def test_a_class_that_cannot_be_listed_is_a_failure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "cat/a.jpg", "dog/b.jpg")
        scandir = os.scandir

        def refuse(path: str) -> object:
            if path.endswith("cat"):
                raise PermissionError(13, "Permission denied")
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        dataset = read_dataset(str(tmp_path))

        assert dataset.train.labels == ("dog",)
        assert isinstance(dataset.failures[0], FileUnreadable)
        assert about(dataset.failures, tmp_path) == ["cat"]

    def test_pictures_beside_the_classes_are_one_failure_with_their_number(self, tmp_path: Path) -> None:
        touch(tmp_path, "cat/a.jpg", "dog/b.jpg", "1.jpg", "2.jpg", "3.txt")

        dataset = read_dataset(str(tmp_path))

        assert dataset.train.labels == ("cat", "dog")
        assert about(dataset.failures, tmp_path) == ["."]
        assert dataset.failures[0].message == "the pictures in this folder belong to no class: 2"
        assert dataset.failures[0].hint

    @pytest.mark.parametrize("names", [[], ["1.jpg", "2.jpg"], ["cat/notes.txt", "dog/notes.txt"], [".cat/1.jpg"]])
    def test_without_any_class_it_says_how_a_dataset_looks(self, tmp_path: Path, names: list[str]) -> None:
        touch(tmp_path, *names)

        with pytest.raises(DatasetMalformed, match="no class folder with pictures") as caught:
            read_dataset(str(tmp_path))

        assert caught.value.path == str(tmp_path)
        assert "DATA/cat/1.jpg" in str(caught.value.hint)
        assert caught.value.code == "dataset"

    def test_classes_that_yield_nothing_say_why(self, tmp_path: Path) -> None:
        touch(tmp_path, "cat/notes.txt")

        with pytest.raises(DatasetMalformed, match=r"cat: there is no picture in this folder"):
            read_dataset(str(tmp_path))

    def test_one_class_is_enough_here(self, tmp_path: Path) -> None:
        touch(tmp_path, "cat/a.jpg")

        assert read_dataset(str(tmp_path)).train.labels == ("cat",)

    def test_a_folder_may_be_called_like_a_table_and_a_class_like_no_label(self, tmp_path: Path) -> None:
        touch(tmp_path, "data.csv/nan/a.jpg", "data.csv/None/b.jpg")

        assert read_dataset(str(tmp_path / "data.csv")).train.labels == ("nan", "None")

    def test_a_name_that_is_not_utf8_is_a_label(self, tmp_path: Path) -> None:
        label = os.fsdecode(b"gr\xfcn")
        try:
            touch(tmp_path, f"{label}/a.jpg", f"{label}/b.jpg")
        except OSError:
            pytest.skip("this file system takes UTF-8 alone")

        train = read_dataset(str(tmp_path)).train

        assert train.labels == (label, label)
        assert [len(part.paths) for part in hold_out(train, 0.5, 0)] == [1, 1]


class TestSplitFolders:
    @pytest.mark.parametrize("train", ["train", "Train", "TRAIN"])
    @pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
    def test_of_any_case(self, tmp_path: Path, train: str, validation: str) -> None:
        touch(tmp_path, f"{train}/cat/1.jpg", f"{train}/dog/2.jpg", f"{validation}/cat/3.jpg", "Test/dog/4.jpg")

        dataset = read_dataset(str(tmp_path))

        assert labelled(dataset.train, tmp_path / train) == [("cat/1.jpg", "cat"), ("dog/2.jpg", "dog")]
        assert labelled(dataset.validation, tmp_path / validation) == [("cat/3.jpg", "cat")]
        assert labelled(dataset.test, tmp_path / "Test") == [("dog/4.jpg", "dog")]
        assert dataset.failures == ()

    def test_train_alone(self, tmp_path: Path) -> None:
        touch(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg")

        dataset = read_dataset(str(tmp_path))

        assert dataset.train.labels == ("cat", "dog")
        assert (dataset.validation, dataset.test) == (None, None)

    @pytest.mark.parametrize(
        "names", [["test/cat/1.jpg"], ["val/cat/1.jpg", "other/2.jpg"], ["cat/1.jpg", "test/2.jpg"]]
    )
    def test_without_train(self, tmp_path: Path, names: list[str]) -> None:
        touch(tmp_path, *names)

        with pytest.raises(DatasetMalformed, match="no train") as caught:
            read_dataset(str(tmp_path))

        split = "val" if "val" in names[0] else "test"
        assert str(tmp_path / split) in str(caught.value.hint)

    def test_twice_the_same_split(self, tmp_path: Path) -> None:
        touch(tmp_path, "train/cat/1.jpg", "val/cat/2.jpg", "valid/cat/3.jpg")

        with pytest.raises(DatasetMalformed, match="train, val, valid"):
            read_dataset(str(tmp_path))

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_a_split_without_classes(self, tmp_path: Path, split: str) -> None:
        """Test pictures without labels, as in competitions."""
        other = {"train": "test", "test": "train"}[split]
        touch(tmp_path, f"{other}/cat/1.jpg", f"{split}/2.jpg")

        with pytest.raises(DatasetMalformed, match="no class folder") as caught:
            read_dataset(str(tmp_path))

        assert caught.value.path == str(tmp_path / split)

    def test_what_lies_beside_is_a_failure_if_it_has_pictures(self, tmp_path: Path) -> None:
        touch(tmp_path, "train/cat/1.jpg", "train/2.jpg", "extra/cat/3.jpg", "extra/4.jpg", "notes/a.txt", "5.jpg")

        dataset = read_dataset(str(tmp_path))

        assert dataset.train.labels == ("cat",)
        assert about(dataset.failures, tmp_path) == ["train", ".", "extra"]
        assert [failure.message.split(": ")[1] for failure in dataset.failures] == ["1", "1", "2"]

    def test_trains_may_be_a_class_among_vehicles(self, tmp_path: Path) -> None:
        touch(tmp_path, "bus/1.jpg", "car/2.jpg", "train/3.jpg")

        assert read_dataset(str(tmp_path)).train.labels == ("bus", "car", "train")

    def test_two_flat_splits_are_no_classes(self, tmp_path: Path) -> None:
        touch(tmp_path, "train/1.jpg", "test/2.jpg", "labels/3.txt")

        with pytest.raises(DatasetMalformed, match="no class folder"):
            read_dataset(str(tmp_path))

    def test_the_measurement_photos(self, shared_data: Path) -> None:
        dataset = read_dataset(str(shared_data / "hymenoptera"))

        assert Counter(dataset.train.labels).keys() == {"ants", "bees"}
        assert dataset.validation is not None
        assert set(dataset.validation.labels) == {"ants", "bees"}
        assert (dataset.test, dataset.failures) == (None, ())


def table(folder: Path, content: str | bytes) -> str:
    path = folder / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def read_table(folder: Path, content: str | bytes) -> Dataset:
    return read_dataset(table(folder, content))


class TestTable:
    def test_paths_are_relative_to_its_folder_and_rows_keep_their_order(self, tmp_path: Path) -> None:
        dataset = read_table(tmp_path, "path,label\nz.jpg,cat\nsub/a.jpg,dog\n/far/away.jpg,cat\n")

        assert dataset.train.labels == ("cat", "dog", "cat")
        assert dataset.train.paths == (str(tmp_path / "z.jpg"), str(tmp_path / "sub" / "a.jpg"), "/far/away.jpg")
        assert (dataset.validation, dataset.test, dataset.failures) == (None, None, ())

    def test_a_table_of_the_current_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        table(tmp_path, "path,label\na.jpg,cat\n")
        monkeypatch.chdir(tmp_path)

        assert read_dataset("labels.csv").train.paths == ("a.jpg",)

    def test_splits_by_any_of_their_names(self, tmp_path: Path) -> None:
        rows = [("1", "train"), ("2", ""), ("3", "val"), ("4", "VALID"), ("5", "validation"), ("6", " Test ")]
        content = "path,label,split\n" + "".join(f"{name}.jpg,cat,{split}\n" for name, split in rows)

        dataset = read_table(tmp_path, content)

        assert labelled(dataset.train, tmp_path) == [("1.jpg", "cat"), ("2.jpg", "cat")]
        assert labelled(dataset.validation, tmp_path) == [("3.jpg", "cat"), ("4.jpg", "cat"), ("5.jpg", "cat")]
        assert labelled(dataset.test, tmp_path) == [("6.jpg", "cat")]

    @pytest.mark.parametrize(
        "content",
        [
            b"path,label\na.jpg,cat\nb.jpg,dog\n",
            b"path,label\r\na.jpg,cat\r\nb.jpg,dog",
            b"path,label\ra.jpg,cat\rb.jpg,dog\r",
            b"\xef\xbb\xbfpath,label\na.jpg,cat\nb.jpg,dog\n",
            b"path;label\na.jpg;cat\nb.jpg;dog\n",
            b"path\tlabel\na.jpg\tcat\nb.jpg\tdog\n",
            b'"path";"label"\n"a.jpg";"cat"\n"b.jpg";"dog"\n',
            b'"path"\t"label"\n"a.jpg"\t"cat"\n"b.jpg"\t"dog"\n',
            b"Path, LABEL\na.jpg, cat\nb.jpg, dog \n",
            b",label,photographer,path\n0,cat,Ann,a.jpg\n1,dog,,b.jpg\n",
            b"path,label\n\na.jpg,cat\n,\n  \nb.jpg,dog\n\n",
            b"path,label,split\na.jpg,cat\nb.jpg,dog,\n",
            b"path,label\n./a.jpg,cat\na.jpg,cat\nb.jpg,dog\na.jpg,cat\n",
        ],
        ids=[
            *("plain", "crlf", "cr", "bom", "semicolons", "tabs", "quoted-semicolons", "quoted-tabs"),
            *("case-and-spaces", "other-columns", "blank-rows", "short-row", "repeated"),
        ],
    )
    def test_as_programs_write_it(self, tmp_path: Path, content: bytes) -> None:
        dataset = read_table(tmp_path, content)

        assert labelled(dataset.train, tmp_path) == [("a.jpg", "cat"), ("b.jpg", "dog")]
        assert dataset.failures == ()

    def test_names_with_separators_quotes_and_other_scripts(self, tmp_path: Path) -> None:
        dataset = read_table(tmp_path, 'path,label\n"a, b.jpg","say ""cheese"""\n" ü\n.jpg",猫\n')

        assert labelled(dataset.train, tmp_path) == [("a, b.jpg", 'say "cheese"'), (" ü\n.jpg", "猫")]

    def test_numbers_are_text(self, tmp_path: Path) -> None:
        dataset = read_table(tmp_path, "path,label\na.jpg,0\nb.jpg,00\nc.jpg,1.0\nd.jpg,1\n")

        assert dataset.train.labels == ("0", "00", "1.0", "1")

    @pytest.mark.parametrize(
        ("row", "what"),
        [
            ("x.jpg,,train", "no label for x.jpg"),
            ("x.jpg,  ,train", "no label for x.jpg"),
            ("x.jpg", "no label for x.jpg"),
            *((f"x.jpg,{mark},train", "no label for x.jpg") for mark in ("nan", "NaN", "null", "None", "NA")),
            (",cat,train", "no path"),
            ("  ,cat,train", "no path"),
            ("x.jpg,cat,dev", "unknown split dev for x.jpg"),
            ("x.jpg,cat,nan", "unknown split nan for x.jpg"),
            ("x,y.jpg,cat,train", "4 fields, and the header has 3"),
            ("a.jpg,dog,train", "dog in train for a.jpg, and before it was cat in train"),
            ("a.jpg,cat,test", "cat in test for a.jpg, and before it was cat in train"),
        ],
    )
    def test_a_row_that_cannot_be_used_is_named_and_the_rest_stands(self, tmp_path: Path, row: str, what: str) -> None:
        dataset = read_table(tmp_path, f'path,label,split\na.jpg,cat,train\n\n"b\n.jpg",dog,train\n{row}\nc.jpg,cat,\n')

        assert dataset.train.labels == ("cat", "dog", "cat")
        assert (dataset.validation, dataset.test) == (None, None)
        (failure,) = dataset.failures
        assert failure.message == f"line 6: {what}"
        assert about(dataset.failures, tmp_path) == ["labels.csv"]
        assert failure.hint

    def test_none_and_na_in_small_letters_are_labels(self, tmp_path: Path) -> None:
        assert read_table(tmp_path, "path,label\na.jpg,none\nb.jpg,na\n").train.labels == ("none", "na")

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (b"", "is empty"),
            (b"\xef\xbb\xbf", "path and label"),
            (b"\n", "path and label"),
            (b"a.jpg,cat\nb.jpg,dog\n", "path and label"),
            (b"path\na.jpg\n", "path and label"),
            (b"path label\na.jpg cat\n", "path and label"),
            (b"path,label,label\na.jpg,cat,dog\n", "once each"),
            (b"path,label,split,split\na.jpg,cat,train,test\n", "once each"),
            (b"path,label\n", "no row to train on$"),
            (b"path,label\na.jpg,\nb.jpg,nan\n", "no row to train on; line 2: no label"),
            (b"path,label,split\na.jpg,cat,test\n", "no row to train on$"),
            ("path,label\na.jpg,grün\n".encode("latin-1"), "line 2 is not UTF-8"),
            ("path,label\na.jpg,cat\n".encode("utf-16"), "line 1 is not UTF-8"),
            ("path,label\na.jpg,cat\n".encode("utf-16-le"), "NUL"),
            (b"path,label\na.jpg,cat\nb\0.jpg,cat\n", "NUL"),
            (b'path,label\na.jpg,cat\n\n"b.jpg,cat\nc.jpg,dog\n', "line 4 begins a row that is no CSV"),
            (b'path,label\n"a"b.jpg,cat\n', "line 2 begins a row that is no CSV"),
            (b"path,label\na.jpg," + b"x" * 200_000 + b"\n", "line 2 .* field limit"),
            (b"x" * 200_000, "path and label"),
        ],
    )
    def test_what_is_no_table_of_labels(self, tmp_path: Path, content: bytes, what: str) -> None:
        with pytest.raises(DatasetMalformed, match=what) as caught:
            read_table(tmp_path, content)

        assert caught.value.path == str(tmp_path / "labels.csv")
        assert caught.value.hint

    @given(st.binary(max_size=60))
    @settings(max_examples=300, deadline=None, derandomize=True)
    def test_any_bytes_are_read_or_refused(self, tmp_path_factory: pytest.TempPathFactory, rows: bytes) -> None:
        folder = tmp_path_factory.getbasetemp()
        try:
            dataset = read_table(folder, b"path,label,split\n" + rows)
        except DatasetMalformed:
            return
        splits = [split for split in (dataset.train, dataset.validation, dataset.test) if split is not None]
        paths = [path for split in splits for path in split.paths]
        assert all(split.paths and len(split.paths) == len(split.labels) for split in splits)
        assert len(set(paths)) == len(paths)
        assert all(label == label.strip() != "" for split in splits for label in split.labels)
        assert len(paths) + len(dataset.failures) <= rows.count(b"\n") + rows.count(b"\r") + 1

    def test_a_table_that_cannot_be_read(self, tmp_path: Path) -> None:
        if not Path("/proc/self/mem").exists():
            pytest.skip("no file here that opens and cannot be read")
        (tmp_path / "labels.csv").symlink_to("/proc/self/mem")

        with pytest.raises(FileUnreadable, match="cannot be read"):
            read_dataset(str(tmp_path / "labels.csv"))


@pytest.mark.parametrize("name", ["none", "none.csv", "none.csv/data", "nu\0l", "nu\0l.csv", ""])
def test_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FileMissing):
        read_dataset(name)


def test_what_is_neither_folder_nor_table(tmp_path: Path) -> None:
    touch(tmp_path, "photo.jpg")

    with pytest.raises(DatasetMalformed, match="neither a folder nor a CSV") as caught:
        read_dataset(str(tmp_path / "photo.jpg"))

    assert "path,label" in str(caught.value.hint)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FileUnreadable, match="Permission denied"):
        read_dataset(str(tmp_path))


#: Names of folders and files: splits, classes, hidden ones, and such as sort in a natural order.
FOLDERS = st.sampled_from(["train", "Test", "val", "valid", "cat", "b2", "b10", ".git"])
FILES = st.sampled_from(["1.jpg", "2.PNG", "10.jpg", ".hidden.png"])
TREES = st.sets(st.tuples(st.lists(FOLDERS, max_size=4), FILES).map(lambda each: "/".join([*each[0], each[1]])))


class TestPaths:
    @given(TREES, st.randoms(use_true_random=False))
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_they_are_what_is_found_in_the_folder(self, names: set[str], random: Any) -> None:
        """In the same order, with the same complaints, whatever order they were recorded in and from where."""
        with tempfile.TemporaryDirectory() as folder:
            touch(Path(folder), *names)
            paths = [f"{folder}/{name}" for name in sorted(names)]
            random.shuffle(paths)
            within = {str(Path(path).parent) for path in paths}
            expected = told(lambda: read_dataset(os.path.commonpath(within) if within else folder))

            found = told(lambda: dataset_of_paths(paths))
            elsewhere = told(lambda: dataset_of_paths([os.path.relpath(path, folder) for path in paths]))

        if len(within) < 2:
            assert re.match("there are no pictures|all pictures are in one folder", found[1])
        else:
            assert found == expected
        assert [*map(bool, elsewhere)] == [*map(bool, found)]
        if isinstance(found[0], Split):
            assert [part and part.labels for part in elsewhere[:3]] == [part and part.labels for part in found[:3]]

    @pytest.mark.parametrize(
        ("paths", "expected"),
        [
            (["cat/1.jpg", "dog/2.jpg"], ["cat", "dog"]),
            (["./cat/1.jpg", "dog//2.jpg"], ["cat", "dog"]),
            (["../data/cat/1.jpg", "../data/dog/2.jpg"], ["cat", "dog"]),
            (["../cat/1.jpg", "dog/2.jpg", "/far/away/3.jpg"], None),
            (["/data/cat/1.jpg", "/data/dog/deep/2.jpg"], ["cat", "dog"]),
            (["/cat/1.jpg", "/dog/2.jpg"], ["cat", "dog"]),
            (["cat/1.jpg", "cat/1.jpg", "dog/2.jpg"], ["cat", "dog"]),
            (["cat/a picture", "dog/2.gif"], ["cat", "dog"]),
            (["gr\udcfcn/1.jpg", "rot/2.jpg"], ["gr\udcfcn", "rot"]),
        ],
        ids=str,
    )
    def test_of_every_kind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], expected: list[str] | None
    ) -> None:
        """The paths themselves stay as they were recorded, and each is there once."""
        monkeypatch.chdir(tmp_path)

        train = dataset_of_paths(paths).train

        assert set(train.paths) == set(paths)
        assert len(train.paths) == len(set(paths))
        if expected is not None:
            assert [*train.labels] == expected

    def test_thousands_of_folders_inside_one_another(self) -> None:
        deep = "/".join(["a"] * 5000)

        assert dataset_of_paths([f"cat/{deep}/1.jpg", "dog/2.jpg"]).train.labels == ("cat", "dog")

    @pytest.mark.parametrize(
        ("paths", "what"),
        [
            ([], "there are no pictures"),
            (["1.jpg", "2.jpg"], r"all pictures are in one folder, \."),
            (["/data/cat/1.jpg", "/data/cat/2.jpg"], "all pictures are in one folder, /data/cat"),
            (["photos.tar/1.jpg", "photos.tar/2.jpg"], "all pictures are in one folder, photos"),
            (["train/1.jpg", "test/2.jpg"], "there is no class folder with pictures"),
            (["", "cat/1.jpg"], None),
        ],
    )
    def test_without_classes(self, paths: list[str], what: str | None) -> None:
        if what is None:
            assert dataset_of_paths(paths).train.labels == ("cat",)
            return
        with pytest.raises(DatasetMalformed, match=what) as caught:
            dataset_of_paths(paths)

        assert "path,label" in str(caught.value.hint)

    @pytest.mark.parametrize(
        ("members", "train", "test"),
        [
            ({"photos.tar": ["cat/1.jpg", "./dog/2.jpg"]}, ["cat", "dog"], None),
            ({"photos.tar": ["data/train/cat/1.jpg", "data/test/dog/2.jpg"]}, ["cat"], ["dog"]),
            ({"000.tar": ["cat/1.jpg"], "001.tar": ["cat/1.jpg", "dog/2.jpg"]}, ["cat", "cat", "dog"], None),
            ({"cat.tar": ["1.jpg"], "dog.TAR": ["2.jpg"]}, ["cat", "dog"], None),
            ({"train.tar": ["cat/1.jpg"], "test.tar": ["dog/2.jpg"]}, ["cat"], ["dog"]),
            ({"train-0.tar": ["cat/1.jpg"], "train-1.tar": ["eel/1.jpg"], "test-0.tar": ["dog/2.jpg"]}, None, ["dog"]),
            ({"train.tar": ["train/cat/1.jpg"], "test.tar": ["test/dog/2.jpg"]}, ["cat"], ["dog"]),
            ({"trains.tar": ["cat/1.jpg"], "testing.tar": ["dog/2.jpg"]}, ["cat", "dog"], None),
        ],
        ids=str,
    )
    def test_inside_archives(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        members: dict[str, list[str]],
        train: list[str] | None,
        test: list[str] | None,
    ) -> None:
        """As they would be found if they were unpacked; the paths are those by which they are read."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty.jpg").write_bytes(b"x")
        for name, inside in members.items():
            with tarfile.open(name, "w") as archive:
                for member in inside:
                    archive.add("empty.jpg", member)
        paths = PictureFiles(list(members)).paths

        dataset = dataset_of_paths(paths)

        assert [*dataset.train.labels] == (train or ["cat", "eel"])
        assert (None if dataset.test is None else [*dataset.test.labels]) == test
        assert sorted([*dataset.train.paths, *(dataset.test.paths if dataset.test else ())]) == sorted(paths)
        assert dataset.failures == ()

    def test_the_measurement_photos(self, shared_data: Path) -> None:
        expected = read_dataset(str(shared_data / "hymenoptera"))
        assert expected.validation is not None

        assert dataset_of_paths([*expected.validation.paths, *reversed(expected.train.paths)]) == expected


def told(read: Callable[[], Dataset]) -> tuple[Any, ...]:
    """Its splits, and what is said of the rest; or what is said where it is no dataset."""
    try:
        found = read()
    except DatasetMalformed as error:
        return "", error.message, error.path
    assert all(each.hint for each in found.failures)
    failures = [(each.message, each.path) for each in found.failures]
    return found.train, found.validation, found.test, failures


def a_split(labels: list[str]) -> Split:
    return Split(tuple(f"{place}.jpg" for place in range(len(labels))), tuple(labels))


LABELS = st.lists(st.sampled_from(["cat", "dog", "eel", "", "猫", "\udcff"]), max_size=60)
SHARES = st.floats(0, 1, exclude_min=True, exclude_max=True)


class TestHoldOut:
    def test_a_fifth_of_each_class(self) -> None:
        rest, held = hold_out(a_split(["cat"] * 50 + ["dog"] * 10), 0.2, 0)

        assert Counter(rest.labels) == {"cat": 40, "dog": 8}
        assert Counter(held.labels) == {"cat": 10, "dog": 2}

    @given(LABELS, SHARES, st.integers(0, 2**32))
    @settings(max_examples=200, deadline=None, derandomize=True)
    def test_parts_of_the_whole_in_its_order_by_class(self, labels: list[str], share: float, seed: int) -> None:
        whole = a_split(labels)

        rest, held = hold_out(whole, share, seed)

        pairs = list(zip(whole.paths, whole.labels, strict=True))
        for part in (rest, held):
            chosen = set(part.paths)
            assert list(zip(part.paths, part.labels, strict=True)) == [pair for pair in pairs if pair[0] in chosen]
        assert sorted(rest.paths + held.paths) == sorted(whole.paths)
        for label, count in Counter(labels).items():
            kept = held.labels.count(label)
            if count == 1:
                assert kept == 0
            else:
                assert 1 <= kept <= count - 1
                assert kept in (round(share * count), 1, count - 1)
                assert abs(kept - share * count) <= 1

    @given(LABELS, LABELS, SHARES, st.integers(0, 9))
    @settings(max_examples=100, deadline=None, derandomize=True)
    def test_other_classes_make_no_difference(
        self, labels: list[str], others: list[str], share: float, seed: int
    ) -> None:
        ants = Split(tuple(f"ant{place}" for place in range(20)), ("ant",) * 20)
        before, after = a_split(labels), a_split(others)

        _, alone = hold_out(ants, share, seed)
        _, among = hold_out(
            Split(before.paths + ants.paths + after.paths, before.labels + ants.labels + after.labels), share, seed
        )

        assert [path for path, label in zip(among.paths, among.labels, strict=True) if label == "ant"] == [*alone.paths]

    def test_the_seed_and_the_class_choose_and_choose_again_the_same(self) -> None:
        whole = a_split(["cat", "dog"] * 50)

        held = {seed: hold_out(whole, 0.2, seed)[1].paths for seed in range(20)}

        assert len(set(held.values())) == 20
        assert all(hold_out(whole, 0.2, seed)[1].paths == paths for seed, paths in held.items())
        cats, dogs = (
            {int(name.split(".")[0]) // 2 for name in held[0] if int(name.split(".")[0]) % 2 == odd} for odd in (0, 1)
        )
        assert cats != dogs

    def test_every_picture_has_its_turn(self) -> None:
        """Each of 10 is held out with probability 1/5; that one of them never is in 200 draws has less than 1e-18."""
        whole = a_split(["cat"] * 10)

        turns = Counter(path for seed in range(200) for path in hold_out(whole, 0.2, seed)[1].paths)

        assert len(turns) == 10
        assert max(turns.values()) < 80  # 40 expected, standard deviation 5.7

    @pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
    def test_a_share_that_is_none(self, share: float) -> None:
        with pytest.raises(UsageError, match="share to hold out") as caught:
            hold_out(a_split(["cat"] * 3), share, 0)

        assert caught.value.hint


def test_a_test_folder_without_classes_says_how_to_do_without(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/1.png", "test/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DatasetMalformed) as caught:
        read_dataset(str(tmp_path))
    assert caught.value.hint == f"to use train alone, name it: {tmp_path / 'train'}"


def test_a_link_that_leads_nowhere_is_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "cat" / "2.png").symlink_to("nowhere.png")
    assert read_dataset(str(tmp_path)).train.labels == ("cat", "cat", "dog")
