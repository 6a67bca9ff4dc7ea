"""The cost of writing a large map as OME-TIFF pyramid, and whether memory stays bounded.

    python benchmarks/ome_tiff_export.py --size 50000 --map score

``score`` is a signed float32 map, smooth on tissue and NaN elsewhere; ``colour`` an RGBA overlay.
Last line: JSON; ``rss_mb`` is the peak of the process, ``rss_before_mb`` what imports alone take.
``exact`` tells whether tiles read back are bit by bit what was given.
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
import tifffile

from xpath.export.colour import signed_rgba
from xpath.export.ome_tiff import TILE, write_ome_tiff
from xpath.geometry import Size

if TYPE_CHECKING:
    from numpy.typing import NDArray


def score(left: int, top: int, width: int, height: int) -> NDArray[np.float32]:
    """Signed waves, half of the tiles blank, as glass is."""
    if (left // TILE + top // TILE) % 2:
        return np.full((height, width), np.nan, np.float32)
    x, y = np.arange(left, left + width), np.arange(top, top + height)
    across, down = np.sin(x / 700, dtype=np.float32), np.cos(y / 900, dtype=np.float32)
    return across[None] * down[:, None]


def colour(left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
    """The same as colours."""
    return signed_rgba(score(left, top, width, height), 1.0)


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=8000, help="side of the map in pixels")
    parser.add_argument("--map", choices=("score", "colour"), default="score")
    args = parser.parse_args()
    tile: Any = {"score": score, "colour": colour}[args.map]
    before = peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.ome.tif"
        started, worked = time.perf_counter(), time.process_time()
        write_ome_tiff(
            path,
            tile,
            size=Size(args.size, args.size),
            dtype="float32" if args.map == "score" else "uint8",
            um_per_pixel=0.5,
            name=args.map,
        )
        seconds, worked = time.perf_counter() - started, time.process_time() - worked
        peak = peak_mb()
        size = path.stat().st_size
        levels, exact = read_back(path, tile, args.size)
    print(f"{args.size} x {args.size} px in {seconds:.1f} s, {size / 1e6:.0f} MB, {levels} levels")
    result = {
        "benchmark": "ome_tiff_export",
        "map": args.map,
        "size": args.size,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(worked, 1),
        "file_mb": round(size / 1e6, 1),
        "levels": levels,
        "exact": exact,
        "rss_mb": round(peak, 1),
        "rss_before_mb": round(before, 1),
        "device": f"{platform.machine()}, 1 process",
    }
    print(json.dumps(result))


def read_back(path: Path, tile: Any, size: int) -> tuple[int, bool]:
    """Levels, and whether a few tiles are what was given, bit by bit."""
    exact = True
    with tifffile.TiffFile(path) as file:
        levels = file.series[0].levels
        page = levels[0].pages[0]
        across = -(-size // TILE)
        for index in np.linspace(0, across * across - 1, 20).astype(int).tolist():
            row, column = divmod(index, across)
            left, top = column * TILE, row * TILE
            wanted = tile(left, top, min(TILE, size - left), min(TILE, size - top))
            file.filehandle.seek(page.dataoffsets[index])
            data = file.filehandle.read(page.databytecounts[index])
            found = np.asarray(page.decode(data, index)[0])[0]
            found = found.reshape(found.shape[:2] + wanted.shape[2:])
            cut = found[: wanted.shape[0], : wanted.shape[1]]
            exact &= cut.tobytes() == np.ascontiguousarray(wanted).tobytes()
        return len(levels), bool(exact)


def peak_mb() -> float:
    """Most memory the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
