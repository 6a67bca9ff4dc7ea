"""How often a label is asked for where it is, and where it is not.

A model that is mostly asked for what is absent learns to answer "nothing".
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Asked", "balanced"]

DRAWN, ROUNDS = 3000, 4
"""Crops that are drawn to count their questions, so many times."""


class Asked(NamedTuple):
    """Labels that a crop asks for."""

    present: tuple[str, ...]
    absent: tuple[str, ...]


def balanced(
    questions: Callable[[int, Mapping[str, float]], Asked], total: int
) -> dict[str, float]:
    """For each label the chance that it may be asked for where it is absent.

    So that it is asked for at most as often where it is absent as where it is present, over the
    whole training. Where questions are left out others take their place, so it is found in rounds.

    Args:
        questions: Of crop number n, with these chances.
        total: Crops of the training.
    """
    kept: dict[str, float] = {}
    numbers = np.linspace(0, total - 1, DRAWN).astype(int).tolist()
    for _ in range(ROUNDS):
        present: Counter[str] = Counter()
        absent: Counter[str] = Counter()
        for number in numbers:
            asked = questions(number, kept)
            present.update(asked.present)
            absent.update(asked.absent)
        for name, count in absent.items():
            kept[name] = min(1.0, kept.get(name, 1.0) * present[name] / count)
    return kept
