"""Makes featkit/local/vocabulary.npy, the visual words of `--pairs auto`, from the sample pictures.

python -m tests.bench.vocabulary [ANOTHER FILE]

k-means (Lloyd 1982) of the RootSIFT descriptors of the samples' thumbnails, stored as round(255 · root): 8 KB. Words
of a few photos serve any others: they only cut the space of descriptors into parts. Whoever makes them anew raises
VERSION in featkit/local/pairing.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featkit.images import read_bytes, thumbnail
from featkit.local.features import detect
from featkit.local.matching import root_sift
from featkit.local.pairing import THUMBNAIL_DETECTION, THUMBNAIL_SIDE, VOCABULARY
from tests.bench.report import ROOT

WORDS = 64
ROUNDS = 30


def k_means(points: npt.NDArray[np.float32], words: int) -> npt.NDArray[np.float32]:
    centres = points[np.random.default_rng(0).choice(len(points), words, replace=False)]
    for _ in range(ROUNDS):
        nearest = (points @ centres.T - 0.5 * (centres**2).sum(1)).argmax(1)
        centres = np.stack(
            [points[nearest == word].mean(0) if (nearest == word).any() else centres[word] for word in range(words)]
        )
    return centres


def main(target: Path) -> None:
    photos = sorted(path for path in (ROOT / "samples").iterdir() if path.suffix in (".jpg", ".png"))
    described = [
        detect(thumbnail(read_bytes(path), THUMBNAIL_SIDE), THUMBNAIL_DETECTION).descriptors for path in photos
    ]
    centres = k_means(root_sift(np.concatenate(described)), WORDS)
    np.save(target, np.rint(255 * centres).astype(np.uint8), allow_pickle=False)
    print(f"{target}: {WORDS} words of {sum(map(len, described))} descriptors")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else VOCABULARY)
