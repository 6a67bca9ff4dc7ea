"""The records every source of PathSeg gives: facts about itself, and images read on demand.

Axes: H W pixels.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = [
    "Annotated",
    "LabelMask",
    "Source",
    "SourceImage",
    "SourceInfo",
    "published",
    "source_modules",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """Published facts about a source (paper, Table 1 and section 4.1)."""

    name: str
    """As the paper writes it; also the name of its folder."""
    magnification: float
    """Native magnification; 40 is 0.25 micrometres per pixel."""
    mpp: float
    """Micrometres per pixel as published, where an image says nothing else."""
    licence: str
    """Terms of the data, as its publishers state them."""
    citation: str
    """The paper to cite."""
    url: str
    """Where to download it."""
    layout: str
    """Files that ``ROOT/NAME`` must hold, in words."""
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

    def image(
        self,
        path: Path,
        read: Callable[[], Annotated],
        *,
        name: str = "",
        group: str = "",
        split: str | None = None,
        mpp: float | None = None,
        region: str = "",
    ) -> SourceImage:
        """An image of this source. Names left out are the file's, other facts as published.

        Args:
            path: The file the pixels come from.
            read: Decodes image and masks.
            name: Unique within the source; the file's name if empty.
            group: Patient or slide; ``name`` if empty.
            split: ``train`` or ``test`` where the official split tells.
            mpp: Micrometres per pixel.
            region: Anatomical region; the first of the source's if empty.
        """
        name = name or path.stem
        return SourceImage(
            source=self.name,
            name=name,
            group=group or name,
            split=split,
            mpp=self.mpp if mpp is None else mpp,
            region=region or self.regions[0],
            path=path,
            read=read,
        )


def published(name: str, labels: Iterable[str]) -> SourceInfo:
    """The facts of a source in ``sources.csv``, the paper's Table 1, with the labels it gives.

    Args:
        name: As the paper writes it.
        labels: Ids of its labels, in their order.
    """
    row, ids = _published()[name], tuple(labels)
    return SourceInfo(
        name=name,
        magnification=float(row["magnification"]),
        mpp=float(row["mpp"]),
        licence=row["licence"],
        citation=row["citation"],
        url=row["url"],
        layout=row["layout"],
        regions=tuple(dict.fromkeys(label.split("-", 1)[0] for label in ids)),
        labels=ids,
        images=int(row["images"]),
        masks=int(row["masks"]),
        train_masks=int(row["train_masks"]),
        test_masks=int(row["test_masks"]),
        external=row["train_masks"] == "0",
    )


def source_modules() -> dict[str, str]:
    """Name of each source to the module that reads it, in the order of the paper's Table 1."""
    return {name: row["module"] for name, row in _published().items()}


@cache
def _published() -> dict[str, dict[str, str]]:
    text = files("xpath").joinpath("sources.csv").read_text(encoding="utf-8")
    return {row["name"]: row for row in csv.DictReader(text.splitlines())}


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
    """The labels in the image; their masks may overlap."""
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
        """Its published facts."""
        ...

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images below ``root``, the folder ``ROOT/NAME`` of the source, in a fixed order.

        Raises:
            DataError: A file that lists the images is missing or broken.
        """
        ...

    def missing(self, root: Path) -> list[str]:
        """Parts of the layout that are not below ``root``, in words, none if it is complete."""
        ...
