"""Maps of several attribution methods on one slide, side by side.

Axes: h w pixels of the overview.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.export.colour import signed_rgba
from xpath.export.overlay import signed_limit, stacked
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["methods_figure"]

INCHES = 2.3
COLUMNS = 5
"""Maps beside each other; more go on below."""


def methods_figure(
    path: Path,
    overview: NDArray[np.uint8],
    maps: Mapping[str, Mapping[str, NDArray[np.float64]]],
) -> None:
    """The slide, then a map per model and method, each in colours to its own limit.

    Args:
        path: A PNG.
        overview: ``(h, w, 3)``.
        maps: Model to method to values ``(h, w)``, NaN outside of patches.
    """
    from matplotlib.figure import Figure

    panels = [("slide", overview)] + [
        (f"{method.replace('_', ' ')}\n{model.replace('_', '-')} model", _over(overview, values))
        for model, methods in maps.items()
        for method, values in methods.items()
    ]
    lines = -(-len(panels) // COLUMNS)
    tall = INCHES * overview.shape[0] / overview.shape[1] + 0.5
    columns = min(COLUMNS, len(panels))
    figure = Figure(figsize=(INCHES * columns, tall * lines), dpi=130, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, picture) in zip(axes.flat, panels, strict=False):
        axis.imshow(picture)
        axis.set_title(title, fontsize=8)
    with atomic(path) as draft:
        figure.savefig(draft, format="png", metadata={"Software": None})


def _over(overview: NDArray[np.uint8], values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return stacked(overview, signed_rgba(values, signed_limit(values)))
