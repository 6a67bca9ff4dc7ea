"""Dividing slides into training, validation and test."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Split", "stratified_split"]


class Split(NamedTuple):
    """Places of the slides in each part."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def stratified_split(
    labels: Sequence[int],
    *,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> Split:
    """A label-stratified split (paper, section 4.3.1: 7 to 1 to 2).

    Two nested divisions, as is usual: first the test part, then validation from the rest. 787 and
    198 slides give 689, 99 and 197.

    Args:
        labels: Class of each slide.
        fractions: Shares of training, validation and test; they sum to 1.
        groups: Patient of each slide; a patient is never divided and counts with the class of the
            first slide.
        seed: Another seed is another split.

    Raises:
        DataError: A class has too few patients to be in every part, or the shares do not sum to 1.
    """
    from sklearn.model_selection import train_test_split

    if abs(sum(fractions) - 1) > 1e-9 or min(fractions) <= 0:
        raise DataError(f"fractions must be positive and sum to 1, got {fractions}")
    names = list(groups) if groups is not None else [str(i) for i in range(len(labels))]
    patients = list(dict.fromkeys(names))
    first = dict(zip(reversed(names), reversed(labels), strict=True))
    kinds = [first[name] for name in patients]
    try:
        rest, test = train_test_split(
            patients, test_size=fractions[2], stratify=kinds, random_state=seed
        )
        share = fractions[1] / (fractions[0] + fractions[1])
        train, validation = train_test_split(
            rest, test_size=share, stratify=[first[name] for name in rest], random_state=seed
        )
    except ValueError as error:
        counts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
        raise DataError(
            f"cannot split patients per class {counts} by {fractions}: {error}; every class needs a"
            " patient in every part"
        ) from error
    return Split(*(_places(names, set(part)) for part in (train, validation, test)))


def _places(names: list[str], chosen: set[str]) -> NDArray[np.int64]:
    return np.array([i for i, name in enumerate(names) if name in chosen], np.int64)
