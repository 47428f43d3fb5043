"""Fewer numbers a picture: principal components or discriminants, exactly, from sums of products in one pass.

First each block of a vector (the gradients, the colours) is scaled as a whole to the variance that it is to have, so
that none counts for its units alone. All of it, and the projection, is one affine map.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
_Doubles = npt.NDArray[np.float64]

_ROWS = 4096
# Of the largest variance: what is below it is rounding, and is not whitened.
_NEGLIGIBLE = 1e-7
_SMALLEST = float(np.finfo(np.float32).tiny)

# Of up to so many dimensions, and of more. Measured on CIFAR-10 with the RBF machine: 744 of HOG and colours lose
# nothing at 400; with 1000 of patches 400 cost half a point against 800.
_FEW_DIMENSIONS, _COMPONENTS, _MORE_COMPONENTS = 1000, 400, 800

#: Of dimensions, whose covariance takes 512 MB.
LARGEST_COVARIANCE = 8192


@dataclass(frozen=True)
class ReductionConfig:
    """method: "pca", "lda" or "none". components: how many of "pca", None: 400, or 800 of more than 1,000
    dimensions; at most as many as there are dimensions, or pictures less one. whiten: each component to unit variance.
    Raises UsageError for what makes no sense."""

    method: str = "pca"
    components: int | None = None
    whiten: bool = False

    def __post_init__(self) -> None:
        if self.method not in ("pca", "lda", "none"):
            raise UsageError(f"there is no reduction {self.method!r}", hint="there are: pca, pca:N, lda, none")
        if self.components is not None and self.components < 1:
            raise UsageError(f"a reduction leaves 1 component or more, not {self.components}")

    @classmethod
    def parse(cls, text: str, whiten: bool = False) -> ReductionConfig:
        """From "pca", "pca:200", "lda" or "none"."""
        form = re.fullmatch(r"(pca|lda|none)(?::([0-9]{1,9}))?", text)
        if form is None or (form[2] is not None and form[1] != "pca"):
            raise UsageError(f"there is no reduction {text!r}", hint="there are: pca, pca:N, lda, none")
        return cls(form[1], int(form[2]) if form[2] else None, whiten)


@dataclass(frozen=True)
class Reduction:
    """x -> (x - mean) · projection. mean: float32 D. projection: float32 D×P; a vector of D, a scale each, where
    nothing is projected. kept: share of the variance that is kept, 0..1."""

    mean: Floats
    projection: Floats
    kept: float

    def __call__(self, features: Floats) -> Floats:
        """float32 N×P from float32 N×D."""
        centred = features - self.mean
        return np.asarray(
            centred * self.projection if self.projection.ndim == 1 else centred @ self.projection, np.float32
        )

    @property
    def dimensions(self) -> int:
        return int(self.projection.shape[-1])

    def parts(self) -> tuple[dict[str, object], dict[str, npt.NDArray[Any]]]:
        return {"kept": self.kept}, {"mean": self.mean, "projection": self.projection}

    @classmethod
    def from_parts(cls, config: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Reduction:
        mean, projection = arrays["mean"], arrays["projection"]
        if mean.ndim != 1 or projection.ndim not in (1, 2) or len(projection) != len(mean):
            raise ValueError("the parts of a reduction do not fit together")
        return cls(mean, projection, float(config["kept"]))


def fit_reduction(
    views: Sequence[Floats],
    labels: Labels,
    blocks: Sequence[int],
    config: ReductionConfig,
    block_variances: Sequence[float] | None = None,
) -> Reduction:
    """views: float32 N×D, the pictures and perhaps their mirror images. labels: N, for "lda". blocks: sizes that sum to
    D. block_variances: the total variance that each is scaled to; None: 1.

    "pca": eigenvectors of the covariance, whose signs are such that the largest entry is positive; where there are
    fewer rows than dimensions, by the rows' products with each other, which is as exact. Beyond LARGEST_COVARIANCE
    dimensions as many rows, spread evenly over all, stand for the rest. "lda": eigenvectors of the scatter between
    classes relative to that within (Fisher 1936), K - 1 or fewer, with a ridge of a ten-thousandth of the mean
    variance; to unit variance within classes. Raises UsageError for "lda" of more dimensions than LARGEST_COVARIANCE.
    """
    dimensions, count = views[0].shape[1], len(views) * len(views[0])
    components = config.components or (_COMPONENTS if dimensions <= _FEW_DIMENSIONS else _MORE_COMPONENTS)
    if config.method == "lda" and dimensions > LARGEST_COVARIANCE:
        raise UsageError(
            f"discriminants are found of up to {LARGEST_COVARIANCE} numbers a picture, not of {dimensions}",
            hint="pca:N instead of lda, or a smaller --size",
        )
    by_rows = config.method == "pca" and (count <= dimensions or dimensions > LARGEST_COVARIANCE)
    if config.method == "none" or by_rows:
        mean, variances = _moments_apart(views)
        scale = _block_scales(variances, blocks, block_variances)
    if config.method == "none":
        if config.whiten:
            scale = 1 / np.sqrt(np.where(variances > 0, variances, 1))
        return Reduction(mean.astype(np.float32), scale.astype(np.float32), 1.0)
    if by_rows:
        values, directions = _leading_of_rows(views, mean, scale, components)
        total = float(variances @ scale**2)
    else:
        mean, covariance = moments(views)
        scale = _block_scales(np.diag(covariance), blocks, block_variances)
        covariance *= scale[:, None] * scale
        if config.method == "lda":
            directions = _discriminants(views, labels, mean, scale, covariance)
            return Reduction(mean.astype(np.float32), (scale[:, None] * directions).astype(np.float32), 1.0)
        values, directions = _leading(covariance, min(components, dimensions))
        total = float(np.trace(covariance))
    if config.whiten:
        directions = directions / np.sqrt(np.maximum(values, _NEGLIGIBLE * max(values[0], _SMALLEST)))
    kept = min(float(values.sum() / total), 1.0) if total > 0 else 1.0
    return Reduction(mean.astype(np.float32), (scale[:, None] * directions).astype(np.float32), kept)


def moments(views: Sequence[Floats]) -> tuple[_Doubles, _Doubles]:
    """Mean D and covariance D×D of all rows, in one pass: float32 products of a block at a time, about a value near the
    mean, summed in float64."""
    near = np.asarray(views[0][:_ROWS]).mean(0, dtype=np.float64).astype(np.float32)
    total, products, count = np.zeros(len(near)), np.zeros((len(near), len(near))), 0
    for view in views:
        for start in range(0, len(view), _ROWS):
            rows = view[start : start + _ROWS] - near
            total += rows.sum(0, dtype=np.float64)
            products += rows.T @ rows
            count += len(rows)
    shift = total / count
    products /= count
    products -= shift[:, None] * shift
    return near + shift, products


def _moments_apart(views: Sequence[Floats]) -> tuple[_Doubles, _Doubles]:
    """Mean and variance of each dimension, D each."""
    near = np.asarray(views[0][:_ROWS]).mean(0, dtype=np.float64).astype(np.float32)
    total, squares, count = np.zeros(len(near)), np.zeros(len(near)), 0
    for view in views:
        for start in range(0, len(view), _ROWS):
            rows = view[start : start + _ROWS] - near
            total += rows.sum(0, dtype=np.float64)
            squares += np.einsum("ij,ij->j", rows, rows)
            count += len(rows)
    shift = total / count
    return near + shift, np.maximum(squares / count - shift**2, 0)


def spread(views: Sequence[Floats]) -> float:
    """The total variance of all rows."""
    total, squares, count = np.zeros(views[0].shape[1]), 0.0, 0
    for view in views:
        for start in range(0, len(view), _ROWS):
            rows = np.asarray(view[start : start + _ROWS])
            total += rows.sum(0, dtype=np.float64)
            squares += float(np.einsum("ij,ij->", rows, rows, dtype=np.float64))
            count += len(rows)
    return max(squares / count - float(total @ total) / count**2, _SMALLEST)


def _block_scales(variances: _Doubles, blocks: Sequence[int], wanted: Sequence[float] | None) -> _Doubles:
    """Of each dimension the factor that gives its block the total variance wanted, or 1; 1 for one that does not
    vary."""
    totals = np.add.reduceat(variances, np.cumsum([0, *blocks[:-1]]))
    scales = np.sqrt((1.0 if wanted is None else np.array(wanted)) / np.where(totals > 0, totals, 1))
    return np.repeat(np.where(totals > 0, scales, 1), blocks)


def _leading(covariance: _Doubles, count: int) -> tuple[_Doubles, _Doubles]:
    """The largest eigenvalues, falling, and their vectors D×count. In float32: half the time, and the variance that is
    kept is the same in six digits."""
    from scipy.linalg import eigh

    size = len(covariance)
    values, vectors = eigh(
        covariance.astype(np.float32), subset_by_index=(size - count, size - 1), overwrite_a=True, check_finite=False
    )
    values, vectors = values[::-1].astype(float), vectors[:, ::-1].astype(float)
    return np.maximum(values, 0), vectors * _signs(vectors)


def _leading_of_rows(
    views: Sequence[Floats], mean: _Doubles, scale: _Doubles, components: int
) -> tuple[_Doubles, _Doubles]:
    """The same from the products of at most LARGEST_COVARIANCE rows with each other."""
    share = min(1.0, LARGEST_COVARIANCE / (len(views) * len(views[0])))
    chosen = np.linspace(0, len(views[0]) - 1, max(1, int(share * len(views[0])))).astype(np.int64)
    rows = np.empty((len(views) * len(chosen), views[0].shape[1]), np.float32)
    for number, view in enumerate(views):
        np.take(view, chosen, axis=0, out=rows[number * len(chosen) : (number + 1) * len(chosen)])
    rows -= mean.astype(np.float32)
    rows *= scale.astype(np.float32)
    rows -= rows.mean(0)
    values, vectors = _leading((rows @ rows.T).astype(float), max(1, min(components, len(rows) - 1, rows.shape[1])))
    directions = (rows.T @ vectors.astype(np.float32)).astype(float)
    lengths = np.linalg.norm(directions, axis=0)
    directions /= np.where(lengths > 0, lengths, 1)
    return values / len(rows), directions * _signs(directions)


def _signs(directions: _Doubles) -> _Doubles:
    """±1 of each column, that of its largest entry."""
    largest = directions[np.abs(directions).argmax(0), np.arange(directions.shape[1])]
    return np.where(largest < 0, -1.0, 1.0)


def _discriminants(
    views: Sequence[Floats], labels: Labels, mean: _Doubles, scale: _Doubles, covariance: _Doubles
) -> _Doubles:
    from scipy.linalg import eigh

    classes = int(labels.max()) + 1
    sums, counts = np.zeros((classes, len(mean))), np.bincount(labels, minlength=classes) * len(views)
    for view in views:
        for start in range(0, len(view), _ROWS):
            rows = slice(start, start + _ROWS)
            np.add.at(sums, labels[rows], np.asarray(view[rows], float))
    centres = (sums / np.maximum(counts, 1)[:, None] - mean) * scale
    between = (centres * (counts / counts.sum())[:, None]).T @ centres
    within = covariance - between
    within[np.diag_indices_from(within)] += 1e-4 * np.trace(within) / len(within) + 1e-12
    count = min(classes - 1, len(mean))
    size = len(mean)
    _, vectors = eigh(between, within, subset_by_index=(size - count, size - 1))
    vectors = vectors[:, ::-1]
    return np.asarray(vectors * _signs(vectors))
