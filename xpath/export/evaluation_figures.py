"""Pictures of an evaluation: the paper's Fig. 5, scores by label, and answers to look at.

Axes: H W pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.export.colour import hex_colour, object_colour
from xpath.pathseg.reading import read_image
from xpath.segment.evaluation.curves import best_curve
from xpath.segment.evaluation.evaluate import ask
from xpath.segment.evaluation.questions import read_mask
from xpath.segment.evaluation.tables import LEVELS, dice_by, examples, prompt_cost
from xpath.segment.evaluation.trend_lines import trends
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.protocols import Segmentor
    from xpath.segment.evaluation.curves import Curve
    from xpath.segment.evaluation.evaluate import Sample
    from xpath.segment.evaluation.trend_lines import Trend

__all__ = [
    "TRUTH",
    "Answer",
    "answers_figure",
    "draw_curve",
    "draw_examples",
    "file_name",
    "marked",
    "new_figure",
    "plain_axis",
    "prompt_cost_figure",
    "save_figure",
    "score_figure",
    "spread_figure",
    "trend_figure",
    "write_figures",
]

TRUTH = (0, 60, 255)
"""Colour of the true outline, as in the paper."""
LINE, DOT = "#b2182b", "#2166ac"
MAX_DOTS = 4000
"""More samples than this are thinned in a scatter. The intervals show all."""


class Answer(NamedTuple):
    """A segmented image to look at, with the true mask."""

    title: str
    image: NDArray[np.uint8]
    """``(H, W, 3)``."""
    mask: NDArray[np.bool_]
    """``(H, W)`` the answer."""
    truth: NDArray[np.bool_]
    """``(H, W)``."""


def draw_examples(folder: Path, samples: Sequence[Sample], segmentor: Segmentor) -> None:
    """Draws the best, median and worst answer of every label beside the truth, asked again."""
    from tqdm import tqdm

    for name, chosen in tqdm(examples(samples).items(), desc="drawing", unit="label"):
        answers = []
        for word, sample in chosen.items():
            question = sample.question
            image = read_image(question.image)
            truth, _ = read_mask(question.mask, ignore=question.ignore, unknown=question.unknown)
            mask = ask(segmentor, image[None], [question.prompt], mpp=question.mpp).masks[0, 0]
            title = f"{word}: Dice {sample.dice:.3f}\n{question.image.name}"
            answers.append(Answer(title, image, mask, truth))
        answers_figure(folder / f"{file_name(name)}.png", name, answers)


def write_figures(folder: Path, samples: Sequence[Sample], *, seed: int = 0) -> None:
    """Scores by every level, trends, cost of prompts and spread of instances, as PNG.

    Args:
        folder: Made if it is not there.
        samples: Answers.
        seed: Of the intervals.
    """
    for level in LEVELS:
        score_figure(folder / f"dice_by_{level}.png", dice_by(samples, level, seed=seed), level)
    trend_figure(folder / "trends.png", trends(samples))
    prompt_cost_figure(folder / "prompt_cost.png", prompt_cost(samples))
    spread_figure(folder / "spread.png", samples)


def file_name(label: str) -> str:
    """A label or sentence as the name of a file."""
    return "".join(sign if sign.isalnum() or sign in "-." else "_" for sign in label)[:100]


def marked(answer: Answer, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The image ``(H, W, 3)`` with the answer tinted and the truth outlined in blue."""
    import cv2

    picture = answer.image.astype(np.float32)
    picture[answer.mask] = 0.55 * picture[answer.mask] + 0.45 * np.asarray(colour, np.float32)
    drawn = np.ascontiguousarray(np.rint(picture).astype(np.uint8))
    outlines, _ = cv2.findContours(
        answer.truth.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    thick = max(1, round(max(drawn.shape) / 250))
    cv2.drawContours(drawn, outlines, -1, TRUTH, thick)
    return drawn


def answers_figure(path: Path, name: str, answers: Sequence[Answer]) -> None:
    """Answers for one label side by side, above the plain image, below with answer and truth."""
    columns = max(1, len(answers))
    tall = max((a.image.shape[0] / a.image.shape[1] for a in answers), default=1.0)
    figure, axes = new_figure(3.6 * columns, 1.0 + 7.2 * min(tall, 2.0), 2, columns)
    for column, answer in enumerate(answers):
        pictures = (answer.image, marked(answer, object_colour(name)))
        for axis, picture in zip(axes[:, column], pictures, strict=True):
            axis.imshow(picture)
            axis.set_axis_off()
        axes[0, column].set_title(answer.title, fontsize=9)
    figure.suptitle(f"{name}: answer tinted, truth outlined in blue", fontsize=11)
    save_figure(figure, path)


def score_figure(path: Path, rows: Sequence[Mapping[str, Any]], level: str) -> None:
    """Bars of mean Dice with intervals, best first, ``overall`` last (Fig. 3a and 7a).

    Args:
        path: A PNG.
        rows: Of ``evaluation.tables.dice_by``.
        level: What the rows are named by.
    """
    rated = [row for row in rows if row["n"]]
    each = sorted(rated[:-1], key=lambda row: -row["dice"]) + rated[-1:]
    figure, axes = new_figure(7.5, 1.2 + 0.28 * max(1, len(each)))
    axis = axes[0, 0]
    scores = np.array([row["dice"] for row in each], np.float64)
    low = scores - np.array([row["ci_low"] for row in each], np.float64)
    high = np.array([row["ci_high"] for row in each], np.float64) - scores
    reach = np.clip(np.stack((low, high)), 0, None).reshape(2, -1)
    heights = np.arange(len(each))[::-1]
    colours = [*[DOT] * max(0, len(each) - 1), "#555555"][: len(each)]
    axis.barh(heights, scores, xerr=reach, color=colours, ecolor="black", capsize=2)
    axis.set_yticks(heights)
    axis.set_yticklabels([f"{row[level]} ({row['n']})" for row in each], fontsize=8)
    axis.set_xlim(0, 1)
    axis.set_xlabel("Dice, 95 % interval")
    plain_axis(axis)
    save_figure(figure, path)


def trend_figure(path: Path, curves: Sequence[Trend]) -> None:
    """Dice against every trait: samples, means of intervals, best fit (Fig. 5a, c, f).

    Ends with the distribution of instance counts (Fig. 5e).
    """
    columns = 4
    rows = math.ceil((len(curves) + 1) / columns)
    figure, axes = new_figure(4 * columns, 3.4 * rows, rows, columns)
    panels = list(axes.flat)
    for axis, trend in zip(panels, curves, strict=False):
        _trend(axis, trend)
    counts = next((t.values for t in curves if t.trait.name == "instance_count"), np.zeros(0))
    _counts(panels[len(curves)], counts)
    for axis in panels[len(curves) + 1 :]:
        axis.set_visible(False)
    save_figure(figure, path)


def prompt_cost_figure(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Dice against prompts per mask (Fig. 5g).

    Args:
        path: A PNG.
        rows: Of ``evaluation.tables.prompt_cost``.
    """
    figure, axes = new_figure(6, 4.2)
    axis = axes[0, 0]
    marks = {"text": "*", "union box": "s", "instance boxes": "o"}
    names = list(dict.fromkeys(row["structure"] for row in rows))
    rated = [row for row in rows if row["n"]]
    for row in rated:
        shade = f"C{names.index(row['structure'])}"
        axis.scatter(row["prompts"], row["dice"], marker=marks[row["prompting"]], s=70, color=shade)
    for number, name in enumerate(names):
        axis.scatter([], [], color=f"C{number}", label=name)
    for way, mark in marks.items():
        axis.scatter([], [], color="grey", marker=mark, label=way)
    axis.set_xscale("log")
    axis.set_xlim(0.8, 1.3 * max([4.0, *(row["prompts"] for row in rated)]))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.set_ylim(0, 1)
    axis.set_xlabel("prompts per mask")
    axis.set_ylabel("Dice (boxes taken for the mask)")
    axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    plain_axis(axis)
    save_figure(figure, path)


def spread_figure(path: Path, samples: Sequence[Sample]) -> None:
    """Number of instances against their dispersion, mean and deviation by label (Fig. 7c)."""
    by_label: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.traits.instance_count:
            by_label.setdefault(sample.question.name, []).append(sample)
    figure, axes = new_figure(7.5, 4.6)
    axis = axes[0, 0]
    for name, group in sorted(by_label.items()):
        counts = np.array([sample.traits.instance_count for sample in group], np.float64)
        spreads = np.array([sample.traits.dispersion for sample in group], np.float64)
        axis.errorbar(
            counts.mean(), spreads.mean(), xerr=counts.std(), yerr=spreads.std(), fmt="o",
            color=hex_colour(object_colour(name)), capsize=2, alpha=0.8, label=name,
        )  # fmt: skip
    axis.set_xlabel("instances per mask")
    axis.set_ylabel("largest distance of instances [px]")
    if 0 < len(by_label) <= 30:
        axis.legend(fontsize=6, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    plain_axis(axis)
    save_figure(figure, path)


def _trend(axis: Any, trend: Trend) -> None:
    step = max(1, math.ceil(len(trend.values) / MAX_DOTS))
    axis.scatter(trend.values[::step], trend.dice[::step], s=4, color="#bbbbbb", linewidths=0)
    axis.plot([b.trait for b in trend.bins], [b.dice for b in trend.bins], "o", color=DOT, ms=4)
    curve = best_curve(trend.curves)
    if curve:
        draw_curve(axis, curve, [b.trait_weighted for b in trend.bins], LINE)
    equation = curve.equation if curve else ""
    axis.set_title(
        f"{equation}\nSpearman {trend.spearman:.2f}, n = {len(trend.values)}", fontsize=8
    )
    axis.set_ylim(-0.02, 1.02)
    axis.locator_params(axis="x", nbins=6)
    axis.set_xlabel(trend.trait.title)
    axis.set_ylabel("Dice")
    plain_axis(axis)


def draw_curve(axis: Any, curve: Curve, over: Sequence[float], colour: str) -> None:
    """A curve over the reach of its points, with its confidence band."""
    reach = np.linspace(min(over), max(over), 200)
    middle, half = curve.at(reach), curve.band(reach)
    axis.plot(reach, middle, "--", color=colour)
    axis.fill_between(reach, middle - half, middle + half, color=colour, alpha=0.15, linewidth=0)


def _counts(axis: Any, counts: NDArray[np.float64]) -> None:
    if len(counts):
        axis.hist(counts, bins=40, color=DOT)
        most = float(np.quantile(counts, 0.9))
        axis.axvline(most, color=LINE, linestyle="--")
        axis.locator_params(axis="y", integer=True)
        axis.set_title(f"90 % of masks hold up to {most:.0f} instances", fontsize=8)
    axis.set_xlabel("instances per mask")
    axis.set_ylabel("masks")
    plain_axis(axis)


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A figure in inches and its axes ``(rows, columns)``, without a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def plain_axis(axis: Any) -> None:
    """Takes away the frame above and at the right."""
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def save_figure(figure: Any, path: Path) -> None:
    """Writes a PNG, whole or not at all, equal bytes for equal figures."""
    with atomic(path) as draft:
        figure.savefig(draft, format="png", metadata={"Software": None})
