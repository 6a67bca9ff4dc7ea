"""From the decoder's logits to masks as they are stored, without a float map at full resolution.

The logits of 22 prompts on a 1024 px image are 92 MB once enlarged; what anybody needs of them,
bits and a few numbers, is 3 MB. On CUDA one Triton kernel makes it in one pass
(``xpath.segment.kernels.triton_kernel``); everywhere else the reference below does, mask by mask.

Axes: N masks, h w positions of the logits, H W pixels, i j cells of the coverage.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from xpath.errors import DataError, ShapeError
from xpath.objects.pool import cover
from xpath.protocols import STRIDE
from xpath.segment.kernels.finalised import Finalised
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["enlarged", "finalise", "finalise_reference", "unpack"]


def finalise(
    logits: Tensor,
    size: tuple[int, int],
    *,
    cells: tuple[int, int] = (1, 1),
    threshold: float = 0.0,
) -> Finalised:
    """Masks of logits: enlarged four times, cut at a threshold, packed and measured.

    Enlarging is bilinear between the centres of positions, exactly ``interpolate(scale_factor=4,
    mode="bilinear", align_corners=False)``, computed in float32 whatever the logits are.

    Args:
        logits: ``(N, h, w)`` float32, float16 or bfloat16; any N, 0 included.
        size: Height H and width W of the image, at most ``4 h`` and ``4 w``: what the model
            padded right and below is cut off.
        cells: Rows and columns of the grid of ``coverage``, at most H and W.
        threshold: A pixel is in the mask if its logit is above; 0 is a probability of one half.

    Raises:
        DataError: Logits that are no floats.
        ShapeError: Another shape, an image larger than the logits, or cells smaller than a pixel.
    """
    _check(logits, size, cells)
    if logits.is_cuda and _has_triton() and len(logits):
        from xpath.segment.kernels.triton_kernel import finalise_triton

        return finalise_triton(logits, size, cells=cells, threshold=threshold)
    return finalise_reference(logits, size, cells=cells, threshold=threshold)


def finalise_reference(
    logits: Tensor,
    size: tuple[int, int],
    *,
    cells: tuple[int, int] = (1, 1),
    threshold: float = 0.0,
) -> Finalised:
    """The answer of ``finalise``, in plain torch on any device."""
    _check(logits, size, cells)
    rows = [_measured(plane, plane > threshold, cells) for plane in enlarged(logits, size)] or [
        _measured(*_nothing(logits, size), cells)
    ]
    stacked = Finalised(*(torch.stack(parts) for parts in zip(*rows, strict=True)))
    return Finalised(*(part[: len(logits)] for part in stacked))


def enlarged(logits: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Logits ``(H, W)`` float32 at full resolution of ``(N, h, w)``, one mask after the other.

    One at a time they stay in the cache, which makes this faster than all at once.
    """
    height, width = size
    rows, columns = -(-height // STRIDE) + 1, -(-width // STRIDE) + 1  # one more, to lean on
    for plane in logits[:, :rows, :columns].float():
        large = functional.interpolate(
            plane[None, None], scale_factor=STRIDE, mode="bilinear", align_corners=False
        )
        yield large[0, 0, :height, :width]


def unpack(packed: Tensor, width: int) -> Tensor:
    """Masks ``(..., H, W)``, bool, of packed ones ``(..., H, ceil(W / 8))``."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    bits = packed[..., None].bitwise_right_shift(shifts).bitwise_and(1)
    return bits.flatten(-2)[..., :width].bool()


def _measured(plane: Tensor, inside: Tensor, cells: tuple[int, int]) -> tuple[Tensor, ...]:
    """The parts of ``Finalised`` for one mask."""
    bits: NDArray[np.uint8] = np.packbits(inside.cpu().numpy(), axis=-1)
    return (
        torch.from_numpy(bits).to(plane.device),
        inside.sum(),
        _box(inside),
        cover(inside[None, None], cells)[0, 0],
        plane[inside].sigmoid_().sum(),
        plane.max().sigmoid(),
    )


def _box(inside: Tensor) -> Tensor:
    """Left, top, right, bottom of a mask ``(H, W)``."""
    left, right = _extent(inside.any(dim=0))
    top, bottom = _extent(inside.any(dim=1))
    return torch.stack((left, top, right, bottom))


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """The first True and the index after the last, both 0 if there is none."""
    line = line.long()
    first = line.argmax()
    last = (len(line) - line.flip(0).argmax()) * line.max()
    return first, last


def _nothing(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """An empty mask, to give an empty answer its shapes."""
    plane = torch.zeros(size, device=logits.device)
    return plane, plane > 0


def _check(logits: Tensor, size: tuple[int, int], cells: tuple[int, int]) -> None:
    sizes = check_shape("logits", logits, "N h w")
    if not logits.is_floating_point():
        raise DataError(f"logits must be floats, got {logits.dtype}; pass them before any cut")
    reach = (STRIDE * sizes["h"], STRIDE * sizes["w"])
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
