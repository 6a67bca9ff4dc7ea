"""Millions of pixels a second by both readers of slides, side by side, on one core.

    python benchmarks/readers.py                     a drawn JPEG slide of 8192 x 8192
    python benchmarks/readers.py SLIDE [SLIDE ...]   level 0 of slides of your own

Squares of 1024 pixels are read, on the borders of tiles and 100 pixels beside them. ``equal`` tells
whether all their pixels are the same; ``fast`` is null where the slide is left to OpenSlide.
Last line of each slide: JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from xpath.geometry import Box
from xpath.testing.slides import write_slide
from xpath.wsi.openslide_reader import OpenSlideReader
from xpath.wsi.tiff_reader import TiffReader, faster

if TYPE_CHECKING:
    from xpath.wsi.slide import Reader

SIDE = 1024
"""Pixels read at once."""


def main() -> None:
    """From arguments to one JSON line a slide."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("slides", nargs="*", type=Path)
    parser.add_argument("--reads", type=int, default=16, help="squares read by each reader")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for path in args.slides or [drawn(Path(folder) / "drawn.tiff")]:
            print(json.dumps({"slide": path.name} | compared(path, args.reads)))


def drawn(path: Path) -> Path:
    """A slide as noisy as tissue."""
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(0, 60, (2048, 2048, 3)).astype(np.float32), (0, 0), 2)
    picture = np.add(noise, (200, 150, 190)).clip(0, 255).astype(np.uint8)
    write_slide(path, np.tile(picture, (4, 4, 1)), mpp=0.5)
    return path


def compared(path: Path, reads: int) -> dict[str, object]:
    """Speed of both readers, and whether they agree."""
    result: dict[str, object] = {"equal": True}
    for name, shift in (("on_tiles", 0), ("beside_tiles", 100)):
        slow = OpenSlideReader(path)  # anew: readers keep the tiles they decoded
        fast = faster(OpenSlideReader(path))
        boxes = squares(slow, reads, shift)
        result[f"{name}_openslide"] = speed(slow, boxes)
        result[f"{name}_fast"] = speed(fast, boxes) if isinstance(fast, TiffReader) else None
        result["equal"] = bool(result["equal"]) and all(
            np.array_equal(slow.region(0, box), fast.region(0, box)) for box in boxes
        )
        slow.close()
        fast.close()
    return result


def squares(reader: Reader, reads: int, shift: int) -> list[Box]:
    """Squares of level 0 that do not overlap, as many as there are."""
    width, height = reader.level_dimensions[0]
    corners = [
        (x, y)
        for y in range(shift, height - SIDE, 2 * SIDE)
        for x in range(shift, width - SIDE, 2 * SIDE)
    ]
    return [Box(x, y, SIDE, SIDE) for x, y in corners[:reads]]


def speed(reader: Reader, boxes: list[Box]) -> float:
    """Millions of pixels a second of processor time."""
    begin = time.process_time()
    for box in boxes:
        reader.region(0, box)
    return round(len(boxes) * SIDE**2 / 1e6 / (time.process_time() - begin), 1)


if __name__ == "__main__":
    main()
