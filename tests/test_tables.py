"""Tables of features: their parts, what joins them, what they refuse; and names as files hold them."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
from feature_tables import FIELDS, NAMES, PATHS, any_fields, any_tables, assert_same, make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.errors import ImageDamaged
from featkit.extraction.tables import (
    Field,
    Table,
    check_fields,
    error_of,
    error_text,
    from_stored,
    joined,
    to_stored,
)


@settings(derandomize=True, deadline=None)
@given(st.data())
def test_parts_of_a_table_join_to_it(data: st.DataObject) -> None:
    fields = data.draw(any_fields())
    whole = joined(data.draw(any_tables(fields)), fields)
    whole.check(fields)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    parts = [whole.part(start, stop) for start, stop in zip([0, *cuts], [*cuts, len(whole) + 1], strict=True)]
    for part in parts:
        part.check(fields)
    assert_same(joined(parts, fields), whole)


def test_a_part_has_the_items_of_its_pictures() -> None:
    field = Field("xy", "float32", (2,), ragged=True)
    items = np.arange(12, dtype=np.float32).reshape(6, 2)
    table = Table(("a", "b", "c"), ("0" * 64,) * 3, ("",) * 3, {"xy": items}, {"xy": np.array([1, 3, 2])})
    part = table.part(1, 2)
    part.check([field])
    assert part.paths == ("b",)
    assert part.values["xy"].tolist() == [[2, 3], [4, 5], [6, 7]]
    assert len(table.part(2, 1)) == 0


def test_no_tables_join_to_one_without_pictures() -> None:
    table = joined([], FIELDS)
    table.check(FIELDS)
    assert len(table) == 0
    assert table.values["blocks.5"].shape == (0, 2, 3, 4)


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("", "float32", ()),
        ("a/b", "float32", ()),
        ("..", "float32", ()),
        ("path", "float32", ()),
        ("config", "float32", ()),
        ("a\nb", "float32", ()),
        ("\udcff", "float32", ()),
        ("a" * 201, "float32", ()),
        ("a", "float64", ()),
        ("a", "object", ()),
        ("a", "float32", (3, 0)),
        ("a", "float32", (-1,)),
        ("a", "float32", (1 << 16, 1 << 16)),
    ],
)
def test_a_field_that_files_cannot_hold_is_refused(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="features"):
        Field(name, dtype, shape)


def test_fields_that_would_take_one_place_are_refused() -> None:
    ragged = Field("sift", "float32", (2,), ragged=True)
    check_fields([ragged, Field("sift.count", "float32", ())])
    for others in ([], [ragged, Field("sift", "uint8", ())], [ragged, Field("sift.counts", "float32", ())]):
        with pytest.raises(ValueError, match="features"):
            check_fields(others)


def wrong_tables() -> dict[str, Table]:
    table = make_table(["a", "b", "c"], FIELDS, fail=0)
    failed = dataclasses.replace(table, errors=("", "damaged: it is cut short", ""))
    return {
        "fewer digests": dataclasses.replace(table, digests=table.digests[:2]),
        "no digest": dataclasses.replace(table, digests=("x" * 64, *table.digests[1:])),
        "a field less": dataclasses.replace(table, values={"head": table.values["head"]}),
        "no counts": dataclasses.replace(table, counts={}),
        "another dtype": dataclasses.replace(table, values={**table.values, "head": np.zeros((3, 3))}),
        "another shape": dataclasses.replace(table, values={**table.values, "head": np.zeros((3, 4), np.float32)}),
        "more items": dataclasses.replace(table, counts={**table.counts, "sift.xy": np.array([9, 9, 9])}),
        "fewer than no items": dataclasses.replace(table, counts={**table.counts, "sift.xy": np.array([9, -9, 0])}),
        "values of a picture that failed": failed,
    }


@pytest.mark.parametrize("what", wrong_tables())
def test_a_table_that_is_not_what_its_fields_say_is_refused(what: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        wrong_tables()[what].check(FIELDS)


@settings(derandomize=True, deadline=None)
@given(PATHS)
def test_any_name_comes_back_from_utf_8(name: str) -> None:
    stored = to_stored(name)
    assert "\0" not in stored
    assert from_stored(stored.encode().decode()) == name


def test_a_name_in_utf_8_stays_what_it_is() -> None:
    assert [to_stored(name) for name in NAMES[:2]] == list(NAMES[:2])
    assert to_stored(os.fsdecode(b"caf\xe9.jpg")) == "bytes:caf%E9.jpg"
    assert len({to_stored(name) for name in NAMES}) == len(NAMES)


def test_errors_are_texts_and_errors_again() -> None:
    error = ImageDamaged("cut short: after 7 bytes", path="a.jpg", hint="copy it again")

    found = error_of(error_text(error), "a.jpg")

    assert (found.code, found.message, found.path) == (error.code, error.message, error.path)
    assert (error_text(found), error_text(None)) == (error_text(error), "")
    assert (error_of("gone", "a.jpg").code, error_of("gone", "a.jpg").message) == ("input", "gone")
