"""Object masks for every patch of a slide."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xpath.errors import ConfigError, ResolutionError
from xpath.protocols import STRIDE
from xpath.segment.predict.blending import SeamBlender, check_overlap
from xpath.store.masks import REDUCTIONS, MaskWriter
from xpath.wsi.patches import iter_patches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.geometry import PatchGrid
    from xpath.labels import Label
    from xpath.protocols import Segmentor
    from xpath.wsi.slide import Slide

__all__ = ["SegmentConfig", "segment_slide"]

logger = logging.getLogger(__name__)

COARSE = 1.3
"""From so many times the patches' microns per pixel on, a slide is too coarse to be enlarged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentConfig:
    """How a whole slide is segmented."""

    overlap: int = 32
    """Pixels of its surroundings a patch is shown with on every side, at the resolution of the
    grid. Where they cover each other the answers are blended, so that an object across a seam is
    one object. 0 segments every patch on its own: less work, but with seams. The work grows with
    the area shown, and weights trained on small images may do worse on much larger ones."""
    reduce: int = 1
    """Masks are stored at 1/1, 1/2 or 1/4 of the resolution they are made at."""
    batch: int = 8
    """Patches encoded at once."""

    def __post_init__(self) -> None:
        """Refuses impossible numbers.

        Raises:
            ConfigError: An overlap that is neither 0 nor a multiple of 4 from 8 on, another
                reduction, or an empty batch.
        """
        check_overlap(self.overlap)
        if self.reduce not in REDUCTIONS:
            raise ConfigError(f"reduce must be one of {REDUCTIONS}, got {self.reduce}")
        if self.batch < 1:
            raise ConfigError(f"batch must be positive, got {self.batch}")


def segment_slide(
    slide: Slide,
    grid: PatchGrid,
    segmentor: Segmentor,
    labels: Sequence[Label],
    path: Path,
    *,
    config: SegmentConfig | None = None,
    on_patches: Callable[[int], None] | None = None,
) -> None:
    """Writes ``masks.zarr``: the mask and presence of every label in every patch.

    Every patch is encoded once. With an overlap, the presence of a label in a patch is the mean
    probability under its blended mask, 0 where the mask is empty.

    Args:
        slide: Open slide.
        grid: Its patches; they should be cut at the resolution the segmentor was trained at.
        segmentor: ``SegmentPredictor`` or one of one's own.
        labels: What to look for; each is asked on its own.
        path: The folder to write; it appears when it is complete.
        config: Overlap, resolution of the masks, batch.
        on_patches: Called with the number of patches encoded in each batch.

    Raises:
        ConfigError: Patches that the reduction does not divide, or a segmentor whose logits have
            another stride than 4.
        DataError: The segmentor answers NaN.
        ResolutionError: The grid has no physical resolution.
        SlideError: A patch cannot be read.
        StoreError: The disk is full.
    """
    config = config or SegmentConfig()
    _check_stride(segmentor)
    _check_resolution(grid, segmentor)
    prompts = [label.prompt for label in labels]
    facts = {
        "prompts": json.dumps(prompts),
        "segmentor": segmentor.info.name,
        "segmentor_sha256": segmentor.info.digest,
        "overlap": str(config.overlap),
    }
    with MaskWriter(
        path,
        grid=grid,
        labels=[label.id for label in labels],
        size=grid.pixels,
        provenance=facts,
        reduce=config.reduce,
    ) as writer:
        work = _blended if config.overlap else _patch_by_patch
        for done in work(slide, grid, segmentor, prompts, writer, config):
            if on_patches:
                on_patches(done)


def _patch_by_patch(
    slide: Slide,
    grid: PatchGrid,
    segmentor: Segmentor,
    prompts: list[str],
    writer: MaskWriter,
    config: SegmentConfig,
) -> Iterator[int]:
    """Segments every patch on its own and yields the size of each finished batch."""
    for index, images in iter_patches(slide, grid, batch=config.batch):
        answer = segmentor.masks(segmentor.encode(images), prompts)
        writer.write(int(index[0]), answer.masks, answer.presence)
        yield len(index)


def _blended(
    slide: Slide,
    grid: PatchGrid,
    segmentor: Segmentor,
    prompts: list[str],
    writer: MaskWriter,
    config: SegmentConfig,
) -> Iterator[int]:
    """Segments every patch with its surroundings and yields the size of each finished batch."""
    blender = SeamBlender(grid, overlap=config.overlap)
    batches = iter_patches(slide, blender.windows, batch=config.batch, only=blender.order)
    for index, images in batches:
        answers = segmentor.logits(segmentor.encode(images), prompts)
        for window, logits in zip(index, answers, strict=True):
            blender.add(int(window), logits)
        for patch in blender.finished():
            masks, presence = _decided(patch.logits)
            writer.write(patch.position, masks[None], presence[None])
        yield len(index)


@torch.inference_mode()
def _decided(logits: Tensor) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Masks ``(P, H, W)`` of logits, and their presence ``(P,)``."""
    inside = logits > 0
    area = inside.sum(dim=(1, 2))
    presence = torch.zeros_like(area, dtype=torch.float32)
    filled = area.nonzero()[:, 0]  # most labels are in few patches
    presence[filled] = (logits[filled].sigmoid() * inside[filled]).sum(dim=(1, 2)) / area[filled]
    return inside.cpu().numpy(), presence.cpu().numpy()


def _check_stride(segmentor: Segmentor) -> None:
    if segmentor.stride != STRIDE:
        raise ConfigError(
            f"whole slides want logits with {STRIDE} pixels per position, but those of"
            f" {segmentor.info.name} have {segmentor.stride}; resize them in its logits()"
        )


def _check_resolution(grid: PatchGrid, segmentor: Segmentor) -> None:
    if grid.mpp is None:
        raise ResolutionError(
            "the grid has no resolution, so nuclei may have any size; pass mpp= (--mpp) with the"
            " slide's microns per pixel, often 0.25 (40x)"
        )
    if grid.slide_mpp and grid.slide_mpp > COARSE * grid.mpp:
        logger.warning(
            "the slide has %.3g microns per pixel and is enlarged to %.3g: masks will be worse",
            grid.slide_mpp,
            grid.mpp,
        )
    info = segmentor.info
    low, high = info.mpp_range or (info.mpp / 2**0.25, info.mpp * 2**0.25)
    if not low * 0.99 <= grid.mpp <= high * 1.01:
        logger.warning(
            "patches at %.3g mpp, but %s was trained at %.2g to %.2g: masks will be worse",
            grid.mpp,
            info.name,
            low,
            high,
        )
