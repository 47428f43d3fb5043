"""The charts of an evaluation and the page that holds them: what they show, that no name breaks them, and what a
browser makes of them."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featkit import images
from featkit.errors import FileMissing, OutputError, OutputExists
from featkit.images import Pixels
from featkit.learning.charts import THUMBNAIL_SIDE, confusion_chart, embed, gallery, map_chart, worst_mistakes
from featkit.learning.evaluation import Evaluation, evaluate
from featkit.learning.report import Table, check_report, write_report
from featkit.opencv import cv2

#: Both ends of the confusion chart's colours: all of a class, and none.
ALL, NONE = (8, 48, 107), (247, 251, 255)
MAGENTA, GREEN = (255, 0, 255), (0, 160, 80)

#: What names of folders may hold.
AWKWARD = (
    "<script>document.title='taken'</script>", "$\\frac{1}{$", "_hidden", "a very long name " * 12, "W" * 200,
    "漢字", "🦊", "caf\udce9", "two\nlines", "مرحبا", "{title} %s", "&amp;\"'", "null\0byte", " ",
)  # fmt: skip


def judged(
    truth: list[int], predicted: list[int], classes: tuple[str, ...] = ("cat", "dog", "emu"), folder: Path = Path()
) -> Evaluation:
    """An evaluation of pictures 0.png, 1.png, …; each mistake is a little more confident than the one before."""
    scores = np.eye(len(classes))[predicted] * (1 + 0.01 * np.arange(len(truth)))[:, None]
    return evaluate(classes, [str(folder / f"{number}.png") for number in range(len(truth))], truth, scores)


def flat(colour: tuple[int, int, int], width: int = 8, height: int = 8) -> Pixels:
    return np.full((height, width, 3), colour, np.uint8)


def magenta(path: str) -> Pixels:
    return flat(MAGENTA)


def where(chart: bytes | Pixels, colour: tuple[int, int, int]) -> np.ndarray:
    """N×2: rows and columns of the pixels of exactly this colour."""
    pixels = images.decode(chart) if isinstance(chart, bytes) else chart
    return np.argwhere((pixels == colour).all(axis=2))


def ink(pixels: Pixels) -> np.ndarray:
    """Which pixels are dark."""
    return pixels.max(axis=2) < 140


@pytest.fixture
def animals() -> Evaluation:
    return judged([0, 0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 1, 0, 2])


class TestConfusionChart:
    def test_every_picture_right_is_a_dark_diagonal(self) -> None:
        pixels = images.decode(confusion_chart(judged([0, 1, 2], [0, 1, 2])))
        dark = where(pixels, ALL)
        (top, left), (bottom, right) = dark.min(axis=0), dark.max(axis=0) + 1
        # The colour bar's end is as dark.
        right = left + (bottom - top)
        cells = pixels[top:bottom, left:right]
        side = len(cells) / 3
        for row in range(3):
            for column in range(3):
                y, x = int((row + 0.1) * side), int((column + 0.1) * side)
                assert tuple(cells[y, x]) == (ALL if row == column else NONE)

    def test_rows_are_true_classes_and_colour_is_their_share(self) -> None:
        """Of 40 cats all are taken for dogs; of one dog, one."""
        pixels = images.decode(confusion_chart(judged([0] * 40 + [1], [1] * 41, ("cat", "dog"))))
        rows, columns = where(pixels, NONE).T
        pale = pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        dark = where(pixels, ALL)
        # Two pale cells one above the other, the dark ones at their right.
        assert len(pale) / 2 == pytest.approx(pale.shape[1], abs=2)
        cells = dark[dark[:, 1] < columns.max() + 1.5 * pale.shape[1]]
        assert len(cells) == pytest.approx(2 * pale.shape[1] ** 2, rel=0.2)

    @pytest.mark.parametrize("classes", [30, 101])
    def test_every_class_of_many_is_named(self, classes: int) -> None:
        every = list(range(classes))
        pixels = images.decode(confusion_chart(judged(every, every, tuple(["MM"] * classes))))
        assert max(pixels.shape[:2]) < 2300
        (top, left), bottom = where(pixels, ALL).min(axis=0), where(pixels, ALL)[:, 0].max()
        beside_the_matrix = ink(pixels[top - 2 : bottom + 2, left - 14 : left - 2]).any(axis=1)
        names = np.count_nonzero(np.diff(beside_the_matrix.astype(int)) == 1)
        assert names == classes

    def test_of_hundreds_of_classes_it_stays_a_picture_that_can_be_opened(self) -> None:
        every = list(range(500))
        shape = images.decode(confusion_chart(judged(every, every, tuple(f"class {each}" for each in every)))).shape
        assert max(shape) < 2500

    def test_one_class(self) -> None:
        assert len(where(confusion_chart(judged([0, 0], [0, 0], ("cat",))), ALL)) > 1000


class TestGallery:
    def test_a_small_picture_is_enlarged_by_its_own_pixels(self) -> None:
        small = np.random.default_rng(0).integers(0, 256, (4, 8, 3), np.uint8)
        (mistake,) = worst_mistakes(judged([0], [1]), lambda path: small)
        assert mistake.enlarged == THUMBNAIL_SIDE // 8
        np.testing.assert_array_equal(mistake.thumbnail, small)
        chart = images.decode(gallery([mistake]))
        squares = small.repeat(mistake.enlarged, axis=0).repeat(mistake.enlarged, axis=1)
        top, left = where(chart, tuple(small[0, 0].tolist()))[0]
        np.testing.assert_array_equal(chart[top : top + len(squares), left : left + squares.shape[1]], squares)

    def test_a_large_one_is_reduced_as_a_whole(self, samples: Path) -> None:
        photo = images.load(samples / "china.jpg").pixels
        (mistake,) = worst_mistakes(judged([0], [1]), lambda path: photo)
        assert mistake.thumbnail is not None
        assert (max(mistake.thumbnail.shape), mistake.enlarged) == (THUMBNAIL_SIDE, 1)
        height, width = mistake.thumbnail.shape[:2]
        assert width / height == pytest.approx(photo.shape[1] / photo.shape[0], rel=0.01)
        np.testing.assert_allclose(mistake.thumbnail.mean(axis=(0, 1)), photo.mean(axis=(0, 1)), atol=2)

    @pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (192, 193)])
    def test_no_size_breaks_it(self, size: tuple[int, int]) -> None:
        chart = gallery(worst_mistakes(judged([0], [1]), lambda path: flat(MAGENTA, *size)))
        assert len(where(chart, MAGENTA)) >= THUMBNAIL_SIDE

    def test_the_most_confident_come_first_and_say_what_they_are(self) -> None:
        mistakes = worst_mistakes(judged([0, 0, 0, 2], [0, 1, 2, 0]), magenta, count=2)
        assert [(each.path, each.truth, each.predicted) for each in mistakes] == [
            ("3.png", "emu", "cat"),
            ("2.png", "cat", "emu"),
        ]
        assert (mistakes[0].predicted_score, mistakes[0].true_score) == (pytest.approx(1.03), 0)

    def test_24_of_them_have_a_place_each(self) -> None:
        colours = [(255, 8 * number, 255 - 8 * number) for number in range(24)]
        mistakes = worst_mistakes(judged([0] * 30, [1] * 30), lambda path: flat(colours[29 - int(Path(path).stem)]))
        chart = images.decode(gallery(mistakes))
        corners = [where(chart, colour)[0].tolist() for colour in colours]
        assert corners == sorted(corners)
        assert len({tuple(corner) for corner in corners}) == 24

    def test_a_picture_that_is_gone_leaves_the_rest(self) -> None:
        def load(path: str) -> Pixels:
            if path == "0.png":
                raise FileMissing("there is no such file", path=path)
            return flat(MAGENTA)

        mistakes = worst_mistakes(judged([0, 0], [1, 1]), load)
        assert [each.thumbnail is None for each in mistakes] == [False, True]
        assert len(where(gallery(mistakes), MAGENTA)) == THUMBNAIL_SIDE**2

    def test_no_mistakes(self) -> None:
        assert ink(images.decode(gallery(()))).any()


def blobs(classes: int, count: int, dimensions: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """float32 N×D, and the class of each row: far apart from one another."""
    random = np.random.default_rng(seed)
    labels = np.arange(classes * count) % classes
    middles = random.normal(0, 10, (classes, dimensions))
    return (middles[labels] + random.normal(0, 1, (len(labels), dimensions))).astype(np.float32), labels


class TestEmbedding:
    def test_principal_components_are_scikit_learns(self) -> None:
        from sklearn.decomposition import PCA

        features, _ = blobs(3, 50)
        points, rows = embed(features, "pca", 0)
        expected = PCA(2, svd_solver="full").fit_transform(features.astype(np.float64))
        np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-3)
        assert rows.tolist() == list(range(150))

    def test_tsne_keeps_classes_together(self) -> None:
        features, labels = blobs(5, 30)
        points, rows = embed(features, "tsne", 0)
        assert points.shape == (150, 2)
        distances = np.linalg.norm(points[:, None] - points, axis=2)
        np.fill_diagonal(distances, np.inf)
        np.testing.assert_array_equal(labels[rows][distances.argmin(axis=1)], labels)

    @pytest.mark.parametrize("method", ["tsne", "pca"])
    def test_twice_the_same(self, method: str) -> None:
        features, _ = blobs(4, 40)
        np.testing.assert_array_equal(embed(features, method, 3)[0], embed(features, method, 3)[0])

    def test_of_many_rows_a_random_2000(self) -> None:
        features, _ = blobs(2, 1500, dimensions=3)
        points, rows = embed(features, "pca", 0)
        assert points.shape == (2000, 2)
        assert (np.diff(rows) > 0).all()
        assert rows[-1] < 3000
        assert set(rows.tolist()) != set(embed(features, "pca", 1)[1].tolist())

    @pytest.mark.parametrize("method", ["tsne", "pca"])
    @pytest.mark.parametrize("shape", [(1, 5), (2, 5), (3, 5), (4, 5), (5, 1), (40, 1), (6, 300)])
    def test_few_rows_or_columns(self, method: str, shape: tuple[int, int]) -> None:
        points, rows = embed(np.random.default_rng(0).normal(size=shape).astype(np.float32), method, 0)
        assert points.shape == (shape[0], 2)
        assert np.isfinite(points).all()
        assert rows.tolist() == list(range(shape[0]))

    @pytest.mark.parametrize("method", ["tsne", "pca"])
    def test_equal_rows_fall_together(self, method: str) -> None:
        points, _ = embed(np.full((20, 7), 3.25, np.float32), method, 0)
        np.testing.assert_array_equal(points, np.zeros((20, 2)))

    def test_another_method(self) -> None:
        with pytest.raises(ValueError, match="not by umap"):
            embed(np.zeros((5, 5), np.float32), "umap", 0)


def frame_of(pixels: Pixels) -> tuple[slice, slice]:
    """Rows and columns well inside a map's frame, which is drawn in light grey."""
    grey = (pixels == (200, 200, 200)).all(axis=2)
    (top, *_, bottom), (left, *_, right) = (np.flatnonzero(grey.sum(axis=axis) > 200) for axis in (1, 0))
    return slice(top + 3, bottom - 2), slice(left + 3, right - 2)


class TestMap:
    def test_up_to_20_classes_have_a_colour_each_and_their_names_beside(self) -> None:
        points = np.stack(np.meshgrid(np.arange(5.0), np.arange(4.0)), axis=2).reshape(-1, 2)
        pixels = images.decode(map_chart(points, np.arange(20), ["MM"] * 20, "a map"))
        inside = pixels[frame_of(pixels)]
        count, _, _, centres = cv2.connectedComponentsWithStats((inside < 250).any(axis=2).astype(np.uint8))
        assert count == 1 + 20
        assert len({tuple(inside[round(y), round(x)].tolist()) for x, y in centres[1:]}) == 20
        names = ink(pixels[:, frame_of(pixels)[1].stop + 40 :])
        assert np.count_nonzero(np.diff(names.any(axis=1).astype(int)) == 1) == 20
        assert np.count_nonzero(names.any(axis=0)) > 12

    def test_of_more_the_names_stand_on_the_map_apart(self) -> None:
        """Names of classes that fall together take about as much ink as those of classes that do not."""
        grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=2).reshape(-1, 2)
        labels = np.array([*range(25), 25, 25])

        def ink_of_names(middles: np.ndarray) -> int:
            points = np.vstack([middles, [[-2, -2], [7, 7]]])
            named, plain = (
                ink(images.decode(map_chart(points, labels, [name] * 25 + [" "], ""))).sum() for name in ("MMMM", " ")
            )
            return int(named) - int(plain)

        assert ink_of_names(2 + 1e-3 * grid) > 0.7 * ink_of_names(grid) > 0

    def test_the_aspect_of_the_points_is_kept(self) -> None:
        corners = np.array([[0.0, 0.0], [40.0, 0.0], [0.0, 10.0], [40.0, 10.0]])
        pixels = images.decode(map_chart(corners, np.zeros(4, int), ["cat"], ""))
        rows, columns = np.nonzero(np.ptp(pixels[frame_of(pixels)].astype(int), axis=2) > 60)
        assert np.ptp(columns) / np.ptp(rows) == pytest.approx(4, rel=0.1)

    @pytest.mark.parametrize("count", [1, 4])
    def test_points_that_fall_together(self, count: int) -> None:
        assert map_chart(np.zeros((count, 2)), np.zeros(count, int), ["cat"], "one place")


class TestAnyChart:
    def test_no_name_breaks_it(self) -> None:
        """A warning, as of a letter that the font lacks, would be an error here."""
        every = list(range(len(AWKWARD)))
        evaluation = judged(every, [*every[1:], 0], AWKWARD)
        points = np.random.default_rng(0).normal(size=(len(every), 2))
        many = [*AWKWARD, *AWKWARD]
        for chart in (
            confusion_chart(evaluation),
            gallery(worst_mistakes(evaluation, magenta)),
            map_chart(points, evaluation.truth, AWKWARD, AWKWARD[1]),
            map_chart(points, evaluation.truth, many, AWKWARD[7]),
        ):
            assert max(images.decode(chart).shape) < 2500

    def test_the_users_own_style_changes_nothing_and_stays(self, animals: Evaluation) -> None:
        import matplotlib

        before = confusion_chart(animals)
        with matplotlib.rc_context({"text.color": "red", "font.size": 30, "savefig.dpi": 20, "figure.facecolor": "k"}):
            assert confusion_chart(animals) == before
            assert matplotlib.rcParams["font.size"] == 30

    def test_does_without_pyplot(self) -> None:
        """Which would look for a screen, and keep every figure."""
        program = (
            "import sys\nfrom featkit.learning import charts, report\n"
            "assert not {'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)\n"
            "charts.gallery(())\n"
            "assert 'matplotlib.pyplot' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# --- the page


def written(folder: Path, evaluation: Evaluation, **changed: object) -> list[str]:
    """Names of what a report writes."""
    settings: dict[str, object] = {
        "title": "Animals",
        "summary": {"features": "hog"},
        "features": None,
        "load": magenta,
        "force": False,
        "seed": 0,
    }
    return [path.name for path in write_report(folder, evaluation, **{**settings, **changed})]  # type: ignore[arg-type]


def page(folder: Path) -> ElementTree.Element:
    """The page, which is well-formed XML too: every tag is closed, every name escaped."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    doctype, rest = text.split("\n", 1)
    assert doctype == "<!DOCTYPE html>"
    return ElementTree.fromstring(rest)


def texts(element: ElementTree.Element) -> list[str]:
    """The rows of all tables in it."""
    return [" | ".join("".join(cell.itertext()) for cell in row) for row in element.iter("tr")]


def pictures(element: ElementTree.Element) -> list[Pixels]:
    """What its images hold, decoded."""
    sources = [image.get("src", "") for image in element.iter("img")]
    return [images.decode(base64.b64decode(source.split(",", 1)[1], validate=True)) for source in sources]


class TestPage:
    def test_holds_all_that_it_shows(self, tmp_path: Path, animals: Evaluation) -> None:
        features, _ = blobs(1, 7)
        extra = [("HOG of a cat", images.encode(flat(GREEN, 30, 20), ".png"))]
        names = written(tmp_path / "report", animals, features=features, extra=extra)
        assert names == ["confusion.png", "mistakes.png", "map-tsne.png", "map-pca.png", "index.html"]
        found = page(tmp_path / "report")
        shown = pictures(found)
        files = [images.load(tmp_path / "report" / name).pixels for name in names[:-1]]
        for expected in (files[0], files[2], files[3], flat(GREEN, 30, 20), flat(MAGENTA)):
            assert any(np.array_equal(expected, each) for each in shown)
        assert len(shown) == 1 + 2 + 2 + 1
        text = (tmp_path / "report" / "index.html").read_text()
        assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)"', text))
        assert not re.search(r"https?:|<script|<link|@import|url\(", text)

    def test_is_a_page_for_everybody(self, tmp_path: Path, animals: Evaluation) -> None:
        written(tmp_path / "report", animals)
        found = page(tmp_path / "report")
        assert found.get("lang") == "en"
        assert found.findtext("head/title") == "Animals"
        metas = {meta.get("name") or meta.get("http-equiv") or meta.get("charset") for meta in found.iter("meta")}
        assert {"utf-8", "viewport", "Content-Security-Policy"} <= metas
        assert all(image.get("alt") for image in found.iter("img"))
        style = found.findtext("head/style") or ""
        assert "prefers-color-scheme: dark" in style

    def test_says_how_sure_the_accuracy_is(self, tmp_path: Path, animals: Evaluation) -> None:
        written(tmp_path / "report", animals)
        text = " ".join("".join(page(tmp_path / "report").itertext()).split())
        assert "71.4 % accuracy 95 % interval 35.9 % to 91.8 % (Wilson), on 7 pictures of 3 classes." in text

    def test_tables(self, tmp_path: Path, animals: Evaluation) -> None:
        ablation = Table("Ablation", ("stage", "accuracy"), (("all of it", "71.4 %"), ("no colour", "–")))
        written(tmp_path / "report", animals, tables=[ablation], summary={"features": "hog", "seed": "0"})
        rows = texts(page(tmp_path / "report"))
        assert rows[:5] == ["features | hog", "seed | 0", "stage | accuracy", "all of it | 71.4 %", "no colour | –"]
        assert rows[5:8] == [
            "true class | taken for | pictures | share",
            "cat | dog | 1 | 33.3 %",
            "emu | cat | 1 | 50.0 %",
        ]
        assert rows[8:] == [
            "class | pictures | recall | precision | F1",
            "emu | 2 | 50.0 % | 100.0 % | 66.7 %",
            "cat | 3 | 66.7 % | 66.7 % | 66.7 %",
            "dog | 2 | 100.0 % | 66.7 % | 80.0 %",
        ]

    def test_a_class_without_pictures_has_no_recall_and_comes_last(self, tmp_path: Path) -> None:
        written(tmp_path / "report", judged([1, 2], [1, 1]))
        assert texts(page(tmp_path / "report"))[-3:] == [
            "emu | 1 | 0.0 % | – | 0.0 %",
            "dog | 1 | 100.0 % | 50.0 % | 66.7 %",
            "cat | 0 | – | – | –",
        ]

    def test_no_mistakes(self, tmp_path: Path) -> None:
        written(tmp_path / "report", judged([0, 1, 2], [0, 1, 2]))
        assert len(pictures(page(tmp_path / "report"))) == 1

    def test_names_are_text(self, tmp_path: Path) -> None:
        every = list(range(len(AWKWARD)))
        evaluation = judged(every, [*every[1:], 0], AWKWARD, Path("</figure> \udcff"))
        table = Table(AWKWARD[0], (AWKWARD[0], "{body}"), ((AWKWARD[11], AWKWARD[7]),))
        written(
            tmp_path / "report",
            evaluation,
            title=AWKWARD[0] + AWKWARD[7],
            summary={AWKWARD[11]: AWKWARD[0]},
            tables=[table],
            extra=[(AWKWARD[0], images.encode(flat(GREEN), ".png"))],
        )
        found = page(tmp_path / "report")
        assert not list(found.iter("script"))
        assert found.findtext("head/title") == AWKWARD[0] + "caf\\xe9"
        rows = texts(found)
        assert rows[0] == f"{AWKWARD[11]} | {AWKWARD[0]}"
        assert rows[2] == f"{AWKWARD[11]} | caf\\xe9"
        assert {"two\\nlines | 1 | 0.0 % | 0.0 % | 0.0 %", "漢字 | 1 | 0.0 % | 0.0 % | 0.0 %"} <= set(rows)
        assert any("</figure> \\xff/0.png" in figure.get("title", "") for figure in found.iter("figure"))

    def test_twice_the_same_bytes(self, tmp_path: Path, animals: Evaluation) -> None:
        features, _ = blobs(1, 7)
        names = written(tmp_path / "a", animals, features=features)
        assert written(tmp_path / "b", animals, features=features) == names
        for name in names:
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


FILES = ["index.html", "confusion.png", "mistakes.png", "map-tsne.png", "map-pca.png"]


class TestFolder:
    def test_without_features_there_are_no_maps(self, tmp_path: Path, animals: Evaluation) -> None:
        written(tmp_path, animals)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["confusion.png", "index.html", "mistakes.png"]

    @pytest.mark.parametrize("name", FILES)
    def test_a_report_is_not_overwritten(self, tmp_path: Path, animals: Evaluation, name: str) -> None:
        (tmp_path / name).write_bytes(b"mine")
        for refused in (lambda: check_report(tmp_path, force=False), lambda: written(tmp_path, animals)):
            with pytest.raises(OutputExists) as caught:
                refused()
            assert caught.value.path == str(tmp_path / name)
            assert caught.value.hint == "--force overwrites it; or name a new folder"
        assert [path.name for path in tmp_path.iterdir()] == [name]
        check_report(tmp_path, force=True)
        written(tmp_path, animals, features=blobs(1, 7)[0] if "map" in name else None, force=True)
        assert (tmp_path / name).read_bytes() != b"mine"

    def test_what_else_lies_there_stays(self, tmp_path: Path, animals: Evaluation) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        written(tmp_path, animals)
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_not_even_force_overwrites_a_picture_that_was_evaluated(self, tmp_path: Path) -> None:
        (tmp_path / "mistakes.png").write_bytes(b"a photo")
        evaluation = evaluate(("cat", "dog"), [str(tmp_path / "mistakes.png")], [0], [[0, 1]])
        with pytest.raises(OutputExists):
            written(tmp_path, evaluation, force=True)
        assert (tmp_path / "mistakes.png").read_bytes() == b"a photo"

    def test_a_file_or_no_place_for_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for folder, complaint in (
            (tmp_path / "file", "is a file, not a folder"),
            (tmp_path / "file" / "report", "is not a folder"),
            (tmp_path / "missing" / "report", "there is no folder"),
        ):
            with pytest.raises(OutputError, match=complaint):
                check_report(folder, force=True)

    def test_a_folder_in_the_place_of_a_picture(self, tmp_path: Path) -> None:
        (tmp_path / "confusion.png").mkdir()
        with pytest.raises(OutputError, match="names a folder"):
            check_report(tmp_path, force=True)

    def test_checking_leaves_nothing(self, tmp_path: Path) -> None:
        check_report(tmp_path / "report", force=False)
        assert list(tmp_path.iterdir()) == []

    def test_a_run_that_fails_leaves_no_page(self, tmp_path: Path, animals: Evaluation) -> None:
        def load(path: str) -> Pixels:
            raise MemoryError

        with pytest.raises(MemoryError):
            written(tmp_path / "report", animals, load=load)
        assert [path.name for path in (tmp_path / "report").iterdir()] == ["confusion.png"]


Photographer = Callable[[Path, int, int], Pixels]


@pytest.fixture
def browser(tmp_path: Path) -> Photographer:
    """Takes a picture of a page in a window of so many pixels."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no chromium, chromium-browser or google-chrome here")

    def photograph(source: Path, width: int, height: int) -> Pixels:
        target = tmp_path / "shots" / f"{source.stem}-{width}.png"
        target.parent.mkdir(exist_ok=True)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        options += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},{height}"]
        command = [program, *options, f"--screenshot={target}", source.as_uri()]
        subprocess.run(command, capture_output=True, timeout=120, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
        return images.load(target).pixels

    trial = tmp_path / "trial.html"
    trial.write_text('<!DOCTYPE html><title>trial</title><body style="background: #ff00ff">')
    try:
        shot = photograph(trial, 300, 200)
    except (FileMissing, OSError, subprocess.TimeoutExpired):
        pytest.skip(f"{program} takes no pictures of files here")
    assert len(where(shot, MAGENTA)) > 10_000
    return photograph


class TestInABrowser:
    @pytest.fixture
    def report(self, tmp_path: Path, samples: Path) -> Path:
        """A page with three mistakes: two squares, half magenta and half green, and a photo. One class would like to be
        a script."""
        photo = images.thumbnail((samples / "china.jpg").read_bytes(), 400)
        names = ("<script>document.body.innerHTML = ''</script>", "dog")

        def load(path: str) -> Pixels:
            return photo if path.endswith("0.png") else np.hstack([flat(MAGENTA, 4), flat(GREEN, 4)])

        written(tmp_path / "report", judged([0, 0, 1, 1, 1], [1, 1, 1, 1, 0], names), load=load)
        return tmp_path / "report" / "index.html"

    def test_the_pictures_are_seen(self, report: Path, browser: Photographer) -> None:
        shot = browser(report, 1280, 1600)
        # The colour bar of the confusion matrix ends in these.
        assert len(where(shot, ALL)) > 10
        assert len(where(shot, NONE)) > 10
        assert len(where(shot, MAGENTA)) == len(where(shot, GREEN)) == THUMBNAIL_SIDE**2
        ends = where(shot, GREEN).max(axis=0)
        photo = shot[ends[0] + 1 - 128 : ends[0] + 1, ends[1] + 17 : ends[1] + 17 + THUMBNAIL_SIDE].astype(int)
        assert photo.std(axis=(0, 1)).min() > 20

    def test_on_a_phone_two_mistakes_stand_side_by_side(self, report: Path, browser: Photographer) -> None:
        # No window of the browser is as narrow as a phone; a frame in a page is.
        phone = report.with_name("phone.html")
        phone.write_text(f'<body style="margin: 0"><iframe src="{report.name}" width="390" height="2400"></iframe>')
        shot = browser(phone, 600, 2400)
        rows, columns = np.vstack([where(shot, MAGENTA), where(shot, GREEN)]).T
        assert np.ptp(rows) < THUMBNAIL_SIDE
        assert 300 < np.ptp(columns) < 390
        assert columns.max() < 390
