"""Which labels are on a slide at all, decided when all its patches have been answered.

Axes: N patches, L labels, H W pixels.
"""

from __future__ import annotations

import logging
import tempfile
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch

from xpath.segment.predict.blending import LIMIT, BlendedPatch
from xpath.segment.predict.competition import overlaps_of, slide_presence
from xpath.segment.predict.known_prompts import UNTAUGHT, taught_labels
from xpath.segment.predict.presence import MaskStatistics, PresenceModel
from xpath.store.label_facts import LabelFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.protocols import Segmentor

__all__ = ["Decided", "PatchStore", "SlideTally", "decided"]

logger = logging.getLogger(__name__)


class Decided(NamedTuple):
    """Masks of a patch and how sure they are."""

    masks: Tensor
    """``(L, H, W)`` boolean."""
    presence: NDArray[np.float32]
    """``(L,)`` mean probability in each mask, 0 where it is empty."""
    peak: NDArray[np.float32]
    """``(L,)`` highest probability in the patch; of an empty mask not known, 0."""


@torch.inference_mode()
def decided(logits: Tensor, masks: Tensor | None = None) -> Decided:
    """Masks of logits ``(L, H, W)``, and how sure they are. Those above 0 if none are given."""
    inside = logits > 0 if masks is None else masks
    area = inside.sum(dim=(1, 2))
    presence = torch.zeros_like(area, dtype=torch.float32)
    peak = torch.zeros_like(presence)
    filled = area.nonzero()[:, 0]  # most labels are in few patches
    chances = logits[filled].sigmoid()
    presence[filled] = (chances * inside[filled]).sum(dim=(1, 2)) / area[filled]
    peak[filled] = chances.flatten(1).amax(dim=1)
    return Decided(inside, presence.cpu().numpy(), peak.cpu().numpy())


class SlideTally:
    """Collects the answers of a slide's patches, then decides which labels are on it."""

    def __init__(self, segmentor: Segmentor, prompts: Sequence[str]) -> None:
        """Takes the segmentor and its questions.

        Args:
            segmentor: If it has a ``calibration`` of presence, that decides; otherwise a label is
                there where it has a pixel.
            prompts: L sentences.
        """
        taught = getattr(segmentor.info, "labels", ())
        self._names = taught_labels(prompts, taught)
        self._calibration = getattr(segmentor, "calibration", None)
        if isinstance(self._calibration, PresenceModel):
            logger.warning(
                "the tests of presence of %s look at the colours of an image and say nothing about"
                " slides; labels are taken as present wherever they have a pixel",
                segmentor.info.name,
            )
            self._calibration = None
        self._rows: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]] = []
        self._before = np.zeros((len(prompts), len(prompts)), np.int64)
        self._after = np.zeros_like(self._before)

    def untaught(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Those of the L label ids that the weights never learnt."""
        pairs = zip(labels, self._names, strict=True)
        return tuple(label for label, name in pairs if name == UNTAUGHT)

    def add(self, answer: Decided) -> None:
        """Takes the answers of the next patch, before labels compete."""
        shared = overlaps_of(answer.masks)
        self._before += shared
        self._rows.append((answer.presence, answer.peak, shared.diagonal().copy()))

    def add_resolved(self, masks: Tensor) -> None:
        """Takes masks ``(L, H, W)`` as they are stored."""
        self._after += overlaps_of(masks)

    def facts(self) -> LabelFacts:
        """Facts about each label."""
        presence, peak, area = (np.stack(column) for column in zip(*self._rows, strict=True))
        if self._calibration is None:
            chances, threshold = presence.astype(np.float64), 0.0
        else:
            colour = np.zeros((*area.shape, 3))
            mean = presence.astype(np.float64) * (255 / 256)
            statistics = MaskStatistics(mean, colour, peak.astype(np.float64), area)
            chances = self._calibration(statistics, self._names)
            threshold = self._calibration.threshold
        probability = slide_presence(chances, area)
        there = (area.sum(axis=0) > 0) & (probability >= threshold)
        taught = np.array([name != UNTAUGHT for name in self._names], np.bool_)
        return LabelFacts(probability, there, taught, self._before, self._after)


class PatchStore:
    """Blended logits of a slide's patches, on disk until it is known which labels are there.

    Only labels that have a pixel in a patch are kept: their masks cannot be larger than asked.
    """

    def __init__(self, folder: Path) -> None:
        """Takes the folder for the file, which is gone when the store is closed."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by close
        self._entries: list[tuple[BlendedPatch, list[int]]] = []

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the file."""
        self._file.close()

    def add(self, patch: BlendedPatch) -> None:
        """Keeps a patch."""
        field = patch.field
        filled = (field.flatten(1).amax(dim=1) > 0).nonzero()[:, 0]
        self._file.write(field[filled].cpu().numpy().tobytes())
        small = patch._replace(field=field.new_empty((len(field), 0, field.shape[-1])))
        self._entries.append((small, filled.tolist()))

    def __iter__(self) -> Iterator[BlendedPatch]:
        """The patches in the order they came, labels without a pixel far below 0."""
        self._file.seek(0)
        for patch, filled in self._entries:
            count, _, side = patch.field.shape
            size = 4 * len(filled) * side * side
            values = np.frombuffer(self._file.read(size), np.float32)
            field = torch.full((count, side, side), -LIMIT)
            field[filled] = torch.from_numpy(values.reshape(-1, side, side).copy())
            yield patch._replace(field=field.to(patch.field.device))
