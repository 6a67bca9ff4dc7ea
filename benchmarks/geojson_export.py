"""The cost of finding a slide's objects and writing them for QuPath.

    python benchmarks/geojson_export.py --objects 200000 --touching 0.2

Patches hold jagged blobs the size of nuclei, two labels, some across seams, and of a share of them
a pair that overlaps. Traced from masks to outlines, touching ones separated, and written as
detections with measurements. Last line: JSON; ``rss_mb`` is the peak of the process,
``rss_before_mb`` what imports alone take; ``write_seconds`` leaves out the finding, and CPU seconds
tell what a busy machine would hide. ``joined`` is the same without separating touching nuclei,
``times_joined`` the ratio of the CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.export.qupath.geojson import ObjectNumbers, object_features, write_geojson
from xpath.geometry import Box, PatchGrid, Size
from xpath.objects.find import find_objects
from xpath.objects.rule import ObjectConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 512
LABELS = ("breast-nuclei-neoplastic", "breast-nuclei-lymphocyte")
PER_PATCH = 100


class Blobs:
    """Masks of a slide, drawn when they are read: stands in for ``SlideMasks``."""

    def __init__(self, patches: int, touching: float) -> None:
        """A square of patches, each of one of 16 drawings, this share of blobs being pairs."""
        across = int(np.ceil(np.sqrt(patches)))
        number = np.arange(patches)
        coords = np.stack((number % across, number // across), axis=1) * (2 * SIDE)
        self.grid = PatchGrid(
            coords=coords,
            footprint=2 * SIDE,
            pixels=SIDE,
            mpp=0.5,
            overlap=0,
            slide_size=Size(2 * SIDE * across, 2 * SIDE * across),
            slide_mpp=0.25,
        )
        self.labels, self.size = LABELS, SIDE
        self.drawings = np.stack([drawing(seed, touching) for seed in range(16)])
        areas = self.drawings.sum(axis=(2, 3))
        self.area = areas[number % 16]
        self.presence = np.linspace(0, 1, 2 * patches, dtype=np.float32).reshape(patches, 2)

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.grid)

    def read(self, patches: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Masks ``(n, L, H, W)``."""
        return self.drawings[patches % 16]


def drawing(seed: int, touching: float) -> NDArray[np.bool_]:
    """Masks ``(L, H, W)`` of nuclei of 5 to 10 microns on a jittered lattice, some in pairs."""
    import cv2

    rng, pairs = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    masks = np.zeros((len(LABELS), SIDE, SIDE), np.uint8)
    step = SIDE / np.sqrt(PER_PATCH)
    for x in np.arange(step / 2, SIDE, step):
        for y in np.arange(step / 2, SIDE, step):
            centre = np.rint(np.array((x, y)) + rng.uniform(-8, 8, 2)).astype(int).tolist()
            axes = rng.integers(5, 11, 2).tolist()
            mask = masks[int(rng.integers(2))]
            cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
            if pairs.random() < touching:
                angle, apart = pairs.uniform(0, 2 * np.pi), sum(axes) * 0.85
                beside = (centre + apart * np.array((np.cos(angle), np.sin(angle)))).astype(int)
                cv2.circle(mask, beside.tolist(), int(np.mean(axes)), 1, -1)
    rough = rng.random(masks.shape) < 0.1
    return (masks > 0) & ~(rough & (cv2.blur(masks[0] | masks[1], (3, 3)) < 1))


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--objects", type=int, default=200_000, help="about so many detections")
    parser.add_argument("--touching", type=float, default=0.0, help="share of blobs with a pair")
    args = parser.parse_args()
    masks: Any = Blobs(max(1, args.objects // PER_PATCH), args.touching)
    written(Blobs(1, 1.0))  # what is loaded or built once is no cost of the first of two
    base = peak_mb()
    joined = written(masks, separate=False)
    apart = written(masks)
    print(
        f"{apart['detections']} detections from {len(masks)} patches, {apart['file_mb']:.0f} MB in"
        f" {apart['seconds']:.1f} s"
    )
    result = {
        "benchmark": "geojson_export",
        "touching": args.touching,
        **apart,
        "joined": joined,
        "times_joined": round(apart["cpu_seconds"] / joined["cpu_seconds"], 2),
        "rss_mb": round(peak_mb(), 1),
        "rss_before_mb": round(base, 1),
        "device": f"{platform.machine()}, 1 process",
    }
    print(json.dumps(result))


def written(masks: Any, *, separate: bool = True) -> dict[str, float]:
    """Time and size of one export."""
    rng = np.random.default_rng(0)
    numbers = [
        ObjectNumbers(
            label=label,
            label_numbers={"importance: LUAD": 0.25, "log-odds change": -1.5},
            shared={"contribution: LUAD": rng.normal(size=len(masks))},
        )
        for label in LABELS
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "objects.geojson"
        bounds = Box(0, 0, masks.grid.slide_size.width, masks.grid.slide_size.height)
        started, worked = time.perf_counter(), time.process_time()
        table = find_objects(masks, ObjectConfig(separate=separate))
        found, found_cpu = time.perf_counter() - started, time.process_time() - worked
        count = write_geojson(
            path, object_features(table, numbers), slide_id="benchmark", bounds=bounds
        )
        whole, worked = time.perf_counter() - started, time.process_time() - worked
        size = path.stat().st_size
    return {
        "detections": count,
        "seconds": round(whole, 2),
        "write_seconds": round(whole - found, 2),
        "cpu_seconds": round(worked, 2),
        "write_cpu_seconds": round(worked - found_cpu, 2),
        "file_mb": round(size / 1e6, 1),
    }


def peak_mb() -> float:
    """Most memory the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
