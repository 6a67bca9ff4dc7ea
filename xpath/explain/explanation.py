"""The explanation of a slide, kept in ``explanation.h5``: schema ``xpath.explanation/4``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray  # at run time: the types of the fields are looked up

from xpath.explain.activation import ObjectActivation, PatchActivation
from xpath.explain.importance import ObjectImportance
from xpath.store.arrays import read_arrays, write_arrays

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SCHEMA", "Explanation", "read_explanation", "write_explanation"]

SCHEMA = "xpath.explanation/4"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class Explanation:
    """The answers of both classifiers for a slide, and what these rest on."""

    patch: PatchActivation
    """Of the standard model, for ``target``."""
    object: ObjectActivation
    """Of the object-aware model, for ``target``."""
    importance: ObjectImportance
    """Of the standard model when objects are hidden, for the true class where it is known."""
    shared: NDArray[np.int64]
    """``(L, L)`` pixels that two objects with masks share, see ``grouping.shared_area``."""

    @property
    def slide_id(self) -> str:
        """The slide."""
        return self.importance.slide_id

    @property
    def target(self) -> int:
        """The class the maps explain: the object-aware model's prediction."""
        return self.object.target


def write_explanation(path: Path, explanation: Explanation) -> None:
    """Writes ``explanation.h5``, equal bytes for equal input.

    Raises:
        StoreError: The disk is full.
    """
    write_arrays(path, SCHEMA, explanation)


def read_explanation(path: Path) -> Explanation:
    """Reads ``explanation.h5``.

    Raises:
        StoreError: The file is missing, truncated, not ours, incomplete, or of another version.
    """
    return read_arrays(path, SCHEMA, Explanation, remedy="run `xpath explain` on this run again")
