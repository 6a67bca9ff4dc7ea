"""Augmentation: changes such as scanners, stains and compression make to a picture.

Axes: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AugmentConfig", "augment"]

# Optical density of haematoxylin, eosin and residual in red, green, blue (Ruifrok, Johnston 2001).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """How far pictures are changed, where 0 leaves them alone."""

    stain: float = 0.35
    """Amount of each stain is multiplied by 1 plus or minus this."""
    background: float = 0.04
    """Optical density added to or taken from each stain."""
    tint: float = 0.12
    """Gain of each colour channel is 1 plus or minus this."""
    gamma: float = 0.25
    """Logarithm of the exponent that bends the brightness."""
    grey: float = 0.03
    """Chance of no colour at all."""
    blur: float = 0.2
    """Chance of a blur, sigma up to 1.5 pixels."""
    noise: float = 0.2
    """Chance of noise, up to 8 grey levels."""
    jpeg: float = 0.2
    """Chance of JPEG compression, quality 30 to 90."""


def augment(
    image: NDArray[np.uint8], config: AugmentConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """An RGB image ``(H, W, 3)`` with other colours and sharpness, all shapes in place."""
    import cv2

    image = _restain(image, config, rng)
    if rng.random() < config.grey:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        image = np.repeat(np.asarray(grey, np.uint8)[..., None], 3, axis=2)
    if rng.random() < config.blur:
        blurred = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.5)))
        image = np.asarray(blurred, np.uint8)
    if rng.random() < config.noise:
        noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(1, 8)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < config.jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 91))]
        decoded = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
        image = np.asarray(decoded, np.uint8)
    return image


def _restain(
    image: NDArray[np.uint8], config: AugmentConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """More or less of each stain, another light source, another camera curve."""
    import cv2

    amount = 1 + rng.uniform(-config.stain, config.stain, 3)
    shift = rng.uniform(-config.background, config.background, 3)
    mixing = (_unmix() * amount) @ STAINS
    gain = 1 + rng.uniform(-config.tint, config.tint, 3)
    bend = np.exp(rng.uniform(-config.gamma, config.gamma))

    density = _DENSITY[image]
    affine = np.concatenate((mixing.T, (shift @ STAINS)[:, None]), axis=1)
    density = cv2.transform(density, affine.astype(np.float32))
    light = cv2.exp(-density * np.float32(bend)) * (255 * gain).astype(np.float32)
    return np.clip(light, 0, 255).astype(np.uint8)


@lru_cache
def _unmix() -> NDArray[np.float32]:
    """From optical density to stains."""
    inverse: NDArray[np.float32] = np.linalg.inv(STAINS).astype(np.float32)
    return inverse


_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
