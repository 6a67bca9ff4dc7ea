"""Labels of a text encoder in the plane, coloured by region, structure and object type."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from xpath.export.evaluation_figures import new_figure, plain_axis, save_figure
from xpath.segment.evaluation.text_map import LEVELS, silhouettes

if TYPE_CHECKING:
    from pathlib import Path

    from xpath.segment.evaluation.text_map import TextMap

__all__ = ["text_map_figure"]

MOST = 12
"""Groups with a colour of their own, the largest; all others are grey."""


def text_map_figure(path: Path, found: TextMap) -> None:
    """A panel per level with its silhouette score, as PNG."""
    scores = {row["level"]: row["silhouette"] for row in silhouettes(found)}
    figure, axes = new_figure(5 * len(LEVELS), 4.4, 1, len(LEVELS))
    x, y = found.positions.T
    for axis, level in zip(axes[0], LEVELS, strict=True):
        names = [str(getattr(label, level)) for label in found.labels]
        common = [name for name, _ in Counter(names).most_common(MOST)]
        rest = [i for i, name in enumerate(names) if name not in common]
        axis.scatter(x[rest], y[rest], s=14, color="#cccccc")
        for number, name in enumerate(common):
            of = [i for i, other in enumerate(names) if other == name]
            axis.scatter(x[of], y[of], s=22, color=f"C{number % 10}", label=name,
                         marker="os"[number // 10])  # fmt: skip
        axis.set_title(f"{level.replace('_', ' ')}: silhouette {scores[level]:.2f}", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_xlabel(f"{found.method} of sentence embeddings")
        axis.legend(fontsize=6, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        plain_axis(axis)
    save_figure(figure, path)
