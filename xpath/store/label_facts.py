"""Facts about the labels of a slide as a whole, stored with its masks.

Axes: L labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["LabelFacts", "Overlap", "overlap_rows", "unknown_facts"]


class LabelFacts(NamedTuple):
    """Facts about each label once all patches have been segmented."""

    probability: NDArray[np.float64]
    """``(L,)`` calibrated probability that the label is on the slide at all, 0 without a mask."""
    present: NDArray[np.bool_]
    """``(L,)`` whether it is taken as there. One that is not has no feature, bar or row."""
    taught: NDArray[np.bool_]
    """``(L,)`` whether the segmentor's weights learnt it; the mask of another is a guess."""
    before: NDArray[np.int64]
    """``(L, L)`` pixels in both masks of a pair as each label was answered on its own, areas on the
    diagonal."""
    after: NDArray[np.int64]
    """``(L, L)`` the same of the masks as they are stored."""


class Overlap(NamedTuple):
    """How much of one label's mask lies in another's."""

    label: str
    other: str
    pixels: int
    """Of the label before labels competed."""
    before: float
    """Share of the label's pixels that lay in the other, 0..1."""
    after: float
    """The same of the masks as they are stored, 0 of an empty one."""


def unknown_facts(area: NDArray[np.int64]) -> LabelFacts:
    """Facts of masks that came without: what has a pixel is there, and nothing overlaps as known.

    Args:
        area: ``(N, L)`` pixels of each mask.
    """
    total = area.sum(axis=0)
    pairs = np.diag(total)
    present = total > 0
    return LabelFacts(present.astype(float), present, np.ones_like(present), pairs, pairs)


def overlap_rows(labels: Sequence[str], facts: LabelFacts) -> Iterator[Overlap]:
    """A row for each ordered pair of labels whose masks met, before or after."""
    for index, label in enumerate(labels):
        for other, name in enumerate(labels):
            if index != other and (facts.before[index, other] or facts.after[index, other]):
                pixels = int(facts.before[index, index])
                yield Overlap(
                    label,
                    name,
                    pixels,
                    _share(facts.before[index, other], pixels),
                    _share(facts.after[index, other], facts.after[index, index]),
                )


def _share(pixels: Any, total: Any) -> float:
    return round(float(pixels) / float(total), 6) if total else 0.0
