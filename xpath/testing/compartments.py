"""Painters of the tissues that fill areas."""

from __future__ import annotations

import numpy as np

from xpath.testing.canvas import (
    FAT,
    INFILTRATE,
    NECROSIS,
    STROMA,
    TUMOUR,
    Canvas,
    NucleusType,
)

__all__ = [
    "FIBROBLAST",
    "LYMPHOCYTE",
    "NEOPLASTIC",
    "paint_fat",
    "paint_infiltrate",
    "paint_necrosis",
    "paint_single_files",
    "paint_stroma",
    "paint_tumour",
]

FIBROBLAST = NucleusType("breast-nuclei-fibroblast", (11, 17), (0.2, 0.32), (0.9, 1.3))
LYMPHOCYTE = NucleusType("breast-nuclei-lymphocyte", (5.5, 7.5), (0.85, 1.0), (1.7, 2.2))
NEOPLASTIC = NucleusType(
    "breast-nuclei-neoplastic", (10, 15), (0.65, 0.95), (1.1, 1.6), vesicular=True
)


def paint_stroma(canvas: Canvas, lymphocytes: float) -> None:
    """Pink wavy fibres with spindle nuclei, the ground on which all else is painted."""
    tissue = canvas.tissue
    canvas.tissue_class[tissue] = STROMA
    direction = canvas.noise(250.0) * 0.9  # radians
    ys, xs = np.mgrid[0 : canvas.shape[0], 0 : canvas.shape[1]].astype(np.float32) * canvas.mpp
    across = np.cos(direction) * ys - np.sin(direction) * xs + 6 * canvas.noise(60.0)
    fibres = 0.5 + 0.5 * np.sin(across * (2 * np.pi / 9.0))
    eosin = 0.42 + 0.22 * fibres + 0.06 * canvas.noise(40.0)
    canvas.eosin[tissue] = np.clip(eosin, 0.15, 1)[tissue]
    canvas.haematoxylin[tissue] = 0.05
    points = canvas.scatter(tissue, 26.0, 0.4)
    pixels = np.floor(points).astype(int)
    along = np.degrees(direction[pixels[:, 1], pixels[:, 0]])
    canvas.draw_nuclei(FIBROBLAST, points, tissue, along + canvas.rng.normal(0, 8, len(points)))
    few = canvas.scatter(tissue, 1000 / max(lymphocytes, 1) ** 0.5, 0.5)
    if lymphocytes > 0:
        canvas.draw_nuclei(LYMPHOCYTE, few, tissue)


def clear(canvas: Canvas, mask: np.ndarray, tissue: int) -> None:
    """Takes everything out of an area and gives it to another tissue."""
    canvas.tissue_class[mask] = tissue
    canvas.haematoxylin[mask] = 0
    canvas.eosin[mask] = 0
    for drawn in canvas.nuclei.values():
        drawn[mask] = 0


def paint_fat(canvas: Canvas, share: float) -> None:
    """White vacuoles behind thin pink walls."""
    import cv2

    area = canvas.region(share, 500.0, (STROMA,))
    if not area.any():
        return
    clear(canvas, area, FAT)
    seeds = canvas.scatter(np.ones(canvas.shape, bool), 52.0, 0.22)
    ground = np.ones(canvas.shape, np.uint8)
    pixels = np.floor(seeds).astype(int)
    ground[pixels[:, 1], pixels[:, 0]] = 0
    _, nearest = cv2.distanceTransformWithLabels(
        ground, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    edge = np.zeros(canvas.shape, bool)
    edge[:, 1:] |= nearest[:, 1:] != nearest[:, :-1]
    edge[1:] |= nearest[1:] != nearest[:-1]
    wall = cv2.dilate(edge.astype(np.uint8), np.ones((2, 2), np.uint8)).astype(bool) & area
    canvas.eosin[wall] = 0.55
    canvas.haematoxylin[wall] = 0.08


def paint_tumour(canvas: Canvas, share: float) -> None:
    """Cohesive nests of large, pale, irregular nuclei."""
    area = canvas.region(share, 220.0, (STROMA, FAT))
    if not area.any():
        return
    clear(canvas, area, TUMOUR)
    canvas.eosin[area] = (0.38 + 0.05 * canvas.noise(15.0))[area]
    canvas.haematoxylin[area] = 0.22
    canvas.draw_nuclei(NEOPLASTIC, canvas.scatter(area, 14.5, 0.2), area)


def paint_single_files(canvas: Canvas, share: float) -> None:
    """Neoplastic cells in rows between fibres."""
    zone = canvas.region(min(0.9, share * 2.2), 500.0, (STROMA,))
    if not zone.any():
        return
    waves = canvas.noise(260.0) * 60 + 5 * canvas.noise(50.0)
    ys = np.mgrid[0 : canvas.shape[0], 0 : canvas.shape[1]][0].astype(np.float32) * canvas.mpp
    row = np.abs(((ys + waves) % 34.0) - 17.0) < 7.0
    area = zone & row & (canvas.noise(90.0) > -0.6)
    clear(canvas, area, TUMOUR)
    canvas.eosin[area] = 0.4
    canvas.haematoxylin[area] = 0.2
    canvas.draw_nuclei(NEOPLASTIC, canvas.scatter(area, 13.0, 0.18), area)


def paint_necrosis(canvas: Canvas, share: float) -> None:
    """Granular, smudged and deeply eosinophilic, with dust of broken nuclei."""
    area = canvas.region(share, 330.0, (STROMA, TUMOUR, FAT))
    if not area.any():
        return
    clear(canvas, area, NECROSIS)
    grain = 0.85 + 0.14 * canvas.noise(4.0) + 0.12 * canvas.noise(14.0)
    canvas.eosin[area] = np.clip(grain, 0.3, 1.5)[area]
    canvas.haematoxylin[area] = np.clip(0.12 + 0.06 * canvas.noise(9.0), 0, 1)[area]
    dust = NucleusType("dust", (1.2, 3.2), (0.6, 1.0), (0.9, 1.8))
    canvas.draw_nuclei(dust, canvas.scatter(area, 9.0, 0.5), area)
    del canvas.nuclei["dust"]


def paint_infiltrate(canvas: Canvas, share: float) -> None:
    """Small, round, very dark nuclei, shoulder to shoulder."""
    area = canvas.region(share, 260.0, (STROMA,))
    if not area.any():
        return
    clear(canvas, area, INFILTRATE)
    canvas.eosin[area] = 0.25
    canvas.haematoxylin[area] = 0.18
    canvas.draw_nuclei(LYMPHOCYTE, canvas.scatter(area, 7.6, 0.16), area)
