"""From the decoder's logits to masks as they are stored, without a float map at full resolution.

The logits of 22 prompts on a 1024 px image are 92 MB once enlarged; what anybody needs of them,
bits and a few numbers, is 3 MB. On CUDA one Triton kernel makes it in one pass
(``xpath.segment.kernels.triton_kernel``); everywhere else the reference below does, mask by mask.

Axes: B images, P prompts, h w positions of the logits, H W pixels, i j cells of the coverage.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from xpath.device import side_by_side
from xpath.errors import DataError, ShapeError
from xpath.objects.pool import cover
from xpath.protocols import STRIDE
from xpath.segment.kernels.finalised import Finalised
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "enlarged",
    "finalise",
    "finalise_reference",
    "measured",
    "pack",
    "shared_pixels",
    "unpack",
]

GATHER = 0x8040201008040201 - (1 << 64)
"""Times eight bytes of 0 or 1, as one little-endian integer: their bits in its highest byte, the
first byte's on top."""


def finalise(
    logits: Tensor,
    size: tuple[int, int],
    *,
    corner: int = 0,
    cells: tuple[int, int] = (1, 1),
) -> Finalised:
    """Masks of logits: enlarged four times, cut at 0, packed and measured.

    Enlarging is bilinear between the centres of positions, exactly ``interpolate(scale_factor=4,
    mode="bilinear", align_corners=False)``, computed in float32 whatever the logits are. A pixel is
    in the mask if its logit is above 0, its probability above one half. No step waits for a GPU.

    Args:
        logits: ``(B, P, h, w)`` float32, float16 or bfloat16; any B and P, 0 included.
        size: Height H and width W of the image, in pixels. What the model padded right and below
            is cut off.
        corner: Positions above and to the left of the image, as in the fields of ``SeamBlender``.
        cells: Rows and columns of the grid of ``coverage``, at most H and W.

    Raises:
        DataError: Logits that are no floats.
        ShapeError: Another shape, an image larger than the logits, or cells smaller than a pixel.
    """
    _check(logits, size, corner, cells)
    if logits.is_cuda and _has_triton() and logits.shape[0] * logits.shape[1]:
        from xpath.segment.kernels.triton_kernel import finalise_triton

        return finalise_triton(logits, size, corner=corner, cells=cells)
    return finalise_reference(logits, size, corner=corner, cells=cells)


def finalise_reference(
    logits: Tensor,
    size: tuple[int, int],
    *,
    corner: int = 0,
    cells: tuple[int, int] = (1, 1),
) -> Finalised:
    """The answer of ``finalise``, in plain torch on any device.

    One mask at a time stays in the cache, which is several times as fast as all at once, and on the
    CPU they are made side by side. A mask whose logits are nowhere above 0 is empty without a look:
    between two positions lies no more than at the higher one.
    """
    _check(logits, size, corner, cells)
    (images, prompts), (height, width) = logits.shape[:2], size
    count, device = images * prompts, logits.device
    answer = Finalised(
        torch.zeros(count, height, -(-width // 8), dtype=torch.uint8, device=device),
        torch.zeros(count, dtype=torch.int64, device=device),
        torch.zeros(count, *cells, device=device),
        torch.zeros(count, device=device),
        torch.zeros(count, device=device),
    )
    near = _around(logits.detach().flatten(0, 1), size, corner)
    filled = (near.amax(dim=(1, 2)) > 0).nonzero()[:, 0].tolist() if count else []

    def one(index: int) -> tuple[Tensor, ...]:
        plane = enlarged(near[index : index + 1], size, min(corner, 1))[0]
        return measured(plane, plane > 0, cells)

    rows = map(one, filled) if device.type != "cpu" else side_by_side(one, filled)
    for index, row in zip(filled, rows, strict=True):
        for part, value in zip(answer, row, strict=True):
            part[index] = value
    return Finalised(*(part.unflatten(0, (images, prompts)) for part in answer))


def enlarged(logits: Tensor, size: tuple[int, int], corner: int = 0) -> Tensor:
    """Logits ``(n, H, W)`` float32 at full resolution, of ``(n, h, w)``.

    Args:
        logits: With at least ``corner`` positions before the image.
        size: Height and width of the image.
        corner: Positions above and to the left of the image.
    """
    top, (height, width) = STRIDE * corner, size
    # one channel each: three at a time torch rounds otherwise
    large = functional.interpolate(logits[:, None].float(), scale_factor=STRIDE, mode="bilinear")
    return large[:, 0, top : top + height, top : top + width]


def measured(
    plane: Tensor, inside: Tensor, cells: tuple[int, int] = (1, 1)
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The parts of ``Finalised`` for one mask: bits, area, coverage, probability and its peak.

    Args:
        plane: Logits ``(H, W)``, float32.
        inside: ``(H, W)`` boolean; need not be where logits are above 0.
        cells: As ``finalise`` takes it.
    """
    packed, area = pack(inside), inside.sum()
    if cells == (1, 1):
        coverage = (area.double() / inside.numel()).float().reshape(1, 1)
    else:
        coverage = cover(inside[None, None], cells)[0, 0]
    chances = plane.contiguous().sigmoid()
    sure = (chances * inside).flatten()
    # summed beside itself: alone, torch splits it, and the sum depends on the number of threads
    total = sure.expand(2, -1).sum(dim=1)[0]
    return packed, area, coverage, total, chances.max() * (area > 0)


def pack(masks: Tensor) -> Tensor:
    """Bits uint8 ``(..., H, ceil(W / 8))`` of masks ``(..., H, W)``, as ``numpy.packbits``."""
    octets = functional.pad(masks, (0, -masks.shape[-1] % 8)).contiguous()
    return (octets.view(torch.int64) * GATHER >> 56).to(torch.uint8)


def unpack(packed: Tensor, width: int) -> Tensor:
    """Masks ``(..., H, W)``, bool, of packed ones ``(..., H, ceil(W / 8))``."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    bits = packed[..., None].bitwise_right_shift(shifts).bitwise_and(1)
    return bits.flatten(-2)[..., :width].bool()


def shared_pixels(packed: Tensor) -> Tensor:
    """Pixels that belong to both of two masks, int64 ``(P, P)``. Areas on the diagonal.

    Args:
        packed: ``(P, H, W / 8)`` bits.
    """
    if packed.is_cuda:
        return products_of(packed)
    rows = packed.flatten(1).numpy()
    shared = np.zeros((len(rows), len(rows)), np.int64)
    filled = np.flatnonzero(rows.any(axis=1))
    rows = rows[filled]
    for index, here in enumerate(filled):
        both = np.bitwise_count(rows[index] & rows[index:]).sum(axis=1, dtype=np.int64)
        shared[here, filled[index:]] = shared[filled[index:], here] = both
    return torch.from_numpy(shared)


def products_of(packed: Tensor) -> Tensor:
    """``shared_pixels`` as a GPU counts them: exactly, also in TF32, for bits are 0 or 1."""
    bits = unpack(packed, 8 * packed.shape[-1]).flatten(1).float()
    return (bits @ bits.T).round().long()


def _around(logits: Tensor, size: tuple[int, int], corner: int) -> Tensor:
    """The positions that pixels of the image lean on: one more on every side, where there is."""
    first = max(corner - 1, 0)
    rows, columns = (slice(first, corner + -(-pixels // STRIDE) + 1) for pixels in size)
    return logits[:, rows, columns]


def _check(logits: Tensor, size: tuple[int, int], corner: int, cells: tuple[int, int]) -> None:
    sizes = check_shape("logits", logits, "B P h w")
    if not logits.is_floating_point():
        raise DataError(f"logits must be floats, got {logits.dtype}; pass them before any cut")
    reach = tuple(STRIDE * (sizes[axis] - corner) for axis in "hw")
    if not all(0 < pixels <= most for pixels, most in zip(size, reach, strict=True)):
        raise ShapeError(
            f"the image is {size} px, but logits {tuple(logits.shape)} reach {reach};"
            " pass height and width of the image before padding"
        )
    if not all(0 < count <= pixels for count, pixels in zip(cells, size, strict=True)):
        raise ShapeError(f"{cells} cells do not fit an image of {size} px; ask for fewer")


@cache
def _has_triton() -> bool:
    """Triton comes with torch on Linux, not on macOS."""
    return find_spec("triton") is not None
