"""Ridge regression to +1 for the class and -1 for the others: at any one regularisation, or at the best of many, which
exact leave-one-out finds (Allen 1974; Rifkin & Lippert 2007) from one eigendecomposition.

With A = Xᵀ X + λ, of the features X less their mean, the share of a picture's own target in what is predicted for it is
h = weight · (1 / sum of weights + xᵀ A⁻¹ x), and without that picture it is missed by (prediction - target) / (1 - h).
Of a picture and its mirror image, which are left out together, h is a matrix of 2×2. In the eigenvectors of Xᵀ X, or,
where there are fewer rows than features, of X Xᵀ, A is diagonal whatever λ is.

Rows are read a block at a time, from memory or from a memory-mapped file: once for the products, once to be left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.learning.newton import Floats, Labels, solver
from featkit.learning.training import Training

_Doubles = npt.NDArray[np.float64]

_ROWS = 2048
# Of all regularisations together, how many columns of predictions there are at a time.
_COLUMNS = 512
# By type: the least that 1 - h can be told from 0 by.
_SMALLEST_REST = {"f": 1e-6, "d": 1e-10}
# A total variance below this is none.
_SMALLEST = float(np.finfo(np.float32).tiny)
#: Of the total variance of all rows, how much is added to each direction's, unless told otherwise: 7.2 decades. Of
#: lite0's layers and HOG of CIFAR-10, caltech15 and hymenoptera, 3 to 500 pictures a class, the best by leave-one-out
#: is 2^-4 to 2^-17, or all below are as good, and 2^0 is far too much; of 13 numbers of which one has nearly all the
#: variance it is 2^-24, which is as far as products of float32 go.
RELATIVE = tuple(2.0**-power for power in range(25))


@dataclass(frozen=True)
class Chosen:
    """found: as of `fit`, of all pictures. C: the choice. validated: share of the pictures that are labelled right by
    what the others say, of those that are not alone in their class; 0 if all are."""

    found: Floats
    C: float
    validated: float


@dataclass(frozen=True)
class _Products:
    """Of all rows, weighted, less their mean, which is near + shift, each P. matrix: of the features with each other,
    P×P, or, where rows are fewer, of the n rows of all views, n×n. sides: of the same with the targets, P×K, or the
    targets, n×K. level: K, the mean target. total: the sum of weights."""

    matrix: _Doubles
    sides: _Doubles
    near: Floats
    shift: _Doubles
    level: _Doubles
    total: float
    by_rows: bool


def fit(training: Training, c: float) -> Floats:
    """float32 (P+1)×K, the intercepts last. c: half of 1 / λ; the intercepts are not held small."""
    return _solved(training, _products(training), c)


def choose(training: Training, choices: Sequence[float]) -> Chosen:
    """With the C of `choices` by which the fewest pictures are labelled wrong when they are left out; of equals that by
    which they are missed least, squared. choices: none for those of RELATIVE.

    Two views are left out together, and labelled by their mean.
    """
    products = _products(training)
    trace = float(np.trace(products.matrix))
    scale = trace if trace > _SMALLEST else 1.0
    candidates = np.array(choices or [1 / (2 * scale * each) for each in RELATIVE])
    wrong, missed, held_out = _left_out(training, products, 1 / (2 * candidates), scale)
    best = int(np.lexsort((missed, wrong))[0])
    c = float(candidates[best])
    # By Cholesky, as where C is given: the same numbers, whoever chose it.
    return Chosen(_solved(training, products, c), c, 1 - int(wrong[best]) / held_out if held_out else 0.0)


# --- the products


def _products(training: Training) -> _Products:
    count = len(training.views) * len(training.labels)
    return _products_of_features(training) if training.dimensions <= count else _products_of_rows(training)


def _products_of_features(training: Training) -> _Products:
    """Products of float32 summed in float64, of rows less those near their mean."""
    near, level, masses = _near(training), *_levels(training)
    sums = np.zeros((training.classes, training.dimensions))
    matrix = np.zeros((training.dimensions, training.dimensions))
    for view in training.views:
        for place in _blocks(training):
            rows, weights = view[place] - near, training.weights[place]
            shares = np.zeros((training.classes, len(rows)), np.float32)
            shares[training.labels[place], np.arange(len(rows))] = weights
            sums += shares @ rows
            rows *= np.sqrt(weights)[:, None]
            matrix += rows.T @ rows
    total = float(masses.sum())
    shift = sums.sum(0) / total
    matrix -= total * shift[:, None] * shift
    # The targets of a class are 2 for its own rows, less a number for all, whose products with the rest are 0.
    sides = 2 * (sums - masses[:, None] * shift).T
    return _Products(matrix, sides, near, shift, level, total, by_rows=False)


def _products_of_rows(training: Training) -> _Products:
    """Some features at a time."""
    near, level, masses = _near(training), *_levels(training)
    total = float(masses.sum())
    roots = np.sqrt(np.tile(training.weights, len(training.views)).astype(float))
    matrix, shift = np.zeros((len(roots), len(roots))), np.zeros(training.dimensions)
    for start in range(0, training.dimensions, _ROWS):
        place = slice(start, start + _ROWS)
        columns = np.concatenate([view[:, place] for view in training.views]) - near[place]
        shift[place] = roots**2 @ columns / total
        columns *= roots.astype(np.float32)[:, None]
        matrix += columns @ columns.T
    # Less the mean of the rows: of what is near it the direction of the roots of the weights is taken out.
    across = roots / np.sqrt(total)
    along = matrix @ across
    matrix -= across[:, None] * along + along[:, None] * across - (across @ along) * across[:, None] * across
    signs = np.full((len(training.labels), training.classes), -1.0)
    signs[np.arange(len(training.labels)), training.labels] = 1
    sides = roots[:, None] * (np.tile(signs, (len(training.views), 1)) - level)
    return _Products(matrix, sides, near, shift, level, total, by_rows=True)


def _near(training: Training) -> Floats:
    """A mean of some rows. What is left of the mean of all is small, and so is what it costs in digits."""
    return np.asarray(np.mean(training.views[0][:_ROWS], 0, np.float64), np.float32)


def _levels(training: Training) -> tuple[_Doubles, _Doubles]:
    """K each: the mean target, and the weight of all rows of the class."""
    masses = np.zeros(training.classes)
    np.add.at(masses, training.labels, training.weights)
    masses *= len(training.views)
    return 2 * masses / masses.sum() - 1, masses


def _blocks(training: Training) -> Iterator[slice]:
    for start in range(0, len(training.labels), _ROWS):
        yield slice(start, min(start + _ROWS, len(training.labels)))


def _solved(training: Training, products: _Products, c: float) -> Floats:
    found = solver(products.matrix, 1 / (2 * c))(products.sides)
    if products.by_rows:
        found = _combined(training, products.near, found)
    intercepts = products.level - (products.near + products.shift) @ found
    return np.vstack([found, intercepts]).astype(np.float32)


def _combined(training: Training, near: Floats, shares: Floats) -> Floats:
    """P×K: all rows, each times its shares, n×K, of which the weighted sum is 0, so that any mean is right."""
    count = len(training.labels)
    found = np.zeros((training.dimensions, training.classes))
    for number, view in enumerate(training.views):
        for place in _blocks(training):
            own = shares[number * count + place.start : number * count + place.stop]
            found += (view[place] - near).T @ (np.sqrt(training.weights[place])[:, None] * own)
    return np.asarray(found, np.float32)


# --- leaving out


def _left_out(
    training: Training, products: _Products, regularisations: _Doubles, scale: float
) -> tuple[Labels, _Doubles, int]:
    """Of each regularisation: how many pictures are labelled wrong, and by how much all are missed, squared, weighted.
    And how many there are that may be labelled right."""
    from scipy.linalg import eigh

    # In float64: of 1,290 rows of 1,280 numbers float32 misleads at the last λ, and saves .3 of .95 seconds at 5,000.
    values, vectors = eigh(products.matrix / scale, driver="evd", overwrite_a=True, check_finite=False)
    values = np.maximum(values, 0)
    # L×R: what is left of a direction.
    factors = 1 / (values + (regularisations / scale)[:, None])
    sides = vectors.T @ products.sides
    sides *= (np.sqrt(values) if products.by_rows else 1 / np.sqrt(scale))[..., None]
    several = np.bincount(training.labels)[training.labels] > 1
    wrong, missed = np.zeros(len(factors), np.int64), np.zeros(len(factors))
    step = max(1, _COLUMNS // training.classes)
    for place, parts in _turned(training, products, values, vectors, scale):
        labels, weights = training.labels[place], training.weights[place].astype(float)
        everyone = np.arange(len(labels))
        own = _own_shares(parts, factors, weights, products.total)
        for start in range(0, len(factors), step):
            some = slice(start, start + step)
            planes = (factors[some, :, None] * sides).transpose(1, 0, 2)  # R×L×K
            planes = planes.reshape(len(values), -1).astype(parts[0].dtype)
            misses = [(part @ planes).reshape(len(part), -1, training.classes) for part in parts]
            for each in misses:
                each += (products.level + 1).astype(each.dtype)
                each[everyone, :, labels] -= 2
            misses = _missed_without(misses, own[some])
            missed[some] += sum(np.einsum("nlk,nlk->nl", each, each).T @ weights for each in misses)
            scores = sum(misses[1:], misses[0])
            scores[everyone, :, labels] += 2 * len(parts)
            wrong[some] += ((scores.argmax(2) != labels[:, None]) & several[place, None]).sum(0)
    return wrong, missed, int(several.sum())


def _turned(
    training: Training, products: _Products, values: _Doubles, vectors: _Doubles, scale: float
) -> Iterator[tuple[slice, list[npt.NDArray[Any]]]]:
    """Which pictures, and each of their views, less the mean, in the directions of the eigenvectors: N×R, in float64
    where these are of the rows, which then may be fitted all but exactly, else in float32."""
    if products.by_rows:
        count = len(training.labels)
        turned = vectors * np.sqrt(values)
        for place in _blocks(training):
            roots = np.sqrt(training.weights[place].astype(float))[:, None]
            parts = [turned[n * count + place.start : n * count + place.stop] for n in range(len(training.views))]
            yield place, [part / roots for part in parts]
        return
    directions = vectors / np.sqrt(scale)
    offset, directions = (products.shift @ directions).astype(np.float32), directions.astype(np.float32)
    for place in _blocks(training):
        yield place, [(view[place] - products.near) @ directions - offset for view in training.views]


def _own_shares(
    parts: Sequence[npt.NDArray[Any]], factors: _Doubles, weights: _Doubles, total: float
) -> npt.NDArray[Any]:
    """L×V×V×N: how much of the target of one view is in the prediction of another, of the same picture."""
    doubles = [part.astype(float) for part in parts]
    found = np.empty((len(factors), len(parts), len(parts), len(weights)))
    for a, left in enumerate(doubles):
        for b, right in enumerate(doubles[: a + 1]):
            found[:, a, b] = found[:, b, a] = weights * (factors @ (left * right).T + 1 / total)
    return found


def _missed_without(misses: list[npt.NDArray[Any]], own: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """N×L×K of each view, by how much it is missed once it is left out, with the others: (1 - own)⁻¹ misses."""
    smallest, kind = _SMALLEST_REST[misses[0].dtype.char], misses[0].dtype
    shares = own.transpose(1, 2, 3, 0)[..., None]
    if len(misses) == 1:
        misses[0] /= np.maximum(1 - shares[0, 0], smallest).astype(kind)
        return misses
    (first, between), (_, second) = shares
    determinant = np.maximum((1 - first) * (1 - second) - between**2, smallest**2)
    first, second, between = ((each / determinant).astype(kind) for each in (1 - second, 1 - first, between))
    return [first * misses[0] + between * misses[1], second * misses[1] + between * misses[0]]
