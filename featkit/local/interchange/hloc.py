"""Features and matches in hloc's HDF5 layout (Sarlin et al. 2019), both in one file.

    NAME/                       the picture's name, its '/' making groups
        keypoints               float32 N×2, pixels, centre of the top-left pixel = (0, 0); attribute `uncertainty`, px
        descriptors             float16 D×N, unit columns: RootSIFT, ALIKED or DISK (D = 128), or ORB's bits as ±1/16
                                (D = 256), so that the products that hloc's matcher takes are cosines, or Hamming
                                distances
        scales, oris            float32 N, standard deviation in pixels and radians
        image_size              int64 2, (width, height)
        attributes              sha256, focal_px (NaN where it is unknown)
    NAME_A/NAME_B/              with '-' for each '/' inside a name
        matches0                int32 N_A, the row in B or −1
        matching_scores0        float16 N_A, 0 where there is no match
        inliers0                bool N_A
        matrix                  float64 3×3; absent where there is none
        attributes              name0, name1, model, verdict
    attributes                  format, version

`matches0` holds the matches before verification, of every pair, whatever its verdict: hloc keeps those there, and its
own verification, triangulation and localisation expect them. featkit's verification is in `inliers0` and `verdict`.

The file serves as `features` and as `matches` of hloc's reconstruction, triangulation and localisation. hloc's matchers
do not read it: they load all that a picture's group holds, and here that may be a pair's group. `scores` (detector
responses) are not kept. Every array is one chunk with a Fletcher-32 checksum.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.hdf5 import CarefulFile
from featkit.local.interchange import FORMAT, VERSION, Findings, Image, damaged

if TYPE_CHECKING:
    from featkit.local.features import Features
    from featkit.local.geometry import Estimate
    from featkit.local.matching import Matches

# HDF5 1.10 and everything after it reads this, and all its structures carry checksums.
_LIBRARY_VERSION = ("v110", "v110")
_IMAGE_ARRAYS = ("keypoints", "descriptors", "scales", "oris", "image_size")
_PAIR_ARRAYS = ("matches0", "matching_scores0", "inliers0", "matrix")
_Scalar = TypeVar("_Scalar", bound=np.generic)

_ORB_BITS = 256
_DIMENSIONS = (128, _ORB_BITS)
# hloc's own value for keypoints found at full size.
_UNCERTAINTY_PX = 1.0


class Writer:
    def __init__(self, path: Path) -> None:
        self._stream = CarefulFile(path, "w+")
        self._file = h5py.File(self._stream, "w", libver=_LIBRARY_VERSION)
        _label(self._file, format=FORMAT)
        self._file.attrs["version"] = VERSION
        self._names: list[str] = []
        self._counts: list[int] = []
        self._flat_names: set[str] = set()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._stream:
                self._file.close()
        except (OSError, RuntimeError):
            # Of what was dropped, closing may miss some.
            if self._stream.error is None:
                raise
        if error is None:
            self._refuse_errors()

    def add_image(self, position: int, image: Image) -> None:
        features = image.features
        group = self._file.require_group(self._claim(image.name))
        keypoints = _write(group, "keypoints", features.xy.astype(np.float32))
        keypoints.attrs["uncertainty"] = _UNCERTAINTY_PX
        _write(group, "descriptors", _unit_columns(features))
        # OpenCV's size is a diameter, hloc's and COLMAP's scale its standard deviation: the half.
        _write(group, "scales", (features.size / 2).astype(np.float32))
        _write(group, "oris", np.radians(features.angle).astype(np.float32))
        _write(group, "image_size", np.array(features.image_size, np.int64))
        _label(group, sha256=image.sha256)
        group.attrs["focal_px"] = np.nan if image.focal_px is None else image.focal_px
        self._names.append(image.name)
        self._counts.append(len(features))
        self._refuse_errors()

    def add_pair(self, a: int, b: int, matches: Matches, estimate: Estimate, record: Mapping[str, object]) -> None:
        rows, partners = matches.indices[:, 0], matches.indices[:, 1]
        matches0 = np.full(self._counts[a], -1, np.int32)
        matches0[rows] = partners
        scores0 = np.zeros(self._counts[a], np.float16)
        scores0[rows] = matches.score
        inliers0 = np.zeros(self._counts[a], bool)
        inliers0[rows] = estimate.inliers
        group = self._file.require_group(f"{_flat(self._names[a])}/{_flat(self._names[b])}")
        for key, array in (("matches0", matches0), ("matching_scores0", scores0), ("inliers0", inliers0)):
            _write(group, key, array)
        if estimate.matrix is not None:
            _write(group, "matrix", estimate.matrix.astype(np.float64))
        _label(group, name0=self._names[a], name1=self._names[b], model=estimate.model, verdict=estimate.verdict)
        self._refuse_errors()

    def _claim(self, name: str) -> str:
        """`name`, if it and the names of its pairs' groups are free; hloc tells a/b and a-b apart nowhere."""
        parts = name.split("/")
        taken = {*parts, _flat(name)} & {*_IMAGE_ARRAYS, *_PAIR_ARRAYS, "", "."}
        if taken or _flat(name) in self._flat_names:
            raise UsageError(
                f"hloc's layout cannot hold a picture called {name}" + ("" if taken else " beside one of the others"),
                hint="rename the picture, or write .npz",
            )
        self._flat_names.add(_flat(name))
        return name

    def _refuse_errors(self) -> None:
        if self._stream.error is not None:
            raise self._stream.error


def _flat(name: str) -> str:
    return name.replace("/", "-")


def _write(group: h5py.Group, key: str, array: npt.NDArray[Any]) -> h5py.Dataset:
    # A chunk of no elements is not allowed, and neither is a checksum without chunks.
    chunks = array.shape if array.size else None
    return group.create_dataset(key, data=array, chunks=chunks, fletcher32=chunks is not None)


def _label(group: h5py.Group, **texts: str) -> None:
    """Attributes of fixed length: HDF5 keeps others where no checksum covers them, and damage there can hang it."""
    for key, text in texts.items():
        data = text.encode()
        group.attrs.create(key, np.bytes_(data), dtype=h5py.string_dtype("utf-8", max(len(data), 1)))


def _text(group: h5py.Group, key: str) -> str | None:
    value = group.attrs.get(key)
    return value.decode() if isinstance(value, bytes) else None


def _unit_columns(features: Features) -> npt.NDArray[np.float16]:
    """float16 D×N."""
    from featkit.local.matching import root_sift

    descriptors = features.descriptors
    if features.detector == "orb":
        bits = np.unpackbits(descriptors, axis=1).T.astype(np.float16)
        return (bits * 2 - 1) / np.float16(np.sqrt(_ORB_BITS))
    columns = root_sift(descriptors).T if features.has_sift_descriptors else descriptors.T
    return np.ascontiguousarray(columns.astype(np.float16))


def check(path: Path, findings: Findings) -> None:
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise damaged("is no HDF5 file, or is cut short", path) from error
    try:
        with file:
            _Checker(path, findings).run(file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        # What h5py raises where it cannot follow a structure; a damaged array is a finding of its own.
        raise damaged(f"cannot be read to its end: {error}", path) from error


class _Checker:
    def __init__(self, path: Path, findings: Findings) -> None:
        self._path = path
        self._findings = findings
        self._counts: dict[str, int] = {}
        self._pairs: list[h5py.Group] = []

    def run(self, file: h5py.File) -> None:
        if _text(file, "format") != FORMAT:
            raise damaged("was not written by featkit match", self._path)
        version = file.attrs.get("version")
        if version != VERSION:
            raise damaged(f"has version {version}; this featkit reads {VERSION}", self._path)
        file.visititems(self._visit)
        for group in self._pairs:
            self._check_pair(group)

    def _visit(self, name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            if name.rpartition("/")[2] not in (*_IMAGE_ARRAYS, *_PAIR_ARRAYS):
                self._findings.add(f"{name} belongs to no picture and no pair")
            return
        if any(key in item for key in _IMAGE_ARRAYS):
            self._check_image(name, item)
        if any(key in item for key in _PAIR_ARRAYS):
            # A pair may come before its pictures.
            self._pairs.append(item)

    def _check_image(self, name: str, group: h5py.Group) -> None:
        self._findings.images += 1
        xy = self._read(group, "keypoints", np.float32, (None, 2))
        size = self._read(group, "image_size", np.int64, (2,))
        if xy is None or size is None:
            self._counts[name] = 0
            return
        self._counts[name] = len(xy)
        self._findings.check_keypoints(f"{name}/keypoints", xy, (int(size[0]), int(size[1])))
        descriptors = self._read(group, "descriptors", np.float16, (None, len(xy)))
        if descriptors is not None and len(descriptors) not in _DIMENSIONS:
            self._findings.add(f"{name}/descriptors has {len(descriptors)} rows")
        for key, values in (
            ("descriptors", descriptors),
            *((key, self._read(group, key, np.float32, (len(xy),))) for key in ("scales", "oris")),
        ):
            if values is not None and not np.isfinite(values).all():
                self._findings.add(f"{name}/{key} has a value that is not a finite number")

    def _check_pair(self, group: h5py.Group) -> None:
        self._findings.pairs += 1
        where = group.name.strip("/")
        name_a, name_b = _text(group, "name0"), _text(group, "name1")
        if name_a is None or name_b is None or not {name_a, name_b} <= self._counts.keys():
            self._findings.add(f"{where} names a picture that is not there")
            return
        if f"{_flat(name_a)}/{_flat(name_b)}" != where or name_a == name_b:
            self._findings.add(f"{where} is the pair of other pictures than it says")
        if f"{_flat(name_b)}/{_flat(name_a)}/matches0" in group.file:
            self._findings.add(f"{where} is there in both orders")
        count_a, count_b = self._counts[name_a], self._counts[name_b]
        matches0 = self._read(group, "matches0", np.int32, (count_a,))
        scores0 = self._read(group, "matching_scores0", np.float16, (count_a,))
        inliers0 = self._read(group, "inliers0", np.bool_, (count_a,))
        if matches0 is None or scores0 is None or inliers0 is None:
            return
        if (matches0 < -1).any() or inliers0[matches0 < 0].any():
            self._findings.add(f"{where} marks a keypoint in a way that is none")
        rows = np.flatnonzero(matches0 >= 0)
        self._findings.matches += len(rows)
        self._findings.check_indices(where, np.stack([rows, matches0[rows]], 1), count_a, count_b)
        self._findings.check_scores(where, scores0)
        if "matrix" in group:
            matrix = self._read(group, "matrix", np.float64, (3, 3))
            if matrix is not None:
                self._findings.check_matrix(where, matrix)

    def _read(
        self, group: h5py.Group, key: str, kind: type[_Scalar], shape: tuple[int | None, ...]
    ) -> npt.NDArray[_Scalar] | None:
        """The dataset, or None and a problem where it is not of that type and shape (None: any length)."""
        where = f"{group.name}/{key}".strip("/")
        dataset = group.get(key)
        if not isinstance(dataset, h5py.Dataset):
            self._findings.add(f"{where} is missing")
            return None
        fits = len(dataset.shape or ()) == len(shape) and all(
            want in (None, got) for want, got in zip(shape, dataset.shape, strict=True)
        )
        # A declared size is believed only if that much is stored: no filter here compresses.
        if not fits or dataset.dtype != np.dtype(kind) or dataset.nbytes > dataset.id.get_storage_size():
            self._findings.add(f"{where} is {dataset.dtype} {dataset.shape}, which it should not be")
            return None
        try:
            array: npt.NDArray[_Scalar] = dataset[()]
        except (OSError, RuntimeError) as error:
            self._findings.add(f"{where} is damaged: {error}")
            return None
        return array
