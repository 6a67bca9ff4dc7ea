"""Mask finalisation on the GPU, in one pass over the logits.

A program makes one tile of one mask. It reads the few logits below the tile, interpolates in
registers, and writes bits; area, probability and peak of the tile go to a small table that torch
sums up, so that the sums do not depend on the order of programs. Coverage is counted in whole
numbers, which may be added in any order: see ``_add_coverage``.

Imported only where there is Triton, 3.6 or newer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from xpath.segment.kernels.finalised import Finalised

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TILE", "finalise_kernel", "finalise_triton"]

TILE = (16, 128)
"""Rows and columns of a tile: powers of two, columns at least 8."""


def finalise_triton(
    logits: Tensor, size: tuple[int, int], *, corner: int, cells: tuple[int, int]
) -> Finalised:
    """The answer of ``xpath.segment.kernels.finalisation.finalise``, which checks the arguments."""
    (images, prompts, h, w), (height, width), device = logits.shape, size, logits.device
    count = images * prompts
    tiles = triton.cdiv(height, TILE[0]) * triton.cdiv(width, TILE[1])
    packed = torch.empty(count, height, triton.cdiv(width, 8), dtype=torch.uint8, device=device)
    areas = torch.empty(count, tiles, dtype=torch.int32, device=device)
    real = torch.empty(count, tiles, 2, dtype=torch.float32, device=device)
    covered = torch.zeros(count, *cells, dtype=torch.int32, device=device)
    whole = cells == (1, 1)  # then area says it all
    bands = 0 if whole else triton.cdiv(TILE[0] * cells[0], height) + 1
    with torch.cuda.device_of(logits):  # Triton launches on the current device
        finalise_kernel[count * tiles,](
            logits.contiguous(),
            (packed, areas, real, covered),
            (h, w),
            corner,
            (height, width),
            cells,
            (*TILE, bands),
            enable_fp_fusion=False,  # rounded as on the CPU
        )
    area = areas.sum(dim=1)
    shares = area.reshape(-1, 1, 1) if whole else covered
    coverage = shares.double().div_(height * width).float()
    total, peak = real[..., 0].sum(dim=1), real[..., 1].amax(dim=1).sigmoid() * (area > 0)
    answer = (packed, area, coverage, total, peak)
    return Finalised(*(part.unflatten(0, (images, prompts)) for part in answer))


@triton.jit  # type: ignore[untyped-decorator]
def finalise_kernel(
    logits: tl.tensor,
    results: tl.tuple,
    low_size: tl.tuple,
    corner: tl.tensor,
    size: tl.tuple,
    cells: tl.tuple,
    TILE: tl.constexpr,
) -> None:
    """One tile of one mask.

    Args:
        logits: ``(B P, h, w)``.
        results: Packed masks; areas, then probabilities and peaks by tile; covered cells.
        low_size: h and w.
        corner: Positions before the image.
        size: H and W.
        cells: Rows and columns of the coverage.
        TILE: Rows and columns of a tile, and how many rows of cells one may touch; 0 counts none.
    """
    ROWS: tl.constexpr = TILE[0]
    COLUMNS: tl.constexpr = TILE[1]
    packed, areas, real, covered = results
    height, width = size
    program = tl.program_id(0).to(tl.int64)
    across = tl.cdiv(width, COLUMNS)
    tiles = tl.cdiv(height, ROWS) * across
    n, tile = program // tiles, (program % tiles).to(tl.int32)
    top, left = (tile // across) * ROWS, (tile % across) * COLUMNS
    y, x = top + tl.arange(0, ROWS), left + tl.arange(0, COLUMNS)

    value = _interpolated(
        logits + n * low_size[0] * low_size[1], low_size, y + 4 * corner, x + 4 * corner
    )
    valid = (y < height)[:, None] & (x < width)[None, :]
    inside = valid & (value > 0.0)
    ones = inside.to(tl.int32)

    bits = tl.reshape(ones, (ROWS, COLUMNS // 8, 8)) << (7 - tl.arange(0, 8))[None, None, :]
    row_bytes = tl.cdiv(width, 8)
    byte = left // 8 + tl.arange(0, COLUMNS // 8)
    target = packed + (n * height + y)[:, None] * row_bytes + byte[None, :]
    kept = (y < height)[:, None] & (byte < row_bytes)[None, :]
    tl.store(target, tl.sum(bits, axis=2).to(tl.uint8), mask=kept)

    _add_coverage(covered + n * cells[0] * cells[1], ones, (y, x), size, cells, TILE[2])
    tl.store(areas + program, tl.sum(tl.sum(ones, axis=1), axis=0))
    sure = tl.where(inside, tl.sigmoid(value), 0.0)
    tl.store(real + program * 2, tl.sum(tl.sum(sure, axis=1), axis=0))
    best = tl.where(valid, value, float("-inf"))
    tl.store(real + program * 2 + 1, tl.max(tl.max(best, axis=1), axis=0))


@triton.jit  # type: ignore[untyped-decorator]
def _interpolated(plane: tl.tensor, low_size: tl.tuple, y: tl.tensor, x: tl.tensor) -> tl.tensor:
    """Logits at pixels, in float32, with the weights and the order of sums of torch."""
    h, w = low_size
    v = tl.maximum((y.to(tl.float32) + 0.5) * 0.25 - 0.5, 0.0)
    u = tl.maximum((x.to(tl.float32) + 0.5) * 0.25 - 0.5, 0.0)
    above = tl.minimum(v.to(tl.int32), h - 1)  # pixels beyond the image may lean on any position
    before = tl.minimum(u.to(tl.int32), w - 1)
    v = (v - above.to(tl.float32))[:, None]
    u = (u - before.to(tl.float32))[None, :]
    upper = plane + (above * w)[:, None]
    lower = plane + (tl.minimum(above + 1, h - 1) * w)[:, None]
    after = tl.minimum(before + 1, w - 1)[None, :]
    before = before[None, :]
    high = (1.0 - u) * tl.load(upper + before).to(tl.float32)
    high += u * tl.load(upper + after).to(tl.float32)
    low = (1.0 - u) * tl.load(lower + before).to(tl.float32)
    low += u * tl.load(lower + after).to(tl.float32)
    return (1.0 - v) * high + v * low


@triton.jit  # type: ignore[untyped-decorator]
def _add_coverage(
    covered: tl.tensor,
    ones: tl.tensor,
    pixels: tl.tuple,
    size: tl.tuple,
    cells: tl.tuple,
    BANDS: tl.constexpr,
) -> None:
    """Adds a tile to the cells it touches.

    Along an axis of H pixels and ``down`` cells, measured in steps of 1 / ``down`` of a pixel, row
    y reaches from y down to (y + 1) down and cell i from i H to (i + 1) H: overlaps are whole
    numbers, and a cell has H W steps squared. A cell is no smaller than a pixel, so that a pixel
    lies in two at most.
    """
    y, x = pixels
    height, width = size
    down, across = cells
    j = (x * across) // width
    here = tl.minimum((x + 1) * across, (j + 1) * width) - x * across
    rest = across - here  # in cell j + 1
    first = (tl.min(y, axis=0) * down) // height
    for band in range(BANDS):
        i = first + band
        share = tl.minimum((y + 1) * down, (i + 1) * height) - tl.maximum(y * down, i * height)
        column = tl.sum(ones * tl.maximum(share, 0)[:, None], axis=0)
        cell = covered + i * across + j
        tl.atomic_add(cell, column * here, mask=column > 0)
        tl.atomic_add(cell + 1, column * rest, mask=(column > 0) & (rest > 0))
