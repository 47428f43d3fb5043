"""How far verdicts and stated uncertainties can be believed: photos with truth, and photos that have nothing in common.

python -m tests.bench.verdicts [--data FOLDER]

"wrong": further than 10 pixels off at the corners, or a geometry between unrelated photos.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np

from featkit import Cache, MatchConfig, MatchResult, match_pairs
from tests.bench.report import data_folder, print_table
from tests.bench.truth import corner_error, scene_pairs

WRONG_PX = 10.0
# ORB has ten times the keypoints on such small photos: every ninth pair.
UNRELATED_STEP = {"sift": 1, "orb": 9}
VERDICTS = ("reliable", "doubtful", "none")


def results(pairs: list[tuple[str, str]], detector: str, cache: Cache) -> list[MatchResult]:
    found = match_pairs(pairs, MatchConfig(detector=detector), cache=cache)
    return [result for result in found if isinstance(result, MatchResult)]


def main(data: Path) -> None:
    verdict_rows, calibration_rows = [], []
    for detector in ("sift", "orb"):
        for folder in ("oxford", "warped"):
            pairs = list(scene_pairs(data / folder))
            found = results([(pair.a, pair.b) for pair in pairs], detector, Cache(None))
            errors = [
                corner_error(result.matrix, pair.truth, result.a.features.image_size)
                for result, pair in zip(found, pairs, strict=True)
            ]
            counts = Counter((result.verdict, error > WRONG_PX) for result, error in zip(found, errors, strict=True))
            verdict_rows.append(
                [folder, detector.upper(), str(len(found))]
                + [str(counts[verdict, False] + counts[verdict, True]) for verdict in VERDICTS]
                + [str(counts["reliable", True])]
            )
            ratios = np.array(
                [
                    error / result.uncertainty_px
                    for result, error in zip(found, errors, strict=True)
                    if result.verdict == "reliable" and result.uncertainty_px
                ]
            )
            calibration_rows.append(
                [folder, detector.upper(), *(f"{quantile:.2f}" for quantile in np.quantile(ratios, (0.05, 0.5, 0.95)))]
            )
        photos = sorted(str(path) for path in (data / "imagenet-sample").glob("*.JPEG"))
        pairs_apart = list(itertools.combinations(photos, 2))[:: UNRELATED_STEP[detector]]
        verdicts = Counter(result.verdict for result in results(pairs_apart, detector, Cache(None)))
        verdict_rows.append(
            ["unrelated", detector.upper(), str(len(pairs_apart))]
            + [str(verdicts[verdict]) for verdict in VERDICTS]
            + [str(verdicts["reliable"])]
        )
    print_table("Verdicts", ["photos", "detector", "pairs", *VERDICTS, "“reliable”, and wrong"], verdict_rows)
    print_table(
        "True corner error over `uncertainty_px`, of the reliable",
        ["photos", "detector", "5 %", "median", "95 %"],
        calibration_rows,
    )


if __name__ == "__main__":
    main(data_folder(__doc__))
