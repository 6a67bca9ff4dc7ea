"""Groups of objects that cannot be told apart, to be hidden or read together.

Nuclei lie in a tumour and "neoplastic" is nearly "tumour": hide one and the other still shows. An
importance of one alone is then too small, for both. And objects that come and go together in a
cohort share a contribution as they please. Axes: S slides, L labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ConfigError
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.store.masks import SlideMasks

__all__ = ["FEWEST_SLIDES", "redundant_groups", "shared_area"]

FEWEST_SLIDES = 5
"""Slides from which a correlation says anything."""


def shared_area(masks: SlideMasks) -> NDArray[np.int64]:
    """Pixels of a slide that two objects share ``(L, L)``, own areas on the diagonal.

    Those of several slides may be added up.
    """
    total = np.zeros((len(masks.labels),) * 2, np.int64)
    for patch in np.flatnonzero(masks.area.any(axis=1)):
        here = np.flatnonzero(masks.area[patch])
        flat = masks.read(int(patch))[here].reshape(len(here), -1).astype(np.float32)
        total[np.ix_(here, here)] += np.rint(flat @ flat.T).astype(np.int64)
    return total


def redundant_groups(
    shared: NDArray[np.integer],
    contributions: NDArray[np.floating],
    names: Sequence[str],
    *,
    least: float = 0.5,
    correlation: float = 0.95,
) -> list[tuple[str, ...]]:
    """Groups of objects whose masks or contributions go together, so that one stands for all.

    A pair of masks goes together if enough of the larger lies in the other: nuclei in a tumour are
    another thing, a second name of the same pixels is not. A pair of contributions, if they are
    correlated over the slides, on at least five of them. Give a group to ``object_importance`` as
    one entry of ``objects`` to hide it together.

    Args:
        shared: ``(L, L)`` from ``shared_area``, summed over slides.
        contributions: ``(S, L)`` of one class.
        names: Of the objects.
        least: Share of the larger of two masks that lies in the other, above 0, at most 1.
        correlation: Pearson's, above 0, at most 1.

    Raises:
        ConfigError: Another ``least`` or ``correlation``.
        ShapeError: Not one name per row and column.
    """
    check_shape("shared", shared, "L M", L=len(names), M=len(names))
    slides = check_shape("contributions", contributions, "S L", L=len(names))["S"]
    if not (0 < least <= 1 and 0 < correlation <= 1):
        raise ConfigError(
            f"least and correlation must be above 0 and at most 1, got {least} and {correlation}"
        )
    own = np.diag(shared)
    larger = np.maximum(own[:, None], own[None])
    pairs = (shared >= least * larger) & (larger > 0)
    if slides >= FEWEST_SLIDES:
        centred = contributions - contributions.mean(axis=0)
        spread = np.sqrt((centred**2).sum(axis=0))
        known = spread > 1e-9 * np.abs(contributions).max(initial=0.0)
        scaled = np.divide(centred, spread, out=np.zeros_like(centred), where=known)
        pairs |= scaled.T @ scaled >= correlation
    return _connected(pairs, names)


def _connected(pairs: NDArray[np.bool_], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Connected components of the pairs ``(L, L)``, in the order of the names."""
    group = np.arange(len(names))
    for one, other in zip(*np.nonzero(pairs), strict=True):
        group[group == group[other]] = group[one]
    firsts = list(dict.fromkeys(group.tolist()))
    return [tuple(names[int(i)] for i in np.flatnonzero(group == first)) for first in firsts]
