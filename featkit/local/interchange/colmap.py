"""Matches as a COLMAP database, ready for its mapper.

    cameras                 SIMPLE_RADIAL; pictures of the same size and the same focal length from EXIF share one, any
                            other picture has its own, with the focal length 1.2 · max(width, height) that COLMAP
                            assumes
    images                  numbered from 1 in the order in which they were added
    keypoints               float32 N×4: x, y, scale, orientation; the corner of the top-left pixel = (0, 0)
    descriptors             uint8 N×128: SIFT as COLMAP stores it, RootSIFT × 512. None of other detectors: COLMAP knows
                            no ORB or DISK, ALIKED only from version 4 on and in tables that would shut out the earlier
                            ones, and mapping needs none
    matches                 every pair's matches before verification
    two_view_geometries     every pair's inliers and matrix; DEGENERATE and without inliers where the verdict is "none".
                            A pair that was matched with the model "none" has no row, so that COLMAP verifies it
    featkit                 format, version
    featkit_checksums       CRC-32 of every `data` in keypoints, descriptors and matches, which SQLite has none of

COLMAP orders a pair's pictures by number, so a pair may stand the other way round.
"""

from __future__ import annotations

import errno
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featkit.local.interchange import FORMAT, VERSION, Findings, Image, damaged

if TYPE_CHECKING:
    from featkit.local.features import Features
    from featkit.local.geometry import Estimate
    from featkit.local.matching import Matches

# The tables of COLMAP 3.9 with the prior poses that it was the last to have. Every later one adds what it needs when it
# opens the file, rigs and frames included; the tables of COLMAP 4 would shut out the earlier ones.
_SCHEMA = """
CREATE TABLE cameras (
    camera_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, model INTEGER NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, params BLOB, prior_focal_length INTEGER NOT NULL);
CREATE TABLE images (
    image_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL UNIQUE, camera_id INTEGER NOT NULL,
    prior_qw REAL, prior_qx REAL, prior_qy REAL, prior_qz REAL, prior_tx REAL, prior_ty REAL, prior_tz REAL,
    CONSTRAINT image_id_check CHECK(image_id >= 0 and image_id < 2147483647),
    FOREIGN KEY(camera_id) REFERENCES cameras(camera_id));
CREATE UNIQUE INDEX index_name ON images(name);
CREATE TABLE keypoints (
    image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB,
    FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE descriptors (
    image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB,
    FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE matches (
    pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB);
CREATE TABLE two_view_geometries (
    pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB,
    config INTEGER NOT NULL, F BLOB, E BLOB, H BLOB, qvec BLOB, tvec BLOB);
CREATE TABLE featkit (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL);
CREATE TABLE featkit_checksums (
    name TEXT NOT NULL, id INTEGER NOT NULL, crc32 INTEGER NOT NULL, PRIMARY KEY (name, id));
"""
_USER_VERSION = 3900
_MAGIC = b"SQLite format 3\0"
_MOST_FAULTS = 20
_PAGE_SIZE = 4096

# COLMAP's numbers (src/colmap/sensor/models.h, scene/two_view_geometry.h, scene/database.h).
_SIMPLE_RADIAL = 2
_DEGENERATE, _UNCALIBRATED, _PLANAR_OR_PANORAMIC = 1, 3, 6
_MOST_IMAGES = 2**31 - 1
_FOCAL_FACTOR = 1.2
# From centres at whole numbers to COLMAP's corners.
_ORIGIN = 0.5
_TO_COLMAP = np.array([[1, 0, _ORIGIN], [0, 1, _ORIGIN], [0, 0, 1]])
_FROM_COLMAP = np.linalg.inv(_TO_COLMAP)


class Writer:
    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._cameras: dict[tuple[tuple[int, int], float], int] = {}
        self._last_camera = 0
        with _disk_errors():
            # No journal: what goes wrong here is thrown away as a whole.
            for setting in (f"page_size={_PAGE_SIZE}", "journal_mode=OFF", "synchronous=OFF", "secure_delete=ON"):
                self._connection.execute(f"PRAGMA {setting}")
            self._connection.execute("BEGIN")
            for statement in _SCHEMA.split(";"):
                self._connection.execute(statement)
            self._insert("featkit", key="format", value=FORMAT)
            self._insert("featkit", key="version", value=str(VERSION))
            self._connection.execute(f"PRAGMA user_version={_USER_VERSION}")

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing(self._connection), _disk_errors():
            if error is None:
                self._connection.execute("COMMIT")

    def add_image(self, position: int, image: Image) -> None:
        image_id = position + 1
        features = image.features
        with _disk_errors():
            camera_id = self._camera(features.image_size, image.focal_px)
            self._insert("images", image_id=image_id, name=image.name, camera_id=camera_id)
            self._insert_matrix("keypoints", "image_id", image_id, _keypoints(features))
            if features.has_sift_descriptors:
                self._insert_matrix("descriptors", "image_id", image_id, _descriptors(features))

    def add_pair(self, a: int, b: int, matches: Matches, estimate: Estimate, record: Mapping[str, object]) -> None:
        swapped = a > b
        pair_id = _pair_id(min(a, b) + 1, max(a, b) + 1)
        indices = matches.indices[:, ::-1] if swapped else matches.indices
        with _disk_errors():
            self._insert_matrix("matches", "pair_id", pair_id, indices.astype(np.uint32))
            if estimate.model != "none":
                self._insert("two_view_geometries", pair_id=pair_id, **_geometry(indices, estimate, swapped))

    def _camera(self, size: tuple[int, int], focal_px: float | None) -> int:
        if focal_px is not None and (size, focal_px) in self._cameras:
            return self._cameras[size, focal_px]
        self._last_camera += 1
        width, height = size
        focal = _FOCAL_FACTOR * max(size) if focal_px is None else focal_px
        self._insert(
            "cameras",
            camera_id=self._last_camera,
            model=_SIMPLE_RADIAL,
            width=width,
            height=height,
            params=_blob(np.array([focal, width / 2, height / 2, 0])),
            prior_focal_length=int(focal_px is not None),
        )
        if focal_px is not None:
            self._cameras[size, focal_px] = self._last_camera
        return self._last_camera

    def _insert_matrix(self, table: str, key: str, number: int, array: npt.NDArray[Any]) -> None:
        row = _matrix(array)
        self._insert(table, **{key: number}, **row)
        self._insert("featkit_checksums", name=table, id=number, crc32=zlib.crc32(row["data"]))

    def _insert(self, table: str, **values: object) -> None:
        marks = ", ".join("?" * len(values))
        self._connection.execute(f"INSERT INTO {table}({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def _pair_id(image_id_1: int, image_id_2: int) -> int:
    """COLMAP's number of a pair of images numbered from 1, the lower first."""
    return image_id_1 * _MOST_IMAGES + image_id_2


@contextmanager
def _disk_errors() -> Iterator[None]:
    """SQLite's errors as those that writing any other file raises."""
    try:
        yield
    except sqlite3.OperationalError as error:
        # "database or disk is full", or "disk I/O error" at a limit of the file's size.
        raise OSError(errno.ENOSPC, str(error)) from error


def _matrix(array: npt.NDArray[Any]) -> dict[str, Any]:
    rows, columns = array.shape
    return {"rows": rows, "cols": columns, "data": np.ascontiguousarray(array).tobytes()}


def _keypoints(features: Features) -> npt.NDArray[np.float32]:
    """N×4: x, y, standard deviation (OpenCV's size is a diameter, twice that), orientation in radians."""
    return np.column_stack([features.xy + _ORIGIN, features.size / 2, np.radians(features.angle)]).astype("<f4")


def _descriptors(features: Features) -> npt.NDArray[np.uint8]:
    from featkit.local.matching import root_sift

    return np.clip(np.round(512 * root_sift(features.descriptors)), 0, 255).astype(np.uint8)


def _geometry(indices: npt.NDArray[np.int32], estimate: Estimate, swapped: bool) -> dict[str, object]:
    """The columns of two_view_geometries but pair_id: matrices row by row; the relative pose stays NULL, unknown."""
    if estimate.matrix is None or estimate.verdict == "none":
        return {**_matrix(np.zeros((0, 2), np.uint32)), "config": _DEGENERATE}
    inliers = _matrix(indices[estimate.inliers].astype(np.uint32))
    if estimate.model == "fundamental":
        matrix = _FROM_COLMAP.T @ (estimate.matrix.T if swapped else estimate.matrix) @ _FROM_COLMAP
        return {**inliers, "config": _UNCALIBRATED, "F": _blob(matrix)}
    matrix = _TO_COLMAP @ (np.linalg.inv(estimate.matrix) if swapped else estimate.matrix) @ _FROM_COLMAP
    return {**inliers, "config": _PLANAR_OR_PANORAMIC, "H": _blob(matrix)}


def _blob(matrix: npt.NDArray[np.floating]) -> bytes:
    return np.ascontiguousarray(matrix, "<f8").tobytes()


def check(path: Path, findings: Findings) -> None:
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise damaged("is no SQLite database", path)
    log = path.with_name(f"{path.name}-wal")
    # Immutable: nothing is written beside the file. But while COLMAP has it open, its newest pages are in the log.
    options = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)) as connection:
            _Checker(path, connection, findings).run()
    except (sqlite3.DatabaseError, TypeError, ValueError) as error:
        # The latter two: a damaged table may hold values of any type, and text that is none.
        raise damaged(f"cannot be read to its end: {error}", path) from error


class _Checker:
    def __init__(self, path: Path, connection: sqlite3.Connection, findings: Findings) -> None:
        self._path = path
        self._connection = connection
        self._findings = findings
        self._checksums: dict[tuple[str, int], int] = {}
        self._counts: dict[int, int] = {}

    def run(self) -> None:
        tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
        if "featkit" not in tables:
            raise damaged("was not written by featkit match", self._path)
        marks = dict(self._connection.execute("SELECT key, value FROM featkit"))
        if marks.get("format") != FORMAT or marks.get("version") != str(VERSION):
            raise damaged(f"has version {marks.get('version')}; this featkit reads {VERSION}", self._path)
        for (message,) in self._connection.execute(f"PRAGMA integrity_check({_MOST_FAULTS})"):
            if message != "ok":
                self._findings.add(f"SQLite finds: {message}")
        for name, number, checksum in self._connection.execute("SELECT name, id, crc32 FROM featkit_checksums"):
            self._checksums[name, number] = checksum
        sizes = self._check_cameras()
        for image_id, name, camera_id in self._connection.execute(
            "SELECT image_id, name, camera_id FROM images ORDER BY image_id"
        ):
            self._check_image(image_id, name, sizes.get(camera_id))
        matches = self._connection.execute("SELECT pair_id, rows, cols, data FROM matches")
        pairs = {pair_id: self._check_pair("matches", pair_id, blob) for pair_id, *blob in matches}
        self._findings.pairs = len(pairs)
        self._findings.matches = sum(pairs.values())
        geometries = self._connection.execute("SELECT pair_id, rows, cols, data, F, E, H FROM two_view_geometries")
        for pair_id, *blob, f, e, h in geometries:
            if pair_id not in pairs:
                self._findings.add(f"two_view_geometries {pair_id} has no matches")
            self._check_pair("two_view_geometries", pair_id, blob)
            for matrix in (f, e, h):
                if matrix is not None:
                    self._check_numbers(f"two_view_geometries {pair_id}", matrix, 9)
        for name, number in self._checksums:
            self._findings.add(f"{name} {number} is missing")

    def _check_cameras(self) -> dict[object, tuple[int, int]]:
        """Every camera's (width, height)."""
        sizes: dict[object, tuple[int, int]] = {}
        for camera_id, width, height, parameters in self._connection.execute(
            "SELECT camera_id, width, height, params FROM cameras"
        ):
            if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
                self._findings.add(f"camera {camera_id} has no size")
                continue
            sizes[camera_id] = (width, height)
            self._check_numbers(f"camera {camera_id}", parameters, None)
        return sizes

    def _check_numbers(self, where: str, data: object, count: int | None) -> None:
        if not isinstance(data, bytes) or len(data) % 8 or (count is not None and len(data) != 8 * count):
            self._findings.add(f"{where} has numbers of another length than it should")
        else:
            self._findings.check_matrix(where, np.frombuffer(data, "<f8"))

    def _check_image(self, image_id: int, name: object, size: tuple[int, int] | None) -> None:
        self._findings.images += 1
        self._counts[image_id] = 0
        if size is None or not isinstance(name, str):
            self._findings.add(f"image {image_id} has no camera or no name")
            return
        row = self._connection.execute("SELECT rows, cols, data FROM keypoints WHERE image_id = ?", (image_id,))
        keypoints = self._read("keypoints", image_id, row.fetchone() or (None, None, None), "<f4")
        if keypoints is None:
            return
        if keypoints.shape[1] < 2:
            self._findings.add(f"keypoints {image_id} have no x and y")
            return
        self._counts[image_id] = len(keypoints)
        if not np.isfinite(keypoints).all():
            self._findings.add(f"keypoints {image_id}: a value is not a finite number")
        self._findings.check_keypoints(f"keypoints {image_id}", keypoints[:, :2] - _ORIGIN, size)
        row = self._connection.execute("SELECT rows, cols, data FROM descriptors WHERE image_id = ?", (image_id,))
        if described := row.fetchone():
            descriptors = self._read("descriptors", image_id, described, "u1")
            if descriptors is not None and len(descriptors) != len(keypoints):
                self._findings.add(f"descriptors {image_id} are {len(descriptors)} for {len(keypoints)} keypoints")

    def _check_pair(self, table: str, pair_id: int, blob: Sequence[object]) -> int:
        """How many matches the row of `table` has."""
        where = f"{table} {pair_id}"
        indices = self._read(table, pair_id, blob, "<u4")
        if indices is None:
            return 0
        first, second = divmod(pair_id, _MOST_IMAGES)
        if first >= second or first not in self._counts or second not in self._counts:
            self._findings.add(f"{where} names a picture that is not there")
        elif indices.shape[1] != 2:
            self._findings.add(f"{where} has {indices.shape[1]} columns")
        else:
            # Which of both was matched to the other is not kept, and one-way matches are distinct in the former.
            counts = self._counts[first], self._counts[second]
            if len(np.unique(indices[:, 0])) < len(indices):
                indices, counts = indices[:, ::-1], counts[::-1]
            self._findings.check_indices(where, indices, *counts)
        return len(indices)

    def _read(self, table: str, number: int, blob: Sequence[object], kind: str) -> npt.NDArray[Any] | None:
        """(rows, cols, data) as an array, or None and a problem; its checksum is ticked off."""
        rows, columns, data = blob
        where = f"{table} {number}"
        expected = self._checksums.pop((table, number), None)
        data = b"" if data is None and rows == 0 else data
        if not (isinstance(rows, int) and isinstance(columns, int) and isinstance(data, bytes)):
            self._findings.add(f"{where} is missing")
            return None
        if rows < 0 or columns < 1 or rows * columns * np.dtype(kind).itemsize != len(data):
            self._findings.add(f"{where} has {len(data)} bytes, not {rows} × {columns} values")
            return None
        if expected is not None and expected != zlib.crc32(data):
            self._findings.add(f"{where} is damaged: its checksum is wrong")
        return np.frombuffer(data, kind).reshape(rows, columns)
