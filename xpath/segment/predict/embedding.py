"""Images, encoded once.

Axes: B images, P prompts, H W pixels, h w positions of the logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from xpath.protocols import STRIDE
from xpath.segment.model.segmentor import padded
from xpath.segment.predict.images import resized, square_corner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xpath.segment.model.decoder import ImageMemory

__all__ = ["Embedding", "joined"]


class Embedding(NamedTuple):
    """Images of one size, ready for any number of prompts."""

    memory: ImageMemory
    """Their features, as the decoder needs them."""
    size: tuple[int, int]
    """Height and width of the images, and of their masks."""
    model_size: tuple[int, int]
    """Height and width at which the model saw them."""
    square: bool = False
    """Whether the model saw them in the middle of a square."""
    pixels: Tensor | None = None
    """``(B, H, W, 3)`` the images themselves, for judges of presence that look at colours."""

    @property
    def images(self) -> int:
        """Number of images B."""
        return len(self.memory.mask_features)

    def rows(self, rows: slice) -> Embedding:
        """Some of the images, sharing their memory."""
        pixels = None if self.pixels is None else self.pixels[rows]
        memory = _merge(lambda parts: parts[0][rows], [self.memory])
        return self._replace(memory=memory, pixels=pixels)

    def enlarge(self, logits: Tensor) -> Tensor:
        """Logits ``(B, P, h, w)`` of the model at the size of the images, ``(B, P, H, W)``.

        Bilinear to the size the model saw as in the published code, cut to what is not padding,
        and resized once more if the images were.
        """
        height, width = self.model_size
        factor = padded(self.model_size)[0] // logits.shape[-2]
        fine = functional.interpolate(logits, scale_factor=factor, mode="bilinear")
        if self.square:
            (top, left), full = square_corner(self.size), max(self.size)
            whole = resized(fine[:, :, :height, :width], (full, full))
            return whole[:, :, top : top + self.size[0], left : left + self.size[1]]
        return resized(fine[:, :, :height, :width], self.size)

    def at_stride(self, logits: Tensor) -> Tensor:
        """Logits with one value for four by four pixels of the images, padding included.

        Those of the model are just that, or finer, unless it saw the images in squares.
        """
        if self.square:
            return resized(self.enlarge(logits), self.positions)
        finer = logits.shape[-2] // self.positions[0]
        return functional.avg_pool2d(logits, finer) if finer > 1 else logits

    @property
    def positions(self) -> tuple[int, int]:
        """Height and width of what ``at_stride`` returns."""
        if self.square:
            return -(-self.size[0] // STRIDE), -(-self.size[1] // STRIDE)
        height, width = padded(self.model_size)
        return height // STRIDE, width // STRIDE


def joined(memories: Sequence[ImageMemory]) -> ImageMemory:
    """The images of several batches as one."""
    return memories[0] if len(memories) == 1 else _merge(torch.cat, memories)


def _merge(function: Callable[[list[Tensor]], Tensor], trees: Sequence[Any]) -> Any:
    """Named tuples of tensors, all of one type, made into one, tensor by tensor."""
    first = trees[0]
    if isinstance(first, Tensor):
        return function(list(trees))
    parts = [_merge(function, fields) for fields in zip(*trees, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
