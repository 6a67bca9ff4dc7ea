"""Object masks for every patch of a slide."""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING

from xpath.errors import ResolutionError
from xpath.store.masks import MaskWriter
from xpath.wsi.patches import iter_patches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from xpath.geometry import PatchGrid
    from xpath.labels import Label
    from xpath.segment.predictor import SegmentPredictor
    from xpath.wsi.slide import Slide

__all__ = ["segment_slide"]

logger = logging.getLogger(__name__)


def segment_slide(
    slide: Slide,
    grid: PatchGrid,
    predictor: SegmentPredictor,
    labels: Sequence[Label],
    path: Path,
    *,
    batch: int = 8,
    on_patches: Callable[[int], None] | None = None,
) -> None:
    """Writes ``masks.zarr``: the mask and presence of every label in every patch.

    Args:
        slide: Open slide.
        grid: Its patches; they should be cut at the resolution the segmentor was trained at.
        predictor: The segmentor.
        labels: What to look for; each is asked on its own.
        path: The folder to write; it appears when it is complete.
        batch: Patches encoded at once.
        on_patches: Called with the number of patches done in each batch.

    Raises:
        ResolutionError: The grid has no physical resolution.
    """
    _check_resolution(grid, predictor)
    prompts = [label.prompt for label in labels]
    facts = {
        "prompts": json.dumps(prompts),
        "segmentor": predictor.info.name,
        "segmentor_sha256": predictor.info.digest,
    }
    with MaskWriter(
        path,
        grid=grid,
        labels=[label.id for label in labels],
        size=grid.pixels,
        provenance=facts,
    ) as writer:
        for index, images in iter_patches(slide, grid, batch=batch):
            found = predictor.masks(predictor.encode(images), prompts)
            writer.write(int(index[0]), found.masks, found.presence)
            if on_patches:
                on_patches(len(index))


def _check_resolution(grid: PatchGrid, predictor: SegmentPredictor) -> None:
    if grid.mpp is None:
        raise ResolutionError(
            "the grid has no resolution, so nuclei may have any size; pass mpp= (--mpp) with the"
            " slide's microns per pixel, often 0.25 (40x)"
        )
    if abs(math.log2(grid.mpp / predictor.info.mpp)) > 0.25:
        logger.warning(
            "patches at %.3g mpp, but %s was trained at %.3g: masks will be worse",
            grid.mpp,
            predictor.info.name,
            predictor.info.mpp,
        )
