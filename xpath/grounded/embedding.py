"""Images, encoded once for any number of questions.

Axes: P prompts, L tokens, W features of the language model, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Embedding", "EncodedImage", "repeated"]


class EncodedImage(NamedTuple):
    """All that does not depend on a question."""

    image: NDArray[np.uint8]
    """``(H, W, 3)`` RGB."""
    prefix: Tensor
    """``(1, L, W)`` embeddings of the tokens up to the end of the image."""
    cache: Any
    """Their keys and values in every layer of the language model."""
    maps: tuple[Tensor, ...] | None
    """SAM2's maps of the image; None if they were not asked for yet."""


class Embedding(NamedTuple):
    """Images of one size, ready for any number of questions."""

    items: tuple[EncodedImage, ...]
    size: tuple[int, int]
    """Height and width of the images, and of their masks."""

    @property
    def images(self) -> int:
        """Number of images B."""
        return len(self.items)

    def rows(self, rows: slice) -> Embedding:
        """Some of the images. Shares their memory."""
        return self._replace(items=self.items[rows])


def repeated(cache: Any, prompts: int) -> Any:
    """A cache of one image for a batch of P prompts. The one given is left as it is."""
    from transformers import DynamicCache

    layers = ((keys, values) for keys, values, *_ in cache)
    return DynamicCache([
        (keys.expand(prompts, -1, -1, -1), values.expand(prompts, -1, -1, -1))
        for keys, values in layers
    ])
