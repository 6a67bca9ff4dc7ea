"""Pictures of a data set (paper, Fig. 1): treemap of its sources, size, labels, shares."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from xpath.export.evaluation_figures import new_figure, plain_axis, save_figure
from xpath.labels import load_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from xpath.labels import Label

__all__ = [
    "OTHERS",
    "bars_figure",
    "pies_figure",
    "sankey_figure",
    "squarified",
    "treemap_figure",
    "write_data_figures",
]

OTHERS = {"SAM-Med2D-20M": 1_000, "MedSAM": 9_000, "BiomedParseData": 15_000}
"""Masks of pathology in other collections, as the paper gives them (Fig. 1b)."""
LEVELS = ("region", "structure", "object_type")


def write_data_figures(
    folder: Path, by_source: Mapping[str, int], by_label: Mapping[str, int], *, counted: bool
) -> None:
    """Writes ``treemap.png``, ``bars.png``, ``sankey.png`` and ``pies.png`` (Fig. 1a to d).

    Args:
        folder: Made if it is not there.
        by_source: Masks of each source.
        by_label: Masks of each label id.
        counted: They were counted on this disk; otherwise they are the published numbers.
    """
    origin = "counted here" if counted else "as published"
    treemap_figure(folder / "treemap.png", by_source, f"Masks by source, {origin}")
    bars_figure(folder / "bars.png", OTHERS | {f"PathSeg, {origin}": sum(by_source.values())})
    sankey_figure(folder / "sankey.png", by_label)
    pies_figure(folder / "pies.png", by_label, origin)


def squarified(
    sizes: Sequence[float], box: tuple[float, float, float, float]
) -> list[tuple[float, float, float, float]]:
    """Rectangles x, y, width, height of given areas that fill a box, as square as they can be.

    Squarified treemaps (Bruls, Huizing and van Wijk 2000).

    Args:
        sizes: Areas in falling order, in any unit.
        box: Where.
    """
    x, y, width, height = box
    total = sum(sizes)
    if not sizes or total <= 0:
        return []
    areas = [size / total * width * height for size in sizes]
    count = 1
    while count < len(areas) and _worst(areas[: count + 1], min(width, height)) <= _worst(
        areas[:count], min(width, height)
    ):
        count += 1
    row, rest = areas[:count], sizes[count:]
    depth = sum(row) / min(width, height)
    placed, along = [], 0.0
    for area in row:
        length = area / depth
        if width >= height:
            placed.append((x, y + along, depth, length))
        else:
            placed.append((x + along, y, length, depth))
        along += length
    left = (x + depth, y, width - depth, height)
    below = (x, y + depth, width, height - depth)
    return placed + squarified(rest, left if width >= height else below)


def treemap_figure(path: Path, sizes: Mapping[str, int], title: str) -> None:
    """A rectangle per source, its area its number of masks (Fig. 1a)."""
    ranked = [(name, size) for name, size in Counter(sizes).most_common() if size > 0]
    figure, axes = new_figure(8, 5)
    axis = axes[0, 0]
    boxes = squarified([size for _, size in ranked], (0, 0, 8, 5))
    for number, ((name, size), (x, y, wide, tall)) in enumerate(zip(ranked, boxes, strict=True)):
        axis.add_patch(_rectangle(x, y, wide, tall, f"C{number % 10}"))
        if wide > 0.35 and tall > 0.2:
            axis.text(x + wide / 2, y + tall / 2, f"{name}\n{size:,}", ha="center", va="center",
                      fontsize=min(10, 4 + 3 * min(wide, tall)))  # fmt: skip
    axis.set_xlim(0, 8)
    axis.set_ylim(5, 0)
    axis.set_axis_off()
    axis.set_title(title, fontsize=10)
    save_figure(figure, path)


def bars_figure(path: Path, sizes: Mapping[str, int]) -> None:
    """Masks of several collections as bars (Fig. 1b)."""
    figure, axes = new_figure(6, 3.6)
    axis = axes[0, 0]
    colours = [*["#8da0cb"] * (len(sizes) - 1), "#b2182b"]
    bars = axis.bar(list(sizes), list(sizes.values()), color=colours)
    axis.bar_label(bars, [f"{size:,}" for size in sizes.values()], fontsize=8)
    axis.set_ylabel("masks of pathology")
    axis.tick_params(axis="x", labelsize=8)
    plain_axis(axis)
    save_figure(figure, path)


def sankey_figure(path: Path, by_label: Mapping[str, int]) -> None:
    """Labels from region over structure to object type, a ribbon per label (Fig. 1c).

    Ribbons are as wide as labels are many, not masks, as in the paper.
    """
    tree = load_labels()
    labels = [tree.parse(name, allow_new=True) for name, count in by_label.items() if count]
    columns = [_stacked(labels, level) for level in LEVELS]
    figure, axes = new_figure(9, 11)
    axis, lowest = axes[0, 0], 0.0
    for column, (tops, counts) in enumerate(columns):
        for number, (name, top) in enumerate(tops.items()):
            axis.add_patch(_rectangle(column - 0.02, top, 0.04, counts[name], f"C{number % 10}"))
            x, side = (column - 0.03, "right") if not column else (column + 0.03, "left")
            words = f"{name} ({counts[name]})"
            axis.text(x, top + counts[name] / 2, words, ha=side, va="center", fontsize=6.5)
            lowest = max(lowest, top + counts[name])
    for column in range(len(LEVELS) - 1):
        _ribbons(axis, labels, columns, column)
    axis.set_xlim(-0.35, len(LEVELS) - 0.65)
    axis.set_ylim(lowest + 1, -1)
    axis.set_axis_off()
    save_figure(figure, path)


def pies_figure(path: Path, by_label: Mapping[str, int], origin: str) -> None:
    """Masks by region and by structure (Fig. 1d)."""
    figure, axes = new_figure(10, 4.4, 1, 2)
    for axis, level in zip(axes[0], LEVELS[:2], strict=True):
        shares: Counter[str] = Counter()
        for name, count in by_label.items():
            shares[_part(load_labels().parse(name, allow_new=True), level)] += count
        named = shares.most_common(10)
        rest = sum(shares.values()) - sum(count for _, count in named)
        named += [("others", rest)] if rest else []
        total = max(1, sum(count for _, count in named))
        if any(count for _, count in named):
            axis.pie([count for _, count in named], startangle=90, counterclock=False,
                     wedgeprops={"linewidth": 0.5, "edgecolor": "white"})  # fmt: skip
        words = [f"{name}: {count:,} ({100 * count / total:.1f} %)" for name, count in named]
        axis.legend(words, fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        axis.set_title(f"masks by {level}, {origin}", fontsize=9)
    save_figure(figure, path)


def _worst(row: Sequence[float], side: float) -> float:
    """The largest aspect of rectangles laid along a side."""
    depth = sum(row) / side
    return max(max(area / depth**2, depth**2 / area) for area in row)


def _rectangle(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=colour, alpha=0.65, edgecolor="white")


def _part(label: Label, level: str) -> str:
    return str(getattr(label, level))


def _stacked(labels: Sequence[Label], level: str) -> tuple[dict[str, float], Counter[str]]:
    """Where each name of a level begins, the most common first, and how many labels it has."""
    counts = Counter(_part(label, level) for label in labels)
    tops, y = dict[str, float](), 0.0
    for name, count in counts.most_common():
        tops[name] = y
        y += count + 0.8
    return tops, counts


def _ribbons(
    axis: Any,
    labels: Sequence[Label],
    columns: Sequence[tuple[Mapping[str, float], Mapping[str, int]]],
    column: int,
) -> None:
    """A curved band from each name of a column to the next, as wide as it has labels."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    levels = LEVELS[column : column + 2]
    flows = Counter((_part(label, levels[0]), _part(label, levels[1])) for label in labels)
    left, right = dict(columns[column][0]), dict(columns[column + 1][0])
    names = list(columns[column][0])
    order = sorted(flows.items(), key=lambda it: (left[it[0][0]], right[it[0][1]]))
    for (start, end), width in order:
        a, b, x = left[start], right[end], column + 0.02
        left[start], right[end] = a + width, b + width
        middle, far = column + 0.5, column + 0.98
        points = [(x, a), (middle, a), (middle, b), (far, b), (far, b + width),
                  (middle, b + width), (middle, a + width), (x, a + width), (x, a)]  # fmt: skip
        bend = [Curve.CURVE4] * 3
        codes = [Curve.MOVETO, *bend, Curve.LINETO, *bend, Curve.CLOSEPOLY]
        colour = f"C{names.index(start) % 10}"
        axis.add_patch(PathPatch(Curve(points, codes), facecolor=colour, alpha=0.25, linewidth=0))
