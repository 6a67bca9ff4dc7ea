"""Slides as bags of patches, and many bags as one tensor.

Axes: B bags, N patches of a bag, M patches of all bags, L object classes, D features.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, SupportsIndex

import torch

from xpath.errors import DataError, ShapeError
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from xpath.protocols import SlideClassifier

__all__ = [
    "Bag",
    "PackedBags",
    "check_packed",
    "check_precision",
    "chunks",
    "own_tensor",
    "pack",
    "pack_padded",
    "warn_of_single_patches",
]

logger = logging.getLogger(__name__)

AT_ONCE = 2**27
"""Most numbers in one forward pass, 0.5 GB in single precision; a single bag may have more."""


@dataclass(frozen=True, slots=True, eq=False)  # tensors do not compare to one bool
class Bag:
    """The patches of one slide.

    Values are looked at once, here, so that neither training nor the model has to: a check of
    values on a GPU would wait for it in every step.

    Example::

        Bag(torch.randn(120, 512), label=1)  # for AttentionMIL
        Bag(torch.randn(120, 22, 512), coverage > 0, label=1)  # for ObjectAwareMIL
    """

    features: Tensor
    """``(N, D)`` patch features, or ``(N, L, D)`` object features; any floating type."""
    present: Tensor | None = None
    """``(N, L)`` boolean, True where an object lies in a patch; only with object features."""
    label: int | None = None
    """Class index, where known."""
    slide_id: str = ""

    def __post_init__(self) -> None:
        """Refuses shapes and values no model can use.

        Raises:
            DataError: No tensors; no patches; NaN, infinity; not a floating type; a label that is
                no class index.
            ShapeError: Other axes, or ``present`` where it does not belong or fit.
        """
        name = f"bag {self.slide_id!r}"
        _check_tensor(f"{name}: features", self.features)
        if self.features.ndim not in (2, 3):
            raise ShapeError(
                f"{name}: features must be (N, D) or (N, L, D), got {tuple(self.features.shape)}"
            )
        if not len(self.features):
            raise DataError(f"{name} has no patches; drop it, or look at its tissue mask")
        if not self.features.is_floating_point():
            raise DataError(f"{name}: features must be floating, got {self.features.dtype}")
        if not torch.isfinite(self.features).all():
            raise DataError(f"{name} has NaN or infinity in its features; look at the encoder")
        if self.label is not None and not (_is_index(self.label) and self.label >= 0):
            raise DataError(f"{name}: label must be 0, 1, ... or None, got {self.label!r}")
        self._check_present(name)

    def _check_present(self, name: str) -> None:
        if self.features.ndim == 2 and self.present is not None:
            raise ShapeError(f"{name}: patch features (N, D) go without `present`")
        if self.features.ndim == 2:
            return
        if self.present is None:
            raise ShapeError(f"{name}: object features (N, L, D) need `present` (N, L)")
        _check_tensor(f"{name}: present", self.present)
        count, classes = self.features.shape[:2]
        check_shape(f"{name}: present", self.present, "N L", N=count, L=classes)
        if self.present.dtype != torch.bool:
            raise DataError(
                f"{name}: present must be boolean, got {self.present.dtype}; pass coverage > 0"
            )


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, torch.Tensor):
        raise DataError(
            f"{name} must be a tensor, got {type(value).__name__};"
            " torch.from_numpy makes one of an array"
        )


def _is_index(label: object) -> bool:
    """True for whole numbers, also numpy's, but not for a tensor or a float."""
    return isinstance(label, SupportsIndex) and not isinstance(label, torch.Tensor)


class PackedBags(NamedTuple):
    """Bags of any lengths, end to end: no padding, no waste."""

    features: Tensor
    """``(M, D)`` or ``(M, L, D)``."""
    present: Tensor | None
    """``(M, L)`` for object features."""
    sizes: Tensor
    """``(B,)`` patches of each bag."""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    """``(M,)`` the bag each row belongs to, rising."""
    labels: Tensor
    """``(B,)`` class indices; -1 where unknown."""

    @property
    def bags(self) -> int:
        """Number of bags B."""
        return len(self.sizes)

    def like(self, tensor: Tensor) -> PackedBags:
        """The same bags on a tensor's device, features in its type."""
        return PackedBags(
            self.features.to(tensor),
            None if self.present is None else self.present.to(tensor.device),
            *(part.to(tensor.device) for part in (self.sizes, self.index, self.labels)),
        )


def check_packed(bags: object) -> None:
    """Refuses anything but packed bags.

    Raises:
        DataError: Bags that are not packed.
    """
    if not isinstance(bags, PackedBags):
        raise DataError(
            f"a classifier reads packed bags, got {type(bags).__name__}; pass pack([bag, ...]), or"
            " the bags to xpath.mil.prediction.predict"
        )


def check_precision(bags: PackedBags, own: Tensor) -> None:
    """Refuses bags that are wider than the tensors of a model.

    Raises:
        DataError: Double precision, for a model of another.
    """
    if bags.features.dtype == torch.float64 != own.dtype:
        raise DataError(
            f"the features are float64, the model's weights {own.dtype}; pass"
            " pack(bags).like(next(model.parameters())), or make the model .double()"
        )


def own_tensor(model: SlideClassifier) -> Tensor:
    """A tensor of the model, whose device and type its input must have.

    Raises:
        DataError: A model without any tensor.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor  # type: ignore[no-any-return]  # the protocol leaves torch's types open
    raise DataError(f"{type(model).__name__} has neither parameters nor buffers: nothing to train")


def pack(bags: Sequence[Bag]) -> PackedBags:
    """Puts bags end to end.

    Half precision, as it is stored, becomes single.

    Raises:
        DataError: No bags.
        ShapeError: Bags of different features or object classes.
    """
    if not bags:
        raise DataError("there are no bags to pack")
    first = tuple(bags[0].features.shape[1:])
    for bag in bags:
        if tuple(bag.features.shape[1:]) != first:
            raise ShapeError(
                f"bags must all hold the same features: {bags[0].slide_id!r} has (N, {first}),"
                f" {bag.slide_id!r} has (N, {tuple(bag.features.shape[1:])})"
            )
    sizes = torch.tensor([len(bag.features) for bag in bags])
    presents = [bag.present for bag in bags if bag.present is not None]
    features = torch.cat([bag.features for bag in bags])
    return PackedBags(
        features if features.dtype == torch.float64 else features.float(),
        torch.cat(presents) if presents else None,
        sizes,
        torch.repeat_interleave(torch.arange(len(bags)), sizes),
        torch.tensor([-1 if bag.label is None else bag.label for bag in bags]),
    )


def chunks(bags: Sequence[Bag], *, most: int | None = None) -> Iterator[list[Bag]]:
    """Bags in chunks that fit the memory once they are packed, in their order.

    Args:
        bags: Any number, of any lengths.
        most: Bags of a chunk; None for any number.
    """
    chunk: list[Bag] = []
    numbers = 0
    for bag in bags:
        size = bag.features.numel()
        if chunk and (len(chunk) == most or numbers + size > AT_ONCE):
            yield chunk
            chunk, numbers = [], 0
        chunk.append(bag)
        numbers += size
    if chunk:
        yield chunk


def pack_padded(
    features: Tensor, mask: Tensor, *, present: Tensor | None = None, labels: Tensor | None = None
) -> PackedBags:
    """Takes the padding out of a padded batch, as other libraries make them.

    A bag without a single True stays, empty: its logits are the classifier's bias.

    Args:
        features: ``(B, N, D)`` or ``(B, N, L, D)``; what stands in the padding does not matter.
        mask: ``(B, N)`` boolean, True where there is a patch.
        present: ``(B, N, L)`` boolean, for object features.
        labels: ``(B,)``; None where unknown.

    Raises:
        DataError: No bags, a mask or presence that is not boolean; NaN or infinity in a patch.
        ShapeError: Other axes.
    """
    if features.ndim not in (3, 4):
        raise ShapeError(
            f"padded features must be (B, N, D) or (B, N, L, D), got {tuple(features.shape)}"
        )
    count, length = features.shape[:2]
    check_shape("mask", mask, "B N", B=count, N=length)
    if (features.ndim == 4) != (present is not None):
        raise ShapeError("object features (B, N, L, D) need `present` (B, N, L), others have none")
    if present is not None:
        check_shape("present", present, "B N L", B=count, N=length, L=features.shape[2])
    if not count or any(m is not None and m.dtype != torch.bool for m in (mask, present)):
        raise DataError(f"{count} bags; mask and present must be boolean, such as lengths > index")
    rows = features[mask]
    if not torch.isfinite(rows).all():
        raise DataError("a patch has NaN or infinity in its features; look at mask and encoder")
    sizes = mask.sum(dim=1)
    return PackedBags(
        rows if rows.dtype == torch.float64 else rows.float(),
        None if present is None else present[mask],
        sizes,
        torch.repeat_interleave(torch.arange(count, device=mask.device), sizes),
        torch.full_like(sizes, -1) if labels is None else labels,
    )


def warn_of_single_patches(counts: Sequence[int]) -> None:
    """Warns where most slides have one patch, as files of slide features ``(1, D)`` seem to.

    Args:
        counts: Patches of each slide.
    """
    single = sum(count == 1 for count in counts)
    if 2 * single > len(counts):
        logger.warning(
            "%d of %d slides have a single patch; if their files hold features of slides and not of"
            " patches, pass those of patches", single, len(counts),
        )  # fmt: skip
