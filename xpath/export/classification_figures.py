"""Pictures of how good slide classifiers are: ROC curves, and whether probabilities can be trusted.

Axes: B slides, K classes, M bins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError
from xpath.metrics.roc import auc_interval
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.metrics.calibration import Reliability

__all__ = ["COLOURS", "reliability_figure", "roc_figure"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Blue, vermilion, bluish green, purple: apart for every eye."""
LINES = ("-", "--", "-.", ":")
"""And apart in print."""


def roc_figure(
    path: Path,
    scores: Mapping[str, NDArray[np.floating]],
    label: NDArray[np.integer],
    *,
    positive: str,
    groups: Sequence[str] | None = None,
) -> None:
    """Draws the ROC curves of models on the same slides, with areas and 95 % score intervals.

    Args:
        path: Picture to write; the suffix decides the format.
        scores: ``(B,)`` by name of the model; higher speaks for the class.
        label: ``(B,)``, 1 where the slide is of the class.
        positive: Name of the class.
        groups: Patient of each slide, for the intervals.

    Raises:
        DataError: No models, a score that is not finite, or fewer than two patients of a side.
    """
    from matplotlib.figure import Figure
    from sklearn.metrics import roc_curve

    if not scores:
        raise DataError("there is no model to draw")
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    for number, (name, score) in enumerate(scores.items()):
        area = auc_interval(score, label, groups=groups)
        false, true, _ = roc_curve(label, score)
        words = f"{name}: {area.auc:.3f} [{area.low:.3f}, {area.high:.3f}]"
        colour, line = COLOURS[number % len(COLOURS)], LINES[number % len(LINES)]
        axes.plot(false, true, color=colour, linestyle=line, label=words)
    axes.set(
        xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal", title=f"{positive}, {len(label)} slides"
    )
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    axes.legend(fontsize=7, loc="lower right", title="area [95 %]", title_fontsize=7)
    with atomic(path) as draft:
        figure.savefig(draft, dpi=150, format=path.suffix[1:])


def reliability_figure(path: Path, curves: Mapping[str, Reliability]) -> None:
    """Draws confidence beside accuracy, which are equal on the diagonal.

    Args:
        path: Picture to write; the suffix decides the format.
        curves: By name of the model; see ``xpath.metrics.calibration.reliability``.

    Raises:
        DataError: No models.
    """
    from matplotlib.figure import Figure

    if not curves:
        raise DataError("there is no model to draw")
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    lowest = 1.0
    for number, (name, curve) in enumerate(curves.items()):
        reach = np.stack([curve.accuracy - curve.low, curve.high - curve.accuracy]).clip(min=0)
        axes.errorbar(
            curve.confidence,
            curve.accuracy,
            yerr=reach,
            color=COLOURS[number % len(COLOURS)],
            linestyle=LINES[number % len(LINES)],
            marker=".",
            capsize=2,
            label=f"{name}: ECE {curve.ece:.3f}",
        )
        lowest = min(lowest, float(curve.confidence.min()))
    axes.set(xlim=(max(0.0, lowest - 0.05), 1.01), ylim=(0, 1.02))
    axes.set(xlabel="probability of the predicted class", ylabel="share that is right")
    axes.legend(fontsize=7, loc="lower right")
    with atomic(path) as draft:
        figure.savefig(draft, dpi=150, format=path.suffix[1:])
