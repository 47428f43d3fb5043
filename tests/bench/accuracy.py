"""Corner error of `featkit match` on photos with known homographies, beside the tutorial's script.

python -m tests.bench.accuracy [--data FOLDER]
"""

from __future__ import annotations

from pathlib import Path

from featkit import Cache, match
from tests.bench.report import data_folder, print_table
from tests.bench.truth import THRESHOLDS, auc, corner_error, scene_pairs, tutorial_homography

SETS = (("oxford", "sift"), ("oxford", "orb"), ("warped", "sift"), ("warped", "orb"))


def main(data: Path) -> None:
    rows = []
    for folder, detector in SETS:
        ours, theirs = [], []
        for pair in scene_pairs(data / folder):
            result = match(pair.a, pair.b, detector=detector, cache=Cache(None))
            size = result.a.features.image_size
            ours.append(corner_error(result.matrix, pair.truth, size))
            theirs.append(corner_error(tutorial_homography(pair.a, pair.b, detector), pair.truth, size))
        for method, errors in (("featkit", ours), ("tutorial script", theirs)):
            rows.append(
                [f"{folder}, {len(errors)} pairs", detector.upper(), method]
                + [f"{auc(errors, threshold):.1f}" for threshold in THRESHOLDS]
                + [f"{sum(error <= 3 for error in errors)}", f"{sum(error <= 10 for error in errors)}"]
            )
    titles = ["photos", "detector", "method", *(f"AUC@{t}" for t in THRESHOLDS), "within 3 px", "within 10 px"]
    print_table("Accuracy of the homography", titles, rows)


if __name__ == "__main__":
    main(data_folder(__doc__))
