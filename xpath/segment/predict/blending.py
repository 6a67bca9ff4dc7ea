"""Windows that reach beyond their patch, blended so that no seam is left.

A segmentor sees less around the border of what it is shown, so two patches disagree along the line
where they meet, and an object across it falls apart. Here every patch is segmented within a wider
window, and where windows overlap their logits are averaged, each with a weight that fades towards
its own border. The average is a function of the position alone, so neighbouring patches cut their
masks out of one and the same picture.

Logits are blended as the model gives them, at a quarter of the resolution, and enlarged once: both
are linear, so nothing is lost, and little is held. Axes: N patches, P prompts, h w positions of the
logits, H W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from xpath.errors import ConfigError, DataError
from xpath.protocols import STRIDE
from xpath.segment.kernels.finalisation import enlarged
from xpath.segment.predict.transfers import on_device
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.geometry import PatchGrid

__all__ = ["LIMIT", "BlendedBatch", "SeamBlender", "check_overlap", "taper", "widened"]

SMALLEST = 2 * STRIDE
"""Of an overlap: enlarging looks one position beyond the patch, where weights must not be 0."""
EXACT = 1e-6
"""Places nearer to each other than this are the same."""
HALF, FLOAT = 2, 4
"""Bytes of a logit in a window, and in a field."""
LIMIT = 20.0
"""A logit of 20 is as sure as can be; more would let one window outvote the others."""


class BlendedBatch(NamedTuple):
    """Patches all of whose windows have been added, B of them."""

    start: int
    """Index of the first of them in the grid; the others follow."""
    fields: Tensor
    """``(B, P, h, w)``, float32: logits at a quarter of the resolution, one position and the margin
    beyond the patch on every side."""
    pixels: int
    """Side of the patches."""
    corner: int
    """Positions of a field before its patch."""

    @property
    def logits(self) -> Tensor:
        """``(B, P, H, W)``. A pixel belongs to the object above 0."""
        flat = self.fields.flatten(0, 1)
        large = enlarged(flat, (self.pixels, self.pixels), self.corner)
        return large.reshape(*self.fields.shape[:2], self.pixels, self.pixels)


class SeamBlender:
    """Takes the logits of windows, gives those of patches, in the order of the grid.

    Windows are kept in half precision, on the device they come from, until no patch needs them any
    more: on a grid that runs row by row about two rows of windows, whatever the size of the slide.

    Example::

        blender = SeamBlender(grid, overlap=64)
        for index in blender.order:
            blender.add(index, logits_of(blender.windows, index))
            batch = blender.finished()
    """

    def __init__(self, grid: PatchGrid, *, overlap: int, margin: int = 0) -> None:
        """Finds out which window touches which patch.

        Args:
            grid: The patches.
            overlap: Pixels a window reaches beyond its patch on every side.
            margin: Positions (of 4 pixels) beyond a patch that are blended too, so that what is
                cut off by its border is seen whole. Where no window reaches, nothing is.

        Raises:
            ConfigError: An overlap that cannot be.
        """
        check_overlap(overlap)
        if not overlap:
            raise ConfigError("without overlap there is nothing to blend; use the patches as such")
        self.windows = widened(grid, overlap)
        """The windows to read and to segment: window k is patch k with its surroundings."""
        self._grid, self._overlap, self._margin = grid, overlap, margin
        self._side = -(-grid.pixels // STRIDE) + 2 + 2 * margin  # of a field
        self._positions = -(-self.windows.pixels // STRIDE)
        self._needs = _touching(grid, self.windows)
        self.order: list[int] = list(dict.fromkeys(np.concatenate(self._needs).tolist()))
        """Windows in the order in which patches need them; the one to add them in."""
        self._leaving = _leaving(self._needs)
        self._lines: dict[int, _Line | None] = {}
        self._alive: dict[int, Tensor] = {}
        self._seen: set[int] = set()
        self._next = 0

    def __len__(self) -> int:
        """Windows that are held."""
        return len(self._alive)

    def most_held(self, prompts: int, *, batch: int = 1) -> int:
        """Bytes that are held at most, fields included, if windows come a batch at a time."""
        held = most = done = 0
        coming = dict(zip(self.order, range(len(self.order)), strict=True))
        ready = [max(coming[int(window)] for window in needs) for needs in self._needs]
        for start in range(0, len(self.order), batch):
            stop = min(start + batch, len(self.order))
            held, first = held + stop - start, done
            while done < len(ready) and ready[done] < stop:
                done += 1
            windows = HALF * held * self._positions**2
            most = max(most, windows + FLOAT * (done - first) * self._side**2)
            held -= sum(len(self._leaving.get(patch, ())) for patch in range(first, done))
        return most * prompts

    def add(self, index: int, logits: Tensor) -> None:
        """Takes the logits of a window.

        Args:
            index: Which window; each comes once.
            logits: ``(P, h, w)`` at stride 4 from the window's top left corner; positions beyond
                its end (padding) are left alone. Where they are not finite, fields are NaN.

        Raises:
            DataError: A window that has been added before.
            ShapeError: Fewer positions than the window has.
        """
        if index in self._seen:
            raise DataError(f"window {index} was added before; each is segmented once")
        positions = self._positions
        sizes = check_shape(f"logits of window {index}", logits, "P h w")
        if min(sizes["h"], sizes["w"]) < positions:
            check_shape(f"logits of window {index}", logits, f"P {positions} {positions}")
        seen = logits[:, :positions, :positions]
        seen = seen.where(seen.isfinite(), torch.nan)  # a GPU need not be waited for
        # A copy: a view would keep the whole batch in memory.
        self._alive[index] = seen.clamp(-LIMIT, LIMIT).half()
        self._seen.add(index)

    def finished(self) -> BlendedBatch:
        """Patches whose windows have all come, each once, in the order of the grid."""
        some = next(iter(self._alive.values()), torch.empty(0))
        first, fields = self._next, []
        while self._next < len(self._grid) and self._seen.issuperset(self._needs[self._next]):
            fields.append(self._blend(self._next))
            for window in self._leaving.pop(self._next, ()):
                del self._alive[window]
            self._next += 1
        none = some.new_empty(0, len(some), self._side, self._side, dtype=torch.float32)
        return BlendedBatch(
            first,
            torch.stack(fields) if fields else none,
            self._grid.pixels,
            1 + self._margin,
        )

    def _blend(self, index: int) -> Tensor:
        """Field ``(P, h, w)`` of one patch and its margin: weighted mean of its windows."""
        total: Tensor | None = None
        weights: Tensor | None = None
        for window in self._needs[index]:  # always in the same order: sums come out the same
            logits = self._alive[int(window)]
            x, y = (self._grid.coords[index] - self.windows.coords[window]).tolist()
            across, down = self._line(x, logits.device), self._line(y, logits.device)
            if across is None or down is None:
                continue
            sampled = _sampled(_sampled(logits, down, -2), across, -1)
            weight = torch.outer(down.weight, across.weight)
            if total is None or weights is None:
                total = sampled.new_zeros(len(sampled), self._side, self._side)
                weights = sampled.new_zeros(self._side, self._side)
            total[:, down.part, across.part] += weight * sampled
            weights[down.part, across.part] += weight
        if total is None or weights is None:
            raise DataError(f"no window covers patch {index}")
        return (
            torch.where(weights > 0, total / weights, -LIMIT) if self._margin else total / weights
        )

    def _line(self, offset: int, device: torch.device) -> _Line | None:
        """Where a patch lies in a window along one axis, kept: on a grid few offsets occur.

        Args:
            offset: From the window's corner to the patch's, level-0 pixels.
            device: Where the logits are.
        """
        if offset not in self._lines:
            line = _Axis(self._grid, self.windows, self._overlap, self._margin)
            self._lines[offset] = _line(line, offset, device)
        return self._lines[offset]


def check_overlap(overlap: int) -> None:
    """Refuses an overlap that is neither 0 nor wide enough to fade over.

    Raises:
        ConfigError: Negative, under 8 pixels, or no multiple of 4.
    """
    if overlap and (overlap < SMALLEST or overlap % STRIDE):
        raise ConfigError(
            f"overlap must be 0, or a multiple of {STRIDE} pixels from {SMALLEST} on, got {overlap}"
        )


def widened(grid: PatchGrid, overlap: int) -> PatchGrid:
    """Windows around the patches of a grid, in the same order. They may leave the slide.

    Args:
        grid: The patches.
        overlap: Pixels, at the resolution patches are read at, added on every side.
    """
    margin = round(overlap * grid.footprint / grid.pixels)
    return replace(
        grid,
        coords=grid.coords - margin,
        footprint=grid.footprint + 2 * margin,
        pixels=grid.pixels + 2 * overlap,
        overlap=grid.overlap + 2 * margin,
    )


def taper(pixels: NDArray[np.float64], side: int, overlap: int) -> NDArray[np.float64]:
    """Weight of a window at pixels along one axis: 0 at its border, half above its patch's border.

    A squared sine over twice the overlap, so that the weights of two patches side by side sum to 1
    wherever both windows reach.

    Args:
        pixels: Places, from 0 at one border of the window to ``side`` at the other.
        side: Of the window, in pixels.
        overlap: Pixels the window reaches beyond its patch.
    """
    rise, fall = (
        np.sin(np.pi / 2 * np.clip(inward / (2 * overlap), 0, 1)) ** 2
        for inward in (pixels, side - pixels)
    )
    return np.asarray(rise * fall)


class _Line(NamedTuple):
    """Places of a patch that a window covers, along one axis."""

    part: slice
    """Which they are, counted from one position before the patch."""
    first: Tensor
    """The window's position at or before each."""
    share: Tensor | None
    """How far each lies towards the window's next position; None where they coincide."""
    weight: Tensor
    """Of the window at each."""


class _Axis(NamedTuple):
    """Patches and windows along one axis."""

    grid: PatchGrid
    windows: PatchGrid
    overlap: int
    margin: int


def _line(axis: _Axis, offset: int, device: torch.device) -> _Line | None:
    """Where a patch lies in a window, or None where the window has no weight in it."""
    grid, windows, overlap, margin = axis
    # one more on either side
    positions = np.arange(-1 - margin, -(-grid.pixels // STRIDE) + 1 + margin)
    level0 = offset + (positions + 0.5) * (STRIDE * grid.footprint / grid.pixels)
    pixels = np.asarray(level0 * (windows.pixels / windows.footprint), np.float64)
    weight = taper(pixels, windows.pixels, overlap)
    inside = np.flatnonzero(weight > 0)
    if not len(inside):
        return None
    last = -(-windows.pixels // STRIDE) - 1
    at = np.clip(pixels[inside] / STRIDE - 0.5, 0, last)
    first = np.floor(at + EXACT).astype(np.int64)
    share = np.clip(at - first, 0, 1).astype(np.float32)
    return _Line(
        part=slice(int(inside[0]), int(inside[-1]) + 1),
        first=on_device(first, device),
        share=on_device(share, device) if share.max() > EXACT else None,
        weight=on_device(weight[inside].astype(np.float32), device),
    )


def _touching(grid: PatchGrid, windows: PatchGrid) -> list[NDArray[np.int64]]:
    """For every patch, the windows that reach it, from the top left to the bottom right."""
    from scipy.spatial import cKDTree

    margin = int(grid.coords[0, 0] - windows.coords[0, 0])
    beyond = STRIDE / 2 * grid.footprint / grid.pixels  # enlarging looks one position further
    tree = cKDTree(grid.coords)
    reaching = tree.query_ball_point(grid.coords, grid.footprint + margin + beyond, p=np.inf)
    x, y = grid.coords.T
    needs = []
    for near in reaching:
        index = np.asarray(near, np.int64)
        needs.append(index[np.lexsort((index, x[index], y[index]))])
    return needs


def _leaving(needs: list[NDArray[np.int64]]) -> dict[int, list[int]]:
    """For every patch, the windows that no later patch needs."""
    last = {int(window): patch for patch, windows in enumerate(needs) for window in windows}
    leaving: dict[int, list[int]] = {}
    for window, patch in last.items():
        leaving.setdefault(patch, []).append(window)
    return leaving


def _sampled(logits: Tensor, line: _Line, axis: int) -> Tensor:
    """Logits at the positions of a line, float32, between neighbours by their distance."""
    lower = logits.index_select(axis, line.first).float()
    if line.share is None:
        return lower
    second = (line.first + 1).clamp(max=logits.shape[axis] - 1)
    share = line.share[:, None] if axis == -2 else line.share
    return torch.lerp(lower, logits.index_select(axis, second).float(), share)
