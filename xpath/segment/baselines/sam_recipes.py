"""How images and boxes go into models of the Segment Anything family, and masks come out.

Axes: N boxes, H W pixels of the image, S side of the model's square, h w places of its logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["MedSam", "PlainSam", "SamMed2d", "SamRecipe"]

MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of ImageNet's photographs, in grey levels."""


class SamRecipe(Protocol):
    """Preparation of one member of the family."""

    multimask: bool
    """Three masks a box, of which the one with the best predicted IoU counts, instead of one."""

    def pixels(self, image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        """The square ``(S, S, 3)`` that the model sees of an image ``(H, W, 3)``."""
        ...

    def scale(self, size: tuple[int, int], side: int) -> tuple[float, float]:
        """Pixels of the square per pixel of an image of that height and width, along x and y."""
        ...

    def masks(self, logits: Tensor, size: tuple[int, int], side: int) -> Tensor:
        """Masks ``(N, 1, H, W)`` of an image from logits ``(N, 1, h, w)``."""
        ...


class MedSam:
    """MedSAM (Ma et al. 2024): stretched by cubic splines, from least to largest value.

    There is no mean and deviation. The single mask of each box is enlarged as a probability.
    """

    multimask = False

    def pixels(self, image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        """Values 0 to 1 ``(S, S, 3)``."""
        from skimage.transform import resize

        shown = resize(image, (side, side), order=3, preserve_range=True, anti_aliasing=True)
        shown = np.clip(shown, 0, 255).astype(np.uint8).astype(np.float32)
        low, high = shown.min(), shown.max()
        return np.asarray((shown - low) / max(float(high - low), 1e-8), np.float32)

    def scale(self, size: tuple[int, int], side: int) -> tuple[float, float]:
        """Each axis for itself."""
        return side / size[1], side / size[0]

    def masks(self, logits: Tensor, size: tuple[int, int], side: int) -> Tensor:  # noqa: ARG002
        """The probability is enlarged, then cut at 0.5."""
        return functional.interpolate(logits.sigmoid(), size, mode="bilinear") > 0.5


class SamMed2d:
    """SAM-Med2D (Cheng et al. 2023): the nearest pixel, ImageNet's mean and deviation.

    The best of three masks is enlarged as logits, first to the square, then to the image.
    """

    multimask = True

    def pixels(self, image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        """Normalised values ``(S, S, 3)``."""
        import cv2

        shown = cv2.resize(image, (side, side), interpolation=cv2.INTER_NEAREST)
        return _normalised(np.asarray(shown, np.uint8))

    def scale(self, size: tuple[int, int], side: int) -> tuple[float, float]:
        """Each axis for itself."""
        return side / size[1], side / size[0]

    def masks(self, logits: Tensor, size: tuple[int, int], side: int) -> Tensor:
        """Logits above 0, enlarged in two steps."""
        square = functional.interpolate(logits, (side, side), mode="bilinear")
        return functional.interpolate(square, size, mode="bilinear") > 0


class PlainSam:
    """Segment Anything itself (Kirillov et al. 2023): the longer side fits, the rest is empty."""

    multimask = False

    def pixels(self, image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        """Normalised values ``(S, S, 3)``, 0 at the right or below."""
        from PIL import Image

        height, width = _fitted((image.shape[0], image.shape[1]), side)
        resample = Image.Resampling.BILINEAR
        shown = np.asarray(Image.fromarray(image).resize((width, height), resample))
        square = np.zeros((side, side, 3), np.float32)
        square[:height, :width] = _normalised(shown)
        return square

    def scale(self, size: tuple[int, int], side: int) -> tuple[float, float]:
        """Both axes alike, up to whole pixels."""
        height, width = _fitted(size, side)
        return width / size[1], height / size[0]

    def masks(self, logits: Tensor, size: tuple[int, int], side: int) -> Tensor:
        """Logits above 0, enlarged to the square, cut to the image and enlarged again."""
        height, width = _fitted(size, side)
        square = functional.interpolate(logits, (side, side), mode="bilinear")
        return functional.interpolate(square[..., :height, :width], size, mode="bilinear") > 0


def _normalised(shown: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray((shown - np.array(MEAN)) / np.array(DEVIATION), np.float32)


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width of an image whose longer side is as long as the square."""
    factor = side / max(size)
    return round(size[0] * factor), round(size[1] * factor)
