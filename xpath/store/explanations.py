"""The explanation of a slide in HDF5, schema ``xpath.explanation/2``: arrays and a few facts.

Axes: N patches, L object kinds, E objects hidden, K classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.store.hdf5 import create_h5, open_h5

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["SlideExplanation", "read_explanation", "write_explanation"]

EXPLANATION = "xpath.explanation/2"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class SlideExplanation:
    """What both classifiers say about a slide, and why.

    ``patch_scores.sum() + patch_bias`` is the standard model's logit of the target,
    ``contribution.sum() + object_bias`` the object-aware model's.
    """

    slide_id: str
    target: int
    """The class explained by the maps: the object-aware model's prediction."""
    attention_logits: NDArray[np.float64]
    """``(K,)`` of the standard model."""
    object_logits: NDArray[np.float64]
    """``(K,)`` of the object-aware model."""
    attention: NDArray[np.float64]
    """``(N,)`` attention of the standard model."""
    patch_scores: NDArray[np.float64]
    """``(N,)`` Eq. 14 for the target."""
    class_scores: NDArray[np.float64]
    """``(K, N)`` the same for every class."""
    patch_bias: float
    objects: tuple[str, ...]
    """Names of the L kinds."""
    activation: NDArray[np.float64]
    """``(L,)`` Eq. 16 for the target."""
    contribution: NDArray[np.float64]
    """``(L,)`` what each kind adds to the logit."""
    patch_contribution: NDArray[np.float64]
    """``(N, L)`` what each kind adds in each patch."""
    object_bias: float
    importance_target: int
    """The class the importances are about: the true one where it is known."""
    hidden: tuple[str, ...]
    """Names of the E objects that were hidden."""
    probability: float
    """Of that class, nothing hidden."""
    hidden_probability: NDArray[np.float64]
    """``(E,)``."""
    imp: NDArray[np.float64]
    """``(E,)`` Eq. 12."""
    effect: NDArray[np.float64]
    """``(E,)`` fall of the log-odds."""
    null: NDArray[np.float64]
    """``(E,)`` the same for random masks of the same area."""
    patches: NDArray[np.int64]
    """``(E,)`` patches that hold the object."""
    area: NDArray[np.float64]
    """``(E,)`` share of the patches' area."""


def write_explanation(path: Path, explanation: SlideExplanation) -> None:
    """Writes ``explanation.h5``; equal input gives equal bytes.

    Raises:
        StoreError: The disk is full.
    """
    with create_h5(path, EXPLANATION) as file:
        for field in fields(explanation):
            value = getattr(explanation, field.name)
            if isinstance(value, np.ndarray):
                file[field.name] = value
            else:
                file.attrs[field.name] = json.dumps(value)


def read_explanation(path: Path) -> SlideExplanation:
    """Reads ``explanation.h5``.

    Raises:
        StoreError: The file is missing, truncated, not ours, or incomplete.
    """
    with open_h5(path, EXPLANATION) as file:
        values = {field.name: _value(file, field.name) for field in fields(SlideExplanation)}
        return SlideExplanation(**values)


def _value(file: Any, name: str) -> Any:
    if name in file:
        return file[name][()]
    value = json.loads(file.attrs[name])
    return tuple(value) if isinstance(value, list) else value
