"""Painted fields of tissue to train on.

Axes: H W pixels.
"""

from __future__ import annotations

import multiprocessing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from xpath.geometry import Size
from xpath.pathseg.record import Annotated, LabelMask, SourceImage
from xpath.testing.tissue import LABELS, paint_tissue, random_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["CROP", "DRAWN", "FIELD", "MPP", "Field", "drawn_images", "paint_fields"]

MPP, CROP, FIELD = 0.5, 256, 1024
DRAWN = "drawn"
"""Name of the source of such images."""
FEW = 4
"""Fields that are painted before a pool of processes has started."""


class Field(NamedTuple):
    """A painted field: image ``(H, W, 3)`` and one mask ``(H, W)`` per label id."""

    image: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]

    def mask(self, label: str) -> NDArray[np.bool_]:
        """Where the label is, nowhere if it was not painted."""
        nothing = np.zeros(self.image.shape[:2], bool)
        return self.masks.get(label, nothing)


def paint_fields(seeds: Sequence[int]) -> list[Field]:
    """Fields of random tissue, painted on all cores if they are many."""
    if len(seeds) <= FEW:
        return [_paint_field(seed) for seed in seeds]
    with multiprocessing.get_context("spawn").Pool() as pool:
        return list(tqdm(pool.imap(_paint_field, seeds), total=len(seeds), desc="painting"))


def _paint_field(seed: int) -> Field:
    """One field, entirely decided by the seed."""
    rng = np.random.default_rng(seed)
    tissue = paint_tissue(Size(FIELD, FIELD), random_recipe(rng), rng, mpp=MPP)
    return Field(tissue.image, dict(tissue.masks))


def drawn_images(seeds: Sequence[int]) -> list[SourceImage]:
    """Painted fields as images of a source named ``DRAWN``, to train on beside real ones."""
    if not seeds:
        return []
    return [
        SourceImage(
            source=DRAWN,
            name=f"drawn-{seed:05d}",
            group=f"drawn-{seed:05d}",
            split=None,
            mpp=MPP,
            region="breast",
            path=Path(f"drawn-{seed:05d}"),
            read=partial(_annotated, field),
        )
        for seed, field in zip(seeds, paint_fields(seeds), strict=True)
    ]


def _annotated(field: Field) -> Annotated:
    present = tuple(LabelMask(name, mask) for name, mask in field.masks.items() if mask.any())
    names = {name for name, _ in present}
    absent = tuple(name for name in LABELS if name not in names)
    return Annotated(field.image, present, None, absent)
