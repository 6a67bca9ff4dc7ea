"""Object masks for every patch of a slide."""

from __future__ import annotations

import json
import logging
import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from xpath.errors import ConfigError, DataError, ResolutionError
from xpath.protocols import STRIDE
from xpath.segment.kernels.finalisation import shared_pixels
from xpath.segment.predict.blending import BlendedBatch, SeamBlender, check_overlap
from xpath.segment.predict.competition import COMPETITION, Contest, siblings
from xpath.segment.predict.patch_answers import AnswerStore, answered
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.segment.predict.slide_facts import SlideTally
from xpath.segment.predict.transfers import arrived, uploaded
from xpath.store.masks import REDUCTIONS, MaskWriter
from xpath.wsi.patches import iter_patches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.geometry import PatchGrid
    from xpath.labels import Label
    from xpath.protocols import Segmentor
    from xpath.segment.predict.patch_answers import Answers
    from xpath.wsi.patches import PatchSource

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
    competition: Literal["exclusive", "independent"] = "exclusive"
    """``exclusive``: no pixel belongs to two labels of one structure of one region, and labels that
    are not on the slide have no mask (``competition.compete``). ``independent``: each label keeps
    the mask it was answered with, as in the paper."""

    def __post_init__(self) -> None:
        """Refuses impossible numbers.

        Raises:
            ConfigError: An overlap that is neither 0 nor a multiple of 4 from 8 on, another
                reduction, an empty batch, or no such competition.
        """
        check_overlap(self.overlap)
        if self.reduce not in REDUCTIONS:
            raise ConfigError(f"reduce must be one of {REDUCTIONS}, got {self.reduce}")
        if self.competition not in COMPETITION:
            raise ConfigError(
                f"competition must be one of {', '.join(COMPETITION)}, got {self.competition!r}"
            )
        if self.batch < 1:
            raise ConfigError(f"batch must be positive, got {self.batch}")


def segment_slide(
    slide: PatchSource,
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
        slide: Open slide, or ``KeptPatches`` of it, which remember what is read.
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
    tally = SlideTally(segmentor, prompts)
    provenance = {
        "prompts": json.dumps(prompts),
        "segmentor": segmentor.info.name,
        "segmentor_sha256": segmentor.info.digest,
        "overlap": str(config.overlap),
        "competition": config.competition,
        "untaught": json.dumps(list(tally.untaught([label.id for label in labels]))),
    }
    answers = {label.id: label.answers_for for label in labels if label.answers_for}
    if answers:
        provenance["answers_for"] = json.dumps(answers)
    if isinstance(segmentor, SegmentPredictor) and segmentor.config.precision != "fp32":
        provenance["precision"] = segmentor.config.precision
    with MaskWriter(
        path,
        grid=grid,
        labels=[label.id for label in labels],
        size=grid.pixels,
        provenance=provenance,
        reduce=config.reduce,
    ) as writer:
        work = _Work(slide, grid, segmentor, labels, writer, config, tally)
        for done in _exclusive(work) if config.competition == "exclusive" else _independent(work):
            if on_patches:
                on_patches(done)
        facts = tally.facts()  # whoever lost all its pixels to siblings is not there either
        writer.facts = facts._replace(present=facts.present & (facts.after.diagonal() > 0))


class _Work(NamedTuple):
    """All that segmenting a slide needs."""

    slide: PatchSource
    grid: PatchGrid
    segmentor: Segmentor
    labels: Sequence[Label]
    writer: MaskWriter
    config: SegmentConfig
    tally: SlideTally

    @property
    def prompts(self) -> list[str]:
        """Labels and prompts that are asked."""
        return [label.prompt for label in self.labels]

    @property
    def device(self) -> torch.device:
        """Where images are sent. A segmentor of one's own takes them from the host."""
        if isinstance(self.segmentor, SegmentPredictor):
            return self.segmentor.device
        return torch.device("cpu")

    def reserving(self, memory: int) -> AbstractContextManager[None]:
        """Leaves so many bytes of the segmentor's memory to what is blended."""
        if isinstance(self.segmentor, SegmentPredictor):
            return self.segmentor.reserving(memory)
        return nullcontext()


def _independent(work: _Work) -> Iterator[int]:
    """Every label keeps its own mask, as in the paper. Yields the size of each finished batch."""
    for answers in _answers(work, margin=0, keep_fields=False):
        work.tally.add(answers)
        work.tally.add_resolved(answers.shared.numpy().sum(axis=0))
        work.writer.write_packed(answers.start, answers.packed.numpy(), answers.presence.numpy())
        yield answers.read


def _exclusive(work: _Work) -> Iterator[int]:
    """Siblings compete once it is known which are there. Yields as ``_independent``."""
    groups = siblings(work.labels)
    whole = any(group.whole for group in groups)
    margin = max(work.config.overlap // STRIDE - 1, 0) if whole else 0
    with AnswerStore(work.writer.path.parent, groups) as store:
        for answers in _answers(work, margin=margin, keep_fields=True):
            work.tally.add(answers)
            store.add(answers)
            yield answers.read
        facts = work.tally.facts()
        presence = np.where(facts.present, facts.probability, 0).astype(np.float32)
        mpp = work.grid.mpp or math.nan  # segment_slide refuses a grid without
        contest = Contest(groups, presence, mpp, work.grid.pixels, margin)
        for start, patches in store:
            masks = contest.resolved(patches)
            for packed in masks.packed:
                work.tally.add_resolved(shared_pixels(torch.from_numpy(packed)).numpy())
            work.writer.write_packed(start, masks.packed, masks.presence)


def _answers(work: _Work, *, margin: int, keep_fields: bool) -> Iterator[Answers]:
    """Answers to each batch, on the host."""
    source = _blended(work, margin=margin) if work.config.overlap else _alone(work)
    results = (answered(batch, read, keep_fields=keep_fields) for read, batch in source)
    for answers in arrived(results, work.device):
        if not answers.finite.all():
            patches = (answers.start + (~answers.finite).nonzero()[:, 0]).tolist()
            raise DataError(
                f"the segmentor answers NaN or infinity at patches {patches}; its weights may be"
                " damaged, or its precision too low: use float32"
            )
        yield answers


def _alone(work: _Work) -> Iterator[tuple[int, BlendedBatch]]:
    """Patches of each batch, every one segmented on its own, and their number."""
    positions = -(-work.grid.pixels // STRIDE)
    for index, logits in _logits(work, work.grid, None):
        fields = functional.pad(
            logits.float()[..., :positions, :positions], (1, 1, 1, 1), mode="replicate"
        )
        yield len(index), BlendedBatch(int(index[0]), fields, work.grid.pixels, 1)


def _blended(work: _Work, *, margin: int) -> Iterator[tuple[int, BlendedBatch]]:
    """Patches that each batch of windows completes, and the number of windows.

    Windows show the surroundings of their patches too.
    """
    blender = SeamBlender(work.grid, overlap=work.config.overlap, margin=margin)
    with work.reserving(blender.most_held(len(work.labels), batch=work.config.batch)):
        for index, answers in _logits(work, blender.windows, blender.order):
            for window, logits in zip(index, answers, strict=True):
                blender.add(int(window), logits)
            yield len(index), blender.finished()


def _logits(
    work: _Work, grid: PatchGrid, only: Sequence[int] | None
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Indices and logits ``(B, L, h, w)`` of each batch of a grid."""
    batches = iter_patches(work.slide, grid, batch=work.config.batch, only=only)
    read: Iterable[tuple[NDArray[np.int64], Any]] = (
        uploaded(batches, work.device) if work.device.type == "cuda" else batches
    )
    for index, images in read:
        yield index, work.segmentor.logits(work.segmentor.encode(images), work.prompts)


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
