"""Dividing slides into training, validation and test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Split", "stratified_split"]

PARTS = 3


class Split(NamedTuple):
    """Places of the slides in each part, rising."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def stratified_split(
    labels: Sequence[int] | Sequence[str],
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Split:
    """A label-stratified split (paper, section 4.3.1: 7 to 1 to 2).

    Two nested divisions, as is usual: first the test part, then validation from the rest. 787 and
    198 slides give 551 + 138, 79 + 20 and 157 + 40. Every class is in every part.

    Args:
        labels: Class of each slide.
        fractions: Shares of training, validation and test; they sum to 1.
        seed: Another seed is another split.
        groups: Patient of each slide. A patient is never divided, and counts as one, with the
            class of the first slide; so the shares are shares of patients.

    Raises:
        DataError: A class has fewer than three patients, the shares do not sum to 1, or there is
            not one group per label.
    """
    if len(fractions) != PARTS or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise DataError(f"fractions must be three, positive, and sum to 1, got {fractions}")
    names = list(groups) if groups is not None else [str(i) for i in range(len(labels))]
    if len(names) != len(labels):
        raise DataError(f"got {len(names)} groups for {len(labels)} labels; give one for each")
    patients = {name: place for place, name in enumerate(dict.fromkeys(names))}
    kinds = np.array([labels[names.index(name)] for name in patients])
    classes, counts = np.unique(kinds, return_counts=True)
    _check_counts(dict(zip(classes.tolist(), counts.tolist(), strict=True)))

    test = _places(counts, fractions[2], keep=2)
    validation = _places(counts - test, fractions[1] / (fractions[0] + fractions[1]), keep=1)
    rng = np.random.default_rng(seed)
    part = np.zeros(len(kinds), np.int64)  # 0 training, 1 validation, 2 test
    for label, tests, validations in zip(classes, test, validation, strict=True):
        members = rng.permutation(np.flatnonzero(kinds == label))
        part[members[:tests]] = 2
        part[members[tests : tests + validations]] = 1
    part_of_slide = part[[patients[name] for name in names]]
    return Split(*(np.flatnonzero(part_of_slide == number) for number in range(PARTS)))


def _check_counts(counts: dict[int | str, int]) -> None:
    rare = {label: count for label, count in counts.items() if count < PARTS}
    if rare or not counts:
        raise DataError(
            f"every class needs 3 patients at least, one for each part; patients per class are"
            f" {counts}; add slides, or leave out the classes {list(rare)}"
        )


def _places(counts: NDArray[np.int64], fraction: float, *, keep: int) -> NDArray[np.int64]:
    """How many of each class go into a part, in all ``fraction`` of them, rounded up.

    At least one of each class goes, and at least ``keep`` stay.
    """
    total = math.ceil(counts.sum() * fraction - 1e-9)  # 0.1 / 0.8 * 80 is a hair above 10
    due = total * counts / counts.sum()
    places = np.ones_like(counts)
    while places.sum() < total and (places < counts - keep).any():
        # One by one to the class furthest below its due: the method of largest remainders.
        places[np.where(places < counts - keep, due - places, -np.inf).argmax()] += 1
    return places
