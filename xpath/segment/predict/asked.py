"""Prompts as the sentences that are asked for them: several where classes answer together.

Axes: B images, P prompts, S sentences, h w positions of the logits.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from xpath.errors import DataError
from xpath.labels import load_labels
from xpath.segment.predict.cuts import shift_of
from xpath.segment.predict.embedding import Embedding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

__all__ = ["AskedSentences", "check_question"]


class AskedSentences:
    """The sentences of P prompts, prompt by prompt.

    Args:
        prompts: Sentences.
        answered_as: For each prompt the ids of the labels to ask in its place, none for itself.
        cuts: Class to the probability at which its answers are cut, if not at 0.5.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        answered_as: Sequence[Sequence[str]],
        cuts: Mapping[str, float],
    ) -> None:
        groups = [
            [load_labels().parse(label, allow_new=True).prompt for label in ids] or [prompt]
            for prompt, ids in zip(prompts, answered_as, strict=True)
        ]
        self.sentences = [sentence for group in groups for sentence in group]
        self._counts = [len(group) for group in groups]
        self._starts = [0, *accumulate(self._counts)]
        self._shifts = [shift_of(sentence, cuts) for sentence in self.sentences]

    def of(self, prompts: slice) -> slice:
        """Where the sentences of some prompts are."""
        return slice(self._starts[prompts.start], self._starts[prompts.stop])

    def joined(self, logits: Tensor, prompts: slice) -> Tensor:
        """Logits ``(B, P, h, w)`` of prompts from ``(B, S, h, w)``, the highest counting.

        Each is shifted so that its cut lies at 0.
        """
        shifts = self._shifts[self.of(prompts)]
        if any(shifts):
            there = torch.tensor(shifts).to(logits.device, non_blocking=True)
            logits = logits - there[:, None, None]
        counts = self._counts[prompts]
        if len(counts) == logits.shape[1]:
            return logits
        return torch.stack([part.amax(dim=1) for part in logits.split(counts, dim=1)], dim=1)


def check_question(embedding: object, prompts: object) -> None:
    """Refuses what only looks like an encoded image or a list of sentences."""
    if not isinstance(embedding, Embedding):
        raise DataError(
            f"wanted an encoded image, got {type(embedding).__name__}; pass encode(image)"
        )
    if isinstance(prompts, str):
        raise DataError(f"prompts must be a list of sentences, got one string: [{prompts!r}]")
    others = [one for one in prompts if not isinstance(one, str)]  # type: ignore[attr-defined]
    if others:
        raise DataError(f"prompts must be sentences, got {others[0]!r}; of a label pass .prompt")
