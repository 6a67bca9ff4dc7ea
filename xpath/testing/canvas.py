"""The canvas of the tissue painters: two stain layers, a tissue map, and a pen for nuclei.

Axes: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.geometry import Size

__all__ = ["TISSUES", "Canvas", "Ground", "NucleusType"]

GLASS, STROMA, FAT, TUMOUR, NECROSIS, INFILTRATE, DUCT, VESSEL, LUMEN = range(9)

TISSUES = {
    "breast-tissue-stroma": STROMA,
    "breast-tissue-fat": FAT,
    "breast-tissue-tumor": TUMOUR,
    "breast-tissue-necrosis or debris": NECROSIS,
    "breast-tissue-lymphocytic infiltrate": INFILTRATE,
    "breast-tissue-normal acinus or duct": DUCT,
    "breast-tissue-blood vessel": VESSEL,
}


@dataclass(frozen=True, slots=True)
class NucleusType:
    """How nuclei of one type look."""

    label: str
    length: tuple[float, float]
    """Range of the long axis, microns."""
    slim: tuple[float, float]
    """Range of short axis over long axis."""
    density: tuple[float, float]
    """Range of the haematoxylin concentration."""
    vesicular: bool = False
    """Pale inside, with a dark rim and a nucleolus."""


class Ground(NamedTuple):
    """Stain layers and nuclei ``(H, W)`` of stroma before anything lies on it."""

    haematoxylin: NDArray[np.float32]
    eosin: NDArray[np.float32]
    nuclei: dict[str, NDArray[np.uint8]]


class Canvas:
    """A field being painted. Painters change it in place."""

    def __init__(self, size: Size, mpp: float, rng: np.random.Generator, *, glass: float) -> None:
        self.shape = (size.height, size.width)
        self.mpp = mpp
        self.rng = rng
        self.haematoxylin = np.zeros(self.shape, np.float32)
        self.eosin = np.zeros(self.shape, np.float32)
        self.tissue_class = np.zeros(self.shape, np.uint8)
        self.nuclei: dict[str, NDArray[np.uint8]] = {}
        if glass > 0:
            outline = self.noise(700.0) + 0.15 * self.noise(60.0)
            self.tissue = outline > np.quantile(outline, glass)
        else:
            self.tissue = np.ones(self.shape, bool)

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """The truth, one mask per label that was painted."""
        masks = {label: self.tissue_class == number for label, number in TISSUES.items()}
        return masks | {label: drawn.astype(bool) for label, drawn in self.nuclei.items()}

    def ground(self) -> Ground:
        """A copy of what is painted so far."""
        nuclei = {label: drawn.copy() for label, drawn in self.nuclei.items()}
        return Ground(self.haematoxylin.copy(), self.eosin.copy(), nuclei)

    def bare(self, label: str, ground: Ground) -> None:
        """Takes a tissue away, so that the stroma under it shows, without any random number."""
        area = self.tissue_class == TISSUES[label]
        self.tissue_class[area] = STROMA
        self.haematoxylin[area] = ground.haematoxylin[area]
        self.eosin[area] = ground.eosin[area]
        nothing = np.zeros(self.shape, np.uint8)
        for name, drawn in self.nuclei.items():
            drawn[area] = ground.nuclei.get(name, nothing)[area]

    def noise(self, grain: float) -> NDArray[np.float32]:
        """Smooth noise of zero mean and unit deviation and a wavelength of ``grain`` microns."""
        import cv2

        step = max(1.0, grain / self.mpp / 2)
        height, width = (int(np.ceil(side / step)) + 3 for side in self.shape)
        coarse = self.rng.standard_normal((height, width), dtype=np.float32)
        scale = (int(width * step) + 1, int(height * step) + 1)
        fine = cv2.resize(coarse, scale, interpolation=cv2.INTER_CUBIC)
        y = int(self.rng.integers(0, max(1, fine.shape[0] - self.shape[0])))
        x = int(self.rng.integers(0, max(1, fine.shape[1] - self.shape[1])))
        fine = fine[y : y + self.shape[0], x : x + self.shape[1]]
        return np.asarray((fine - fine.mean()) / (fine.std() + 1e-6), np.float32)

    def region(self, share: float, grain: float, over: tuple[int, ...]) -> NDArray[np.bool_]:
        """Irregular patches covering about ``share`` of the tissue, on the given tissues only."""
        if share <= 0:
            return np.zeros(self.shape, bool)
        field = self.noise(grain) + 0.25 * self.noise(grain / 5)
        wanted = min(0.95, share)
        level = np.quantile(field[self.tissue], 1 - wanted)
        return np.asarray((field > level) & self.tissue & np.isin(self.tissue_class, over))

    def scatter(
        self, mask: NDArray[np.bool_], spacing: float, jitter: float = 0.35
    ) -> NDArray[np.float64]:
        """Points ``(n, 2)`` x, y inside a mask, about ``spacing`` microns apart."""
        step = spacing / self.mpp
        ys, xs = np.mgrid[0 : self.shape[0] : step, 0 : self.shape[1] : step]
        xs = xs + (np.arange(len(xs)) % 2 * step / 2)[:, None]  # a honeycomb, not a chessboard
        points = np.stack((xs.ravel(), ys.ravel()), axis=1)
        points += self.rng.normal(0, jitter * step, points.shape)
        pixels = np.floor(points).astype(int)
        inside = (pixels >= 0).all(axis=1) & (pixels < np.array(self.shape[::-1])).all(axis=1)
        points, pixels = points[inside], pixels[inside]
        return np.asarray(points[mask[pixels[:, 1], pixels[:, 0]]])

    def draw_nuclei(
        self,
        nucleus: NucleusType,
        points: NDArray[np.float64],
        within: NDArray[np.bool_],
        angles: NDArray[np.float64] | None = None,
    ) -> None:
        """Draws a nucleus at every point, cut off outside ``within``."""
        import cv2

        rng, shift = self.rng, 4
        drawn = self.nuclei.setdefault(nucleus.label, np.zeros(self.shape, np.uint8))
        density = np.zeros(self.shape, np.float32)
        axes = rng.uniform(*nucleus.length, len(points)) / self.mpp / 2
        slim = rng.uniform(*nucleus.slim, len(points))
        angles = rng.uniform(0, 180, len(points)) if angles is None else angles
        dark = rng.uniform(*nucleus.density, len(points))
        for (x, y), a, ratio, angle, value in zip(points, axes, slim, angles, dark, strict=True):
            centre = (round(x * 2**shift), round(y * 2**shift))
            size = (max(12, round(a * 2**shift)), max(10, round(a * ratio * 2**shift)))
            ellipse = (centre, size, float(angle), 0.0, 360.0)
            cv2.ellipse(density, *ellipse, float(value), -1, cv2.LINE_8, shift)
            if nucleus.vesicular:
                inner = (size[0] * 7 // 10, size[1] * 7 // 10)
                pale = float(value) * 0.55
                cv2.ellipse(density, centre, inner, float(angle), 0, 360, pale, -1, 8, shift)
                spot = (round(a * 3), round(a * 3))
                cv2.ellipse(density, centre, spot, 0, 0, 360, float(value) * 1.3, -1, 8, shift)
        density[~within] = 0
        here = density > 0
        drawn[here] = 1
        for label, other in self.nuclei.items():
            if label != nucleus.label:
                other[here] = 0  # a pixel belongs to the nucleus drawn last
        grain = 1 + 0.15 * rng.standard_normal(self.shape, dtype=np.float32)
        self.haematoxylin[here] = (density * grain)[here]
        self.eosin[here] *= 0.6
