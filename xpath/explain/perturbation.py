"""Taking an object out of the picture.

Axes: H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from xpath.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Blur", "Fill", "Perturbation", "feather", "perturbed", "shifted"]


class Perturbation(Protocol):
    """Something that hides what lies under a mask."""

    def replacement(self, image: NDArray[np.uint8], mpp: float) -> NDArray[np.float32]:
        """What is shown instead, ``(H, W, 3)``, of an image at a resolution.

        It does not depend on the mask, so that one serves all objects of a patch.
        """
        ...


class Blur:
    """A Gaussian blur (paper, Eq. 12); its width is a length on the tissue."""

    def __init__(self, sigma_um: float) -> None:
        self.sigma_um = sigma_um

    def replacement(self, image: NDArray[np.uint8], mpp: float) -> NDArray[np.float32]:
        """The blurred image."""
        import cv2

        sigma = self.sigma_um / mpp
        return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma), np.float32)


class Fill:
    """The image's mean colour: removes texture and stain alike."""

    def replacement(self, image: NDArray[np.uint8], mpp: float) -> NDArray[np.float32]:  # noqa: ARG002 - one signature for all
        """An even field."""
        return np.broadcast_to(image.mean(axis=(0, 1), dtype=np.float32), image.shape)


def feather(mask: NDArray[np.bool_], feather_um: float, mpp: float) -> NDArray[np.float32]:
    """Weights ``(H, W)``: 1 on the mask, falling to 0 over ``feather_um`` outside it.

    A hard edge would be a new object. Beyond the feather nothing is touched.
    """
    import cv2

    if not mask.any() or feather_um <= 0:
        return mask.astype(np.float32)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(np.clip(1 - outside * mpp / feather_um, 0, 1), np.float32)


def perturbed(
    image: NDArray[np.uint8], replacement: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The image with its replacement laid over it, ``(H, W, 3)``."""
    if weight.shape != image.shape[:2]:
        raise ShapeError(f"weights must be {image.shape[:2]} like the image, got {weight.shape}")
    mixed = image + weight[..., None] * (replacement - image)
    return np.asarray(np.rint(mixed), np.uint8)


def shifted(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """The mask somewhere else in its patch: rolled around the edges, turned, mirrored.

    Area and pieces stay as they are; only what lies under them changes.
    """
    height, width = mask.shape
    turns = int(rng.integers(4)) if height == width else 2 * int(rng.integers(2))
    moved = np.rot90(mask, turns)
    if rng.integers(2):
        moved = moved[:, ::-1]
    down, right = int(rng.integers(height)), int(rng.integers(width))
    return np.roll(moved, (down, right), axis=(0, 1))
