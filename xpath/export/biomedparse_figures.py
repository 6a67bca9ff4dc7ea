"""Pictures that BiomedParse shows of an evaluation: boxes, refusal, recognition, improvement.

Its Figs. 2 to 4 and Extended Data Figs. 3, 4 and 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.export.evaluation_figures import DOT, LINE, new_figure, plain_axis, save_figure
from xpath.segment.evaluation.recognised import RECOGNITION_COLUMNS, recognition_table
from xpath.segment.evaluation.refusal import refusal_curve, refusal_scores
from xpath.segment.evaluation.tables import LEVELS
from xpath.store.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from xpath.segment.evaluation.evaluate import Sample
    from xpath.segment.evaluation.recognised import RecognisedImage

    Rows = Sequence[Mapping[str, Any]]

__all__ = [
    "box_figure",
    "improvement_figure",
    "recognition_figure",
    "refusal_figure",
    "write_answer_figures",
    "write_recognition",
]

COLOURS = ("#b2182b", "#4c78a8", "#72b7b2", "#eeca3b", "#b279a2", "#9d755d", "#79706e", "#54a24b")
MAX_GROUPS = 40
"""More groups than this are not drawn: tables hold all."""


def write_answer_figures(folder: Path, samples: Sequence[Sample]) -> None:
    """Boxes of Dice and ASSD by region and object type, and refusal over the cut-off, as PNG.

    Args:
        folder: Made if it is not there.
        samples: Answers.
    """
    present = [sample for sample in samples if sample.present]
    for level in ("region", "object_type"):
        for name, title, limit in (("dice", "Dice", 1.0), ("assd", "ASSD [px]", None)):
            groups: dict[str, dict[str, list[float]]] = {}
            for sample in present:
                group = groups.setdefault(LEVELS[level](sample), {name: []})
                group[name].append(float(getattr(sample, name)))
            stem = f"boxes_by_{level}" if name == "dice" else f"{name}_by_{level}"
            box_figure(folder / f"{stem}.png", groups, title=title, limit=limit)
    refusal_figure(folder / "refusal.png", samples)


def write_recognition(folder: Path, images: Sequence[RecognisedImage], *, seed: int = 0) -> None:
    """Writes ``recognition.csv`` and ``figures/recognition.png``.

    Args:
        folder: Of the evaluation.
        images: From ``recognise_images``.
        seed: Of the intervals.
    """
    rows = recognition_table(images, seed=seed)
    write_table(folder / "recognition.csv", rows, RECOGNITION_COLUMNS)
    recognition_figure(folder / "figures" / "recognition.png", rows)


def box_figure(
    path: Path,
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    title: str = "Dice",
    limit: float | None = 1.0,
) -> None:
    """Box plots by group and model: median, quartiles, whiskers at 1.5 times their distance.

    Args:
        path: A PNG.
        groups: Name of a group to name of a model to values; values that are not finite are left
            out. Groups stand by falling median of the first model.
        title: What is measured.
        limit: Upper end of the axis, None for that of the values.
    """
    finite = {
        group: {name: [v for v in values if np.isfinite(v)] for name, values in models.items()}
        for group, models in groups.items()
    }
    shown = {group: models for group, models in finite.items() if any(models.values())}
    models = list(dict.fromkeys(name for group in shown.values() for name in group))
    order = sorted(shown, key=lambda name: -_median(shown[name].get(models[0], [])))[:MAX_GROUPS]
    width = 1.6 + 0.55 * max(3, len(order)) * max(1, len(models)) ** 0.6
    figure, axes = new_figure(width, 4.4)
    axis, step = axes[0, 0], 0.8 / max(1, len(models))
    for number, model in enumerate(models):
        centres = np.arange(len(order)) + (number - (len(models) - 1) / 2) * step
        _boxes(axis, [shown[group].get(model, []) for group in order], centres, step, number)
        axis.bar([0], [0], color=COLOURS[number % len(COLOURS)], label=model)
    axis.set_xticks(range(len(order)))
    axis.set_xticklabels(
        [f"{group} ({len(shown[group].get(models[0], []))})" for group in order],
        rotation=40, ha="right", fontsize=7,
    )  # fmt: skip
    axis.set_xlim(-0.6, len(order) - 0.4)
    axis.set_ylim(0, limit and 1.02 * limit)
    axis.set_ylabel(title)
    if len(models) > 1:
        figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=8)
    plain_axis(axis)
    save_figure(figure, path)


def refusal_figure(path: Path, samples: Sequence[Sample]) -> bool:
    """Scores of valid and invalid prompts, and precision and recall over the cut-off (Fig. 2f, g).

    Returns:
        False, and no picture, where all prompts are valid, or none.
    """
    curve = refusal_curve(samples)
    if not curve:
        return False
    figure, axes = new_figure(9, 3.6, 1, 2)
    boxes, lines = axes[0]
    for number, values in enumerate(refusal_scores(samples)):
        _boxes(boxes, [values], np.array([number]), 0.6, number)
        boxes.text(number, 1.03, f"n = {len(values)}", ha="center", fontsize=8)
    boxes.set_xticks([0, 1], ["valid prompts", "invalid prompts"])
    boxes.set_ylim(-0.02, 1.1)
    boxes.set_ylabel("score of presence")
    cutoffs = [row["cutoff"] for row in curve]
    for column, words, colour in (
        ("precision", "precision: invalid among the refused", LINE),
        ("recall", "recall: refused among the invalid", DOT),
        ("kept", "kept: not refused among the valid", "#777777"),
    ):
        lines.plot(cutoffs, [row[column] for row in curve], color=colour, label=words)
    lines.locator_params(axis="x", nbins=6)
    lines.set_xlabel("cut-off: prompts that score less are refused")
    lines.set_ylabel("share of prompts")
    lines.set_ylim(-0.02, 1.05)
    lines.legend(frameon=False, fontsize=8)
    for axis in (boxes, lines):
        plain_axis(axis)
    save_figure(figure, path)
    return True


def recognition_figure(path: Path, rows: Rows) -> None:
    """F1, precision, recall and end-to-end Dice by the number of objects (Fig. 4b to g).

    Args:
        path: A PNG.
        rows: Of ``recognition_table``.
    """
    counted = [row for row in rows if isinstance(row["objects"], int)]
    figure, axes = new_figure(9, 3.6, 1, 2)
    counts = [row["objects"] for row in counted]
    for axis, name, title in ((axes[0, 0], "f1", "F1"), (axes[0, 1], "dice", "Dice")):
        middle = np.array([row[name] for row in counted], np.float64)
        low = middle - np.array([row[f"{name}_low"] for row in counted], np.float64)
        high = np.array([row[f"{name}_high"] for row in counted], np.float64) - middle
        reach = np.nan_to_num(np.stack([low, high])).clip(0)
        axis.errorbar(counts, middle, yerr=reach, fmt="o-", color=LINE, capsize=2, label=title)
        axis.set_xlabel("objects in the image")
        axis.set_xticks(sorted(set(counts)))
        axis.set_ylim(-0.02, 1.05)
        plain_axis(axis)
    for name, colour in (("precision", DOT), ("recall", "#777777")):
        axes[0, 0].plot(counts, [row[name] for row in counted], "s--", color=colour, label=name)
    axes[0, 0].set_ylabel("recognition")
    axes[0, 0].legend(frameon=False, fontsize=8)
    axes[0, 1].set_ylabel("end-to-end Dice, weighted by area")
    save_figure(figure, path)


def improvement_figure(path: Path, rows: Rows, traits: Mapping[str, str]) -> None:
    """Gain in Dice over the best other model against the shape, a dot per object type.

    Args:
        path: A PNG.
        rows: Of ``improvement_rows``.
        traits: Name of a trait to its title.
    """
    figure, axes = new_figure(4 * len(traits), 3.6, 1, len(traits))
    for axis, (name, title) in zip(axes[0], traits.items(), strict=True):
        known = [row for row in rows if np.isfinite(row[name]) and np.isfinite(row["difference"])]
        x = np.array([row[name] for row in known], np.float64)
        y = np.array([row["difference"] for row in known], np.float64)
        axis.scatter(x, y, s=[8 + 4 * row["n"] ** 0.5 for row in known], color=DOT, alpha=0.8)
        for row in known:
            axis.annotate(row["object_type"], (row[name], row["difference"]), fontsize=6)
        if len(known) > 2 and np.ptp(x) > 0:
            slope, offset = np.polyfit(x, y, 1)
            ends = np.array([x.min(), x.max()])
            axis.plot(ends, slope * ends + offset, "--", color=LINE)
            axis.set_title(f"r = {np.corrcoef(x, y)[0, 1]:.2f}", fontsize=8)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_xlabel(title)
        axis.set_ylabel("gain in Dice")
        plain_axis(axis)
    save_figure(figure, path)


def _boxes(
    axis: Any, values: Sequence[Sequence[float]], centres: Any, width: float, number: int
) -> None:
    colour = COLOURS[number % len(COLOURS)]
    kept = [(list(v), c) for v, c in zip(values, centres, strict=True) if len(v)]
    if kept:
        axis.boxplot(
            [v for v, _ in kept], positions=[c for _, c in kept], widths=0.85 * width,
            patch_artist=True, manage_ticks=False, boxprops={"facecolor": colour, "alpha": 0.6},
            medianprops={"color": "black"}, flierprops={"markersize": 2},
        )  # fmt: skip


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if len(values) else -1.0
