"""Groups of objects that lie within each other, to be hidden together.

Nuclei lie in a tumour and "neoplastic" is nearly "tumour": hide one and the other still shows. An
importance of one alone is then too small, for both. Axes: L labels.
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

__all__ = ["overlap_groups", "shared_area"]


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


def overlap_groups(
    shared: NDArray[np.integer], names: Sequence[str], *, least: float = 0.5
) -> list[tuple[str, ...]]:
    """Groups of objects connected by pairs that overlap.

    A pair overlaps if at least ``least`` of the smaller of the two lies in the larger; so a nucleus
    in a tumour counts, however small it is. Objects with no such pair are groups of one, in the
    order of the names; give the list to ``object_importance`` as ``objects``.

    Args:
        shared: ``(L, L)`` from ``shared_area``.
        names: Of the objects.
        least: Above 0, at most 1.

    Raises:
        ConfigError: Another ``least``.
        ShapeError: Not one name per row and column.
    """
    check_shape("shared", shared, "L M", L=len(names), M=len(names))
    if not 0 < least <= 1:
        raise ConfigError(f"least must be above 0 and at most 1, got {least}")
    own = np.diag(shared)
    smaller = np.minimum(own[:, None], own[None])
    pairs = (shared >= least * smaller) & (smaller > 0)
    group = np.arange(len(names))
    for one, other in zip(*np.nonzero(pairs), strict=True):
        group[group == group[other]] = group[one]
    firsts = list(dict.fromkeys(group.tolist()))
    return [tuple(names[int(i)] for i in np.flatnonzero(group == first)) for first in firsts]
