"""Overlapping labels as one value per pixel, for nnU-Net and back.

Each combination of labels on a pixel has a value of its own, and nnU-Net learns the labels as
regions; where none overlap they are plain classes. Axes: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from xpath.pathseg.record import Annotated, SourceImage

__all__ = ["LabelValues", "dataset_json", "label_values"]

BITS, VALUES = 63, 253
"""Most labels of a data set, and most values of a label map beside background and unknown."""


@dataclass(frozen=True, slots=True)
class LabelValues:
    """How overlapping labels become one value per pixel."""

    labels: tuple[str, ...]
    """In nnU-Net's order: a label after those that hold all of it, small ones after large ones."""
    combinations: tuple[frozenset[str], ...]
    """Labels of value 1, 2 and so on."""

    def values(self, label: str) -> list[int]:
        """All values of pixels that are of a label."""
        return [n for n, held in enumerate(self.combinations, start=1) if label in held]

    def painted(self, label: str) -> int:
        """The value nnU-Net paints for a label: that of the fewest labels with it."""
        fewest = min((held for held in self.combinations if label in held), key=len)
        return self.combinations.index(fewest) + 1

    @property
    def overlap(self) -> bool:
        """Whether some pixel is of several labels."""
        return any(len(held) > 1 for held in self.combinations)

    def paint(self, annotated: Annotated) -> NDArray[np.uint8]:
        """The label map ``(H, W)``, one more than the last value where nothing is known."""
        shape = annotated.image.shape[:2]
        held = np.zeros(shape, np.uint64)
        for label, mask in annotated.masks:
            held[mask] |= np.uint64(1 << self.labels.index(label))
        painted = np.zeros(shape, np.uint8)
        for value, combination in enumerate(self.combinations, start=1):
            painted[held == _bits(combination, self.labels)] = value
        if annotated.ignore is not None:
            painted[annotated.ignore & (held == 0)] = len(self.combinations) + 1
        return painted


def label_values(images: Iterable[SourceImage]) -> LabelValues:
    """Values for all combinations of labels in images, each of which is decoded.

    Raises:
        DataError: No label, more than 63, or more combinations than a label map can hold.
    """
    area: dict[str, int] = {}
    seen: dict[frozenset[str], int] = {}
    for image in images:
        masks = image.read().masks
        for label, mask in masks:
            area[label] = area.get(label, 0) + int(mask.sum())
        for combination, pixels in _combinations(masks):
            seen[combination] = seen.get(combination, 0) + pixels
    labels = tuple(sorted(area, key=lambda label: (-area[label], label)))
    if not labels or len(labels) > BITS:
        raise DataError(f"nnU-Net needs 1 to {BITS} labels in a data set, got {len(labels)}")
    for label in labels:  # the value that stands for the label alone, if it ever is alone
        holders = [held for held in seen if label in held]
        seen.setdefault(frozenset.intersection(*holders), 0)
    order = sorted(seen, key=lambda held: (len(held), sorted(labels.index(one) for one in held)))
    if len(order) > VALUES:
        raise DataError(f"labels overlap in {len(order)} ways, a label map holds {VALUES} at most")
    return LabelValues(labels, tuple(order))


def _combinations(masks: Sequence[Any]) -> list[tuple[frozenset[str], int]]:
    """Labels that share a pixel, and how many pixels."""
    if not masks:
        return []
    held = np.zeros(masks[0].mask.shape, np.uint64)
    for bit, (_, mask) in enumerate(masks):
        held[mask] |= np.uint64(1 << bit)
    values, counts = np.unique(held[held > 0], return_counts=True)
    return [
        (frozenset(m.label for bit, m in enumerate(masks) if int(value) >> bit & 1), int(count))
        for value, count in zip(values, counts, strict=True)
    ]


def _bits(combination: frozenset[str], labels: Sequence[str]) -> np.uint64:
    return np.uint64(sum(1 << labels.index(label) for label in combination))


def dataset_json(values: LabelValues, images: int, *, ignored: bool) -> dict[str, Any]:
    """Description of exported images as nnU-Net reads it."""
    labels: dict[str, int | list[int]] = {"background": 0}
    for label in values.labels:
        labels[label] = values.values(label) if values.overlap else values.painted(label)
    if ignored:
        labels["ignore"] = len(values.combinations) + 1
    about: dict[str, Any] = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": labels,
        "numTraining": images,
        "file_ending": ".png",
    }
    if values.overlap:
        about["regions_class_order"] = [values.painted(label) for label in values.labels]
    return about
