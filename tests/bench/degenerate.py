"""Pairs that have no right answer, more than one, or one that is easily missed: what is said about each.

python -m tests.bench.degenerate [--data FOLDER] [--detector NAME ...] [--effort NAME] [--only WORD]

Drawn, or from scikit-image's pictures and the photos of samples/ and imagenet-sample/. "right" is what may honestly be
said; where the truth is known, "reliable" is right only with corners within 3 pixels of it. What is not right is bold.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from skimage import data as skimage_data

from featkit import Cache, match
from tests.bench.report import ROOT, arguments, option_parser, print_table
from tests.bench.truth import corner_error

Pixels = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

RIGHT_PX = 3.0
NOTHING = ("none",)
NOT_RELIABLE = ("none", "doubtful")
RELIABLE = ("reliable",)
ANY = ("none", "doubtful", "reliable")
IDENTITY = np.eye(3)


@dataclass(frozen=True)
class Case:
    """right: the verdicts that are honest. truth: 3×3, a to b, or None where no transformation is right."""

    name: str
    a: Pixels
    b: Pixels
    right: tuple[str, ...]
    truth: Matrix | None = None


def shifted(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def rgb(pixels: npt.NDArray[Any]) -> Pixels:
    """uint8 H×W×3 of grey, RGBA or bool samples."""
    if pixels.dtype == bool:
        pixels = pixels * np.uint8(255)
    stacked = pixels[..., :3] if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(stacked, np.uint8)


def photo(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def generator(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def retaken(pixels: Pixels, name: str) -> Pixels:
    """Another exposure of the same: gain and sensor noise."""
    random = generator(name)
    noisy = pixels * random.uniform(0.85, 1.1) + random.normal(0, 3, pixels.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def seen(pixels: Pixels, matrix: Matrix, name: str) -> Pixels:
    """pixels under a homography, in a frame of the same size, retaken."""
    size = pixels.shape[1], pixels.shape[0]
    warped: Any = cv2.warpPerspective(pixels, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return retaken(warped, name)


def gentle_view(width: int, height: int) -> Matrix:
    """A camera moved a little: 8° turned, 6 % nearer, in slight perspective."""
    turn = np.deg2rad(8)
    centre = shifted(width / 2, height / 2)
    turned = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [6e-5, -4e-5, 1]])
    matrix: Matrix = centre @ turned @ np.diag([1.06, 1.06, 1]) @ np.linalg.inv(centre)
    return matrix


# --- flat and noisy


def flat_cases() -> Iterator[Case]:
    def plain(value: int) -> Pixels:
        return np.full((360, 480, 3), value, np.uint8)

    ramp = rgb(np.tile(np.linspace(0, 255, 480).astype(np.uint8), (360, 1)))
    disc = rgb(np.clip(255 - np.hypot(*np.mgrid[-180:180, -240:240]), 0, 255).astype(np.uint8))
    yield Case("one flat colour, twice", plain(120), plain(120), NOTHING)
    yield Case("black, white", plain(0), plain(255), NOTHING)
    yield Case("flat colour, noise of two exposures", retaken(plain(120), "a"), retaken(plain(120), "b"), NOTHING)
    yield Case("flat colour, photo", plain(120), rgb(skimage_data.coffee())[:360, :480], NOTHING)
    yield Case("gradient ramp, brighter", ramp, retaken(ramp, "ramp"), NOT_RELIABLE, IDENTITY)
    yield Case("gradient disc, moved", disc, seen(disc, shifted(20, 10), "disc"), NOT_RELIABLE, shifted(20, 10))
    noise = generator("noise").integers(0, 256, (2, 360, 480, 3)).astype(np.uint8)
    soft = np.stack([cv2.GaussianBlur(each, (0, 0), 2) for each in noise])
    soft = np.clip((soft.astype(float) - 127) * 6 + 127, 0, 255).astype(np.uint8)
    yield Case("noise, other noise", noise[0], noise[1], NOTHING)
    yield Case("soft noise, other soft noise", soft[0], soft[1], NOTHING)
    yield Case(
        "soft noise, the same moved", soft[0], seen(soft[0], shifted(31, -17), "soft"), RELIABLE, shifted(31, -17)
    )


# --- repeated texture


def board(columns: int, rows: int, square: int, margin: int = 0, seed: str = "board") -> Pixels:
    cells = np.add.outer(np.arange(rows), np.arange(columns)) % 2
    inner = np.kron(cells, np.ones((square, square))) * 200 + 30
    return retaken(rgb(np.pad(inner, margin, constant_values=130).astype(np.uint8)), seed)


def tiling(tile: Pixels, columns: int, rows: int) -> Pixels:
    return np.tile(tile, (rows, columns, 1))


def window(pixels: Pixels, x: int, y: int, width: int = 480, height: int = 360) -> Pixels:
    return np.ascontiguousarray(pixels[y : y + height, x : x + width])


def repeated_cases(photos: Sequence[Pixels]) -> Iterator[Case]:
    for name in ("brick", "grass", "gravel"):
        texture = rgb(getattr(skimage_data, name)())
        a, b = texture[:420, :420], retaken(texture[60:480, 80:500], name)
        yield Case(f"skimage {name}, two windows", a, b, ANY, shifted(-80, -60))
        yield Case(f"skimage {name}, left and right half", texture[:, :250], texture[:, 262:], NOT_RELIABLE)
    large = board(20, 16, 40)
    for x, y in ((1, 0), (1, 1), (2, 0)):
        name = f"endless chessboard, moved by {x},{y} squares"
        yield Case(name, window(large, 0, 0), retaken(window(large, 40 * x, 40 * y), name), NOT_RELIABLE)
    tilted = seen(large, gentle_view(800, 640), "tilted")
    yield Case("endless chessboard, in perspective", window(large, 160, 140), window(tilted, 160, 140), NOT_RELIABLE)
    whole = board(8, 8, 40, margin=80)
    moved = seen(whole, shifted(40, 0), "one square")
    yield Case("whole chessboard, moved by a square", whole, moved, ANY, shifted(40, 0))
    skimage_board = resized(rgb(skimage_data.checkerboard()), (400, 400))
    yield Case("skimage checkerboard, moved by a square", skimage_board, np.roll(skimage_board, 50, 1), NOT_RELIABLE)
    for number, side in ((0, 48), (1, 64), (2, 96), (3, 160)):
        tiles = tiling(resized(photos[number], (side, side)), 1600 // side, 1200 // side)
        b = retaken(window(tiles, 500 + side // 3, 400 + side // 4), f"tiles {side}")
        yield Case(f"tiling of {side} px, moved", window(tiles, 500, 400), b, NOT_RELIABLE)
        view = seen(tiles, gentle_view(tiles.shape[1], tiles.shape[0]), f"view {side}")
        yield Case(
            f"tiling of {side} px, in perspective", window(tiles, 500, 400), window(view, 510, 390), NOT_RELIABLE
        )
        marked = tiles.copy()
        marked[480:660, 620:860] = resized(photos[number + 5], (240, 180))
        b = retaken(window(marked, 540, 430), f"marked {side}")
        yield Case(
            f"tiling of {side} px with a photo on it, moved", window(marked, 500, 400), b, ANY, shifted(-40, -30)
        )


# --- text


# The commonest words of English: pages share them, as they do.
_WORDS = [
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he",
    "his", "but", "at", "are", "this", "have", "from", "or", "had", "an", "they", "which", "one", "were", "all",
    "we", "when", "there", "can", "more", "if", "no", "out", "so", "said", "what", "up", "its", "about", "into",
    "than", "them", "only", "other", "new", "some", "could", "time", "these", "two", "may", "then", "do", "first",
    "any", "my", "now", "such", "like", "our", "over", "man", "me", "even", "most", "made", "after", "also",
    "did", "many", "before", "must", "through", "back", "years", "where", "much", "your", "way", "well", "down",
    "should", "because", "each", "just", "those", "people", "how", "too", "little", "state", "good",
]  # fmt: skip


def page(name: str, size: int = 18, header: str = "", lines: int | None = None, same: bool = False) -> Pixels:
    """A page of random words, black on white. same: every line is the first one."""
    random = generator(name)
    image = Image.new("L", (620, 800), 250)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    top = 40
    if header:
        pen.text((40, 30), header, fill=0, font=ImageFont.load_default(34))
        pen.line((40, 84, 580, 84), fill=0, width=3)
        pen.rectangle((40, 740, 580, 770), outline=0, width=2)
        pen.text((50, 745), "Page 1 of 1 — for office use only", fill=0, font=ImageFont.load_default(16))
        top = 110
    line = ""
    for row in range(lines or (730 - top) // (size + 8)):
        if not (same and row):
            line = " ".join(random.choice(_WORDS, 90 // (size // 6) // 3 + 3))
        pen.text((40, top + row * (size + 8)), line, fill=10, font=font)
    return rgb(np.asarray(image))


def text_cases() -> Iterator[Case]:
    view = gentle_view(620, 800)
    for size in (13, 18, 28):
        first, second = page(f"first {size}", size), page(f"second {size}", size)
        yield Case(f"two pages, text of {size} px", first, retaken(second, "p"), NOTHING)
        yield Case(f"two pages, text of {size} px, one turned", first, seen(second, view, "q"), NOTHING)
        yield Case(f"one page, text of {size} px, turned", first, seen(first, view, "r"), RELIABLE, view)
    line = page("line", 18, same=True)
    yield Case("page of one line, moved by a line", line, seen(line, shifted(0, -26), "s"), ANY, shifted(0, -26))
    yield Case("its middle, moved by a line", window(line, 30, 100), retaken(window(line, 30, 126), "t"), NOT_RELIABLE)
    form = (
        page("form one", 18, header="Application for Residence"),
        page("form two", 18, header="Application for Residence"),
    )
    yield Case("one form, two texts", form[0], retaken(form[1], "u"), ANY, IDENTITY)
    yield Case("one form, two texts, one turned", form[0], seen(form[1], view, "v"), ANY, view)
    letter = page("letter one", 18, header="Application for Residence", lines=4)
    other = page("letter two", 18, header="Application for Residence", lines=4)
    yield Case("one form, two short texts, one turned", letter, seen(other, view, "w"), ANY, view)
    scan = rgb(skimage_data.page())
    yield Case("skimage page, upper and lower half", scan[:95], scan[96:], NOTHING)
    yield Case("skimage text, page", rgb(skimage_data.text()), scan, NOTHING)


# --- a picture and itself


def own_cases(photos: Sequence[Pixels]) -> Iterator[Case]:
    pictures = {
        "coffee": rgb(skimage_data.coffee()),
        "astronaut": rgb(skimage_data.astronaut()),
        "chelsea": rgb(skimage_data.chelsea()),
        "brick": rgb(skimage_data.brick()),
        "coins": rgb(skimage_data.coins()),
        "moon": rgb(skimage_data.moon()),
        "text": rgb(skimage_data.text()),
        "retina": resized(rgb(skimage_data.retina()), (706, 706)),
        "china": photo(ROOT / "samples" / "china.jpg"),
        "photo 0": photos[0],
        "photo 1": photos[1],
    }
    for name, a in pictures.items():
        height, width = a.shape[:2]
        yield Case(f"{name}, itself", a, a, RELIABLE, IDENTITY)
        yield Case(f"{name}, itself in another exposure", a, retaken(a, name), RELIABLE, IDENTITY)
        yield Case(f"{name}, mirrored", a, np.ascontiguousarray(a[:, ::-1]), NOTHING)
        yield Case(f"{name}, upside down mirrored", a, np.ascontiguousarray(a[::-1]), NOTHING)
        half = np.array([[-1, 0, width - 1], [0, -1, height - 1], [0, 0, 1.0]])
        yield Case(f"{name}, turned by 180°", a, np.ascontiguousarray(a[::-1, ::-1]), RELIABLE, half)
        x, y = width // 4, height // 4
        crop = a[y : y + height // 2, x : x + width // 2]
        yield Case(f"{name}, its middle half", a, crop, RELIABLE, shifted(-x, -y))
        tiny = a[y : y + 100, x : x + 100]
        yield Case(f"{name}, 100 × 100 px of it", a, tiny, ANY, shifted(-x, -y))
        small = resized(a, (width // 4, height // 4))
        scale = np.array([[width // 4 / width, 0, 0], [0, height // 4 / height, 0], [0, 0, 1]])
        centre = np.diag([scale[0, 0], scale[1, 1], 1])
        centre[:2, 2] = (0.5 * scale[0, 0] - 0.5, 0.5 * scale[1, 1] - 0.5)
        yield Case(f"{name}, a quarter as wide", a, small, ANY, centre)
    yield Case("one half of coffee, the other", pictures["coffee"][:, :300], pictures["coffee"][:, 300:], NOTHING)


# --- what is laid over two photos that have nothing in common


def logo(size: int) -> Pixels:
    return resized(rgb(skimage_data.logo()), (size, size))


def stamped(a: Pixels, text: str, size: int) -> Pixels:
    image = Image.fromarray(a)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text((a.shape[1] - 12, a.shape[0] - 8), text, fill=(255, 170, 40), font=font, anchor="rs")
    return np.asarray(image)


def with_logo(a: Pixels, size: int, x: int, y: int) -> Pixels:
    out = a.copy()
    out[y : y + size, x : x + size] = logo(size)
    return out


def framed(a: Pixels, frame: Pixels, width: int) -> Pixels:
    out = resized(frame, (a.shape[1], a.shape[0]))
    out[width:-width, width:-width] = a[width:-width, width:-width]
    return out


def watermarked(a: Pixels, opacity: float, size: int = 40) -> Pixels:
    image = Image.new("L", (a.shape[1] * 2, a.shape[0] * 2), 0)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for row in range(0, image.height, 3 * size):
        for column in range(-(row % 200), image.width, 8 * size):
            pen.text((column, row), "© stock.example", fill=255, font=font)
    turned = image.rotate(30).crop((a.shape[1] // 2, a.shape[0] // 2, a.shape[1] // 2 * 3, a.shape[0] // 2 * 3))
    cover = np.asarray(turned.resize((a.shape[1], a.shape[0])), float)[..., None] / 255 * opacity
    return np.asarray(a * (1 - cover) + 255 * cover).astype(np.uint8)


def in_circle(a: Pixels) -> Pixels:
    height, width = a.shape[:2]
    out = np.zeros_like(a)
    inside = np.hypot(*np.mgrid[-height / 2 : height / 2, -width / 2 : width / 2]) < 0.48 * height
    out[inside] = a[inside]
    return out


def letterboxed(a: Pixels) -> Pixels:
    out = a.copy()
    out[:50], out[-50:] = 0, 0
    return out


def overlay_cases(photos: Sequence[Pixels]) -> Iterator[Case]:
    ornament = rgb(skimage_data.gravel())
    overlays: dict[str, Callable[[Pixels], Pixels]] = {
        "logo of 40 px": lambda a: with_logo(a, 40, 420, 20),
        "logo of 100 px": lambda a: with_logo(a, 100, 360, 20),
        "logo of 200 px": lambda a: with_logo(a, 200, 140, 80),
        "two logos": lambda a: with_logo(with_logo(a, 80, 390, 10), 80, 10, 270),
        "four logos": lambda a: with_logo(
            with_logo(with_logo(with_logo(a, 60, 410, 10), 60, 10, 290), 60, 10, 10), 60, 410, 290
        ),
        "timestamp": lambda a: stamped(a, "2024-05-17 10:32:08", 24),
        "large timestamp": lambda a: stamped(a, "CAM 03  2024-05-17 10:32:08", 36),
        "frame of 20 px": lambda a: framed(a, ornament, 20),
        "frame of 50 px": lambda a: framed(a, ornament, 50),
        "faint watermark": lambda a: watermarked(a, 0.25),
        "watermark": lambda a: watermarked(a, 0.6),
        "fine watermark": lambda a: watermarked(a, 0.6, 20),
        "circle": in_circle,
        "letterbox": letterboxed,
    }
    for name, overlay in overlays.items():
        for first, second in ((0, 1), (2, 3), (4, 5)):
            a, b = (resized(photos[number], (480, 360)) for number in (first, second))
            yield Case(f"two photos ({first}, {second}), {name}", overlay(a), retaken(overlay(b), name), NOT_RELIABLE)
        a = resized(photos[6], (480, 360))
        # Where half of the photo is gone, doubt is honest.
        right = ("doubtful", "reliable") if name in ("frame of 50 px", "circle") else RELIABLE
        yield Case(f"one photo, the second with {name}", a, retaken(overlay(a), name), right, IDENTITY)
        yield Case(f"one photo twice, both with {name}", overlay(a), retaken(overlay(a), name), RELIABLE, IDENTITY)


# --- what is said


def said_about(case: Case, folder: Path, options: dict[str, Any]) -> list[str]:
    paths = []
    for name, pixels in (("a", case.a), ("b", case.b)):
        paths.append(folder / f"{name}.png")
        Image.fromarray(pixels).save(paths[-1])
    result = match(*paths, cache=Cache(None), **options)
    error = None
    if case.truth is not None and result.matrix is not None:
        error = corner_error(result.matrix, case.truth, result.a.features.image_size)
    honest = result.verdict in case.right and not (
        result.verdict == "reliable" and case.truth is not None and (error is None or error > RIGHT_PX)
    )
    return [
        case.name,
        " or ".join(case.right),
        result.verdict if honest else f"**{result.verdict}**",
        f"{int(result.inliers.sum())} of {len(result.matches)}",
        "–" if result.uncertainty_px is None else f"{result.uncertainty_px:.2f}",
        "–" if error is None else f"{error:.2f}",
        result.estimate.reason,
    ]


def cases(data: Path) -> dict[str, list[Case]]:
    names = sorted((data / "imagenet-sample").glob("*.JPEG"))[:60:5]
    photos = [photo(path) for path in names]
    return {
        "one colour, ramps, noise": list(flat_cases()),
        "repeated textures": list(repeated_cases(photos)),
        "pages of text, forms": list(text_cases()),
        "a picture and itself: mirrored, turned, cropped, exposed": list(own_cases(photos)),
        "logos, frames, watermarks, on one photo and on two": list(overlay_cases(photos)),
    }


def main(data: Path, detectors: Sequence[str] = ("sift", "orb"), only: str = "", **options: Any) -> None:
    totals, odd = [], []
    for detector in detectors:
        for group, members in cases(data).items():
            with TemporaryDirectory() as folder:
                rows = [
                    said_about(case, Path(folder), {"detector": detector, **options})
                    for case in members
                    if only in case.name
                ]
            said = Counter(row[2].strip("*") for row in rows)
            wrong = [row for row in rows if row[2].startswith("**")]
            totals.append(
                [group, detector.upper(), str(len(rows))]
                + [str(said[verdict]) for verdict in ANY]
                + [str(sum("reliable" in row[2] for row in wrong)), str(len(wrong))]
            )
            odd += [[row[0], detector.upper(), *row[1:]] for row in (rows if only else wrong)]
    columns = ["pairs", "detector", "number", *ANY, "“reliable”, and wrong", "not right"]
    print_table("Degenerate pairs", columns, totals)
    columns = ["pair", "detector", "right", "said (bold: not right)", "agree", "±px", "corner error", "reason"]
    print_table("Each of them" if only else "Those of them that are not right", columns, odd)


if __name__ == "__main__":
    parser = option_parser(__doc__)
    parser.add_argument("--detector", nargs="+", default=["sift", "orb"], help="which ones (default: sift orb)")
    parser.add_argument("--effort", help="as of featkit match")
    parser.add_argument("--only", default="", help="only pairs whose name holds this word, each with what is said")
    given = arguments(parser)
    main(given.data, given.detector, given.only, **({} if given.effort is None else {"effort": given.effort}))
