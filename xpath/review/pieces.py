"""The object under a place: one connected piece of a mask, also across the seams of patches.

Axes: N patches, L object kinds, H W pixels of a mask.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xpath.objects.outline import Outliner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from xpath.store.masks import SlideMasks

__all__ = ["REACH", "Piece", "piece_at", "place_on"]

REACH = 8
"""Patches in every direction that an object is followed: stroma may cover the whole slide."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class Piece:
    """A connected object."""

    name: str
    """The same for every place in the object, and in every run with these masks."""
    kind: int
    """Index of its label."""
    patches: NDArray[np.int64]
    """``(n,)`` the patches it lies in."""
    pixels: NDArray[np.int64]
    """``(n,)`` its pixels in each."""
    rings: tuple[NDArray[np.float64], ...]
    """Closed rings ``(K, 2)`` of x, y in level-0 pixels: the outline, then holes."""
    complete: bool
    """False if it goes on beyond ``REACH``; then only the part around the place is here."""


def place_on(masks: SlideMasks, x: float, y: float) -> tuple[int, int, int] | None:
    """Patch, row and column of a place in level-0 pixels; None outside all patches."""
    grid = masks.grid
    left, top = grid.coords.T
    inside = (left <= x) & (x < left + grid.footprint) & (top <= y) & (y < top + grid.footprint)
    if not inside.any():
        return None
    patch = int(np.argmax(inside))
    step = grid.footprint / masks.size
    row, column = int((y - top[patch]) / step), int((x - left[patch]) / step)
    return patch, min(row, masks.size - 1), min(column, masks.size - 1)


def piece_at(masks: SlideMasks, kind: int, place: tuple[int, int, int]) -> Piece | None:
    """The object of a kind at a place; None where there is none.

    Patches that overlap are not joined: what lies in the first of them is taken.

    Args:
        masks: Object masks of a slide.
        kind: Index of the label.
        place: Patch, row and column, from ``place_on``.
    """
    patch, row, column = place
    seed = np.zeros((masks.size, masks.size), np.bool_)
    seed[row, column] = True
    found, complete = _grown(masks, kind, patch, seed)
    if not found:
        return None
    patches = np.array(sorted(found), np.int64)
    rings = _outline(masks, found)
    corner = rings[0][np.lexsort((rings[0][:, 0], rings[0][:, 1]))[0]]
    start = f"{corner[0]:.0f},{corner[1]:.0f}" if complete else f"around patch {patch}"
    return Piece(
        name=f"{masks.labels[kind]}/{start}",
        kind=kind,
        patches=patches,
        pixels=np.array([found[int(p)].sum() for p in patches], np.int64),
        rings=rings,
        complete=complete,
    )


def _grown(
    masks: SlideMasks, kind: int, start: int, seed: NDArray[np.bool_]
) -> tuple[dict[int, NDArray[np.bool_]], bool]:
    """The piece's pixels in each patch, grown from a seed over seams, and whether that is all."""
    near = _near(masks, start)
    found: dict[int, NDArray[np.bool_]] = {}
    labelled: dict[int, NDArray[np.int32]] = {}
    waiting, complete = {start: seed}, True
    while waiting:
        patch, seeds = waiting.popitem()
        if patch not in labelled:
            labelled[patch] = _numbered(masks.read(patch)[kind])
        numbers = np.unique(labelled[patch][seeds])
        piece = np.isin(labelled[patch], numbers[numbers > 0])
        before = found.get(patch)
        piece = piece if before is None else piece | before
        if not piece.any() or (before is not None and np.array_equal(piece, before)):
            continue
        found[patch] = piece
        for neighbour, onward in _onward(masks, patch, piece):
            if neighbour not in near:
                complete = complete and not masks.area[neighbour, kind]
                continue
            waiting[neighbour] = waiting.get(neighbour, False) | onward
    return found, complete


def _onward(
    masks: SlideMasks, patch: int, piece: NDArray[np.bool_]
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Neighbours a piece touches, and where it enters each."""
    sides = (
        ((0, -1), piece[0, :], np.s_[-1, :]),
        ((0, 1), piece[-1, :], np.s_[0, :]),
        ((-1, 0), piece[:, 0], np.s_[:, -1]),
        ((1, 0), piece[:, -1], np.s_[:, 0]),
    )
    x, y = masks.grid.coords[patch]
    step = masks.grid.footprint
    for (across, down), border, entry in sides:
        if not border.any():
            continue
        beside = (masks.grid.coords == (x + across * step, y + down * step)).all(axis=1)
        for neighbour in np.flatnonzero(beside):
            onward = np.zeros_like(piece)
            onward[entry] = border
            yield int(neighbour), onward


def _near(masks: SlideMasks, start: int) -> set[int]:
    away = np.abs(masks.grid.coords - masks.grid.coords[start]).max(axis=1)
    return set(np.flatnonzero(away <= REACH * masks.grid.footprint).tolist())


def _numbered(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    import cv2

    image = np.ascontiguousarray(mask).view(np.uint8)
    return np.asarray(cv2.connectedComponents(image, connectivity=4, ltype=cv2.CV_32S)[1], np.int32)


def _outline(
    masks: SlideMasks, found: dict[int, NDArray[np.bool_]]
) -> tuple[NDArray[np.float64], ...]:
    """Rings around a piece, in level-0 pixels."""
    side = masks.size
    coords = masks.grid.coords[sorted(found)]
    corner = coords.min(axis=0)
    places = np.rint((coords - corner) / masks.grid.footprint).astype(int)
    columns, rows = places.max(axis=0) + 1
    strips: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for patch, (column, row) in zip(sorted(found), places, strict=True):
        strips[int(row)].append((patch, int(column)))
    outliner, pieces = Outliner(int(columns) * side), []
    for row in range(int(rows)):
        strip = np.zeros((side, int(columns) * side), np.bool_)
        for patch, column in strips[row]:
            strip[:, column * side : (column + 1) * side] = found[patch]
        pieces += outliner.add(strip)
    pieces += outliner.finish()
    step = masks.grid.footprint / side
    largest = max(pieces, key=lambda piece: piece.pixels)
    return tuple(ring * step + corner for ring in largest.rings)
