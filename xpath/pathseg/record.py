"""What every source of PathSeg gives: facts about itself, and images that are read when asked for.

Axes: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Annotated", "LabelMask", "Source", "SourceImage", "SourceInfo"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """What is published about a source (paper, Table 1 and section 4.1)."""

    name: str
    """As the paper writes it; also the name of its folder."""
    magnification: float
    """Native magnification; 40 is 0.25 micrometres per pixel."""
    licence: str
    """Terms of the data, as its publishers state them."""
    citation: str
    """The paper to cite."""
    url: str
    """Where to download it."""
    layout: str
    """What ``ROOT/NAME`` must hold, in words."""
    regions: tuple[str, ...]
    """Anatomical regions, as the labels write them."""
    labels: tuple[str, ...]
    """Ids of the labels this source gives: ``region-structure-object type``."""
    images: int
    """Published number of standardised images with a mask."""
    masks: int
    """Published number of masks: one per image and label."""
    train_masks: int
    """Published number of masks to train on."""
    test_masks: int
    """Published number of masks to test on."""
    external: bool = False
    """True if the paper trains on none of it."""


class LabelMask(NamedTuple):
    """Where one label is in an image."""

    label: str
    """Label id."""
    mask: NDArray[np.bool_]
    """(H, W), True within."""


class Annotated(NamedTuple):
    """A decoded image with all that is known about it."""

    image: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    masks: tuple[LabelMask, ...]
    """Labels that are present; masks may overlap."""
    ignore: NDArray[np.bool_] | None
    """(H, W), True where nothing is known; None if all is."""
    absent: tuple[str, ...] = ()
    """Labels the source annotates exhaustively and that are not in this image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceImage:
    """An image of a source, not yet decoded."""

    source: str
    """Name of the source."""
    name: str
    """Unique within the source, and fit for a file name."""
    group: str
    """Patient or slide where the source tells, else ``name``."""
    split: str | None
    """``train`` or ``test`` where the official split tells, else None."""
    mpp: float
    """Micrometres per pixel as published for this image; the paper normalises by
    ``SourceInfo.magnification`` instead."""
    region: str
    """Anatomical region, as the labels write it."""
    path: Path
    """The file the pixels come from."""
    read: Callable[[], Annotated]
    """Decodes image and masks; a DataError names the broken file and what to do."""


class Source(Protocol):
    """A data set in its own published layout."""

    @property
    def info(self) -> SourceInfo:
        """What is published about it."""
        ...

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images below ``root``, the folder ``ROOT/NAME`` of the source, in a fixed order.

        Raises:
            DataError: A file that lists the images is missing or broken.
        """
        ...

    def missing(self, root: Path) -> list[str]:
        """What of the layout is not below ``root``, in words; empty if complete."""
        ...
