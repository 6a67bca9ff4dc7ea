"""Patch and object features of a slide.

Axes: N patches, B patches of a batch, L object classes, D features.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch

from xpath.errors import DataError
from xpath.labels import OTHER, load_labels
from xpath.objects.pool import cover, masked_average_pool, without_rims
from xpath.shapes import check_shape
from xpath.store.features import SlideFeatures
from xpath.wsi.patches import iter_patches

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.protocols import PatchEncoder
    from xpath.store.masks import SlideMasks
    from xpath.wsi.patches import PatchSource

__all__ = ["extract_objects"]


def extract_objects(
    slide: PatchSource,
    masks: SlideMasks,
    encoder: PatchEncoder,
    *,
    slide_id: str,
    batch: int = 8,
    rim_um: float = 0.0,
    on_patches: Callable[[int], None] | None = None,
) -> SlideFeatures:
    """Mean feature of every patch, and of every object in it, "other" included.

    Objects that are not on the slide (``SlideMasks.facts``) have neither feature nor coverage. The
    provenance of the masks, with the sentences that were asked, goes on to the features.

    Args:
        slide: Open slide, or patches of it that were kept.
        masks: Its object masks; their grid is the grid of the features.
        encoder: The patch encoder.
        slide_id: Name of the slide.
        batch: Patches encoded at once.
        rim_um: Microns on either side of the border of a tissue mask that belong to no object, nor
            to "other"; coverage is that of the rest.
        on_patches: Called with the number of patches done in each batch.

    Raises:
        DataError: The encoder answers NaN, the masks are another slide's, or call a label "other".
        LabelError: The masks have a label that is no region-structure-object id.
        ShapeError: The encoder answers other maps than it promises.
        SlideError: A patch cannot be read.
    """
    _check_masks(slide, masks)
    count, classes = len(masks.grid), len(masks.labels) + 1
    tissue = torch.tensor([label.split("-")[1] == "tissue" for label in masks.labels])
    absent = torch.from_numpy(~masks.facts.present)
    rim = round(rim_um / (masks.grid.mpp * masks.reduce)) if masks.grid.mpp and rim_um else 0
    features = np.zeros((count, encoder.dim), np.float32)
    objects = np.zeros((count, classes, encoder.dim), np.float16)
    coverage = np.zeros((count, classes), np.float32)
    for index, images in iter_patches(slide, masks.grid, batch=batch):
        maps = encoder.maps(to_tensor(images))
        check_shape(f"maps of {encoder.name}", maps, "B D h w", B=len(index), D=encoder.dim)
        here = torch.from_numpy(masks.read(slice(int(index[0]), int(index[-1]) + 1)))
        here[:, absent] = False
        shares = cover(without_rims(here, tissue, rim), (maps.shape[-2], maps.shape[-1]))
        pooled = masked_average_pool(maps, shares)
        features[index] = maps.mean(dim=(2, 3)).numpy()
        objects[index] = pooled.features.numpy()
        coverage[index] = pooled.coverage.numpy()
        if on_patches:
            on_patches(len(index))
    return SlideFeatures(
        slide_id=slide_id,
        grid=masks.grid,
        features=features,
        object_features=objects,
        object_coverage=coverage,
        objects=(*masks.labels, OTHER),
        provenance={
            **masks.provenance,
            "absent": json.dumps([masks.labels[index] for index in absent.nonzero()[:, 0]]),
            "rim_um": f"{rim_um:g}",
            "encoder": encoder.name,
            "encoder_sha256": encoder.digest,
        },
    )


def _check_masks(slide: PatchSource, masks: SlideMasks) -> None:
    if masks.grid.slide_size != slide.size:
        raise DataError(
            f"these masks are of a slide of {masks.grid.slide_size}, but {slide.path.name} has"
            f" {slide.size}; segment it again"
        )
    if OTHER in masks.labels:
        raise DataError(
            f"{OTHER!r} means what no mask covers; give the segmented label another name"
        )
    for label in masks.labels:
        load_labels().parse(label, allow_new=True)


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """``(B, 3, H, W)`` of images ``(B, H, W, 3)``."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
