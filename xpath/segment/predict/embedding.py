"""Images, encoded once.

Axes: B images, P prompts, H W pixels, h w positions of the logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from xpath.protocols import STRIDE
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

        Bilinear to four times the size as in the published code, cut to what is not padding, and
        resized once more if the images were.
        """
        height, width = self.model_size
        fine = functional.interpolate(logits, scale_factor=STRIDE, mode="bilinear")
        if self.square:
            (top, left), full = square_corner(self.size), max(self.size)
            whole = resized(fine[:, :, :height, :width], (full, full))
            return whole[:, :, top : top + self.size[0], left : left + self.size[1]]
        return resized(fine[:, :, :height, :width], self.size)

    def at_stride(self, logits: Tensor) -> Tensor:
        """Logits with one value for four by four pixels of the images, padding included.

        Those of the model are just that, unless it saw the images in squares.
        """
        return resized(self.enlarge(logits), self.positions) if self.square else logits

    @property
    def positions(self) -> tuple[int, int]:
        """Height and width of what ``at_stride`` returns."""
        if self.square:
            return -(-self.size[0] // STRIDE), -(-self.size[1] // STRIDE)
        height, width = self.memory.mask_features.shape[-2:]
        return height, width


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
