"""A plan keeps within its limit, uses what it may, and where there is none it says what would do."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_cameras import camera, turned

from featkit.errors import UsageError
from featkit.stitching import budget
from featkit.stitching.budget import Plan, affordable_jobs, default_memory, plan, used_memory
from featkit.stitching.compositing import BLENDS, reach, tiles
from featkit.stitching.projection import Layout, lay_out

MEGABYTE = 1 << 20
USED = 150 * MEGABYTE


@pytest.fixture(autouse=True)
def _a_process_of_known_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "used_memory", lambda: USED)


def canvas(width: int, height: int) -> Layout:
    return replace(lay_out([camera(turned(0))], "cylindrical", 1.0), size=(width, height))


LARGE = canvas(20_000, 5_000)
PHOTOS = [(6000, 4000)] * 8


def planned(
    limit: int | None, layout: Layout = LARGE, blend: str = "multiband", octaves: int = 4, jobs: int = 4
) -> Plan:
    return plan(layout, PHOTOS, blend, octaves, limit, jobs)


class TestLimit:
    @given(
        st.integers(1, 60_000),
        st.integers(1, 30_000),
        st.lists(st.tuples(st.integers(1, 12_000), st.integers(1, 9000)), min_size=2, max_size=30),
        st.sampled_from(BLENDS),
        st.integers(1, 7),
        st.integers(200, 20_000).map(lambda megabytes: megabytes * MEGABYTE),
        st.integers(1, 32),
    )
    @settings(max_examples=200, deadline=None, derandomize=True)
    def test_is_kept_or_refused(
        self,
        width: int,
        height: int,
        sizes: list[tuple[int, int]],
        blend: str,
        octaves: int,
        limit: int,
        jobs: int,
    ) -> None:
        layout = canvas(width, height)
        try:
            found = plan(layout, sizes, blend, octaves, limit, jobs)
        except UsageError as refusal:
            needed = _named(refusal)
            assert needed > limit
            again = plan(layout, sizes, blend, octaves, needed, jobs)
            assert again.predicted <= needed
            return
        assert USED < found.predicted <= limit
        assert found.tiles == len(tiles(layout, found.tile_side))
        assert 1 <= found.workers <= min(jobs, found.tiles)
        assert found.canvas_bytes in (0, 4 * width * height)
        side = found.tile_side + 2 * reach(blend, octaves)
        # What is certainly in memory: the sums of every worker's tile in 32-bit floats, and the photos or the canvas.
        least = found.canvas_bytes + found.workers * 12 * min(side, width) * min(side, height)
        least += found.photos_in_memory * 3 * sum(x * y for x, y in sizes)
        assert least < found.predicted - USED

    def test_the_more_memory_the_larger_the_tiles(self) -> None:
        limits = [450, 600, 1000, 2000, 4000, 16_000]
        plans = [planned(limit * MEGABYTE) for limit in limits]
        sides = [each.tile_side for each in plans]
        assert sides == sorted(sides)
        assert sides[0] < sides[-1]
        assert plans[0].canvas_bytes == 0
        assert not plans[0].photos_in_memory
        assert plans[-1].canvas_bytes == 4 * 20_000 * 5_000
        assert plans[-1].photos_in_memory
        assert plans[-1].workers == 4

    def test_of_600_megabytes_for_100_megapixels(self) -> None:
        assert planned(600 * MEGABYTE).predicted <= 600 * MEGABYTE

    def test_what_is_kept_only_to_save_time_leaves_room(self) -> None:
        """A prediction may be wrong."""
        for limit in (1000, 2000, 4000, 8000, 16_000):
            found = planned(limit * MEGABYTE)
            if found.photos_in_memory or found.canvas_bytes:
                assert found.predicted <= 0.6 * limit * MEGABYTE
        assert planned(16_000 * MEGABYTE).photos_in_memory

    def test_a_small_panorama_is_one_tile_in_memory(self) -> None:
        found = plan(canvas(900, 600), [(640, 480)] * 2, "multiband", 3, 2000 * MEGABYTE, 1)
        assert (found.tiles, found.workers, found.photos_in_memory) == (1, 1, True)
        assert found.canvas_bytes == 4 * 900 * 600

    def test_several_workers_share_a_small_panorama(self) -> None:
        found = plan(canvas(3000, 2000), [(640, 480)] * 2, "multiband", 3, 4000 * MEGABYTE, 4)
        assert found.workers == 4
        assert found.tiles >= 4

    def test_what_blends_less_takes_less(self) -> None:
        needed = {}
        for blend in BLENDS:
            with pytest.raises(UsageError) as caught:
                plan(LARGE, [(640, 480)] * 2, blend, 6, 192 * MEGABYTE, 1)
            needed[blend] = _named(caught.value)
        assert needed["none"] <= needed["feather"] <= needed["multiband"]
        assert needed["none"] < needed["multiband"]


class TestRefusal:
    def test_names_what_would_do(self) -> None:
        with pytest.raises(UsageError, match="cannot be drawn within 200M") as caught:
            planned(200 * MEGABYTE)
        needed = _named(caught.value)
        assert caught.value.hint is not None
        assert "--scale" in caught.value.hint
        assert planned(needed).predicted <= needed
        with pytest.raises(UsageError):
            planned(needed - 2 * MEGABYTE)


class TestThreadsThatReadPhotos:
    def test_beside_each_other_they_leave_room_and_one_may_take_it_all(self) -> None:
        pixels, of_one = 20_000_000, 11 * 20_000_000
        for limit in range(400 * MEGABYTE, 4000 * MEGABYTE, 50 * MEGABYTE):
            jobs = affordable_jobs(pixels, limit, 8)
            assert jobs == 1 or USED + jobs * of_one <= 0.6 * limit
        assert affordable_jobs(pixels, 400 * MEGABYTE, 8) == 1
        assert affordable_jobs(pixels, 4000 * MEGABYTE, 8) == 8

    def test_photos_too_large_for_one_are_refused(self) -> None:
        with pytest.raises(UsageError) as caught:
            affordable_jobs(100_000_000, 600 * MEGABYTE, 2)
        assert affordable_jobs(100_000_000, _named(caught.value), 2) == 1


def _named(refusal: UsageError) -> int:
    """Bytes that the hint asks for."""
    found = re.search(r"--max-memory (\d+)M", refusal.hint or "")
    assert found is not None
    return int(found[1]) * MEGABYTE


def test_without_a_limit_it_is_a_quarter_of_the_machine() -> None:
    assert planned(None, canvas(900, 600)) == planned(default_memory(), canvas(900, 600))
    assert default_memory() > 200 * MEGABYTE


def test_used_memory_is_that_of_this_process() -> None:
    """A process that holds Python, numpy and OpenCV."""
    assert 20 * MEGABYTE < used_memory() < 4000 * MEGABYTE
