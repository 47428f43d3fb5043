"""Corner error of `featkit match` on photos with known homographies, by effort, beside the tutorial's script.

python -m tests.bench.accuracy [--data FOLDER]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest import mock

from featkit import Cache, MatchConfig, match
from featkit.errors import DependencyError
from featkit.local import learned
from tests.bench.report import data_folder, print_table
from tests.bench.truth import THRESHOLDS, Pair, auc, corner_error, scene_pairs, tutorial_homography

EFFORTS = ("fast", "normal")
SETS = (("oxford", "sift"), ("oxford", "orb"), ("warped", "sift"), ("warped", "orb"))
# Exact warps leave nothing to escalate for.
WIDE_SETS = (("oxford", "sift"), ("oxford", "orb"))
LEARNED_SETS = (("oxford", "aliked"), ("oxford", "disk"))


def corner_errors(pairs: Sequence[Pair], config: MatchConfig, cache: Cache) -> list[float]:
    errors = []
    for pair in pairs:
        result = match(pair.a, pair.b, config, cache=cache)
        errors.append(corner_error(result.matrix, pair.truth, result.a.features.image_size))
    return errors


def tutorial_errors(pairs: Sequence[Pair], detector: str, cache: Cache) -> list[float]:
    errors = []
    for pair in pairs:
        size = match(pair.a, pair.b, effort="fast", cache=cache).a.features.image_size
        errors.append(corner_error(tutorial_homography(pair.a, pair.b, detector), pair.truth, size))
    return errors


def without_learned() -> AbstractContextManager[object]:
    """As if the extra were not installed."""
    return mock.patch.object(learned, "require", side_effect=DependencyError("left out"))


def has_learned() -> bool:
    try:
        learned.require("aliked")
    except DependencyError:
        return False
    return True


def row(pairs: Sequence[Pair], folder: str, detector: str, method: str, errors: Sequence[float]) -> list[str]:
    return [
        f"{folder}, {len(pairs)} pairs",
        detector.upper(),
        method,
        *(f"{auc(errors, threshold):.1f}" for threshold in THRESHOLDS),
        str(sum(error <= 3 for error in errors)),
        str(sum(error <= 10 for error in errors)),
    ]


def main(data: Path) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        cache = Cache(Path(scratch))
        for folder, detector in SETS:
            pairs = list(scene_pairs(data / folder))
            rows.append(row(pairs, folder, detector, "tutorial script", tutorial_errors(pairs, detector, cache)))
            for effort in EFFORTS:
                errors = corner_errors(pairs, MatchConfig(effort=effort, detector=detector), cache)
                rows.append(row(pairs, folder, detector, f"featkit, {effort}", errors))
            if (folder, detector) not in WIDE_SETS:
                continue
            wide = {"wide": without_learned(), **({"wide, with the extra": nullcontext()} if has_learned() else {})}
            for method, circumstances in wide.items():
                with circumstances:
                    errors = corner_errors(pairs, MatchConfig(effort="wide", detector=detector), cache)
                rows.append(row(pairs, folder, detector, f"featkit, {method}", errors))
        for folder, detector in LEARNED_SETS if has_learned() else ():
            pairs = list(scene_pairs(data / folder))
            for effort in EFFORTS[1:]:
                errors = corner_errors(pairs, MatchConfig(effort=effort, detector=detector), cache)
                rows.append(row(pairs, folder, detector, f"featkit, {effort}", errors))
    titles = ["photos", "detector", "method", *(f"AUC@{t}" for t in THRESHOLDS), "within 3 px", "within 10 px"]
    print_table("Accuracy of the homography", titles, rows)


if __name__ == "__main__":
    main(data_folder(__doc__))
