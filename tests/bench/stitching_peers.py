"""Other stitchers as processes that print what `featkit stitch --json` prints.

python stitching_peers.py cv2|cv2-scans|stitching|stitching-affine|hugin OUTPUT IMG …

cv2 is cv2.Stitcher, stitching the package of that name, both with default settings. hugin is its command line, for
a spherical panorama: first what autooptimiser does by itself (-a), which can miss the field of view by a seventh; then
the angles, the field of view and the lens's b are optimised, bad control points thrown out, and all optimised again.
Where that breaks down, as with a photo that belongs to none, the first result is kept.

One `panorama` record is printed: output, and images [{path, size, to_world, focal_px}]; hugin's have `centre` and
`radial` too, c0 … c3: what is r focal lengths from the centre without distortion is seen at r (c0 + c1 r + …). Exit
status: 0; 3 without a panorama; 4 where the peer is not installed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

NOTHING_JOINED = 3
NOT_INSTALLED = 4


def placed(path: str, size: Sequence[int], scale: float, camera: Any, affine: bool) -> dict[str, Any]:
    """A photo of cv2.detail's CameraParams, which speak of the photo resized by scale."""
    resized = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])
    # cv2 keeps a rotation from the camera to the world, but an affine map from the plane to the photo.
    turned = (np.linalg.inv(camera.R) if affine else np.asarray(camera.R, float)) @ np.linalg.inv(camera.K())
    image = {"path": path, "size": list(size), "to_world": (turned @ resized).tolist()}
    return image if affine else {**image, "focal_px": camera.focal / scale}


def cv2_stitcher(output: str, photos: Sequence[str], mode: int = cv2.Stitcher_PANORAMA) -> list[dict[str, Any]]:
    pictures = [cv2.imread(photo) for photo in photos]
    stitcher = cv2.Stitcher.create(mode)
    if stitcher.estimateTransform(pictures) != cv2.Stitcher_OK:
        return []
    status, panorama = stitcher.composePanorama()
    if status != cv2.Stitcher_OK:
        return []
    cv2.imwrite(output, panorama)
    return [
        placed(photos[which], pictures[which].shape[1::-1], stitcher.workScale(), camera, mode == cv2.Stitcher_SCANS)
        for which, camera in zip(np.ravel(stitcher.component()), stitcher.cameras(), strict=True)
    ]


def cv2_scans(output: str, photos: Sequence[str]) -> list[dict[str, Any]]:
    return cv2_stitcher(output, photos, cv2.Stitcher_SCANS)


def stitching_package(output: str, photos: Sequence[str], name: str = "Stitcher") -> list[dict[str, Any]]:
    # This script's folder is searched first, and has a stitching.py of its own.
    sys.path.remove(str(Path(__file__).parent))
    try:
        import stitching
    except ImportError:
        sys.exit(NOT_INSTALLED)
    stitcher, cameras = getattr(stitching, name)(), []
    estimate_scale = stitcher.estimate_scale

    def keep(estimated: list[Any]) -> None:
        cameras.extend(estimated)
        estimate_scale(estimated)

    stitcher.estimate_scale = keep
    try:
        cv2.imwrite(output, stitcher.stitch(list(photos)))
    except stitching.stitching_error.StitchingError as error:
        print(error, file=sys.stderr)
        return []
    images = stitcher.images
    scale = images.get_ratio(images.Resolution.FINAL, images.Resolution.MEDIUM)
    return [
        placed(path, size, scale, camera, name == "AffineStitcher")
        for path, size, camera in zip(images.names, images.sizes, cameras, strict=True)
    ]


def stitching_affine(output: str, photos: Sequence[str]) -> list[dict[str, Any]]:
    return stitching_package(output, photos, "AffineStitcher")


def hugin_images(project: str) -> list[dict[str, Any]]:
    """The i-lines of a project: w, h, field of view v, angles y, p, r in degrees, the lens a, b, c of r in half the
    shorter side, and its centre's shift d, e; `v=0` stands for the value of image 0."""
    images: list[dict[str, Any]] = []
    values: list[dict[str, float]] = []
    for text in re.findall("^i .*$", project, re.MULTILINE):
        line = text.split()
        value = {}
        for key in "whvyprabcde":
            field = next(word[1:] for word in line if word[0] == key and word[1] in "=-.0123456789")
            value[key] = values[int(field[1:])][key] if field.startswith("=") else float(field)
        values.append(value)
        width, height = value["w"], value["h"]
        focal = width / 2 / np.tan(np.deg2rad(value["v"]) / 2)
        unit = focal / (min(width, height) / 2)
        a, b, c = (value[key] for key in "abc")
        centre = [(width - 1) / 2 + value["d"], (height - 1) / 2 + value["e"]]
        calibration = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
        yaw, pitch, roll = (
            cv2.Rodrigues(np.deg2rad(value[key]) * np.array(axis, float))[0]
            for key, axis in (("y", (0, 1, 0)), ("p", (1, 0, 0)), ("r", (0, 0, 1)))
        )
        images.append(
            {
                "path": text.split('n"')[1].split('"')[0],
                "size": [int(width), int(height)],
                "to_world": (yaw @ pitch @ roll @ np.linalg.inv(calibration)).tolist(),
                "focal_px": focal,
                "centre": centre,
                "radial": [1 - a - b - c, c * unit, b * unit**2, a * unit**3],
            }
        )
    return images


def succeed(*steps: Sequence[str]) -> bool:
    return all(subprocess.run(step, stdout=sys.stderr).returncode == 0 for step in steps)


def hugin(output: str, photos: Sequence[str]) -> list[dict[str, Any]]:
    if not all(shutil.which(tool) for tool in ("pto_gen", "cpfind", "autooptimiser", "nona", "enblend")):
        sys.exit(NOT_INSTALLED)
    with tempfile.TemporaryDirectory() as scratch:
        simple, refined, final = (f"{scratch}/{name}.pto" for name in ("simple", "refined", "final"))
        found = succeed(
            ["pto_gen", "-o", simple, *photos],
            ["cpfind", "--multirow", "-o", simple, simple],
            ["cpclean", "-o", simple, simple],
            ["autooptimiser", "-a", "-m", "-l", "-s", "-o", simple, simple],
        )
        better = found and succeed(
            ["pto_var", "--opt=y,p,r,v,b", "-o", refined, simple],
            ["autooptimiser", "-n", "-o", refined, refined],
            ["cpclean", "-o", refined, refined],
            ["autooptimiser", "-n", "-m", "-l", "-s", "-o", refined, refined],
        )
        chosen = refined if better else simple
        drawn = found and succeed(
            ["pano_modify", "--projection=2", "--fov=AUTO", "--canvas=AUTO", "--crop=AUTO", "-o", final, chosen],
            ["nona", "-m", "TIFF_m", "-o", f"{scratch}/layer", final],
        )
        layers = sorted(map(str, Path(scratch).glob("layer*.tif")))
        if not drawn or not succeed(["enblend", "-o", output, *layers]):
            return []
        return hugin_images(Path(final).read_text())


PEERS: dict[str, Callable[[str, Sequence[str]], list[dict[str, Any]]]] = {
    "cv2": cv2_stitcher,
    "cv2-scans": cv2_scans,
    "stitching": stitching_package,
    "stitching-affine": stitching_affine,
    "hugin": hugin,
}


if __name__ == "__main__":
    peer, output, *photos = sys.argv[1:]
    images = PEERS[peer](output, photos)
    if not images:
        sys.exit(NOTHING_JOINED)
    print(json.dumps({"type": "panorama", "output": output, "images": images}))
