"""How bright, how tinted and how vignetted each photo of a panorama is against the others, and the correction.

Where photos overlap they saw the same light. A camera turns light into levels by a tone curve, the same for all its
photos. In the logarithm of light, exposure and white balance add something to a photo, and vignetting adds something
that depends on the distance from its centre. So, with h(level) for the logarithm of light, a place that photos a and b
both show says in each channel

    h(level in a) - light(a) - falloff(radius in a) = h(level in b) - light(b) - falloff(radius in b)

and all of it is solved for at once, the curve included, by Gauss–Newton with robust weights (after Kim & Pollefeys
2008, "Robust radiometric calibration and vignetting correction"). A level becomes h⁻¹(h(level) - light - falloff).

The curve is what makes seams vanish. Gains of levels, without one, are exact only where somebody has multiplied levels;
photos of cameras they leave with steps of 10 to 20 levels in the shadows and in the sky.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.images import Pixels, size_of
from featkit.opencv import cv2
from featkit.stitching.overlaps import Overlap

MODES = ("full", "gain", "none")
_Floats = npt.NDArray[np.floating]
_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.int64]

# --- the tone curve

# sRGB is level + 14 = constant · light^(1/2.4), but for the toe below level 10: the slope of h is 2.4 / (level + 14).
_SRGB_OFFSET = 0.055 * 255
# Other cameras' is that times exp of a polygon over these levels, 0 at the middle one.
_KNOTS = np.array([0, 16, 40, 80, 128, 176, 216, 244, 255], float)
_MIDDLE = 128.0
_FREE = _KNOTS != _MIDDLE
_FINENESS = 4
_LEVELS = np.arange(255 * _FINENESS + 1) / _FINENESS
_HATS = np.stack([np.interp(_LEVELS, _KNOTS, hat) for hat in np.eye(len(_KNOTS))[_FREE]], 1)
_BENDS = len(_KNOTS) - 1


@dataclass(frozen=True)
class ToneCurve:
    """How light becomes levels, in all photos of a panorama.

    bends: float64 8, at the levels 0, 16, 40, 80, 176, 216, 244 and 255: logarithms of how much steeper than sRGB's
    the logarithm of light is over the level, against that at level 128; on straight lines between these.
    """

    bends: _Float64

    @cached_property
    def slope(self) -> _Float64:
        """float64 1021: of `light` at the levels 0, ¼ … 255, a level. 1 / 128 at level 128, where a little more light
        then is as much more of the level."""
        return np.asarray(np.exp(_HATS @ self.bends) * (1 + _SRGB_OFFSET / _MIDDLE) / (_LEVELS + _SRGB_OFFSET))

    @cached_property
    def light(self) -> _Float64:
        """float64 1021, rising from 0: logarithm of the light at the levels 0, ¼ … 255."""
        return _integral(self.slope)

    def light_at(self, levels: _Floats) -> _Float64:
        """Logarithms of light at levels of any shape."""
        return np.interp(levels, _LEVELS, self.light)

    def level_at(self, light: _Floats) -> _Float64:
        """The other way, 0..255: no light is too little or too much."""
        return np.interp(light, self.light, _LEVELS)


def _integral(slope: _Float64) -> _Float64:
    """Of values at _LEVELS, along the first axis, from 0."""
    areas = (slope[1:] + slope[:-1]) / (2 * _FINENESS)
    return np.concatenate([np.zeros_like(slope[:1]), np.cumsum(areas, 0)])


# --- the correction

# Logarithms of light are codes of 16 bits while a falloff is taken from them. They reach this far beyond those of the
# levels 0 and 255, on either side: what a gain takes there vignetting may bring back.
_BEYOND = 1.5
_LAST_CODE = 65535
# Exponents of the radius in the falloff; their mean over the area of a picture of 3 : 2 (of 4 : 3: 1/3 and .155).
_EXPONENTS = np.array([2, 4])
_MEAN_POWERS = np.array([1 / 3, 0.157])


@dataclass(frozen=True)
class Exposure:
    """What makes the photos of a panorama look like one photo.

    gains: float64 count×3, what the light of each photo is multiplied by; near level 128 that multiplies the level.
    vignetting: float64 groups×2, v₁ and v₂: the logarithm of light falls off by v₁ r² + v₂ r⁴ at radius r (below 0
    where corners are dark), and is raised by as much. groups: each photo's row of it.
    """

    gains: _Float64
    vignetting: _Float64
    groups: tuple[int, ...]
    curve: ToneCurve

    def apply(self, number: int, pixels: Pixels, radius: _Float32) -> Pixels:
        """Correct a photo, or any part of it, warped or not: uint8 h×w×3 RGB to the same.

        radius: float32 h×w, as `radii` gives it; or a smaller array of its values at the centres of equal cells that
        cover the pixels. Cells of 16 pixels are as good, and save most of the time.
        """
        codes = self._codes(number)
        if not self.vignetting[self.groups[number]].any():
            return np.asarray(cv2.LUT(pixels, self._level_of_code[codes][None]), np.uint8)
        if radius.shape == pixels.shape[:2]:
            falloff = self._falloff_codes(number, radius)
        else:
            falloff = _spread(self._falloff_codes(number, _widened(radius)), radius.shape, size_of(pixels))
        light = cv2.LUT(pixels, codes[None])
        light = cv2.add(light, cv2.merge([falloff] * 3), dst=light)
        return np.asarray(cv2.LUT(light, self._level_of_code), np.uint8)

    def correct(self, number: int, colours: _Floats, radius: _Floats) -> _Float64:
        """The same for colours N×3 at radii N: float64 N×3, not rounded."""
        light = self.curve.light_at(colours) + np.log(self.gains[number])
        return self.curve.level_at(light - self._falloff(number, radius)[:, None])

    def _falloff(self, number: int, radius: _Floats) -> _Float64:
        return np.asarray(_powers(radius) @ self.vignetting[self.groups[number]])

    def _largest_falloff(self, number: int) -> float:
        """Above 0 where it is brighter somewhere than at the centre."""
        return float(self._falloff(number, np.linspace(0, 1, 65)).max())

    @cached_property
    def _codes_per_light(self) -> float:
        return _LAST_CODE / (float(self.curve.light[-1]) + 2 * _BEYOND)

    def _codes(self, number: int) -> npt.NDArray[np.uint16]:
        """uint16 256×3: of a photo's levels, corrected but for the part of the falloff that is not negative."""
        light = self.curve.light[::_FINENESS, None] + np.log(self.gains[number]) - self._largest_falloff(number)
        return self._rounded(light + _BEYOND)

    def _falloff_codes(self, number: int, radius: _Float32) -> npt.NDArray[np.uint16]:
        """That part: uint16 h×w, to be added."""
        rise = self._largest_falloff(number) - self._falloff(number, radius)
        return self._rounded(rise)

    def _rounded(self, light: _Float64) -> npt.NDArray[np.uint16]:
        return np.asarray(np.rint(np.clip(light * self._codes_per_light, 0, _LAST_CODE)), np.uint16)

    @cached_property
    def _level_of_code(self) -> Pixels:
        """uint8 65536"""
        light = np.arange(_LAST_CODE + 1) / self._codes_per_light - _BEYOND
        return np.rint(self.curve.level_at(light)).astype(np.uint8)


def _widened(cells: _Float32) -> _Float32:
    """By a cell on every side, on straight lines."""
    return np.pad(cells, 1, "reflect", reflect_type="odd")


def _spread(widened: npt.NDArray[np.uint16], cells: tuple[int, ...], size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """h×w, interpolated in a widened array of h'×w' cells that cover a picture of (width, height)."""
    across, down = cells[1] / size[0], cells[0] / size[1]
    to_cells = np.array([[across, 0, (across + 1) / 2], [0, down, (down + 1) / 2]])
    return np.asarray(cv2.warpAffine(widened, to_cells, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.uint16)


def _powers(radius: _Floats) -> _Float64:
    """float64 …×2"""
    return np.asarray(np.asarray(radius, float)[..., None] ** _EXPONENTS)


def overlap_psnr(overlaps: Sequence[Overlap], exposure: Exposure | None) -> float:
    """How alike photos are where they show the same, corrected, or as they are with None: the peak signal to noise
    ratio, dB, of a peak of 255; inf where there is no difference, or nothing to compare."""
    total, count = 0.0, 0
    for each in overlaps:
        a, b = each.colours_a.astype(float), each.colours_b.astype(float)
        if exposure is not None:
            a, b = exposure.correct(each.a, a, each.radius_a), exposure.correct(each.b, b, each.radius_b)
        total, count = total + float(((a - b) ** 2).sum()), count + a.size
    return 10 * math.log10(255**2 * count / total) if total > 0 else math.inf


# --- the fit

# What is known before, standard deviations in logarithms of light: of a photo's exposure, of its white balance, of the
# coefficients of the falloff, and of the curve's bends and the differences of their differences. The last was measured
# on photos made of the samples with five tone curves (sRGB, a power, a filmic one, a soft shoulder, more contrast): .7
# and 1 are best, .35 misses strong bends, and 1.5 fits curves to misregistration.
_EXPOSURE_SPREAD = 0.5
_TINT_SPREAD = 0.1
_FALLOFF_SPREAD = 0.5
_CURVE_SPREAD = 0.7
# Levels by which all of an overlap may be wrong (light that falls off to one side, flare). For exposure and white
# balance an overlap is one observation of that exactness, so that errors do not add up to a tint along a row: of 31
# photos that are 1 % redder on one side than on the other, the ends are 4 % off instead of 15 %.
_COMMON_ERROR = 2.0
# Places that are one observation for the other unknowns: neighbours err alike.
_ALIKE = 50
# A channel may be clipped above the first level, and is taken to be above the second. Such places weigh this much: they
# know little about exposure, but alone what white stands for.
_NEARLY_WHITE, _WHITE = 245.0, 253.0
_WHITE_WEIGHT = 0.3
# Cauchy's weight, 95 % efficient for Gaussian noise, and levels of noise that are always there.
_CAUCHY = 2.385
_LEAST_NOISE = 0.1
_STEPS = 20
_LONGEST_STEP = 1.0
_CONVERGED = 3e-3
_SIMPSON = np.array([1, 4, 1]) / 6


def balance(
    overlaps: Sequence[Overlap],
    count: int,
    *,
    mode: str = "full",
    reference: int | None = None,
    groups: Sequence[int] | None = None,
) -> Exposure:
    """Solve for the exposures of `count` photos.

    mode: full is gain, white balance and vignetting; gain is one gain a photo; none changes nothing. reference: the
    photo whose centre keeps its colours; without one the panorama is as bright and as tinted as its photos are on
    average. groups: each photo's number, from 0, of those that share their vignetting, for their size and focal length
    are the same; without, all do. A photo that overlaps none stays as it is. Raises UsageError for another mode.
    """
    if mode not in MODES:
        raise UsageError(f"exposure is balanced by {', '.join(MODES)}, not {mode!r}")
    groups = tuple(groups) if groups is not None else (0,) * count
    unknowns = _Unknowns(count, groups, *((3, len(_EXPONENTS)) if mode == "full" else (1, 0)))
    values = _solve(unknowns, [_Equations.of(each) for each in overlaps if len(each)] if mode != "none" else [])
    light, falloff, bends = unknowns.split(values)
    if reference is not None:
        light = light - light[reference]
    elif count:
        light = light - (light + (falloff @ _MEAN_POWERS)[list(groups), None]).mean(0)
    return Exposure(np.exp(-light), falloff, groups, ToneCurve(bends))


@dataclass(frozen=True)
class _Unknowns:
    """Their order in a vector: the light of each photo (of each channel, or one), the falloff of each group (two
    coefficients, or none), and the bends."""

    count: int
    groups: tuple[int, ...]
    channels: int
    powers: int

    @property
    def group_count(self) -> int:
        return max(self.groups, default=-1) + 1

    @property
    def lights(self) -> slice:
        return slice(0, self.count * self.channels)

    @property
    def falloffs(self) -> slice:
        return slice(self.count * self.channels, len(self) - _BENDS)

    @property
    def bends(self) -> slice:
        return slice(len(self) - _BENDS, len(self))

    def __len__(self) -> int:
        return self.count * self.channels + self.group_count * self.powers + _BENDS

    def split(self, values: _Float64) -> tuple[_Float64, _Float64, _Float64]:
        """light: count×3. falloff: groups×2. bends: 8."""
        light = np.broadcast_to(values[self.lights].reshape(self.count, self.channels), (self.count, 3))
        falloff = np.zeros((self.group_count, len(_EXPONENTS)))
        falloff[:, : self.powers] = values[self.falloffs].reshape(self.group_count, self.powers)
        return light, falloff, values[self.bends]

    def columns(self, a: int, b: int) -> _Indices:
        """What an overlap depends on: the light of a and of b, the falloff of a and (unless it is the same) of b, and
        the bends."""
        groups = dict.fromkeys((self.groups[a], self.groups[b]))
        return np.concatenate(
            [
                *(np.arange(self.channels) + photo * self.channels for photo in (a, b)),
                *(np.arange(self.powers) + self.falloffs.start + group * self.powers for group in groups),
                np.arange(_BENDS) + self.bends.start,
            ]
        )


@dataclass(frozen=True)
class _Equations:
    """What the places of an overlap say, a row a channel of a place.

    channel: int64 N. levels: int64 N×3, indices into the tables of the curve, of a, half-way, and of b. powers_a,
    powers_b: float64 N×2. exactness: float64 N, the root of the weight.
    """

    a: int
    b: int
    channel: _Indices
    levels: _Indices
    powers_a: _Float64
    powers_b: _Float64
    exactness: _Float64

    @staticmethod
    def of(overlap: Overlap) -> _Equations:
        a, b = overlap.colours_a.astype(float), overlap.colours_b.astype(float)
        unclipped = np.clip((_WHITE - np.maximum(a, b)) / (_WHITE - _NEARLY_WHITE), _WHITE_WEIGHT, 1)
        levels = np.stack([a, (a + b) / 2, b], -1).reshape(-1, 3)
        return _Equations(
            a=overlap.a,
            b=overlap.b,
            channel=np.tile(np.arange(3), len(overlap)),
            levels=np.rint(levels * _FINENESS).astype(np.int64),
            powers_a=np.repeat(_powers(overlap.radius_a), 3, 0),
            powers_b=np.repeat(_powers(overlap.radius_b), 3, 0),
            exactness=np.sqrt(unclipped * overlap.weight[:, None]).ravel(),
        )

    def derivatives(self, unknowns: _Unknowns) -> _Float64:
        """Of light in a less light in b by all that it depends on but the bends: constant."""
        light = np.eye(3)[self.channel] if unknowns.channels == 3 else np.ones((len(self.channel), 1))
        powers_a, powers_b = self.powers_a[:, : unknowns.powers], self.powers_b[:, : unknowns.powers]
        same = unknowns.groups[self.a] == unknowns.groups[self.b]
        return np.concatenate([-light, light, *([powers_b - powers_a] if same else [-powers_a, powers_b])], 1)


def _solve(unknowns: _Unknowns, equations: Sequence[_Equations]) -> _Float64:
    """Residuals are differences of light over the mean slope of the curve between both levels, so they are levels.
    Where levels differ by noise alone it is that noise whatever the curve: no curve is preferred for hiding it."""
    values = np.zeros(len(unknowns))
    if not equations:
        return values
    values[unknowns.lights] = _first_lights(unknowns, equations)
    columns = [unknowns.columns(each.a, each.b) for each in equations]
    constant = [each.derivatives(unknowns) for each in equations]
    common = _COMMON_ERROR**2 * float(np.mean([(each.exactness**2).sum() / 3 for each in equations]))
    for _ in range(_STEPS):
        curve = ToneCurve(values[unknowns.bends])
        residuals, jacobians = [], []
        for each, at, known in zip(equations, columns, constant, strict=True):
            residual, jacobian = _linearised(each, curve, known, values[at])
            residuals.append(residual)
            jacobians.append(jacobian)
        noise = max(1.4826 * float(np.median(np.abs(np.concatenate(residuals)))), _LEAST_NOISE)
        normal = _prior(unknowns, _ALIKE * noise**2, common)
        gradient = normal @ values
        for at, residual, jacobian in zip(columns, residuals, jacobians, strict=True):
            weighted = jacobian.T / (1 + (residual / (_CAUCHY * noise)) ** 2)
            normal[np.ix_(at, at)] += weighted @ jacobian
            gradient[at] += weighted @ residual
        step = np.linalg.solve(normal, gradient)
        longest = float(np.abs(step).max())
        values = values - step * min(1.0, _LONGEST_STEP / max(longest, _CONVERGED))
        if longest < _CONVERGED:
            break
    return values


def _first_lights(unknowns: _Unknowns, equations: Sequence[_Equations]) -> _Float64:
    """By the medians of the overlaps, under sRGB without falloff: robust weights need a start."""
    light = ToneCurve(np.zeros(_BENDS)).light
    size = unknowns.lights.stop
    normal, right = 1e-6 * np.eye(size), np.zeros(size)
    for each in equations:
        difference = light[each.levels[:, 0]] - light[each.levels[:, 2]]
        for channel in range(unknowns.channels):
            own = difference[channel :: unknowns.channels]
            a, b = (photo * unknowns.channels + channel for photo in (each.a, each.b))
            normal[[a, b, a, b], [a, b, b, a]] += len(own) * np.array([1, 1, -1, -1])
            right[[a, b]] += len(own) * float(np.median(own)) * np.array([1, -1])
    return np.asarray(np.linalg.solve(normal, right))


def _linearised(each: _Equations, curve: ToneCurve, known: _Float64, values: _Float64) -> tuple[_Float64, _Float64]:
    """Residuals N, and their derivatives by `values`, those that the overlap depends on."""
    slopes = curve.slope[:, None] * _HATS
    lights = _integral(slopes)
    first, last = each.levels[:, 0], each.levels[:, 2]
    mean_slope = curve.slope[each.levels] @ _SIMPSON
    mean_slopes = np.einsum("njk,j->nk", slopes[each.levels], _SIMPSON)
    residual = (curve.light[first] - curve.light[last] + known @ values[: known.shape[1]]) / mean_slope
    by_bends = lights[first] - lights[last] - residual[:, None] * mean_slopes
    jacobian = np.concatenate([known, by_bends], 1) * (each.exactness / mean_slope)[:, None]
    return residual * each.exactness, jacobian


def _prior(unknowns: _Unknowns, noise: float, common: float) -> _Float64:
    """The normal matrix of what is known before. noise: variance of one observation times how many places it takes;
    common: the same of an overlap's common error."""
    prior = np.zeros((len(unknowns), len(unknowns)))
    mean = np.full((unknowns.channels, unknowns.channels), 1 / unknowns.channels)
    light = mean / _EXPOSURE_SPREAD**2 + (np.eye(unknowns.channels) - mean) / _TINT_SPREAD**2
    bend = np.diff(np.eye(len(_KNOTS)), 2, 0)[:, _FREE]
    prior[unknowns.lights, unknowns.lights] = np.kron(np.eye(unknowns.count), light) * (noise + common)
    prior[unknowns.falloffs, unknowns.falloffs] = np.eye(unknowns.group_count * unknowns.powers) * (
        noise / _FALLOFF_SPREAD**2
    )
    prior[unknowns.bends, unknowns.bends] = (np.eye(_BENDS) + bend.T @ bend) * (noise / _CURVE_SPREAD**2)
    return prior
