"""PCA, the linear SVM and the digits of scikit-learn, each beside scikit-learn: CPU seconds and accuracy.

python -m tests.bench.heads [--data FOLDER] [--only PART …]

One thread for matrix products on both sides. The vectors are scikit-image's HOG of CIFAR-10's training pictures, out of
cifar10.tar.gz in the folder; where that is not there, numbers drawn with a spectrum like theirs.
"""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

from featkit.classical.hog import SkimageHogConfig, hog_as_skimage
from featkit.extraction.makers import make
from featkit.images import fit_to
from featkit.learning.heads import classifier
from featkit.learning.linear import LinearConfig, fit_linear
from featkit.learning.reduction import ReductionConfig, fit_reduction
from featkit.learning.training import Training
from tests.bench.hog_rate import Floats, Pixels, by_skimage
from tests.bench.report import median_cpu_seconds, option_parser, print_table

Labels = npt.NDArray[np.int64]

PARTS = ("pca", "linear-svm", "digits")
REPETITIONS = 3
ARCHIVE = "cifar10.tar.gz"
CLASSES = 10
# Blocks of 2 × 2 cells out of enlarged pictures make 1764 numbers, and those of 3 × 3 out of pictures as they are 324.
PCA_ROWS, PCA_SIZE, PCA_BLOCK, COMPONENTS = 15_000, (64, 64), 2, 200
SVM_ROWS, SVM_TEST_ROWS, SVM_SIZE, SVM_BLOCK = 8000, 4000, (32, 32), 3
FOLDS = 5
DIGIT_SIZES = ((32, 32), (8, 8))
_WHITE_OF_DIGITS = 16


# --- vectors


def training_pictures(archive: Path, count: int) -> tuple[list[Pixels], Labels]:
    """uint8 H×W×3 each, RGB, chosen at random, and their classes."""
    with tarfile.open(archive) as members:
        # Compressed, they can be read in their order alone.
        data = {
            member.name: members.extractfile(member).read()
            for member in members
            if member.isfile() and member.name.startswith("train/")
        }
    names = np.random.default_rng(0).permutation(sorted(data))[:count]
    pictures = [cv2.imdecode(np.frombuffer(data[name], np.uint8), cv2.IMREAD_COLOR_RGB) for name in names]
    _, labels = np.unique([Path(name).parent.name for name in names], return_inverse=True)
    return pictures, labels


def drawn(count: int, dimensions: int) -> tuple[Floats, Labels]:
    """Numbers whose variances fall as those of HOG do, and by which a linear SVM is right two times in five."""
    random = np.random.default_rng(0)
    place = np.arange(1, dimensions + 1)
    deviations = 0.4 * np.sqrt(place**-0.8 * np.exp(-place / 400))
    axes, _ = np.linalg.qr(random.standard_normal((dimensions, dimensions)))
    labels = random.integers(CLASSES, size=count)
    centres = 0.08 * random.standard_normal((CLASSES, dimensions))
    vectors = (random.standard_normal((count, dimensions)) + centres[labels]) * deviations
    return (vectors @ axes).astype(np.float32), labels


def vectors_and_labels(data: Path, count: int, size: tuple[int, int], block: int) -> tuple[Floats, Labels]:
    """float32 N×D, and N classes."""
    archive, config = data / ARCHIVE, SkimageHogConfig(block=block)
    if archive.is_file():
        pictures, labels = training_pictures(archive, count)
        return hog_as_skimage(np.stack([fit_to(picture, size) for picture in pictures]), config), labels
    width, height = size
    print(f"there is no {archive}: the numbers are drawn", file=sys.stderr)
    return drawn(count, hog_as_skimage(np.zeros((1, height, width), np.uint8), config).shape[1])


# --- tables


def variance_kept(vectors: Floats, directions: Floats) -> float:
    """Of N×D the share of the variance along D×P directions, in float64."""
    centred = vectors - vectors.mean(0, dtype=np.float64)
    orthonormal, _ = np.linalg.qr(directions.astype(np.float64))
    return float(((centred @ orthonormal) ** 2).sum() / (centred**2).sum())


def pca_rows(data: Path) -> list[list[str]]:
    vectors, labels = vectors_and_labels(data, PCA_ROWS, PCA_SIZE, PCA_BLOCK)
    solvers = ("covariance_eigh", "randomized")
    theirs = [PCA(COMPONENTS, svd_solver=solver, random_state=0) for solver in solvers]
    config, blocks = ReductionConfig("pca", COMPONENTS), (vectors.shape[1],)
    works: list[Callable[[], object]] = [lambda pca=pca: pca.fit(vectors) for pca in theirs]
    works.append(lambda: fit_reduction((vectors,), labels, blocks, config))
    seconds = median_cpu_seconds(works, REPETITIONS)
    directions = [pca.components_.T for pca in theirs]
    directions.append(fit_reduction((vectors,), labels, blocks, config).projection)
    names = [*(f'scikit-learn, `svd_solver="{solver}"`' for solver in solvers), "featkit"]
    return [
        [name, f"{each:.2f} s", f"{seconds[-1] / each:.2f}", f"{variance_kept(vectors, found):.3%}"]
        for name, each, found in zip(names, seconds, directions, strict=True)
    ]


def linear_svm_rows(data: Path) -> list[list[str]]:
    vectors, labels = vectors_and_labels(data, SVM_ROWS + SVM_TEST_ROWS, SVM_SIZE, SVM_BLOCK)
    train, test = slice(SVM_ROWS), slice(SVM_ROWS, None)
    training = Training((vectors[train],), labels[train], CLASSES, np.ones(SVM_ROWS, np.float32), 0)
    # By default scikit-learn holds the intercepts small as if they were weights; scaled, hardly, and then both have the
    # same minimum.
    theirs = {"LinearSVC()": LinearSVC(), "LinearSVC(intercept_scaling=10)": LinearSVC(intercept_scaling=10)}
    config = LinearConfig("hinge")
    works: list[Callable[[], object]] = [
        lambda svm=svm: svm.fit(vectors[train], labels[train]) for svm in theirs.values()
    ]
    works.append(lambda: fit_linear(training, config))
    seconds = median_cpu_seconds(works, REPETITIONS)
    predicted = [svm.predict(vectors[test]) for svm in theirs.values()]
    predicted.append(fit_linear(training, config).scores(vectors[test]).argmax(1))
    names = [*(f"scikit-learn, `{name}`" for name in theirs), "featkit"]
    return [
        [name, f"{each:.2f} s", f"{seconds[-1] / each:.2f}", f"{(found == labels[test]).mean():.2%}"]
        for name, each, found in zip(names, seconds, predicted, strict=True)
    ]


def featkit_accuracy(pictures: Pixels, labels: Labels, folds: StratifiedKFold) -> float:
    """What `featkit classify` does by default, with each fold held out in turn. pictures: uint8 N×H×W×3."""
    height, width = pictures.shape[1:3]
    maker, default = make("hog", (width, height), lambda: pictures), classifier("svm")
    vectors, right = maker(pictures), []
    for train, test in folds.split(vectors, labels):
        config = ReductionConfig.parse(default.reduction)
        reduction = fit_reduction((vectors[train],), labels[train], maker.blocks, config, maker.variances)
        weights = np.ones(len(train), np.float32)
        training = Training((reduction(vectors[train]),), labels[train], CLASSES, weights, 0)
        head = default.fit(training, None)
        right.append((head.scores(reduction(vectors[test])).argmax(1) == labels[test]).mean())
    return float(np.mean(right))


def digit_rows() -> list[list[str]]:
    numbers, labels = load_digits(return_X_y=True)
    # In the order of the set, where folds have other writers: shuffled, all are more often right.
    folds = StratifiedKFold(FOLDS)
    pixels = np.rint(numbers.reshape(-1, 8, 8) * (255 / _WHITE_OF_DIGITS)).astype(np.uint8)
    pictures = {
        size: np.stack([fit_to(np.repeat(digit[..., None], 3, 2), size) for digit in pixels]) for size in DIGIT_SIZES
    }
    large = by_skimage(pictures[DIGIT_SIZES[0]][..., 0])
    by_hand = {
        "pixels, `SVC(gamma=0.001)`": (SVC(gamma=0.001), numbers),
        "pixels, `SVC(C=10)`": (SVC(C=10), numbers),
        "32 × 32, scikit-image's HOG, `SVC(C=10)`": (SVC(C=10), large),
    }
    accuracies = {name: cross_val_score(head, of, labels, cv=folds).mean() for name, (head, of) in by_hand.items()}
    for (width, height), images in pictures.items():
        accuracies[f"{width} × {height}, featkit"] = featkit_accuracy(images, labels, folds)
    return [[name, f"{accuracy:.2%}"] for name, accuracy in accuracies.items()]


def main(data: Path, parts: Sequence[str] = PARTS) -> None:
    with threadpool_limits(1):
        if "pca" in parts:
            title = f"PCA of {PCA_ROWS:,} vectors of 1764 numbers to {COMPONENTS}"
            print_table(title, ["by", "fit, CPU", "featkit relative to it", "variance kept"], pca_rows(data))
        if "linear-svm" in parts:
            title = f"Linear SVM, {SVM_ROWS:,} vectors of 324 numbers, {SVM_TEST_ROWS:,} others to test on"
            print_table(title, ["by", "fit, CPU", "featkit relative to it", "accuracy"], linear_svm_rows(data))
        if "digits" in parts:
            print_table(f"Digits of scikit-learn, {FOLDS} folds", ["by", "accuracy"], digit_rows())


if __name__ == "__main__":
    parser = option_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=" ".join(PARTS))
    given = parser.parse_args()
    main(given.data, given.only)
