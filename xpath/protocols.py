"""The contracts between rooms that do not know each other: what a part of one's own must have.

Axes: B patches or images, D features, H W pixels, h w positions of a feature map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PatchEncoder"]


class PatchEncoder(Protocol):
    """Anything that turns patches into feature maps."""

    name: str
    """For reports and file names."""
    digest: str
    """SHA-256 of all that decides the features; other weights are other features."""
    dim: int
    """Features D."""

    def maps(self, images: Tensor) -> Tensor:
        """Maps ``(B, D, h, w)`` float32 on the CPU, of RGB images ``(B, 3, H, W)`` uint8."""
        ...
