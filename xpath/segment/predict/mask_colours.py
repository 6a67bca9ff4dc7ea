"""Colours under masks, for judges of presence that look at them.

Axes: B images, P prompts, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from xpath.segment.predict.presence import (
    MaskStatistics,
    PresenceModel,
    channel_planes,
    plane_sums,
    stacked,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.segment.predict.embedding import Embedding

__all__ = ["MaskColours"]


class MaskColours:
    """Sums of probability and colour under masks, filled as the masks are made."""

    def __init__(self, pixels: NDArray[np.uint8], shape: tuple[int, int]) -> None:
        """Takes images ``(B, H, W, 3)``, and how many masks there will be, ``(B, P)``."""
        self._planes = channel_planes(pixels)
        self._rows = np.zeros((*shape, 6))

    @classmethod
    def of(cls, judge: object, embedding: Embedding, shape: tuple[int, int]) -> Self | None:
        """None where the judge does not look at colours."""
        if not isinstance(judge, PresenceModel) or embedding.pixels is None:
            return None
        return cls(embedding.pixels.cpu().numpy(), shape)

    def add(self, rows: slice, columns: slice, chances: Tensor) -> None:
        """Takes probabilities ``(b, p, H, W)`` of some images and prompts."""
        for image, planes in zip(range(rows.start, rows.stop), chances.cpu().numpy(), strict=True):
            for prompt, plane in zip(range(columns.start, columns.stop), planes, strict=True):
                self._rows[image, prompt] = plane_sums(plane, self._planes[image])

    @property
    def statistics(self) -> MaskStatistics:
        """Of all masks ``(B, P)``."""
        return stacked(self._rows, self._rows.shape[:2])
