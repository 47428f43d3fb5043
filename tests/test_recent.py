"""A bounded memory of what was made last, compared with a plain list of it."""

from __future__ import annotations

from threading import Thread

from hypothesis import given
from hypothesis import strategies as st

from featkit.local.recent import Recent


def test_what_was_put_is_there() -> None:
    recent = Recent(100)
    recent.put("a", [1, 2], 60)

    assert recent.get("a") == [1, 2]
    assert recent.get("b") is None


def test_the_least_recently_used_goes() -> None:
    recent = Recent(100)
    recent.put("a", 1, 40)
    recent.put("b", 2, 40)
    assert recent.get("a") == 1  # now b is the one that nobody asked for
    recent.put("c", 3, 40)

    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 3)


def test_as_many_go_as_a_large_one_needs() -> None:
    recent = Recent(100)
    for name in "abcd":
        recent.put(name, name, 25)
    recent.put("large", "large", 60)

    assert [name for name in "abcd" if recent.get(name)] == ["d"]
    assert recent.get("large") == "large"


def test_the_limit_itself_fits_and_a_byte_more_does_not() -> None:
    recent = Recent(100)
    recent.put("fits", 1, 100)
    recent.put("too large", 2, 101)

    assert recent.get("too large") is None
    assert recent.get("fits") == 1  # and was not driven out for nothing


def test_a_new_value_replaces_the_old_one_and_its_bytes() -> None:
    recent = Recent(100)
    for number in range(10):
        recent.put("a", number, 60)
    recent.put("b", "b", 40)

    assert (recent.get("a"), recent.get("b")) == (9, "b")


def test_a_new_value_that_is_too_large_leaves_no_old_one_behind() -> None:
    recent = Recent(100)
    recent.put("a", "old", 10)
    recent.put("a", "new", 1000)

    assert recent.get("a") is None


@given(
    limit=st.integers(0, 60),
    steps=st.lists(st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), st.integers(0, 40))), max_size=60),
)
def test_as_in_plain_python(limit: int, steps: list[tuple[str, int | None]]) -> None:
    """steps: a name to look up (None) or to put, with so many bytes."""
    recent = Recent(limit)
    kept: list[tuple[str, int, int]] = []  # least recently used first
    for number, (name, nbytes) in enumerate(steps):
        [known] = [each for each in kept if each[0] == name] or [None]
        kept = [each for each in kept if each[0] != name]
        if nbytes is None:
            assert recent.get(name) == (None if known is None else known[1])
            kept += [] if known is None else [known]
        else:
            recent.put(name, number, nbytes)
            kept += [(name, number, nbytes)] if nbytes <= limit else []
            while sum(each[2] for each in kept) > limit:
                kept.pop(0)
    for name, number, _ in kept:
        assert recent.get(name) == number


def test_many_threads_at_once() -> None:
    recent = Recent(500)
    wrong: list[object] = []

    def use(start: int) -> None:
        for number in range(start, start + 3000):
            key = number % 20
            value = recent.get(key)
            if value not in (None, f"value {key}"):
                wrong.append(value)
            recent.put(key, f"value {key}", 50)

    threads = [Thread(target=use, args=(7 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert sum(recent.get(key) is not None for key in range(20)) == 10
