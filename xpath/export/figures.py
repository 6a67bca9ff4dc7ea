"""Figures of a run for a paper: activation maps beside the slide, and importance by object.

They show what the PathSegmentor paper shows in its Fig. 10 and explains in its Fig. 11: vanilla and
object-aware class activation maps of one slide per class, with the objects that lead (Fig. 10c),
and how much each object matters for each class (Fig. 10a). Unlike there, values keep their sign.
Every figure is written as PDF (text stays text) and as PNG of 300 dpi.
Axes: h w pixels of the overview.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import DataError
from xpath.export.colour import hex_colour, object_colour, signed_rgba
from xpath.export.overlay import short_name, signed_limit, stacked
from xpath.export.report.words import MINUS, printed, scale_bar, signed
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.export.overlay import Panels

__all__ = ["activation_figure", "importance_figure", "leading", "save_for_print"]

STYLE: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "font.size": 8.0,
    "axes.linewidth": 0.6,
    "font.family": "sans-serif",
}
SIDE = 2.15
"""Inches of a picture: three of them, and the list, are as wide as a page."""
GAP = 0.85
"""Inches for titles above and colour bars below each row."""
CLASS_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito."""
LEADING = 3
"""Objects that are named beside a map, as in the paper."""


def leading(panels: Panels, most: int = LEADING) -> list[tuple[str, float]]:
    """The objects that add most to the logit, and how much, of those that speak for the class.

    Those whose absence speaks for it are among them (``Panels.bar_name``).
    """
    order = np.argsort(-panels.contribution, kind="stable")
    chosen = [j for j in order if printed(panels.contribution[j]) > 0][:most]
    return [(panels.contribution_names[j], float(panels.contribution[j])) for j in chosen]


def activation_figure(stem: Path, slides: Sequence[Panels]) -> tuple[Path, Path]:
    """Slide, patch map and object-aware map, a row per slide (paper, Fig. 10c).

    Args:
        stem: Where to write, without suffix; ``.pdf`` and ``.png`` are added.
        slides: Each at the size of its overview.

    Raises:
        DataError: No slide.
    """
    if not slides:
        raise DataError("a figure of activation maps needs at least one explained slide, got none")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    heights = [SIDE * panels.overview.shape[0] / panels.overview.shape[1] for panels in slides]
    with rc_context(STYLE):
        high = sum(heights) + GAP * len(slides)
        figure = Figure(figsize=(3 * SIDE + 1.75, high))
        axes = figure.subplots(
            len(slides),
            4,
            squeeze=False,
            gridspec_kw={"width_ratios": [1, 1, 1, 0.75], "height_ratios": heights},
        )
        between = GAP * len(slides) / sum(heights)
        figure.subplots_adjust(0.01, 0.45 / high, 0.99, 1 - 0.36 / high, 0.05, between)
        for row, panels in zip(axes, slides, strict=True):
            _activation_row(row, panels)
        return save_for_print(figure, stem)


def importance_figure(
    stem: Path, rows: Sequence[Mapping[str, Any]], classes: Sequence[str]
) -> tuple[Path, Path]:
    """Importance of each object for each class (paper, Fig. 10a, below).

    Left the paper's measure, the ratio of losses (Eq. 12; 1: hiding changes nothing). Right the
    fall of log-odds beyond that of random masks of the same area, with 95 % intervals over
    patients; a filled dot has an interval without zero.

    Args:
        stem: Where to write, without suffix; ``.pdf`` and ``.png`` are added.
        rows: Rows of ``tables/importance.csv``.
        classes: Names, in the order of the colours.

    Raises:
        DataError: No rows.
    """
    if not rows:
        raise DataError("a figure of importance needs explained slides with labels, got none")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    by_key = {(row["class_name"], row["object"]): row for row in rows}
    shown = [name for name in classes if any(key[0] == name for key in by_key)]
    objects = sorted({key[1] for key in by_key}, key=lambda name: _largest(rows, name))
    with rc_context(STYLE):
        height = 0.24 * len(objects) * max(1, len(shown)) ** 0.5 + 1.1
        figure = Figure(figsize=(7.0, height))
        left, right = figure.subplots(1, 2, sharey=True)
        for number, name in enumerate(shown):
            colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
            chosen = [by_key.get((name, one)) for one in objects]
            heights = np.arange(len(objects)) + (0.5 - (number + 0.5) / len(shown)) * 0.7
            _ratios(left, heights, chosen, colour, 0.7 / len(shown))
            _intervals(right, heights, chosen, colour, name)
        _finish(left, right, objects)
        figure.subplots_adjust(0.27, 0.7 / height, 0.985, 1 - 0.32 / height, 0.06)
        return save_for_print(figure, stem)


def _activation_row(axes: Sequence[Any], panels: Panels) -> None:
    height, width = panels.overview.shape[:2]
    maps = (("patch CAM", panels.patch_map), ("object-aware CAM", panels.object_map))
    axes[0].imshow(panels.overview)
    axes[0].set_title(panels.title.replace(", ", "\n", 1), fontsize=7.5, loc="left")
    for axis, (title, values) in zip(axes[1:3], maps, strict=True):
        limit = signed_limit(values)
        axis.imshow(stacked(panels.overview, signed_rgba(values, limit)))
        axis.set_title(title, fontsize=8)
        _ramp(axis, limit, panels.class_name)
    for axis in axes:
        axis.set_axis_off()
    bar = scale_bar(panels.um_per_pixel, width)
    if bar:
        x, y = 0.04 * width, 0.96 * height
        axes[0].plot([x, x + bar.share * width], [y, y], color="black", linewidth=2.5)
        axes[0].text(x, y - 0.025 * height, bar.words, fontsize=7, va="bottom")
    _ranking(axes[3], panels)


def _ramp(axis: Any, limit: float, class_name: str) -> None:
    """A colour bar below a map, colourless in the middle, at zero."""
    inset = axis.inset_axes((0.12, -0.075, 0.76, 0.035))
    values = np.linspace(-1.0, 1.0, 255)[None]
    white = np.full((1, 255, 3), 255, np.uint8)
    inset.imshow(stacked(white, signed_rgba(values, 1.0)), aspect="auto", extent=(-1, 1, 0, 1))
    inset.set_yticks([])
    inset.set_xticks([-1, 0, 1], [f"{MINUS}{limit:.2g}", "0", f"+{limit:.2g}"], fontsize=6.5)
    inset.tick_params(length=2, pad=1)
    inset.set_xlabel(f"against  |  for {class_name}", fontsize=6.5, labelpad=1)


def _ranking(axis: Any, panels: Panels) -> None:
    """The objects that lead, as text with their colours."""
    axis.text(0.0, 1.0, f"speak for {panels.class_name}", fontsize=7.5, weight="bold", va="top")
    top = leading(panels)
    if not top:
        axis.text(0.0, 0.86, "no object", fontsize=7.5, va="top")
    for line, (name, value) in enumerate(top):
        y = 0.86 - 0.25 * line
        axis.plot(
            [0.03], [y - 0.035], "s", color=hex_colour(object_colour(name)), markersize=5,
            clip_on=False,
        )  # fmt: skip
        axis.text(
            0.1,
            y,
            f"{panels.bar_name(name).replace(' (', chr(10) + '(')}\n{signed(value)}",
            fontsize=7,
            va="top",
        )
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)


def _ratios(
    axis: Any,
    heights: NDArray[np.floating],
    rows: Sequence[Mapping[str, Any] | None],
    colour: str,
    width: float,
) -> None:
    """Bars from 1, where hiding changes nothing, on a logarithmic axis.

    Bars are geometric means over slides, diamonds the ratio of mean losses.
    """
    known = [(y, float(row["imp"])) for y, row in zip(heights, rows, strict=True) if row]
    for y, value in known:
        if math.isfinite(value) and value > 0:
            axis.barh(y, value - 1, left=1, height=0.9 * width, color=colour)
    for y, row in zip(heights, rows, strict=True):
        of_means = float(row.get("imp_of_means", math.nan)) if row else math.nan
        if math.isfinite(of_means) and of_means > 0:
            axis.plot([of_means], [y], "D", mfc="white", mec="black", mew=0.6, ms=3.2)


def _intervals(
    axis: Any,
    heights: NDArray[np.floating],
    rows: Sequence[Mapping[str, Any] | None],
    colour: str,
    name: str,
) -> None:
    label: str | None = name
    for y, row in zip(heights, rows, strict=True):
        if not row:
            continue
        low, high = float(row["excess_low"]), float(row["excess_high"])
        if math.isfinite(low) and math.isfinite(high):
            axis.plot([low, high], [y, y], color=colour, linewidth=1.4)
        sure = low > 0 or high < 0
        fill = colour if sure else "white"
        axis.plot(
            [float(row["excess"])], [y], "o", color=colour, mfc=fill, markersize=4, label=label
        )
        label = None  # one entry in the legend


def _finish(left: Any, right: Any, objects: Sequence[str]) -> None:
    _logarithmic(left)
    left.axvline(1, color="black", linewidth=0.8)
    right.axvline(0, color="black", linewidth=0.8)
    left.set_yticks(range(len(objects)), [short_name(name) for name in objects])
    left.set_xlabel(
        "importance, Eq. 12 (1: no change)\nbar: mean of slides, diamond: of mean losses"
    )
    right.set_xlabel("excess fall of log-odds (0: none)\nwith 95 % interval, filled: without 0")
    for handle in right.legend(
        frameon=False, fontsize=7, loc="lower center", ncols=3, bbox_to_anchor=(0.5, 1.0)
    ).legend_handles:
        handle.set_markerfacecolor(handle.get_color())
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(length=2)
        axis.set_ylim(-0.6, len(objects) - 0.4)


def _logarithmic(axis: Any) -> None:
    """A logarithmic axis that shows values below 1 too, with plain ticks where it is short."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter

    axis.use_sticky_edges = False  # bars start at 1, which would become the end of the axis
    axis.set_xscale("log")
    axis.autoscale_view()
    low, high = axis.get_xlim()
    if high < 1000 * low:
        few = MaxNLocator(4) if high < 4 * low else LogLocator(subs=(1, 2, 5))
        axis.xaxis.set_major_locator(few)
        axis.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        axis.xaxis.set_minor_locator(NullLocator())


def _largest(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """The largest excess of an object in any class, by which objects are sorted."""
    return max(float(row["excess"]) for row in rows if row["object"] == name)


def save_for_print(figure: Any, stem: Path) -> tuple[Path, Path]:
    """PDF and PNG without date or program, so that equal runs give equal files."""
    paths = stem.with_name(f"{stem.name}.pdf"), stem.with_name(f"{stem.name}.png")
    nothing = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None}}
    for path in paths:
        suffix = path.suffix[1:]
        with atomic(path) as draft:
            metadata = nothing.get(suffix, {"Software": None})
            figure.savefig(draft, format=suffix, dpi=300, metadata=metadata)
    return paths
