"""A folder in the layout of BiomedParseData as annotated images, to train on like any source.

Axes: H W pixels.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xpath.pathseg.biomedparse_data import PromptedMask, read_binary_mask
from xpath.pathseg.reading import check_same_size, read_image
from xpath.pathseg.record import Annotated, LabelMask, SourceImage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["images_of"]


def images_of(
    items: Iterable[PromptedMask], *, source: str, split: str, mpp: float = 0.25
) -> list[SourceImage]:
    """One image per file, with all its masks that have a label.

    Args:
        items: What ``read_biomedparse`` gave.
        source: A name for the folder.
        split: ``train`` or ``test``.
        mpp: Micrometres per pixel: the layout does not tell. Images that were enlarged to 1024 are
            finer than the slide they come from.
    """
    grouped: dict[Path, list[PromptedMask]] = {}
    for item in items:
        if item.label is not None:
            grouped.setdefault(item.image, []).append(item)
    return [
        SourceImage(
            source=source,
            name=path.stem,
            group=path.stem,
            split=split,
            mpp=mpp,
            region=str(members[0].label).split("-", 1)[0],
            path=path,
            read=partial(_read, path, tuple(members)),
        )
        for path, members in grouped.items()
    ]


def _read(path: Path, members: tuple[PromptedMask, ...]) -> Annotated:
    """Pixels and masks, where several masks of one label are united."""
    image = read_image(path)
    masks: dict[str, NDArray[np.bool_]] = {}
    for item in members:
        mask = read_binary_mask(item.mask)
        check_same_size(item.mask, mask.shape, path, image.shape)
        label = str(item.label)
        masks[label] = masks[label] | mask if label in masks else mask
    first = members[0]
    return Annotated(
        image=image,
        masks=tuple(LabelMask(label, mask) for label, mask in masks.items() if mask.any()),
        ignore=None if first.ignore is None else read_binary_mask(first.ignore),
        absent=tuple(label for label in first.absent if label not in masks),
    )
