"""Photos in, panoramas out: match, connect, adjust, match colours, find seams; drawing comes last, where it is asked
for."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from threadpoolctl import threadpool_limits

from featkit import images
from featkit.cache import Cache, open_cache
from featkit.configs import given
from featkit.errors import FeatkitError, NothingJoined, UsageError
from featkit.processors import threads
from featkit.progress import Progress, followed
from featkit.stitching import budget
from featkit.stitching.config import StitchConfig
from featkit.stitching.matching import Matched
from featkit.stitching.panorama import Panorama, prepare
from featkit.stitching.poses import Poses, chosen
from featkit.stitching.sorting import LeftOut, Sorted, sort_photos


@dataclass(frozen=True)
class Stitched:
    """panoramas: the one of most photos first. left_out: of every photo that is in none, in the order given. failures:
    of those that could not be read. matched: all that was compared, None where poses came from a file or the cache."""

    panoramas: tuple[Panorama, ...]
    left_out: tuple[LeftOut, ...]
    failures: tuple[FeatkitError, ...]
    matched: Matched | None = None


def stitch(
    pictures: Sequence[str | os.PathLike[str]],
    config: StitchConfig | None = None,
    *,
    cache: Cache | None = None,
    jobs: int | None = None,
    **options: Any,
) -> Panorama:
    """The panorama of most of these picture files: `panorama.save("pano.jpg")`, `panorama.pixels`.

    config, or the fields of `StitchConfig` as keywords: stitch(paths, projection="spherical"). cache: the user's own if
    None. jobs: threads, None for one a processor. Raises NothingJoined where no two photos belong together, InputError
    where fewer than two can be read, and UsageError for options that make no sense. `stitch_all` gives every panorama,
    and what was left out.
    """
    found = stitch_all(pictures, given(config, StitchConfig, options), cache=cache, jobs=jobs)
    if not found.panoramas:
        if len(found.failures) > len(pictures) - 2:
            raise found.failures[0]
        first = found.left_out[0]
        raise NothingJoined("no two photos belong together", hint=f"{first.path}: {first.reason}")
    return found.panoramas[0]


def stitch_all(
    pictures: Sequence[str | os.PathLike[str]],
    config: StitchConfig | None = None,
    *,
    cache: Cache | None = None,
    jobs: int | None = None,
) -> Stitched:
    """Every panorama that these picture files make, ready to be drawn, and what was left out, and why."""
    return followed(stitch_steps(pictures, config, cache=cache, jobs=jobs))


def stitch_steps(
    pictures: Sequence[str | os.PathLike[str]],
    config: StitchConfig | None = None,
    *,
    cache: Cache | None = None,
    jobs: int | None = None,
    poses: Sequence[Poses] | None = None,
    compared: bool = False,
) -> Generator[Progress | Stitched, None, None]:
    """The same, telling how far it is; the last is the result. poses: from a file (`read_poses`), instead of matching;
    pictures then choose among their photos, by content, all if there are none. compared: the result tells what was
    compared (`Stitched.matched`), even where the cache would do without."""
    config = config or StitchConfig()
    cache = open_cache() if cache is None else cache
    jobs = threads(jobs)
    paths = _distinct([os.fspath(picture) for picture in pictures])
    # One thread a matrix product: photos and tiles run side by side.
    with threadpool_limits(1, user_api="blas"):
        if poses is not None:
            own, reasons = chosen(poses, paths)
            hint = "leave it away, or match anew: with another file of poses, or without"
            left_out = tuple(LeftOut(path, reason, 0, None, hint) for path, reason in reasons.items())
            found = Sorted(own, left_out, None, {})
            named = [*paths, *(source.path for each in own for source in each.sources)]
            config = _with_known_reference(config, named)
        else:
            if len(paths) < 2:
                raise UsageError("a panorama takes two photos, or more", hint="featkit stitch a.jpg b.jpg -o pano.jpg")
            config = _with_known_reference(config, paths)
            if config.max_memory is not None:
                largest = max(_pixels(path, config) for path in paths)
                jobs = budget.affordable_jobs(largest, config.max_memory, jobs)
            found = yield from sort_photos(paths, config, cache, jobs, compared=compared)
        panoramas = []
        for number, each in enumerate(found.poses):
            yield Progress("colours and seams", number, len(found.poses))
            panorama = prepare(each, config, cache, jobs)
            panoramas.append(replace(panorama, seconds={**found.seconds, **panorama.seconds}))
    matched = found.matched
    failures = () if matched is None else tuple(matched.failures[path] for path in paths if path in matched.failures)
    yield Stitched(tuple(panoramas), found.left_out, failures, matched)


def _pixels(path: str, config: StitchConfig) -> int:
    """As the photo's header says; 0 where that cannot be read, which matching will tell."""
    try:
        width, height = images.measure(images.read_bytes(path), config.decode)
    except FeatkitError:
        return 0
    return width * height


def _distinct(paths: list[str]) -> list[str]:
    """Without names of what was named before."""
    once: dict[str, str] = {}
    for path in paths:
        once.setdefault(os.path.abspath(path), path)  # noqa: PTH100
    return list(once.values())


def _with_known_reference(config: StitchConfig, paths: Sequence[str]) -> StitchConfig:
    """With the reference named as it is among the photos."""
    if config.reference is None:
        return config
    wanted = os.path.abspath(config.reference)  # noqa: PTH100
    for path in paths:
        if os.path.abspath(path) == wanted:  # noqa: PTH100
            return replace(config, reference=path)
    raise UsageError(f"the reference {config.reference} is not among the photos", hint="name one of them")
