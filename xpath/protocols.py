"""The contracts between packages that do not import each other, for parts of one's own.

Axes: B patches, images or bags, P prompts, D features, H W pixels, h w positions of a feature map,
K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.mil.bag import PackedBags

__all__ = [
    "STRIDE",
    "ClassifierOutput",
    "ImageSegmentor",
    "PatchEncoder",
    "Segmentation",
    "Segmentor",
    "SegmentorFacts",
    "SlideClassifier",
]

STRIDE = 4
"""Pixels of an image per position of a segmentor's logits, along each axis."""


class PatchEncoder(Protocol):
    """Anything that turns patches into feature maps."""

    name: str
    """For reports and file names."""
    digest: str
    """SHA-256 of all that decides the features, weights included."""
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
    answered_as: tuple[tuple[str, ...], ...] = ()
    """For each prompt the ids of taught labels whose union answered in its place, none where it
    was asked as it is."""


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


class ImageSegmentor(Protocol):
    """Anything that answers prompts about images, as an evaluation asks them.

    ``evaluate_segmentor``, ``validate`` and the calibration of presence need no more. A prompt's
    answer must depend on no other prompt.
    """

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


class Segmentor(ImageSegmentor, Protocol):
    """Anything that segments slides by words, such as ``SegmentPredictor``.

    ``segment_slide`` asks for ``info``, ``stride``, ``encode`` and ``logits`` (without an overlap
    ``masks`` instead).
    """

    @property
    def info(self) -> SegmentorFacts:
        """Facts about the weights."""
        ...

    @property
    def stride(self) -> int:
        """Pixels per position of the logits, along each axis. Whole slides want ``STRIDE``."""
        ...

    def logits(self, embedding: Any, prompts: Sequence[str]) -> Tensor:
        """Logits ``(B, P, h, w)`` of the encoded images, on any device.

        Finite, above 0 where the object is. Position (0, 0) covers the first ``stride`` by
        ``stride`` pixels from the top left; there are at least ``ceil(H / stride)`` times
        ``ceil(W / stride)`` positions, and those beyond (padding) are left alone.
        """
        ...


class ClassifierOutput(Protocol):
    """Answer of a slide classifier. Whatever else it has is the model's own."""

    @property
    def logits(self) -> Tensor:
        """``(B, K)``."""
        ...


class SlideClassifier(Protocol):
    """Anything that classifies slides: a ``torch.nn.Module`` with ``classes`` and ``metadata``.

    ``train``, ``predict``, ``evaluate``, cross-validation and explanation by leave-one-out use
    these members and no others, so aggregation and head are free. Two things are optional:

    * a member ``scaler``, a ``FeatureScaler``, is fitted to the training slides before the first
      epoch, unless ``TrainConfig.scale`` is off;
    * a sub-class of ``xpath.mil.checkpoint.Pretrained`` is saved and loaded as a checkpoint, and
      with a row in ``xpath.mil.classifier.CLASSIFIERS`` runs and cohorts train it by name.

    Example::

        class MaxMeanMIL(nn.Module):
            classes = ("IDC", "ILC")

            def __init__(self, dim):
                super().__init__()
                self.metadata = {}
                self.head = nn.Sequential(nn.Linear(2 * dim, 32), nn.ReLU(), nn.Linear(32, 2))

            def forward(self, bags):
                largest = segment_max(bags.features, bags.index, bags.bags)
                total = segment_sum(bags.features, bags.index, bags.bags)
                return Output(self.head(torch.cat([largest, total / bags.sizes[:, None]], 1)))
    """

    metadata: dict[str, Any]
    """Anything JSON can hold; ``train`` adds how and on which slides it was trained."""
    training: bool
    """True while dropout is on; ``nn.Module`` has it."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the K classes, in the order of the logits."""
        ...

    def __call__(self, bags: PackedBags) -> ClassifierOutput:
        """Logits of packed bags, on the device and in the precision of the model's own tensors."""
        ...

    def parameters(self) -> Iterator[Any]:
        """Of ``nn.Module``: the tensors that Adam changes."""
        ...

    def buffers(self) -> Iterator[Any]:
        """Of ``nn.Module``: its other tensors."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Of ``nn.Module``: all tensors by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Of ``nn.Module``: puts tensors back."""
        ...

    def train(self, mode: bool = True) -> Any:  # noqa: FBT001, FBT002 - torch's signature
        """Of ``nn.Module``: dropout on, or off."""
        ...

    def eval(self) -> Any:
        """Of ``nn.Module``: dropout off."""
        ...

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Of ``nn.Module``: moves it to a device."""
        ...
