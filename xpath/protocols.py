"""The contracts between packages that do not import each other, for parts of one's own.

Axes: B patches or images, P prompts, D features, H W pixels, h w positions of a feature map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["STRIDE", "PatchEncoder", "Segmentation", "Segmentor", "SegmentorFacts"]

STRIDE = 4
"""Pixels of an image per position of a segmentor's logits, along each axis."""


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


class Segmentation(NamedTuple):
    """Masks of B images for P prompts."""

    masks: NDArray[np.bool_]
    """``(B, P, H, W)``: where the object is, if it is there at all."""
    presence: NDArray[np.float32]
    """``(B, P)`` mean probability inside the mask, 0.5 to 1; 0 where the mask is empty."""
    peak: NDArray[np.float32]
    """``(B, P)`` highest probability of any pixel."""
    present: NDArray[np.bool_]
    """``(B, P)`` whether the object is there at all: as the weights' calibration has it; without
    one, wherever the mask is not empty."""
    probability: NDArray[np.float32] | None = None
    """``(B, P, H, W)`` per pixel, if it was asked for."""
    published: tuple[bool, ...] = ()
    """For each prompt: is it the sentence of one of the 160 published labels?"""


class SegmentorFacts(Protocol):
    """Facts about the weights of a segmentor, such as ``SegmentorInfo`` of a checkpoint."""

    @property
    def name(self) -> str:
        """Name of the weights, for reports."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the masks, which tells weights apart."""
        ...

    @property
    def mpp(self) -> float:
        """Resolution the weights want, microns per pixel."""
        ...

    @property
    def mpp_range(self) -> tuple[float, float] | None:
        """Finest and coarsest resolution seen in training. None: a fourth root of 2 around mpp.

        Slides at another resolution are segmented with a warning.
        """
        ...


class Segmentor(Protocol):
    """Anything that segments images by words, such as ``SegmentPredictor``.

    ``segment_slide`` asks for ``info``, ``stride``, ``encode`` and ``logits`` (without an overlap
    ``masks`` instead), ``evaluate_segmentor``, ``validate`` and the calibration of presence for
    ``encode`` and ``masks``. A prompt's answer must depend on no other prompt.
    """

    @property
    def info(self) -> SegmentorFacts:
        """Facts about the weights."""
        ...

    @property
    def stride(self) -> int:
        """Pixels per position of the logits, along each axis. Whole slides want ``STRIDE``."""
        ...

    def encode(self, images: NDArray[np.uint8], *, mpp: float | None = None) -> Any:
        """Everything about images that does not depend on a prompt, for ``masks`` and ``logits``.

        Args:
            images: RGB ``(B, H, W, 3)`` uint8; of one image ``(H, W, 3)`` as well.
            mpp: Their resolution, microns per pixel, passed only where it is known; masks come back
                at the size given. None takes the pixels as they are.
        """
        ...

    def masks(self, embedding: Any, prompts: Sequence[str]) -> Segmentation:
        """Masks of the encoded images at their own size, one per prompt."""
        ...

    def logits(self, embedding: Any, prompts: Sequence[str]) -> Tensor:
        """Logits ``(B, P, h, w)`` of the encoded images, on any device.

        Finite, above 0 where the object is. Position (0, 0) covers the first ``stride`` by
        ``stride`` pixels from the top left; there are at least ``ceil(H / stride)`` times
        ``ceil(W / stride)`` positions, and those beyond (padding) are left alone.
        """
        ...
