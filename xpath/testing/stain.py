"""Haematoxylin and eosin, as optical densities.

Axes: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Stain", "compose", "random_stain"]

HAEMATOXYLIN = (0.65, 0.70, 0.29)
EOSIN = (0.09, 0.95, 0.28)
"""Optical density of each stain in red, green, blue (Ruifrok and Johnston 2001)."""


@dataclass(frozen=True, slots=True)
class Stain:
    """How one laboratory stains and one scanner sees."""

    haematoxylin: tuple[float, float, float] = HAEMATOXYLIN
    eosin: tuple[float, float, float] = EOSIN
    strength: tuple[float, float] = (1.0, 1.0)
    """Concentration of haematoxylin and eosin."""
    glass: tuple[float, float, float] = (244.0, 243.0, 245.0)
    """Colour of bare glass."""
    blur: float = 0.7
    """Optical blur, sigma in pixels."""
    noise: float = 2.5
    """Sensor noise, standard deviation in grey levels."""


def random_stain(rng: np.random.Generator) -> Stain:
    """Another laboratory, another scanner."""

    def jittered(vector: tuple[float, float, float]) -> tuple[float, float, float]:
        moved = np.clip(np.asarray(vector) + rng.normal(0, 0.035, 3), 0.01, None)
        red, green, blue = moved / np.linalg.norm(moved)
        return float(red), float(green), float(blue)

    glass = rng.uniform(236, 250) + rng.normal(0, 1.5, 3)
    return Stain(
        haematoxylin=jittered(HAEMATOXYLIN),
        eosin=jittered(EOSIN),
        strength=(float(rng.uniform(0.8, 1.25)), float(rng.uniform(0.75, 1.3))),
        glass=(float(glass[0]), float(glass[1]), float(glass[2])),
        blur=float(rng.uniform(0.5, 1.0)),
        noise=float(rng.uniform(1.5, 3.5)),
    )


def compose(
    haematoxylin: NDArray[np.float32],
    eosin: NDArray[np.float32],
    stain: Stain,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """RGB ``(H, W, 3)`` of stain concentrations ``(H, W)`` by the law of Beer and Lambert."""
    import cv2

    density = haematoxylin[..., None] * (
        stain.strength[0] * np.asarray(stain.haematoxylin, np.float32)
    ) + eosin[..., None] * (stain.strength[1] * np.asarray(stain.eosin, np.float32))
    image = np.asarray(stain.glass, np.float32) * np.exp(-density)
    image = cv2.GaussianBlur(image, (0, 0), stain.blur)
    image += stain.noise * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(image), 0, 255), np.uint8)
