"""Features made up for the tests of what stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import strategies as st

from featkit.extraction.tables import DTYPES, Field, Table

FIELDS = (
    Field("head", "float32", (3,)),
    Field("blocks.5", "float16", (2, 3, 4)),  # a map, channels × rows × columns
    Field("codes", "uint8", (5,)),
    Field("sharpness", "float32", ()),
    Field("sift.xy", "float32", (2,), ragged=True),
    Field("sift.descriptors", "uint8", (4,), ragged=True),
    Field("sift.response", "float16", (), ragged=True),
)
CONFIG = {"backbone": "resnet18", "layers": ["head", "blocks.5"], "weights": {"sha256": "ab" * 32}, "pool": None}
#: The third is no UTF-8, the last two could be taken for what stands for such a name.
NAMES = ("a.jpg", "Schloß 城/b.jpg", "caf\udce9.jpg", "it's\n, 100%.jpg", "", "bytes:x.jpg", "bytes:caf%E9.jpg")


def make_table(paths: Sequence[str], fields: Sequence[Field] = FIELDS, *, seed: int = 0, fail: float = 0.3) -> Table:
    """Random values of these pictures; `fail`: the share of them that failed."""
    random = np.random.default_rng(seed)
    failed = random.random(len(paths)) < fail
    values, counts = {}, {}
    for field in fields:
        rows = len(paths)
        if field.ragged:
            counts[field.name] = np.where(failed, 0, random.integers(0, 4, rows)).astype(np.int64)
            rows = int(counts[field.name].sum())
        values[field.name] = (random.normal(size=(rows, *field.shape)) * 40 + 128).astype(field.dtype)
        if not field.ragged:
            values[field.name][failed] = field.blank
    digests = [f"{place + seed:064x}" for place in range(len(paths))]
    if len(paths):
        digests[0] = digests[0] if not failed[0] else ""
    errors = ["damaged: it is cut short – after 7 bytes" if each else "" for each in failed]
    return Table(tuple(paths), tuple(digests), tuple(errors), values, counts)


def assert_same(found: Table, expected: Table) -> None:
    assert (found.paths, found.digests, found.errors) == (expected.paths, expected.digests, expected.errors)
    for arrays, others in ((found.values, expected.values), (found.counts, expected.counts)):
        _assert_same_arrays(arrays, others)


def _assert_same_arrays(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], strict=True)


# --- any at all

# What a file name can hold: text, and bytes that are not UTF-8.
PATHS = st.one_of(
    st.sampled_from(NAMES),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.binary(max_size=8).map(lambda name: name.decode("utf-8", "surrogateescape")),
)
FIELD_NAMES = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, categories=["L", "N"]), min_size=1, max_size=5
)


@st.composite
def any_fields(draw: st.DrawFn) -> tuple[Field, ...]:
    names = draw(st.lists(FIELD_NAMES.map("f.{}".format), min_size=1, max_size=3, unique=True))
    shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)
    return tuple(Field(name, draw(st.sampled_from(DTYPES)), draw(shapes), draw(st.booleans())) for name in names)


@st.composite
def any_tables(draw: st.DrawFn, fields: Sequence[Field]) -> list[Table]:
    lists = draw(st.lists(st.lists(PATHS, max_size=5), max_size=3))
    share = draw(st.sampled_from([0.0, 0.4, 1.0]))
    return [make_table(paths, fields, seed=seed, fail=share) for seed, paths in enumerate(lists)]
