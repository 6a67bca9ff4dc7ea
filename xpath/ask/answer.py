"""Questions about a picture, and where their answers lie.

Axes: L labels asked, h w pixels of the overview.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xpath.export.qupath.geojson import Feature
    from xpath.geometry import Box, Size
    from xpath.labels import Label
    from xpath.language.reading import Reading
    from xpath.segment.checkpoints.checkpoint import SegmentorInfo

__all__ = ["Answer", "Asked"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A text and how it was read."""

    text: str
    reading: Reading


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class Answer:
    """The objects that a text asks for, on one image or slide."""

    name: str
    """Of the image or slide, for titles and ids."""
    asked: Asked
    bounds: Box
    """What was looked at, level-0 pixels; QuPath measures from its corner."""
    size: Size
    """Of level 0."""
    mpp: float | None
    """Microns per pixel of level 0, None where unknown."""
    overview: NDArray[np.uint8]
    """``(h, w, 3)`` all of level 0."""
    shares: NDArray[np.float32]
    """``(L, h, w)`` share of every overview pixel that each label covers."""
    features: tuple[Feature, ...]
    """Objects, label by label, measured by ``area um2`` or ``area px`` and ``confidence``."""
    segmentor: SegmentorInfo
    doubted: frozenset[str] = frozenset()
    """Ids of labels that the presence test says are not there; of slides it is not asked."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """The L labels that were looked for."""
        return self.asked.reading.labels

    @property
    def guesses(self) -> frozenset[str]:
        """Ids of labels that the segmentor's weights never learnt."""
        taught = set(self.segmentor.labels)
        return frozenset(label.id for label in self.labels if taught and label.id not in taught)
