"""The answers of a batch of patches, and where they wait for the rest of the slide.

Axes: B patches of a batch, L labels, n some of them, h w positions of the logits, H W pixels.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch

from xpath.segment.kernels.finalisation import finalise, shared_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.segment.predict.blending import BlendedBatch
    from xpath.segment.predict.competition import Siblings

__all__ = ["AnswerStore", "Answers", "StoredPatch", "answered"]


class Answers(NamedTuple):
    """Every label's mask in every patch of a batch, as it was answered on its own."""

    read: int
    """Patches or windows that were segmented for it."""
    start: int
    """Index of the first patch in the grid; the others follow."""
    finite: Tensor
    """``(B,)`` False where the segmentor gave NaN or infinity."""
    packed: Tensor
    """``(B, L, H, W / 8)`` bits of the masks."""
    area: Tensor
    """``(B, L)`` pixels."""
    presence: Tensor
    """``(B, L)`` mean probability in each mask, 0 where it is empty."""
    peak: Tensor
    """``(B, L)`` highest probability in the patch; of an empty mask not known, 0."""
    shared: Tensor
    """``(B, L, L)`` pixels in both masks of a pair."""
    fields: Tensor
    """``(B, L, h, w)`` blended logits; those of no patch where labels do not compete."""


@torch.inference_mode()
def answered(batch: BlendedBatch, read: int, *, keep_fields: bool) -> Answers:
    """Masks of blended logits and how sure they are, on the device of the logits."""
    found = finalise(batch.fields, (batch.pixels, batch.pixels), corner=batch.corner)
    shared = [shared_pixels(masks) for masks in found.packed]
    labels = found.area.shape[1]
    return Answers(
        read,
        batch.start,
        batch.fields.isfinite().flatten(1).all(dim=1),
        found.packed,
        found.area,
        found.presence,
        found.peak,
        torch.stack(shared) if shared else found.area.new_zeros(0, labels, labels),
        batch.fields if keep_fields else batch.fields[:0],
    )


class StoredPatch(NamedTuple):
    """The labels that have a pixel in a patch or its surroundings."""

    labels: list[int]
    """n of them."""
    packed: NDArray[np.uint8]
    """``(n, H, W / 8)`` bits of their masks."""
    presence: NDArray[np.float32]
    """``(n,)`` mean probability in each mask."""
    fields: dict[int, Tensor]
    """``(h, w)`` logits of those that may have to compete, by label."""


class _Entry(NamedTuple):
    """What is known of a stored patch without its file."""

    labels: list[int]
    rivals: list[int]
    presence: NDArray[np.float32]


class AnswerStore:
    """Answers of a slide's patches, on disk until it is known which labels are there."""

    def __init__(self, folder: Path, groups: Sequence[Siblings]) -> None:
        """Takes the folder for the file, which is gone when the store is closed.

        Args:
            folder: On a disk with room for the slide's masks, and as much again.
            groups: Labels that compete. Of a patch in which none meets a sibling, masks are enough.
        """
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        self._groups = [set(group.indices) for group in groups]
        self._batches: list[tuple[int, list[_Entry]]] = []
        self._mask: tuple[int, ...] = ()
        self._field: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the file."""
        self._file.close()

    def add(self, answers: Answers) -> None:
        """Keeps a batch, on the host and with its fields."""
        fields = answers.fields
        self._mask, self._field = tuple(answers.packed.shape[2:]), tuple(fields.shape[2:])
        filled = fields.amax(dim=(2, 3)) > 0
        entries = []
        for patch, there in enumerate(filled):
            labels = there.nonzero()[:, 0].tolist()
            rivals = self._rivals(labels)
            self._file.write(answers.packed[patch, labels].numpy().tobytes())
            self._file.write(fields[patch, rivals].numpy().tobytes())
            entries.append(_Entry(labels, rivals, answers.presence[patch, labels].numpy()))
        self._batches.append((answers.start, entries))

    def __iter__(self) -> Iterator[tuple[int, list[StoredPatch]]]:
        """Index of the first patch and all patches of each batch, in the order they came."""
        self._file.seek(0)
        for start, entries in self._batches:
            yield start, [self._read(entry) for entry in entries]

    def _rivals(self, labels: list[int]) -> list[int]:
        """Those of the labels that meet a sibling."""
        meeting = [group.intersection(labels) for group in self._groups]
        return sorted(set().union(*(group for group in meeting if len(group) > 1)))

    def _read(self, entry: _Entry) -> StoredPatch:
        shape = (len(entry.labels), *self._mask)
        packed = np.frombuffer(self._file.read(int(np.prod(shape))), np.uint8).reshape(shape)
        shape = (len(entry.rivals), *self._field)
        values = np.frombuffer(self._file.read(4 * int(np.prod(shape))), np.float32)
        fields = torch.from_numpy(values.reshape(shape).copy())
        return StoredPatch(
            entry.labels, packed, entry.presence, dict(zip(entry.rivals, fields, strict=True))
        )
