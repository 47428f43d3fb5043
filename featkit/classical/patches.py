"""Features of learned patches: one layer of filters that the training pictures themselves give, without their labels.

Coates & Ng 2011, The importance of encoding versus training with sparse coding and vector quantization; Thiry et al.
2021, The unreasonable effectiveness of patches in deep convolutional kernels methods.

A patch is compared with every atom of a dictionary, what lies above a threshold on either side is averaged over each
part of the picture, and the square roots of these averages are reduced to their principal components.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.images import Pixels

#: Raise when the same pictures and configuration would give other features: it is part of the cache key.
VERSION = 1

_Floats = npt.NDArray[np.float32]

_CHANNELS = 3
# Added to a patch's variance on the scale 0..255 (Coates & Ng 2011): flat patches count less in the whitening.
_CONTRAST_FLOOR = 10.0
_KMEANS_ITERATIONS = 5
# 4 MB of responses to 1000 atoms, at which argmax is no slower than the product.
_PATCHES_AT_ONCE = 1000
# Beside another array of this size they stay in a second-level cache of 2 MB; larger blocks are no faster.
_RESPONSES_AT_ONCE = 1 << 18
# Codes of 1000 atoms: 8 MB before they are projected.
_IMAGES_AT_ONCE = 256
# Principal components are those of at most so many images, and of codes of at most so many bytes: of 1000 atoms 320 MB.
_COMPONENT_IMAGES, _COMPONENT_BYTES = 10_000, 320_000_000
# Directions beyond those asked for, and how often the rows are applied both ways. Measured on 10,000 images of CIFAR-10
# and 1000 atoms: 99.94 % of the variance that the exact components keep, in 17 s of CPU time against 43 s.
_SPARE_DIRECTIONS = 200
_SUBSPACE_ITERATIONS = 3
# A square-rooted code, 0..1, that spreads less than this does not vary but by rounding.
_LEAST_SPREAD = 1e-6
# A direction with less of the strongest one's variance is rounding.
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class PatchConfig:
    """side: pixels of a square patch. atoms: of the dictionary. stride: pixels from one patch to the next, in encoding.
    threshold: the cosine of patch and atom from which on a response counts. pool: cells along each side of the picture.
    components: numbers an image. regulariser: added to the whitening's eigenvalues, as a share of their mean.
    training_patches: what whitening and dictionary are learned from.

    side, stride, threshold and pool are Coates & Ng's. Measured on training pictures of CIFAR-10, 10,000 held out of
    30,000, ridge: regulariser .03 65.7 %, .1 66.3, .2 and .3 66.5; stride 2 63.7, 500 atoms 65.5, 2000 atoms 67.2.
    Fewer iterations of k-means, or random patches for atoms, differ by less than chance explains.

    Raises UsageError for values that make no sense.
    """

    side: int = 6
    atoms: int = 1000
    stride: int = 1
    threshold: float = 0.25
    pool: int = 2
    components: int = 1000
    regulariser: float = 0.2
    training_patches: int = 200_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("atoms", "stride", "pool", "components", "training_patches"):
            if getattr(self, name) < 1:
                raise UsageError(f"patches take {name} of 1 or more, not {getattr(self, name)}")
        if self.side < 2:
            raise UsageError(f"patches are 2 pixels a side or more, not {self.side}")
        if not 0 < self.threshold < 1:
            raise UsageError(f"patches take a threshold between 0 and 1, not {self.threshold}")
        if not 0 < self.regulariser < np.inf:
            raise UsageError(f"patches take a regulariser above 0, not {self.regulariser}")
        if self.seed < 0:
            raise UsageError(f"patches take a seed of 0 or more, not {self.seed}")


@dataclass(frozen=True)
class PatchEncoder:
    """What `learn_patches` has learned: images -> features. All arrays float32; D = side · side · 3, of row, column and
    colour in this order; A atoms; F = pool² · 2 · A codes; K components. A and K are at most those of `config`.

    whitening: D×D, symmetric (ZCA), for patches without their mean.
    atoms: A×D, rows of unit length, in whitened coordinates.
    mean: F, of the training images' square-rooted codes.
    projection: F×K, divides by their spread and turns to principal components, of mean variance 1 over the K.
    """

    config: PatchConfig
    whitening: _Floats
    atoms: _Floats
    mean: _Floats
    projection: _Floats

    def __call__(self, images: Pixels) -> _Floats:
        """float32 N×K of uint8 N×H×W×3 (RGB), any H and W; UsageError if no patch fits into them."""
        found = np.empty((len(images), self.projection.shape[1]), np.float32)
        for first in range(0, len(images), _IMAGES_AT_ONCE):
            roots = self.codes(images[first : first + _IMAGES_AT_ONCE])
            np.sqrt(roots, out=roots)
            roots -= self.mean
            np.matmul(roots, self.projection, out=found[first : first + _IMAGES_AT_ONCE])
        return found

    def codes(self, images: Pixels) -> _Floats:
        """float32 N×F, 0..1, of uint8 N×H×W×3 (RGB): what comes before the square root.

        For each cell of a pool × pool grid (row by row), the mean of max(r - t, 0) for every atom, then that of
        max(-r - t, 0), over the responses r of the cell's patches; r is the cosine of the whitened patch and the atom,
        0 for a patch of one colour. Cells differ by at most one row or column of patches; where there are fewer of
        these than cells, neighbouring cells share one.

        Raises UsageError if no patch fits into the images.
        """
        windows = _windows(images, self.config.side)[:, :: self.config.stride, :: self.config.stride]
        pool = self.config.pool
        # In units of the threshold, see `_pool`.
        filters = np.ascontiguousarray(self.atoms.T / np.float32(self.config.threshold))
        found = np.empty((len(images), pool * pool * 2 * len(self.atoms)), np.float32)
        parts = found.reshape(len(images), pool, pool, 2, len(self.atoms))
        for row, rows in enumerate(_cells(windows.shape[1], pool)):
            for column, columns in enumerate(_cells(windows.shape[2], pool)):
                self._pool(windows[:, rows, columns], filters, parts[:, row, column])
        found *= np.float32(self.config.threshold)
        return found

    def _pool(self, windows: Pixels, filters: _Floats, out: _Floats) -> None:
        """Fill out, N×2×A, with the mean of max(r - 1, 0) and of max(-r - 1, 0) over the patches of each image.

        windows: N×height×width×side×side×3; filters: D×A, such that a patch's product with them is r.

        max(r - 1, 0) is max(r, 1) - 1, and the sum of the ones is known: no pass over the responses to subtract them.
        No rounding makes a sum of numbers from 1 on less than their count, so that no mean is negative, and what never
        exceeds the threshold gives 0 exactly.
        """
        count, height, width = windows.shape[:3]
        most = max(1, _RESPONSES_AT_ONCE // filters.shape[1])
        rows = min(height, max(1, most // width))
        images = max(1, min(count, most // (height * width)))
        responses = np.empty((images * rows * width, filters.shape[1]), np.float32)
        clipped = np.empty_like(responses)
        out[:] = 0
        for first in range(0, count, images):
            for top in range(0, height, rows):
                part = windows[first : first + images, top : top + rows]
                patches = self._directions(part)
                ones = np.ones(len(patches) // len(part), np.float32)
                shape = (len(part), len(ones), filters.shape[1])
                found, above = (array[: len(patches)] for array in (responses, clipped))
                np.matmul(patches, filters, out=found)
                np.maximum(found, 1, out=above)
                out[first : first + images, 0] += ones @ above.reshape(shape) - len(ones)
                np.minimum(found, -1, out=found)
                out[first : first + images, 1] -= ones @ found.reshape(shape) + len(ones)
        out /= np.float32(height * width)

    def _directions(self, windows: Pixels) -> _Floats:
        """Whitened patches of unit length, M×D, of …×side×side×3; 0 for a patch of one colour.

        A patch's contrast needs no normalisation here: it goes with the length.
        """
        patches = _without_mean(windows)
        return _to_unit_length(patches @ self.whitening)


def learn_patches(images: Pixels, config: PatchConfig | None = None) -> PatchEncoder:
    """Learn an encoder from uint8 N×H×W×3 (RGB); the same images and configuration give the same encoder.

    The dictionary has fewer atoms where there are not so many patches, and the encoder fewer components where the
    images vary in fewer directions (N images in at most N - 1), but one at least of each. Mean, spread and components
    are those of at most 10,000 of the images, fewer from 1000 atoms on: .65 GB of memory, and most of the time.

    Raises UsageError if there are no images or no patch fits into them.
    """
    config = config or PatchConfig()
    if not len(images):
        raise UsageError("patches are learned from images, and there is none")
    random = np.random.default_rng(config.seed)
    patches = _sample(images, config, random)
    whitening = _whitening(patches, config.regulariser)
    atoms = _dictionary(_to_unit_length(patches @ whitening), config.atoms, random)
    del patches
    length = config.pool**2 * 2 * len(atoms)
    count = min(len(images), _COMPONENT_IMAGES, max(config.components, _COMPONENT_BYTES // (4 * length)))
    chosen = np.sort(random.choice(len(images), count, replace=False))
    codes = np.empty((len(chosen), length), np.float32)
    untrained = PatchEncoder(config, whitening, atoms, codes[0], codes[:0])
    for first in range(0, len(chosen), _IMAGES_AT_ONCE):
        block = slice(first, first + _IMAGES_AT_ONCE)
        codes[block] = untrained.codes(images[chosen[block]])
    roots = np.sqrt(codes, out=codes)
    mean = roots.mean(0)
    roots -= mean
    spread = np.sqrt(np.einsum("nf,nf->f", roots, roots) / np.float32(len(roots)))
    # A code that never varies says nothing: it gets no weight.
    weight = np.divide(1, spread, out=np.zeros_like(spread), where=spread > _LEAST_SPREAD)
    roots *= weight
    return PatchEncoder(config, whitening, atoms, mean, weight[:, None] * _components(roots, config.components, random))


def _windows(images: Pixels, side: int) -> Pixels:
    """Every patch of uint8 N×H×W×3, as a view N×(H - side + 1)×(W - side + 1)×side×side×3."""
    if images.ndim != 4 or images.shape[3] != _CHANNELS or images.dtype != np.uint8:
        raise ValueError("patches are of uint8 N×H×W×3")
    if min(images.shape[1:3]) < side:
        raise UsageError(
            f"patches of {side}×{side} pixels do not fit into images of {images.shape[2]}×{images.shape[1]}"
        )
    windows = np.lib.stride_tricks.sliding_window_view(images, (side, side), (1, 2))
    return windows.transpose(0, 1, 2, 4, 5, 3)


def _cells(length: int, count: int) -> Iterator[slice]:
    """`length` positions in `count` runs as equal as can be, none empty: they overlap where length < count."""
    for index in range(count):
        start = index * length // count
        yield slice(start, max(start + 1, (index + 1) * length // count))


def _without_mean(windows: Pixels) -> _Floats:
    """M×D: float32 patches less their mean, exactly 0 for a patch of one colour: a sum of D pixels has no rounding."""
    patches = windows.astype(np.float32).reshape(-1, int(np.prod(windows.shape[-3:])))
    patches -= patches.mean(1, keepdims=True)
    return patches


def _to_unit_length(rows: _Floats) -> _Floats:
    """The rows, in place, at unit length; rows of zeros stay."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    rows /= np.where(lengths > 0, lengths, 1)[:, None]
    return rows


def _sample(images: Pixels, config: PatchConfig, random: np.random.Generator) -> _Floats:
    """Contrast-normalised patches M×D of random places, no place twice, M at most `training_patches`."""
    windows = _windows(images, config.side)
    places = int(np.prod(windows.shape[:3]))
    chosen = random.choice(places, min(places, config.training_patches), replace=False)
    patches = _without_mean(windows[np.unravel_index(chosen, windows.shape[:3])])
    variance = np.einsum("nd,nd->n", patches, patches) / np.float32(patches.shape[1])
    patches /= np.sqrt(variance + np.float32(_CONTRAST_FLOOR))[:, None]
    return patches


def _whitening(patches: _Floats, regulariser: float) -> _Floats:
    """D×D: the inverse square root of the patches' second moments with regulariser · their mean eigenvalue added."""
    values, vectors = np.linalg.eigh((patches.T @ patches).astype(np.float64) / len(patches))
    floor = regulariser * values.mean()
    if floor <= 0:  # nothing but patches of one colour
        return np.eye(len(values), dtype=np.float32)
    whitening = (vectors / np.sqrt(np.maximum(values, 0) + floor)) @ vectors.T
    return np.asarray(whitening, np.float32)


def _dictionary(patches: _Floats, count: int, random: np.random.Generator) -> _Floats:
    """Atoms, A×D, by spherical k-means of patches of unit length: those of largest |cosine| belong to an atom, with
    their sign, since an encoder has both sides of each.

    An atom that no patch belongs to starts again at a random patch.
    """
    from scipy.sparse import csr_array

    patches = patches[patches.any(1)]
    if not len(patches):
        return np.eye(1, patches.shape[1], dtype=np.float32)
    count = min(count, len(patches))
    atoms = patches[random.choice(len(patches), count, replace=False)]
    rows = np.arange(len(patches))
    nearest, sign = np.empty(len(patches), np.int32), np.empty(len(patches), np.float32)
    for _ in range(_KMEANS_ITERATIONS):
        for first in range(0, len(patches), _PATCHES_AT_ONCE):
            block = slice(first, first + _PATCHES_AT_ONCE)
            responses = patches[block] @ atoms.T
            nearest[block] = np.abs(responses).argmax(1)
            sign[block] = np.sign(responses[np.arange(len(responses)), nearest[block]])
        members = csr_array((sign, (nearest, rows)), shape=(count, len(patches)))
        sums: _Floats = members @ patches
        empty = np.flatnonzero(~sums.any(1))
        sums[empty] = patches[random.choice(len(patches), len(empty), replace=False)]
        atoms = _to_unit_length(sums)
    return atoms


def _components(rows: _Floats, count: int, random: np.random.Generator) -> _Floats:
    """F×K: principal components of centred N×F by decreasing variance, over the root of their mean variance.

    K is `count`, or what directions there are. Subspace iteration (Halko et al. 2011), exact where its directions are
    as many as there are rows or columns: no F×F matrix, which would take more memory than the rows.
    """
    size = min(count + _SPARE_DIRECTIONS, *rows.shape)
    reached: npt.NDArray[Any] = random.standard_normal((len(rows), size), np.float32)
    for _ in range(_SUBSPACE_ITERATIONS):
        basis = np.linalg.qr(rows.T @ reached).Q
        reached = rows @ basis
    # In float64, for directions in which there is nothing to have no variance.
    reached = reached.astype(np.float64)
    variances, vectors = np.linalg.eigh(reached.T @ reached / len(rows))
    variances, vectors = variances[::-1][:count], vectors[:, ::-1][:, :count]
    kept = max(1, np.count_nonzero(variances > _LEAST_VARIANCE * variances[0]))
    scale = np.sqrt(variances[:kept].mean()) or 1
    return np.asarray(basis @ (vectors[:, :kept] / scale).astype(np.float32))
