"""How far verdicts and stated bounds can be believed: photos with truth, and photos that have nothing in common.

python -m tests.bench.verdicts [--data FOLDER] [--detector NAME ...] [--effort NAME] [--step N]

"wrong": further than 10 pixels off at the corners, or a geometry between unrelated photos. A right answer is one within
3 or within 10 pixels; whether it is called reliable is the other half of honesty.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featkit import Cache, FeatkitError, MatchConfig, MatchResult, match_pairs
from tests.bench.report import arguments, option_parser, print_table
from tests.bench.truth import corner_error, scene_pairs

WRONG_PX = 10.0
RIGHT_PX = (3.0, 10.0)
VERDICTS = ("reliable", "doubtful", "none")
DETECTORS = ("sift", "orb")


def results(pairs: Sequence[tuple[str, str]], config: MatchConfig) -> Iterator[MatchResult]:
    for outcome in match_pairs(pairs, config, cache=Cache(None)):
        if isinstance(outcome, FeatkitError):
            raise outcome
        yield outcome


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % ({part} of {whole})" if whole else "–"


def main(data: Path, detectors: Sequence[str] = DETECTORS, step: int = 1, **options: Any) -> None:
    verdict_rows, right_rows, bound_rows, odd_rows = [], [], [], []
    for detector in detectors:
        config = MatchConfig(detector=detector, **options)
        for folder in ("oxford", "warped"):
            pairs = list(scene_pairs(data / folder))
            verdicts, errors, bounds = [], [], []
            for pair, result in zip(pairs, results([(pair.a, pair.b) for pair in pairs], config), strict=True):
                error = corner_error(result.matrix, pair.truth, result.a.features.image_size)
                verdicts.append(result.verdict)
                errors.append(error)
                stated = result.bound_px
                bounds.append(stated)
                bounded = stated is None or error <= stated
                if not bounded or (error <= WRONG_PX) != (result.verdict == "reliable"):
                    bound = "–" if stated is None else f"{stated:.2f}"
                    name = f"{folder}/{pair.scene} {Path(pair.b).stem}"
                    odd_rows.append(
                        [name, detector.upper(), f"{error:.2f}", bound, result.verdict, result.estimate.reason]
                    )
            called = np.array([verdict == "reliable" for verdict in verdicts])
            error_px = np.array(errors)
            verdict_rows.append(
                [folder, detector.upper(), str(len(pairs))]
                + [str(verdicts.count(verdict)) for verdict in VERDICTS]
                + [str(int((called & (error_px > WRONG_PX)).sum()))]
            )
            right_rows.append(
                [folder, detector.upper()]
                + [share(int(called[error_px <= limit].sum()), int((error_px <= limit).sum())) for limit in RIGHT_PX]
            )
            has_bound = np.array([bound is not None for bound in bounds])
            ratios = np.array([error / bound for error, bound in zip(errors, bounds, strict=True) if bound is not None])
            quantiles = np.quantile(ratios, (0.05, 0.5, 0.95)) if len(ratios) else np.full(3, np.nan)
            bound_rows.append(
                [
                    folder,
                    detector.upper(),
                    share(int((ratios <= 1).sum()), len(ratios)),
                    share(int((ratios[called[has_bound]] <= 1).sum()), int(called[has_bound].sum())),
                    *(f"{quantile:.2f}" for quantile in quantiles),
                ]
            )
        photos = sorted(str(path) for path in (data / "imagenet-sample").glob("*.JPEG"))
        apart = list(itertools.combinations(photos, 2))[::step]
        counts: Counter[str] = Counter()
        for result in results(apart, config):
            counts[result.verdict] += 1
            if result.verdict != "none":
                name = f"{Path(result.a.path).stem} {Path(result.b.path).stem}"
                odd_rows.append([name, detector.upper(), "∞", "–", result.verdict, result.estimate.reason])
        verdict_rows.append(
            ["unrelated", detector.upper(), str(len(apart))]
            + [str(counts[verdict]) for verdict in VERDICTS]
            + [str(counts["reliable"])]
        )
    print_table("Verdicts", ["photos", "detector", "pairs", *VERDICTS, "“reliable”, and wrong"], verdict_rows)
    print_table(
        "Right answers that are called reliable",
        ["photos", "detector", *(f"within {limit:g} px" for limit in RIGHT_PX)],
        right_rows,
    )
    print_table(
        "True corner error against the stated 95 % bound",
        [
            "photos",
            "detector",
            "below it, of all with a bound",
            "below it, of the reliable",
            *(f"error over bound, {quantile}" for quantile in ("5 %", "median", "95 %")),
        ],
        bound_rows,
    )
    if odd_rows:
        print_table(
            "What the verdict or the bound gets wrong, or gives away",
            ["pair", "detector", "corner error", "95 % bound", "verdict", "reason"],
            odd_rows,
        )


if __name__ == "__main__":
    parser = option_parser(__doc__)
    parser.add_argument("--detector", nargs="+", default=DETECTORS, help="which ones (default: sift orb)")
    parser.add_argument("--effort", help="as of featkit match")
    parser.add_argument("--step", type=int, default=1, help="of the unrelated pairs take every Nth")
    given = arguments(parser)
    effort = {} if given.effort is None else {"effort": given.effort}
    main(given.data, given.detector, given.step, **effort)
