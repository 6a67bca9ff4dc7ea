"""Logits of many labels at full resolution, a band of rows at a time.

Twenty maps of a megapixel do not fit into the cache, and to ask the system for memory for each of
them costs more than to fill it. So the image is gone through in bands, side by side in threads, and
in a band every label is cut to where it may be.

Axes: P labels, h w positions of the logits, H W pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from xpath.device import side_by_side
from xpath.errors import ShapeError
from xpath.protocols import STRIDE
from xpath.segment.predict.images import resized
from xpath.segment.predict.presence import PEAK, plane_sums

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["LabelPlanes", "Measures"]

BAND = 64
"""Places in a band: of an image 1024 wide, a megabyte of logits."""

Window = tuple[slice, slice]
"""Rows and columns of the image."""


class Measures(NamedTuple):
    """Measurements of each label before labels are compared."""

    sums: NDArray[np.float64]
    """``(P, 6)``: see ``presence.plane_sums``; 0 where the mask is empty."""
    bits: NDArray[np.uint8]
    """``(P, bytes)`` masks of the image, a bit for a pixel."""
    own: NDArray[np.int64]
    """``(P,)`` pixels above the candidate level."""
    own_sum: NDArray[np.float64]
    """``(P,)`` sum of their probabilities."""


class _Part(NamedTuple):
    """Logits of one label in the part of a band outside of which they are too low."""

    logits: NDArray[np.float32]
    """``(rows, columns)``."""
    window: Window
    """Where in the image."""


class LabelPlanes:
    """Logits of P labels over an image."""

    def __init__(
        self,
        logits: Tensor,
        size: tuple[int, int],
        model_size: tuple[int, int] | None,
        *,
        lowest: float,
    ) -> None:
        """Takes logits, and the size of the image here and in the model.

        Args:
            logits: ``(P, h, w)``, a position for 4 by 4 pixels as the model saw them.
            size: Height and width of the image.
            model_size: Those of it as the model saw it, without padding; None if they are the same.
            lowest: No one asks for positions where a logit is at most this.

        Raises:
            ShapeError: Logits that do not reach over what the model saw.
        """
        self.size, self.best = size, np.empty(0, np.float32)
        self._model_size = model_size or size
        self._low = logits.detach().float().cpu().numpy()
        self._lowest = lowest
        reach = [STRIDE * positions for positions in self._low.shape[1:]]
        if any(pixels > most for pixels, most in zip(self._model_size, reach, strict=True)):
            raise ShapeError(
                f"the model saw {self._model_size} px, but logits {self._low.shape} reach {reach};"
                " pass height and width it saw as model_size"
            )
        # a label whose mask is empty is dropped in any case
        self._there = [index for index, low in enumerate(self._low) if low.max(initial=0) > 0]
        # resampled twice, there is no telling how far a position reaches: all rows at once
        rows = STRIDE * BAND if self._model_size == size else max(size[0], 1)
        self._bands = [slice(row, min(row + rows, size[0])) for row in range(0, size[0], rows)]

    def __len__(self) -> int:
        """Number of labels."""
        return len(self._low)

    def measured(self, channels: NDArray[np.uint8], level: float) -> Measures:
        """Every label on its own.

        Args:
            channels: Image ``(3, H, W)``.
            level: Logit above which a pixel is a candidate of a label.
        """
        bands = side_by_side(lambda band: self._measured(band, channels, level), self._bands)
        sums = np.sum([band.sums for band in bands], axis=0)
        sums[:, PEAK] = np.max([band.sums[:, PEAK] for band in bands], axis=0)
        return Measures(
            sums,
            np.concatenate([band.bits for band in bands], axis=1),
            np.sum([band.own for band in bands], axis=0),
            np.sum([band.own_sum for band in bands], axis=0),
        )

    def winners(self, indices: Sequence[int], level: float) -> NDArray[np.unsignedinteger]:
        """``(H, W)`` one more than the label with the highest logit above a level, 0 where none.

        Labels must rise. ``best`` is then the highest logit.
        """
        dtype = np.uint8 if len(self) < 256 else np.uint16
        winner = np.zeros(self.size, dtype)
        self.best = np.full(self.size, level, np.float32)
        there = [index for index in indices if index in self._there]

        def compete(band: slice) -> None:
            for index, part in self._parts(band, there):
                best, first = self.best[part.window], winner[part.window]
                ahead = part.logits > best
                np.maximum(part.logits, best, out=best)
                # a later label has the higher number: no need to write under a mask, which is slow
                np.maximum(first, ahead.view(np.uint8) * dtype(index + 1), out=first)

        side_by_side(compete, self._bands)
        return winner

    def _measured(self, band: slice, channels: NDArray[np.uint8], level: float) -> Measures:
        """Every label in one band."""
        import cv2

        count, shape = len(self), (band.stop - band.start, self.size[1])
        measures = Measures(
            np.zeros((count, PEAK + 2)),
            np.zeros((count, -(-math.prod(shape) // 8)), np.uint8),
            np.zeros(count, np.int64),
            np.zeros(count),
        )
        mask = np.zeros(shape, np.bool_)
        for index, part in self._parts(band, self._there):
            rows, columns = part.window
            mask.fill(False)
            inside = mask[rows.start - band.start : rows.stop - band.start, columns]
            np.greater(part.logits, 0, out=inside)
            measures.bits[index] = np.packbits(mask)
            candidate = (part.logits > level).view(np.uint8)
            probability = _sigmoid(part.logits)
            measures.sums[index] = plane_sums(probability, channels[:, rows, columns])
            measures.own[index] = cv2.countNonZero(candidate)
            measures.own_sum[index] = cv2.norm(probability, cv2.NORM_L1, candidate)
        return measures

    def _parts(self, band: slice, indices: Sequence[int]) -> Iterator[tuple[int, _Part]]:
        """Of the labels that may be in a band, their logits there."""
        for index in indices:
            part = (
                self._resampled(index) if self._model_size != self.size else self._cut(index, band)
            )
            if part is not None:
                yield index, part

    def _resampled(self, index: int) -> _Part:
        """Over the whole image, of another size than the model saw."""
        large = _enlarged(self._low[index])[: self._model_size[0], : self._model_size[1]]
        plane = resized(torch.from_numpy(large)[None, None], self.size)[0, 0].numpy()
        return _Part(plane, (slice(0, self.size[0]), slice(0, self.size[1])))

    def _cut(self, index: int, band: slice) -> _Part | None:
        """Where in a band a label may be, or None if nowhere."""
        # a position reaches half way into its neighbours, and they lean on their own
        first = max(band.start // STRIDE - 2, 0)
        low = self._low[index, first : -(-band.stop // STRIDE) + 2]
        high = low > self._lowest
        if not high.any():
            return None
        (tall, tall_part), (wide, wide_part) = (
            _span(np.asarray(high.any(axis=axis))) for axis in (1, 0)
        )
        top, left = STRIDE * (first + tall.start), STRIDE * wide.start
        rows = slice(
            max(STRIDE * (first + tall_part.start), band.start),
            min(STRIDE * (first + tall_part.stop), band.stop),
        )
        columns = slice(STRIDE * wide_part.start, min(STRIDE * wide_part.stop, self.size[1]))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        large = _enlarged(low[tall, wide])
        cut = large[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        return _Part(cut, (rows, columns))


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities, in one thread, for the bands have their own."""
    import cv2

    chance: NDArray[np.float32] = np.asarray(cv2.exp(-logits))
    chance += 1
    return np.reciprocal(chance, out=chance)


def _enlarged(low: NDArray[np.float32]) -> NDArray[np.float32]:
    """Four times larger, with the weights of torch's interpolate but five times as fast."""
    import cv2

    size = (STRIDE * low.shape[1], STRIDE * low.shape[0])
    return np.asarray(cv2.resize(low, size, interpolation=cv2.INTER_LINEAR))


def _span(high: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Places to look at, and those of them that may hold a pixel above the level."""
    first, last = int(high.argmax()), len(high) - 1 - int(high[::-1].argmax())
    around = slice(max(first - 2, 0), min(last + 3, len(high)))
    return around, slice(max(first - 1, 0), min(last + 2, len(high)))
