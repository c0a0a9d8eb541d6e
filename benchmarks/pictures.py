"""1,000 pictures halved and kept as JPEG: image_processing beside a plain loop of Pillow's, and beside libvips.

Usage: python benchmarks/pictures.py [--pictures N] [--rounds N]   (libvips where pyvips can be imported)
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import common

import programs

_DRAW = """
import sys
from pathlib import Path
from PIL import Image, ImageFilter
for number in range(int(sys.argv[2])):
    noise = Image.effect_noise((1200, 900), 40 + number % 60).filter(ImageFilter.GaussianBlur(2))
    picture = Image.merge("RGB", [noise.rotate(turn) for turn in (0, 90, 180)])
    picture.save(Path(sys.argv[1], f"{number:04}.jpg"), quality=90)
"""
_PILLOW = """
import sys
from pathlib import Path
from PIL import Image, ImageOps
for path in sorted(Path(sys.argv[1]).iterdir()):
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        half = upright.resize((upright.width // 2, upright.height // 2), Image.Resampling.LANCZOS)
        half.save(Path(sys.argv[2], path.name), quality=85, optimize=True, progressive=True)
"""
_VIPS = """
import sys
from pathlib import Path
import pyvips
for path in sorted(Path(sys.argv[1]).iterdir()):
    image = pyvips.Image.new_from_file(str(path), access="sequential").autorot().resize(0.5)
    image.jpegsave(str(Path(sys.argv[2], path.name)), Q=85, optimize_coding=True, interlace=True)
"""


def main(pictures: int, rounds: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        source, scratch = Path(folder, "source"), Path(folder, "scratch")
        source.mkdir()
        subprocess.run([sys.executable, "-c", _DRAW, source, str(pictures)], check=True)
        files = {path.name: path for path in sorted(source.iterdir())}
        steps = [{"op": "resize", "percent": 50}]
        fields = {"processing_type": "image_processing", "input_data": list(files), "steps": steps}
        ways = [
            common.Way(
                f"image_processing, {cores} core", functools.partial(programs.run, scratch, files, cores, **fields)
            )
            for cores in (1, 2)
        ]
        ways.append(common.Way("Pillow, plain loop", functools.partial(programs.script, scratch, _PILLOW, source)))
        if importlib.util.find_spec("pyvips"):
            ways.append(common.Way("libvips, plain loop", functools.partial(programs.script, scratch, _VIPS, source)))
        else:
            print("left out: libvips, since pyvips cannot be imported", file=sys.stderr)
        programs.compare(
            f"{pictures} pictures of 1200x900, halved ({rounds} rounds, in turn)", ways, rounds, "Pillow, plain loop"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    main(chosen.pictures, chosen.rounds)
