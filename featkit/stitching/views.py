"""Where one photo looks: pixels to viewing rays, or to points of a plane, and back.

Both camera models are one formula. A pixel is freed from radial distortion about the picture's centre, and a 3×3 matrix
`to_world` takes it, homogeneous, to the world: to a viewing ray (rotation model: R K⁻¹, world axes x right, y down, z
ahead) or to a point of the plane (planar model: a homography). The way back is the inverse matrix, then the distortion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.floating]
Matrix = npt.NDArray[np.floating]

_NEWTON_STEPS = 8
# Focal lengths: pixels that Newton's method leaves farther off are seen along no ray.
_LARGEST_MISFIT = 1e-5
# Share of the largest third component of a world point: what lies nearer to the camera's plane is not seen.
_LEAST_DEPTH = 1e-3


@dataclass(frozen=True)
class View:
    """size: (width, height). to_world: float64 3×3, homogeneous pixel without distortion → viewing ray (not of unit
    length) or point of the plane (homogeneous). focal_px: of the rotation model; of the planar model None. distortion:
    (k1, k2), a point at distance r from the centre, in focal lengths, is seen at r (1 + k1 r² + k2 r⁴).
    """

    size: tuple[int, int]
    to_world: Matrix
    focal_px: float | None = None
    distortion: tuple[float, float] = (0.0, 0.0)

    @property
    def centre(self) -> Points:
        """float64 2: of the picture, pixels."""
        return (np.array(self.size, float) - 1) / 2

    def lift(self, xy: Points) -> Points:
        """float64 N×2 pixels to N×3 rays or homogeneous points of the plane; NaN where the distortion cannot be turned
        back."""
        plain = self._undistorted(xy)
        return np.asarray(plain @ self.to_world[:, :2].T + self.to_world[:, 2])

    def project(self, world: Points) -> Points:
        """float64 N×3 rays or homogeneous points to N×2 pixels; inf for what lies behind the camera, or so far out that
        the distortion would bring it back into the picture."""
        seen = world @ np.linalg.inv(self.to_world).T
        depth = seen[:, 2]
        ahead = depth > _LEAST_DEPTH * np.linalg.norm(world, axis=1) * self._unit_depth
        with np.errstate(divide="ignore", invalid="ignore"):
            xy = self._distorted(seen[:, :2] / depth[:, None])
        xy[~ahead] = np.inf
        return xy

    @property
    def _unit_depth(self) -> float:
        # Depth per unit of world at the centre of the picture, so that "ahead" does not depend on a matrix's scale.
        centre = np.array([*self.centre, 1.0])
        return float(1 / np.linalg.norm(self.to_world @ centre))

    def _undistorted(self, xy: Points) -> Points:
        if self.focal_px is None or self.distortion == (0.0, 0.0):
            return np.asarray(xy, float)
        k1, k2 = self.distortion
        distorted = (xy - self.centre) / self.focal_px
        radius = np.linalg.norm(distorted, axis=1)
        # Between the two, distances grow with distances: a lens shrinks none below 4/9 before it folds.
        least, most = np.zeros_like(radius), np.minimum(radius * 9 / 4, np.sqrt(self._turning_square))
        plain = np.minimum(radius, most)
        for _ in range(_NEWTON_STEPS):
            value = plain * (1 + k1 * plain**2 + k2 * plain**4) - radius
            slope = 1 + 3 * k1 * plain**2 + 5 * k2 * plain**4
            least, most = np.where(value < 0, plain, least), np.where(value < 0, most, plain)
            newton = plain - value / np.maximum(slope, 1e-6)
            plain = np.where((newton >= least) & (newton <= most), newton, (least + most) / 2)
        value = plain * (1 + k1 * plain**2 + k2 * plain**4) - radius
        plain[(np.abs(value) > _LARGEST_MISFIT) | (plain**2 >= self._turning_square)] = np.nan
        scale = np.where(radius > 0, plain / np.maximum(radius, 1e-12), 1.0)
        return np.asarray(distorted * scale[:, None] * self.focal_px + self.centre)

    def _distorted(self, xy: Points) -> Points:
        if self.focal_px is None or self.distortion == (0.0, 0.0):
            return np.array(xy, float)
        k1, k2 = self.distortion
        plain = (xy - self.centre) / self.focal_px
        r2 = (plain**2).sum(1)
        distorted = plain * (1 + k1 * r2 + k2 * r2**2)[:, None] * self.focal_px + self.centre
        distorted[r2 >= self._turning_square] = np.inf
        return np.asarray(distorted)

    @property
    def _turning_square(self) -> float:
        # Square of the distance, in focal lengths, from which on what lies farther out is not seen farther out.
        k1, k2 = self.distortion
        discriminant = 9 * k1**2 - 20 * k2
        if discriminant < 0:
            return float("inf")
        inverse = (np.sqrt(discriminant) - 3 * k1) / 2  # of the smaller root of 1 + 3 k1 r² + 5 k2 r⁴
        return 1 / float(inverse) if inverse > 0 else float("inf")
