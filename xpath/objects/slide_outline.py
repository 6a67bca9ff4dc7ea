"""Outlines of a slide's objects, traced from row to row of its patches without a canvas of it.

Masks are laid on a canvas whose pixel is one pixel of a mask, so where patches lie a whole number
of mask pixels apart an outline encloses exactly the pixels of its mask; else a patch is moved by
half a mask pixel at most. Axes: N patches, L labels, h w pixels of the canvas, S side of a mask.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.objects.outline import Outliner, Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xpath.geometry import PatchGrid
    from xpath.objects.outline import Piece
    from xpath.store.masks import SlideMasks

__all__ = ["Frame", "outlined"]

CANVAS_BYTES = 256_000_000
"""Most memory for strips of the canvas; more labels than fit are traced in further passes."""
AT_ONCE = 8
"""Patches read in one go."""


class Frame(NamedTuple):
    """Where the canvas lies on the slide."""

    origin: NDArray[np.int64]
    """x, y of the canvas' corner, level-0 pixels."""
    scale: float
    """Level-0 pixels per pixel of the canvas."""
    limit: NDArray[np.int64]
    """Width and height of the slide, which no outline leaves."""
    windows: NDArray[np.int64]
    """``(N, 4)`` top, left, bottom, right of each patch on the canvas."""
    side: int
    """Side of a mask in its own pixels."""

    def on_slide(self, ring: NDArray[np.int64]) -> NDArray[np.float64]:
        """A ring ``(K, 2)`` in level-0 pixels."""
        return np.asarray(np.minimum(ring * self.scale + self.origin, self.limit), np.float64)

    def stretch(self) -> NDArray[np.float64]:
        """``(N,)`` canvas pixels per mask pixel: 1 unless a patch was fitted to its neighbour."""
        top, left, bottom, right = self.windows.T
        return np.asarray((bottom - top) * (right - left) / self.side**2, np.float64)


def outlined(masks: SlideMasks, labels: Sequence[str]) -> Iterator[tuple[str, Piece, Frame]]:
    """The pieces of each label over the whole slide, as they end from top to bottom."""
    if not len(masks) or not labels:
        return
    frame = _frame(masks.grid, masks.size)
    width = int(frame.windows[:, 3].max())
    together = max(1, CANVAS_BYTES // (2 * (masks.size + 1) * width))
    for start in range(0, len(labels), together):
        part = labels[start : start + together]
        columns = [masks.labels.index(label) for label in part]
        for number, piece in _pass(masks, columns, frame):
            yield part[number], piece, frame


def _frame(grid: PatchGrid, side: int) -> Frame:
    scale = grid.footprint / side
    origin = grid.coords.min(axis=0)
    limit = np.array([grid.slide_size.width, grid.slide_size.height])
    corners = grid.coords
    ends = corners + grid.footprint
    # Steps between patches are rounded one by one, so neighbours may lie a level-0 pixel apart; an
    # object across such a seam is still one object.
    known = {(int(x), int(y)) for x, y in corners}
    for index, ((x, y), (right, bottom)) in enumerate(zip(corners.tolist(), ends, strict=True)):
        ends[index, 0] += (int(right) + 1, y) in known
        ends[index, 1] += (x, int(bottom) + 1) in known
    low = np.rint((corners - origin) / scale).astype(np.int64)
    high = np.rint((ends - origin) / scale).astype(np.int64)
    windows = np.concatenate((low[:, ::-1], high[:, ::-1]), axis=1)
    return Frame(origin, scale, limit, windows, side)


def _pass(masks: SlideMasks, columns: list[int], frame: Frame) -> Iterator[tuple[int, Piece]]:
    """Pieces of some labels, by the label's place in ``columns``."""
    # No window is higher than a strip, so none meets more than two.
    side = int((frame.windows[:, 2] - frame.windows[:, 0]).max())
    width = int(frame.windows[:, 3].max())
    inside = [math.ceil((frame.limit[axis] - frame.origin[axis]) / frame.scale) for axis in (0, 1)]
    across, down = min(width, inside[0]), inside[1]
    outliners = [Outliner(across) for _ in columns]
    canvas = np.zeros((len(columns), 2 * side, width), np.bool_)
    used = np.flatnonzero(masks.area[:, columns].any(axis=1))
    used = used[np.lexsort((used, frame.windows[used, 0]))]
    tops = frame.windows[used, 0]
    last = int(frame.windows[used, 2].max(initial=0))
    lower: NDArray[np.int64] = used[:0]
    for top in range(0, min(last, down), side):
        here = used[(tops >= top) & (tops < top + side)]
        _paint(canvas, masks, columns, here, frame.windows - (top, 0, top, 0))
        windows = [Window(int(p), *frame.windows[p].tolist()) for p in (*lower, *here)]
        rows = min(side, down - top)
        for number, outliner in enumerate(outliners):
            for piece in outliner.add(canvas[number, :rows, :across], windows):
                yield number, piece
        canvas[:, :side] = canvas[:, side:]
        canvas[:, side:] = False
        lower = here[frame.windows[here, 2] > top + side]
    for number, outliner in enumerate(outliners):
        for piece in outliner.finish():
            yield number, piece


def _paint(
    canvas: NDArray[np.bool_],
    masks: SlideMasks,
    columns: list[int],
    patches: NDArray[np.int64],
    windows: NDArray[np.int64],
) -> None:
    """Lays the masks ``(L, S, S)`` of patches on the canvas ``(L, h, w)``."""
    for start in range(0, len(patches), AT_ONCE):
        some = patches[start : start + AT_ONCE]
        read = masks.read(some)
        for one, number in np.argwhere(masks.area[some][:, columns] > 0):
            top, left, bottom, right = windows[some[one]].tolist()
            fitted = _fitted(read[one, columns[number]], bottom - top, right - left)
            canvas[number, top:bottom, left:right] |= fitted


def _fitted(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    if mask.shape == (height, width):
        return mask
    import cv2

    image = np.ascontiguousarray(mask).view(np.uint8)
    fitted = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
    return fitted.view(np.bool_)
