"""Does the network wait for pixels, and does memory grow with the glass around the tissue?

    python benchmarks/throughput.py
    python benchmarks/throughput.py --sides 20000 100000 --islands 16 --device cuda

Two sparse slides are drawn, with equal tissue on glass of different size. Of the smaller one:
``read_mp_per_s`` are pixels decoded with nothing else to do, ``*_patches_per_s`` patches a second
of each stage (masks with reading; objects; features of the patches kept). ``overlap`` is the time
of the masks over the slower of reading alone and computing alone from memory: 1 where neither waits
for the other. ``peak_gb`` is the most memory of a process that makes masks and features of each
slide, ``peak_growth`` that of the largest slide over that of the smallest. The least of several
repeats counts. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import imagecodecs
import numpy as np
import tifffile
import torch

from xpath.batch.slides import SlideEntry
from xpath.geometry import Size
from xpath.objects.extract import extract_objects
from xpath.objects.find import find_objects
from xpath.segment.predict.blending import widened
from xpath.segment.predict.whole_slide import segment_slide
from xpath.store.masks import open_masks
from xpath.study.config import StudyConfig
from xpath.study.study import Study, new_study
from xpath.testing.tissue import TissueRecipe, paint_tissue
from xpath.wsi.grid import cut_grid
from xpath.wsi.kept_patches import KeptPatches
from xpath.wsi.patches import iter_patches
from xpath.wsi.slide import Slide
from xpath.wsi.tissue import find_tissue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from xpath.geometry import Box, PatchGrid

TILE, ISLAND, CELL = 256, 1024, 4096
"""Pixels of a tile, of an island of tissue, and of the square of glass that an island lies in."""
LEVELS = (1, 4, 16)
MPP = 0.5
ALONE = """
import sys
from pathlib import Path
from xpath.study.chain import features_stage, segment_stage
from xpath.study.study import open_study
study = open_study(Path(sys.argv[1]))
if not (segment_stage(study, features=True).ok and features_stage(study).ok):
    sys.exit("the slide failed")
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--islands", type=int, default=12, help="of 16 patches each")
    parser.add_argument("--labels", type=int, default=21, help="objects to look for, at most")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    peaks, speed = {}, {}
    with tempfile.TemporaryDirectory() as home:
        for side in args.sides:
            path = Path(home) / f"{side}.tiff"
            draw(path, side, args.islands)
            study = study_of(path, args)
            speed = speed or speeds(study, args.repeats)
            peaks[side] = peak_gb(study)
    growth = peaks[args.sides[-1]] / peaks[args.sides[0]]
    facts = {"benchmark": "throughput", **speed, "peak_gb": peaks, "peak_growth": round(growth, 3)}
    print(json.dumps(facts | {"device": args.device, "threads": torch.get_num_threads()}))


def draw(path: Path, side: int, islands: int) -> None:
    """A pyramid with islands of tissue, spread evenly over glass."""
    drawn = paint_tissue(Size(ISLAND, ISLAND), TissueRecipe(glass=0.0), np.random.default_rng(0))
    cells = max(1, side // CELL)
    chosen = np.unique(np.linspace(0, cells**2 - 1, islands).round().astype(int))
    if len(chosen) < islands:
        raise SystemExit(f"a slide of {side} px has room for {cells**2} islands")
    corners = {(cell % cells * CELL, cell // cells * CELL) for cell in chosen.tolist()}
    with tifffile.TiffWriter(path) as file:
        for number, down in enumerate(LEVELS):
            size = max(1, side // down)
            tissue = cv2.resize(drawn.image, [ISLAND // down] * 2, interpolation=cv2.INTER_AREA)
            file.write(
                tiles(size, tissue, {(x // down, y // down) for x, y in corners}),
                shape=(size, size, 3),
                dtype=np.uint8,
                photometric="ycbcr",
                subsampling=(2, 2),
                tile=(TILE, TILE),
                compression="jpeg",
                resolution=(1e4 / (MPP * down),) * 2,
                resolutionunit="CENTIMETER",
                subfiletype=1 if number else 0,
                metadata=None,
            )


def tiles(size: int, tissue: NDArray[np.uint8], corners: set[tuple[int, int]]) -> Iterator[bytes]:
    """Encoded tiles of a level, row by row."""
    glass = np.full((TILE, TILE, 3), 244, np.uint8)
    empty, length = imagecodecs.jpeg8_encode(glass, level=85), len(tissue)
    for top in range(0, size, TILE):
        for left in range(0, size, TILE):
            found = [
                (x, y)
                for x, y in corners
                if x < left + TILE and left < x + length and y < top + TILE and top < y + length
            ]
            if not found:
                yield empty
                continue
            tile = glass.copy()
            x, y = found[0]
            part = tissue[max(0, top - y) : top - y + TILE, max(0, left - x) : left - x + TILE]
            tile[max(0, y - top) :, max(0, x - left) :][: len(part), : part.shape[1]] = part
            yield imagecodecs.jpeg8_encode(tile, level=85)


def study_of(path: Path, args: argparse.Namespace) -> Study:
    """A run of one slide."""
    config = StudyConfig()
    config = replace(config, objects=replace(config.objects, device=args.device))
    study = new_study(path.with_suffix(""), config, [SlideEntry(slide_id="slide", path=path)])
    names = tuple(label.id for label in study.labels[: args.labels])
    config = replace(config, objects=replace(config.objects, labels=names))
    return new_study(path.with_suffix(""), config, study.slides)


class InMemory:
    """A slide whose windows are all in memory."""

    def __init__(self, slide: Slide, windows: PatchGrid) -> None:
        self.path, self.size = slide.path, slide.size
        boxes = zip(windows.boxes(), iter_patches(slide, windows, batch=1), strict=True)
        self._pixels = {box: batch.images[0] for box, batch in boxes}

    def read(self, box: Box, _: Size) -> NDArray[np.uint8]:
        """The pixels of a window."""
        return self._pixels[box]


def speeds(study: Study, repeats: int) -> dict[str, Any]:
    """How fast a slide is read and every stage is, alone and together."""
    objects, counting = study.config.objects, study.config.counting
    path, out = study.slides[0].path, study.folder.root / "trial.zarr"

    def segmented(source: Any) -> float:
        return seconds(
            lambda: segment_slide(
                source, grid, study.predictor, study.labels, out, config=study.segment_config
            )
        )

    def from_file() -> float:
        with Slide.open(path) as fresh, KeptPatches(study.folder.root) as kept:
            return segmented(kept.start(fresh, grid))

    def read() -> float:
        with Slide.open(path) as fresh:
            batches = iter_patches(fresh, windows, batch=objects.batch)
            return seconds(lambda: [len(images) for _, images in batches])

    with Slide.open(path) as slide, KeptPatches(study.folder.root) as kept:
        grid = cut_grid(slide, find_tissue(slide, study.config.tissue), study.config.grid)
        windows = widened(grid, objects.overlap)
        memory = InMemory(slide, windows)
        segmented(kept.start(slide, grid))  # also warms up
        trials = [(read(), segmented(memory), from_file()) for _ in range(repeats)]
        masks = open_masks(out)
        found = seconds(lambda: find_objects(masks, counting))
        features = seconds(
            lambda: extract_objects(
                kept, masks, study.encoder, slide_id="slide", batch=objects.batch
            )
        )
    reading, computing, together = (min(column) for column in zip(*trials, strict=True))
    pixels = len(windows) * windows.pixels**2 / 1e6
    return {
        "patches": len(grid),
        "read_mp_per_s": round(pixels / reading, 1),
        "masks_patches_per_s": round(len(grid) / together, 2),
        "objects_patches_per_s": round(len(grid) / found, 2),
        "features_patches_per_s": round(len(grid) / features, 2),
        "overlap": round(together / max(reading, computing), 3),
    }


def seconds(work: Callable[[], object]) -> float:
    """Duration of some work."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def peak_gb(study: Study) -> float:
    """Most memory of a process of its own that does a first run."""
    command = [sys.executable, "-c", ALONE, str(study.folder.root)]
    kib = int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return round(kib / 2**20, 3)


if __name__ == "__main__":
    main()
