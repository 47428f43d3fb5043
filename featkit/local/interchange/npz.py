"""Matches as a NumPy archive, the same keys for one pair and for thousands.

    format, version     "featkit-matches", 1
    images              names, str n; every other key counts pictures from 0 in this order
    image_sizes         int64 n×2, (width, height)
    pairs               int64 P×2, positions in `images`
    models, verdicts    str P each
    uncertainty_px      float64 P, NaN where it is unknown
    keypoints_I         float32 N×2, picture I's keypoints in pixels, centre of the top-left pixel = (0, 0)
    sizes_I, angles_I   float32 N each, diameter in pixels and degrees
    matches_I_J         int32 M×2, rows of keypoints_I and keypoints_J
    scores_I_J          float32 M, 0..1
    inliers_I_J         bool M
    matrix_I_J          float64 3×3; absent where there is none

So the matched points of a single pair are

    f = numpy.load("matches.npz")
    a, b = f["keypoints_0"][f["matches_0_1"][:, 0]], f["keypoints_1"][f["matches_0_1"][:, 1]]

Stored without compression, so that no declared size can be larger than the file; no entry needs unpickling.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from featkit.local.interchange import FORMAT, VERSION, Findings, Image, damaged

if TYPE_CHECKING:
    from featkit.local.geometry import Estimate
    from featkit.local.matching import Matches

_Scalar = TypeVar("_Scalar", bound=np.generic)

# The earliest date a zip entry can carry.
_NO_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_NPY_VERSION = (1, 0)
# What zipfile and numpy raise for bytes that are no archive, or not whole: RuntimeError for an encrypted entry, and so
# NotImplementedError for a method of compression that there is not.
_UNREADABLE = (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError)


class Writer:
    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w")
        self._names: list[str] = []
        self._sizes: list[tuple[int, int]] = []
        self._pairs: list[tuple[int, int]] = []
        self._models: list[str] = []
        self._verdicts: list[str] = []
        self._uncertainty: list[float] = []
        self._write("format", np.array(FORMAT))
        self._write("version", np.array(VERSION))

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._zip:
            if error is None:
                self._write("images", np.array(self._names, np.str_))
                self._write("image_sizes", np.array(self._sizes, np.int64).reshape(-1, 2))
                self._write("pairs", np.array(self._pairs, np.int64).reshape(-1, 2))
                self._write("models", np.array(self._models, np.str_))
                self._write("verdicts", np.array(self._verdicts, np.str_))
                self._write("uncertainty_px", np.array(self._uncertainty, np.float64))

    def add_image(self, position: int, image: Image) -> None:
        self._names.append(image.name)
        features = image.features
        self._sizes.append(features.image_size)
        self._write(f"keypoints_{position}", features.xy.astype(np.float32))
        self._write(f"sizes_{position}", features.size.astype(np.float32))
        self._write(f"angles_{position}", features.angle.astype(np.float32))

    def add_pair(self, a: int, b: int, matches: Matches, estimate: Estimate, record: Mapping[str, object]) -> None:
        self._pairs.append((a, b))
        self._models.append(estimate.model)
        self._verdicts.append(estimate.verdict)
        self._uncertainty.append(np.nan if estimate.uncertainty_px is None else estimate.uncertainty_px)
        self._write(f"matches_{a}_{b}", matches.indices.astype(np.int32))
        self._write(f"scores_{a}_{b}", matches.score.astype(np.float32))
        self._write(f"inliers_{a}_{b}", estimate.inliers.astype(bool))
        if estimate.matrix is not None:
            self._write(f"matrix_{a}_{b}", estimate.matrix.astype(np.float64))

    def _write(self, key: str, array: npt.NDArray[Any]) -> None:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.asarray(array, order="C"), version=_NPY_VERSION, allow_pickle=False)
        entry = zipfile.ZipInfo(f"{key}.npy", _NO_DATE)
        entry.create_system = _UNIX
        entry.external_attr = 0o644 << 16
        self._zip.writestr(entry, buffer.getvalue())


def check(path: Path, findings: Findings) -> None:
    try:
        archive = zipfile.ZipFile(path)
    except _UNREADABLE as error:
        raise damaged("is no .npz file, or is cut short", path) from error
    with archive:
        _Checker(path, archive, findings).run()


class _Checker:
    def __init__(self, path: Path, archive: zipfile.ZipFile, findings: Findings) -> None:
        self._path = path
        self._archive = archive
        self._findings = findings
        self._entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        if len(self._entries) != len(archive.infolist()):
            findings.add("two entries have the same name")
        self._seen: set[str] = set()

    def run(self) -> None:
        if "format" not in self._entries or str(self._read("format", np.str_, ())) != FORMAT:
            raise damaged("was not written by featkit match", self._path)
        version = self._read("version", np.int64, ())
        if version is None or int(version) != VERSION:
            raise damaged(f"has version {version}; this featkit reads {VERSION}", self._path)
        names = self._read("images", np.str_, (None,))
        sizes = self._read("image_sizes", np.int64, (None, 2))
        pairs = self._read("pairs", np.int64, (None, 2))
        if names is None or sizes is None or pairs is None or len(sizes) != len(names):
            raise damaged("lists no pictures and pairs, or lists them differently", self._path)
        if len(np.unique(names)) != len(names):
            self._findings.add("two pictures have the same name")
        for key in ("models", "verdicts"):
            self._read(key, np.str_, (len(pairs),))
        self._read("uncertainty_px", np.float64, (len(pairs),))
        counts = [self._check_image(position, size) for position, size in enumerate(sizes.tolist())]
        for a, b in pairs.tolist():
            self._check_pair(a, b, counts)
        if len({frozenset(pair) for pair in pairs.tolist()}) != len(pairs):
            self._findings.add("a pair is listed twice, or pairs a picture with itself")
        for key in sorted(self._entries.keys() - self._seen):
            self._findings.add(f"{key} belongs to no picture and no pair")

    def _check_image(self, position: int, size: tuple[int, int]) -> int:
        self._findings.images += 1
        xy = self._read(f"keypoints_{position}", np.float32, (None, 2))
        if xy is None:
            return 0
        self._findings.check_keypoints(f"keypoints_{position}", xy, size)
        for key in (f"sizes_{position}", f"angles_{position}"):
            values = self._read(key, np.float32, (len(xy),))
            if values is not None and not np.isfinite(values).all():
                self._findings.add(f"{key}: a value is not a finite number")
        return len(xy)

    def _check_pair(self, a: int, b: int, counts: list[int]) -> None:
        self._findings.pairs += 1
        if not (0 <= a < len(counts) and 0 <= b < len(counts)):
            self._findings.add(f"the pair {a}, {b} names a picture that is not there")
            return
        indices = self._read(f"matches_{a}_{b}", np.int32, (None, 2))
        if indices is None:
            return
        self._findings.matches += len(indices)
        self._findings.check_indices(f"matches_{a}_{b}", indices, counts[a], counts[b])
        scores = self._read(f"scores_{a}_{b}", np.float32, (len(indices),))
        if scores is not None:
            self._findings.check_scores(f"scores_{a}_{b}", scores)
        self._read(f"inliers_{a}_{b}", np.bool_, (len(indices),))
        if f"matrix_{a}_{b}" in self._entries:
            matrix = self._read(f"matrix_{a}_{b}", np.float64, (3, 3))
            if matrix is not None:
                self._findings.check_matrix(f"matrix_{a}_{b}", matrix)

    def _read(self, key: str, kind: type[_Scalar], shape: tuple[int | None, ...]) -> npt.NDArray[_Scalar] | None:
        """The array `key`, or None and a problem where it is not of that type and shape (None: any length)."""
        self._seen.add(key)
        entry = self._entries.get(key)
        if entry is None:
            self._findings.add(f"{key} is missing")
            return None
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > self._path.stat().st_size:
            self._findings.add(f"{key} is compressed or longer than the file, as featkit writes none")
            return None
        try:
            array = _parse(self._archive.read(entry))
        except _UNREADABLE as error:
            self._findings.add(f"{key} is damaged: {error}")
            return None
        fits = len(array.shape) == len(shape) and all(
            want in (None, got) for want, got in zip(shape, array.shape, strict=True)
        )
        if not fits or not np.issubdtype(array.dtype, kind):
            self._findings.add(f"{key} is {array.dtype} {array.shape}, which it should not be")
            return None
        return array


def _parse(data: bytes) -> npt.NDArray[Any]:
    """An array from the bytes of a .npy file; ValueError if they are none, or hold Python objects."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != _NPY_VERSION:
        raise ValueError("unknown version of the .npy format")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or fortran_order:
        raise ValueError("holds Python objects, or columns first")
    # Fails where the shape asks for more or less than the bytes that are there, before anything is allocated.
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError("the declared shape does not fit the data")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
