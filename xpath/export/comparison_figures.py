"""Pictures of several models: bars with stars, ranks, trends and answers (Figs. 3 to 8)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.export.biomedparse_figures import box_figure, improvement_figure
from xpath.export.evaluation_figures import draw_curve, new_figure, plain_axis, save_figure
from xpath.segment.evaluation.compared import (
    COMPARED_LEVELS,
    SIGNIFICANT,
    improvement_rows,
    model_trends,
)
from xpath.segment.evaluation.curves import best_curve
from xpath.segment.evaluation.tables import OVERALL
from xpath.segment.evaluation.trend_lines import TRAITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from xpath.segment.evaluation.compared import Compared

    Rows = Sequence[Mapping[str, Any]]

__all__ = [
    "bars_figure",
    "model_trends_figure",
    "ranks_figure",
    "sizes_figure",
    "write_comparison_figures",
]

GROUPS_A_ROW = 6
"""Groups of bars beside each other; more go on below."""
BOXED_LEVELS = ("source", "region", "object_type")
SHAPES = {trait.name: trait.title for trait in TRAITS if trait.name in (
    "box_ratio", "convex_ratio", "inertia_ratio", "irregularity")}  # fmt: skip
"""Traits that the gain over another model is drawn against."""
MAX_GROUPS = 60
"""More groups than this are not drawn as bars: tables hold all."""


def write_comparison_figures(folder: Path, compared: Compared, tables: Mapping[str, Rows]) -> None:
    """Bars, ranks and boxes by every level, trends and gains, as PNG.

    Args:
        folder: Made if it is not there.
        compared: Scores of all models.
        tables: Rows of ``compare_by`` by level.
    """
    for level in COMPARED_LEVELS:
        bars_figure(folder / f"bars_by_{level}.png", tables[level], compared.models, level)
        ranks_figure(folder / f"ranks_by_{level}.png", tables[level], compared.models, level)
    model_trends_figure(folder / "model_trends.png", compared)
    for level in BOXED_LEVELS:
        box_figure(folder / f"boxes_by_{level}.png", _values_by(compared, level))
    gains = improvement_rows(compared)
    if gains:
        improvement_figure(folder / "improvement.png", gains, SHAPES)


def _values_by(compared: Compared, level: str) -> dict[str, dict[str, list[float]]]:
    """Dice by group and model, groups as in the tables, all together last."""
    groups: dict[str, dict[str, list[float]]] = {}
    for row, name in enumerate(compared.level(level)):
        for model, value in zip(compared.models, compared.dice[row].tolist(), strict=True):
            for group in (name, OVERALL):
                groups.setdefault(group, {}).setdefault(model, []).append(value)
    return groups


def bars_figure(path: Path, rows: Rows, models: Sequence[str], level: str) -> None:
    """Mean Dice of every model in every group, with intervals (Figs. 3a, 4 and 6a).

    A star stands over our model where it is better than the best of the others, one-sided paired
    t-test, p <= 0.05.

    Args:
        path: A PNG.
        rows: Of ``compare_by``.
        models: Their names, ours first.
        level: What the rows are named by.
    """
    shown = [row for row in rows if row["n"]]
    shown = [*shown[:-1][:MAX_GROUPS], *shown[-1:]]
    lines = max(1, math.ceil(len(shown) / GROUPS_A_ROW))
    width = 2.4 + 1.6 * min(GROUPS_A_ROW, len(shown))
    figure, axes = new_figure(width, 0.6 + 2.7 * lines, lines, 1)
    for line, axis in enumerate(axes[:, 0]):
        part = shown[line * GROUPS_A_ROW : (line + 1) * GROUPS_A_ROW]
        _bars(axis, part, models, level)
        axis.set_xlim(-0.6, min(GROUPS_A_ROW, max(1, len(shown))) - 0.4)
    handles = [
        axes[0, 0].bar([0], [0], color=_colour(model), label=name)
        for model, name in enumerate(models)
    ]
    columns = min(math.floor(width / 1.7), len(models))
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=8
    )
    save_figure(figure, path)


def ranks_figure(path: Path, rows: Rows, models: Sequence[str], level: str) -> None:
    """Mean Dice of every model as dots, a line per group, ranks beside ours (Fig. 7b)."""
    shown = [row for row in rows if row["n"]]
    figure, axes = new_figure(7.5, 1.4 + 0.26 * max(1, len(shown)))
    axis = axes[0, 0]
    for height, row in zip(range(len(shown))[::-1], shown, strict=True):
        scores = [(row[name], model) for model, name in enumerate(models) if row[name] is not None]
        axis.plot([min(scores)[0], max(scores)[0]], [height] * 2, color="#cccccc", zorder=1)
        for score, model in scores:
            axis.scatter(score, height, color=_colour(model), s=32 if model else 60, zorder=2)
        ours = row[models[0]]
        if ours is not None:
            rank = 1 + sum(score > ours for score, _ in scores)
            axis.annotate(f"{rank}/{len(scores)}", (1.02, height), fontsize=7, va="center")
    for model, name in enumerate(models):
        axis.scatter([], [], color=_colour(model), label=name)
    axis.set_yticks(range(len(shown))[::-1])
    axis.set_yticklabels([f"{row[level]} ({row['n']})" for row in shown], fontsize=7)
    axis.set_xlim(0, 1.1)
    axis.set_ylim(-0.7, len(shown) - 0.3)
    axis.set_xlabel(f"Dice, rank of {models[0]} at the right")
    figure.legend(loc="outside upper center", ncols=min(4, len(models)), frameon=False, fontsize=8)
    plain_axis(axis)
    save_figure(figure, path)


def model_trends_figure(path: Path, compared: Compared) -> None:
    """Weighted means of Dice over every trait with the curve and band of each model (Fig. 5)."""
    columns = 4
    lines = math.ceil(len(TRAITS) / columns)
    figure, axes = new_figure(4 * columns, 3.4 * lines, lines, columns)
    panels = list(axes.flat)
    for axis, trait in zip(panels, TRAITS, strict=False):
        for model, line in enumerate(model_trends(compared, trait.name).values()):
            places = [each.trait_weighted for each in line.bins]
            axis.plot(places, [b.dice_weighted for b in line.bins], "o", ms=4, color=_colour(model))
            if curve := best_curve(line.curves):
                draw_curve(axis, curve, places, _colour(model))
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel(trait.title)
        axis.set_ylabel("Dice")
        plain_axis(axis)
    for axis in panels[len(TRAITS) :]:
        axis.set_visible(False)
    for model, name in enumerate(compared.models):
        panels[0].plot([], [], "o", color=_colour(model), label=name)
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=9)
    save_figure(figure, path)


def sizes_figure(path: Path, rows: Rows) -> None:
    """Overall Dice against number of models, labels per model and size (Fig. 3b).

    Args:
        path: A PNG.
        rows: Of ``size_rows``.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    titles = {
        "models": "models",
        "labels_per_model": "labels per model",
        "parameters_millions": "parameters, millions",
    }
    figure, axes = new_figure(10, 3.2, 1, 3)
    for axis, (column, title) in zip(axes[0], titles.items(), strict=True):
        for model, row in enumerate(rows):
            axis.scatter(row[column], row["dice"], s=70, color=_colour(model))
            axis.annotate(row["model"], (row[column], row["dice"]), fontsize=7,
                          xytext=(5, 4), textcoords="offset points")  # fmt: skip
        axis.set_xscale("log")
        axis.margins(x=0.3)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_ylim(0, 1.1)
        axis.set_xlabel(title)
        axis.set_ylabel("Dice")
        plain_axis(axis)
    save_figure(figure, path)


def _bars(axis: Any, rows: Rows, models: Sequence[str], level: str) -> None:
    width = 0.84 / len(models)
    for group, row in enumerate(rows):
        for model, name in enumerate(models):
            if row[name] is None:
                continue
            place = group + (model - (len(models) - 1) / 2) * width
            reach = np.array([[row[name] - row[f"{name} low"]], [row[f"{name} high"] - row[name]]])
            axis.bar(place, row[name], width * 0.94, color=_colour(model), yerr=reach.clip(0),
                     ecolor="#333333", capsize=1.5, error_kw={"lw": 0.7})  # fmt: skip
            if not model and _better(row):
                top = np.nanmax([row[name], row[f"{name} high"]])
                axis.text(place, top + 0.01, "*", ha="center", fontsize=11)
    axis.set_xticks(range(len(rows)))
    axis.set_xticklabels([f"{row[level]}\n({row['n']})" for row in rows], fontsize=8)
    for label, row in zip(axis.get_xticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row[level] == OVERALL else "normal")
    axis.set_ylim(0, 1.1)
    axis.set_ylabel("Dice")
    plain_axis(axis)


def _better(row: Mapping[str, Any]) -> bool:
    return row["p"] is not None and row["difference"] > 0 and row["p"] <= SIGNIFICANT


def _colour(model: int) -> str:
    """Ours red, the others by turns."""
    others = ("#4c78a8", "#72b7b2", "#eeca3b", "#b279a2", "#9d755d", "#79706e", "#54a24b")
    return others[(model - 1) % len(others)] if model else "#b2182b"
