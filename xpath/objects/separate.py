"""Nuclei and cells that touch, told apart: a piece of an outline becomes one piece for each.

Only a piece with bays is looked at: its outline fills less of its convex hull than a nucleus'.
Such pieces are drawn beside each other on a sheet, taken apart at their waists in one go, and each
part is traced again along the borders of its pixels. The parts of a piece are 4-connected, share no
pixel and miss none.
Axes: h w pixels of the canvas or of a sheet, n pieces or parts, K corners.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.objects.instances import SEPARATED, InstanceConfig, find_instances
from xpath.objects.outline import Outliner, Piece

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from xpath.objects.slide_outline import Frame

__all__ = ["Parted", "separated"]

SOLID = 0.93
"""Outlines that fill more of their hull are one nucleus'. On annotated nuclei at 0.25, 0.5 and 1
micron 82 to 88% of single ones do and are never drawn. Of the objects that drawing all would add,
2, 4 and 12% are missed; the counts are as near to the truth, or nearer."""
STAIRS = 0.15
"""Area a hull gains by the steps of a pixelled outline, per pixel of its length."""
LARGEST = 16_000_000
"""Pixels of the box of a piece above which it is left whole: a sheet of 2 x 2 mm at 0.5 micron. To
take one apart needs some 75 bytes a pixel, 1.2 GB."""
TOGETHER = 300_000
"""Pixels of the boxes that are drawn on one sheet."""
WAITING = 4096
"""Most pieces held back to keep the order."""
STEP = 16
"""Pieces begin at such columns of a sheet, where every processor's vectors do: the last bit of a
number, and with it the border, must not depend on what lies beside."""
CONFIG = InstanceConfig()


class Parted(NamedTuple):
    """A piece of a label and what it was taken apart into."""

    label: str
    whole: Piece
    parts: tuple[Piece, ...]
    """From top to bottom; the piece itself where it is one object."""
    frame: Frame


def separated(
    found: Iterable[tuple[str, Piece, Frame]], slide_mpp: float | None
) -> Iterator[Parted]:
    """Pieces in the order they come, with touching nuclei and cells told apart.

    Labels of other structures than nuclei and cells stay as they are, and so does a piece whose box
    has more than 16 million pixels. What ``find_instances`` would drop as a speck goes to the
    object it hangs on, a hole it would fill stays a hole.

    Args:
        found: Label id, piece, and where the canvas lies.
        slide_mpp: Microns per level-0 pixel; None, and all pieces stay whole.
    """
    waiting: list[Parted] = []
    doubtful: list[int] = []
    pixels = 0
    for label, piece, frame in found:
        one = Parted(label, piece, (piece,), frame)
        area = _drawn_area(label, piece, (slide_mpp or math.nan) * frame.scale)
        if not area and not doubtful:
            yield one
            continue
        if area:
            doubtful.append(len(waiting))
            pixels += area
        waiting.append(one)
        if pixels >= TOGETHER or len(waiting) >= WAITING:
            yield from _taken_apart(waiting, doubtful, slide_mpp or math.nan)
            waiting, doubtful, pixels = [], [], 0
    yield from _taken_apart(waiting, doubtful, slide_mpp or math.nan)


def _drawn_area(label: str, piece: Piece, mpp: float) -> int:
    """Pixels of the box of a piece that may hold several objects, else 0."""
    import cv2

    large = piece.pixels * mpp**2 >= 2 * CONFIG.min_area and mpp < 100
    if not large or label.split("-")[1:2] not in ([each] for each in SEPARATED):
        return 0
    outline = piece.rings[0].astype(np.int32)
    hull = cv2.convexHull(outline)
    # A hollow nucleus has no bays: what the outline encloses counts, not the pixels.
    enclosed = cv2.contourArea(outline) + STAIRS * cv2.arcLength(hull, closed=True)
    if enclosed >= SOLID * cv2.contourArea(hull):
        return 0
    width, height = np.ptp(hull[:, 0], axis=0).tolist()
    return int(width * height) if width * height <= LARGEST else 0


def _taken_apart(
    waiting: Sequence[Parted], doubtful: Sequence[int], slide_mpp: float
) -> Iterator[Parted]:
    if not doubtful:
        return
    frame = waiting[0].frame
    pieces = [waiting[place].whole for place in doubtful]
    parts = dict(zip(doubtful, _parts(pieces, frame, slide_mpp * frame.scale), strict=True))
    for place, one in enumerate(waiting):
        yield one._replace(parts=parts[place]) if parts.get(place) else one


def _parts(pieces: Sequence[Piece], frame: Frame, mpp: float) -> list[tuple[Piece, ...]]:
    """The objects of each piece from top to bottom; empty for those that are one object."""
    from scipy.ndimage import find_objects

    boxes = [(ring.min(axis=0), np.ptp(ring, axis=0)) for ring in (p.rings[0] for p in pieces)]
    corners, sizes = (np.stack(each) for each in zip(*boxes, strict=True))
    # as far as the blur of depths reaches: four standard deviations
    sheet = _Sheet(sizes, gap=math.ceil(4 * CONFIG.smoothing / mpp) + 2, step=STEP)
    inside = _drawn(pieces, sheet.places - corners, sheet.shape)
    ids = _whole_parts(find_instances(inside, "nuclei", mpp=mpp, config=CONFIG).ids, inside)
    found = [
        (number, box, int(sheet.numbers[box[0].start, box[1].start]))
        for number, box in enumerate(find_objects(ids), start=1)
        if box is not None
    ]
    several = np.bincount([owner for _, _, owner in found], minlength=len(pieces)) > 1
    found = [each for each in found if several[each[2]]]
    parts: list[list[Piece]] = [[] for _ in pieces]
    if found:
        owners = [owner for _, _, owner in found]
        masks = [ids[box] == number for number, box, _ in found]
        starts = np.array([(box[1].start, box[0].start) for _, box, _ in found])
        starts += (corners - sheet.places)[owners]
        for owner, mask, start, rings in zip(owners, masks, starts, _traced(masks), strict=True):
            placed = tuple(ring + start for ring in rings)
            parts[owner].append(_piece(placed, mask, start, pieces[owner], frame))
    for its in parts:
        its.sort(key=lambda piece: piece.rings[0][0, ::-1].tolist())
    return [tuple(its) for its in parts]


class _Sheet:
    """Places for boxes beside and below each other."""

    def __init__(self, sizes: NDArray[np.int64], *, gap: int, step: int = 1) -> None:
        """Puts boxes of ``(n, 2)`` width and height in rows, the highest first."""
        wide, high = (sizes + gap).T
        wide = -(-wide // step) * step
        first = -(-gap // step) * step
        width = first + max(int(wide.max()), -(-math.isqrt(int(wide @ high)) // step) * step)
        self.places = np.zeros_like(sizes)
        """``(n, 2)`` x, y of the boxes' corners."""
        x, y, below = first, gap, gap
        order = np.argsort(-high, kind="stable").tolist()
        across, down = wide.tolist(), high.tolist()
        for box in order:
            if x + across[box] > width:
                x, y = first, below
            self.places[box] = x, y
            x, below = x + across[box], max(below, y + down[box])
        self.shape = (below, width)
        """Height and width."""
        self.numbers = np.full(self.shape, -1, np.int32)
        """``(h, w)`` the box over each pixel, -1 between them."""
        for box, ((x, y), (w, h)) in enumerate(
            zip(self.places.tolist(), sizes.tolist(), strict=True)
        ):
            self.numbers[y : y + h, x : x + w] = box


def _drawn(
    pieces: Sequence[Piece], moved: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """``(h, w)`` pixels within the rings of pieces, each moved by its x, y of ``(n, 2)``.

    From left to right a row goes in and out where it crosses a vertical stretch of border.
    """
    rings = [ring + by for piece, by in zip(pieces, moved, strict=True) for ring in piece.rings]
    begin = np.concatenate([ring[:-1] for ring in rings])
    end = np.concatenate([ring[1:] for ring in rings])
    upright = begin[:, 0] == end[:, 0]
    x, ys = begin[upright, 0], np.sort(np.stack((begin[upright, 1], end[upright, 1])), axis=0)
    length = ys[1] - ys[0]
    within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    sheet = np.zeros(shape, np.uint8)
    sheet[np.repeat(ys[0], length) + within, np.repeat(x, length)] = 1
    return np.bitwise_xor.accumulate(sheet, axis=1).view(np.bool_)


def _whole_parts(ids: NDArray[np.int32], inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Ids ``(h, w)`` of 4-connected objects that cover what is inside, and nothing else.

    Of each object its largest part stays; the rest, and specks without an id, go to the object that
    is fewest steps away. A piece of specks alone keeps none.
    """
    from skimage.measure import label
    from skimage.segmentation import watershed

    ids = np.where(inside, ids, 0)
    numbered = label(ids, background=0, connectivity=1)
    sizes = np.bincount(numbered.ravel())
    owners = np.zeros(len(sizes), np.int32)
    owners[numbered.ravel()] = ids.ravel()
    order = np.lexsort((-sizes, owners))  # of equal parts the upper one comes first
    kept = np.zeros(len(sizes), np.bool_)
    kept[order[np.unique(owners[order], return_index=True)[1]]] = True
    ids[~kept[numbered]] = 0
    if np.array_equal(ids > 0, inside):
        return ids
    return np.asarray(watershed(np.zeros(ids.shape, np.uint8), ids, mask=inside), np.int32)


def _traced(masks: Sequence[NDArray[np.bool_]]) -> list[tuple[NDArray[np.int64], ...]]:
    """Rings of 4-connected masks ``(h, w)``, each from the corner of its mask."""
    sheet = _Sheet(np.array([mask.shape[::-1] for mask in masks]), gap=1)
    canvas = np.zeros(sheet.shape, np.bool_)
    for (x, y), mask in zip(sheet.places.tolist(), masks, strict=True):
        canvas[y : y + len(mask), x : x + mask.shape[1]] = mask
    outliner = Outliner(sheet.shape[1])
    rings: list[tuple[NDArray[np.int64], ...]] = [()] * len(masks)
    for piece in [*outliner.add(canvas), *outliner.finish()]:
        x, y = piece.rings[0][0]
        number = sheet.numbers[y, x]
        rings[number] = tuple(ring - sheet.places[number] for ring in piece.rings)
    return rings


def _piece(
    rings: tuple[NDArray[np.int64], ...],
    mask: NDArray[np.bool_],
    start: NDArray[np.int64],
    whole: Piece,
    frame: Frame,
) -> Piece:
    """A part ``(h, w)`` from ``start`` on the canvas, counted in each patch of its piece."""
    pixels = int(np.count_nonzero(mask))
    if len(whole.patches) == 1:
        return Piece(rings, pixels, whole.patches, np.array([pixels]))
    x, y = start.tolist()
    windows = np.maximum(frame.windows[whole.patches] - (y, x, y, x), 0).tolist()
    counts = np.array([
        np.count_nonzero(mask[top:low, left:right]) for top, left, low, right in windows
    ])
    return Piece(rings, pixels, whole.patches[counts > 0], counts[counts > 0])
