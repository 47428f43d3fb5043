"""Make the pictures that the README shows, from the samples: python samples/make_gallery.py"""

import subprocess
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

from featkit import images
from featkit.classical.hog import HogConfig
from featkit.classical.hog_drawing import draw_hog

SAMPLES = Path(__file__).resolve().parent


def main(folder: Path = SAMPLES / "gallery") -> None:
    folder.mkdir(exist_ok=True)
    pair = [SAMPLES / "china-left.jpg", SAMPLES / "china-right.jpg"]
    drawn = ["--draw", folder / "matches.jpg", "--draw-warp", folder / "overlay.jpg", "--force"]
    subprocess.run(["featkit", "match", *pair, *drawn], check=True)
    subprocess.run(["featkit", "stitch", *pair, "-o", folder / "panorama.jpg", "--force"], check=True)
    seen = images.fit_to(images.load(SAMPLES / "camera.png").pixels, (192, 192))
    images.save(folder / "hog.jpg", draw_hog(seen, HogConfig(cells=12)), force=True)
    with TemporaryDirectory() as page:
        subprocess.run(["featkit", "probe", SAMPLES / "digits", "--layers", "all", "--report", page], check=True)
        copyfile(Path(page) / "layers.png", folder / "layers.png")


if __name__ == "__main__":
    main()
