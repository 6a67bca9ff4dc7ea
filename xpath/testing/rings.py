"""Painters of round things with a wall and a lumen: ducts and vessels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.testing.canvas import DUCT, STROMA, VESSEL, Canvas, NucleusType
from xpath.testing.compartments import clear

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DUCTAL", "paint_duct", "paint_vessel"]

DUCTAL = NucleusType("breast-nuclei-ductal epithelium", (7, 9), (0.75, 0.95), (1.2, 1.6))
RED_CELL = NucleusType("red cell", (6, 7), (0.8, 1.0), (0.01, 0.02))


class Ring(NamedTuple):
    """A wobbly disc and its wall, as masks ``(H, W)``."""

    disc: NDArray[np.bool_]
    wall: NDArray[np.bool_]


def paint_duct(canvas: Canvas) -> None:
    """A ring of regular epithelium around an open lumen."""
    rng = canvas.rng
    radius = rng.uniform(32, 75)
    ring = _ring(canvas, radius, thickness=rng.uniform(13, 18))
    if ring is None:
        return
    clear(canvas, ring.disc, DUCT)
    canvas.eosin[ring.wall] = 0.45
    canvas.haematoxylin[ring.wall] = 0.2
    canvas.draw_nuclei(DUCTAL, canvas.scatter(ring.wall, 8.6, 0.15), ring.wall)


def paint_vessel(canvas: Canvas) -> None:
    """A thin pink wall around red cells."""
    rng = canvas.rng
    radius = rng.uniform(18, 50)
    ring = _ring(canvas, radius, thickness=rng.uniform(5, 9))
    if ring is None:
        return
    clear(canvas, ring.disc, VESSEL)
    canvas.eosin[ring.wall] = 0.85
    canvas.haematoxylin[ring.wall] = 0.1
    lumen = ring.disc & ~ring.wall
    centres = canvas.scatter(lumen & (canvas.noise(40.0) > -0.5), 6.5, 0.2)
    before = canvas.haematoxylin.copy()
    canvas.draw_nuclei(RED_CELL, centres, lumen)
    red = canvas.nuclei.pop("red cell").astype(bool)
    canvas.haematoxylin = before
    canvas.eosin[red & lumen] = 1.15


def _ring(canvas: Canvas, radius: float, thickness: float) -> Ring | None:
    """A ring somewhere in the stroma, or None if it would not lie on stroma."""
    pixels = np.argwhere(canvas.tissue_class == STROMA)
    if not len(pixels):
        return None
    y, x = pixels[canvas.rng.integers(len(pixels))]
    waves = [(k, canvas.rng.normal(0, 0.09 / k), canvas.rng.uniform(0, 6.3)) for k in (2, 3, 4)]
    reach = radius * (1 + sum(abs(height) for _, height, _ in waves)) / canvas.mpp
    # all that the ring can touch
    rows, columns = (slice(max(0, int(at - reach)), int(at + reach) + 2) for at in (y, x))
    window = rows, columns
    ys, xs = np.ogrid[: canvas.shape[0], : canvas.shape[1]]
    dy, dx = (ys[rows] - y) * canvas.mpp, (xs[:, columns] - x) * canvas.mpp
    angle = np.arctan2(dy, dx)
    wobble = sum(height * np.cos(k * angle + phase) for k, height, phase in waves)
    distance, outer = np.hypot(dy, dx), radius * (1 + wobble)
    inside = (distance < outer) & canvas.tissue[window]
    if (canvas.tissue_class[window][inside] != STROMA).mean() > 0.35:
        return None
    disc, wall = np.zeros(canvas.shape, bool), np.zeros(canvas.shape, bool)
    disc[window] = inside
    wall[window] = inside & (distance > outer - thickness)
    return Ring(disc, wall)
