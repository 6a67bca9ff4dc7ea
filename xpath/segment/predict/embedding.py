"""Images, encoded once.

Axes: B images, P prompts, H W pixels, h w positions of the logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from xpath.protocols import STRIDE
from xpath.segment.predict.images import resized

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

    @property
    def images(self) -> int:
        """Number of images B."""
        return len(self.memory.mask_features)

    def rows(self, rows: slice) -> Embedding:
        """Some of the images, sharing their memory."""
        return self._replace(memory=_merge(lambda parts: parts[0][rows], [self.memory]))

    def enlarge(self, logits: Tensor) -> Tensor:
        """Logits ``(B, P, h, w)`` of the model at the size of the images, ``(B, P, H, W)``.

        Bilinear to four times the size as in the published code, cut to what is not padding, and
        resized once more if the images were.
        """
        height, width = self.model_size
        fine = functional.interpolate(logits, scale_factor=STRIDE, mode="bilinear")
        return resized(fine[:, :, :height, :width], self.size)


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
