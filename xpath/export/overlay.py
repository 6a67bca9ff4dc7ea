"""Pictures of a slide with objects and maps on it.

Axes: L object classes, h w pixels of the overview.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.export.colour import AGAINST, FOR, hex_colour, object_colour, signed_rgba
from xpath.export.report.words import scale_bar
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.geometry import PatchGrid

__all__ = [
    "Panels",
    "explain_figure",
    "grid_picture",
    "marked_name",
    "objects_rgba",
    "painted",
    "png_bytes",
    "short_name",
    "signed_limit",
    "stacked",
    "write_png",
]

PAINTED = 0.35
"""Share of a pixel of the overview above which an object is painted there."""
LEGEND_COLUMNS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Panels:
    """The panels of one slide shown side by side, all of one height and width."""

    title: str
    overview: NDArray[np.uint8]
    """``(h, w, 3)``."""
    um_per_pixel: float | None
    """For the scale bar. None leaves it out."""
    objects: tuple[str, ...]
    """Names of the L object classes."""
    shares: NDArray[np.float32]
    """``(L, h, w)`` share of each pixel under each object."""
    patch_map: NDArray[np.float64]
    """``(h, w)`` signed, NaN outside."""
    object_map: NDArray[np.float64]
    """``(h, w)`` signed, NaN outside."""
    contribution: NDArray[np.float64]
    """Of each object, and "other" after them, to the logit."""
    contribution_names: tuple[str, ...]
    class_name: str
    """The class that is explained."""

    def bar_name(self, label: str) -> str:
        """The short name of an object with a bar, ``no fat (tissue)`` of one the slide has not."""
        absent = label in self.objects and not self.shares[self.objects.index(label)].any()
        return f"no {short_name(label)}" if absent else short_name(label)


def marked_name(label: str, *, guess: bool) -> str:
    """The short name of a label, marked where the segmentor never learnt it."""
    return short_name(label) + (" (guess: never learnt)" if guess else "")


def short_name(label_id: str) -> str:
    """``tumor (tissue)`` of ``breast-tissue-tumor``."""
    parts = label_id.split("-", 2)
    return f"{parts[2]} ({parts[1]})" if len(parts) == 3 else label_id


def objects_rgba(shares: NDArray[np.float32], objects: Sequence[str]) -> NDArray[np.uint8]:
    """Objects in their colours ``(h, w, 4)``, small classes over large ones."""
    layer, on_top = np.zeros((*shares.shape[1:], 4), np.uint8), _on_top(shares)
    for label in np.unique(on_top[on_top >= 0]):
        layer[on_top == label] = (*object_colour(objects[label]), 150)
    return layer


def _on_top(shares: NDArray[np.float32]) -> NDArray[np.int64]:
    """Index of the class that is painted at each pixel ``(h, w)``, -1 where none is."""
    on_top = np.full(shares.shape[1:], -1)
    for label in np.argsort(-shares.sum(axis=(1, 2)), kind="stable"):
        on_top[shares[label] > PAINTED] = label
    return on_top


def painted(shares: NDArray[np.float32]) -> list[int]:
    """Indices of the classes that ``objects_rgba`` shows, that of the most pixels first."""
    labels, counts = np.unique(_on_top(shares), return_counts=True)
    return [int(label) for label in labels[np.argsort(-counts, kind="stable")] if label >= 0]


def signed_limit(values: NDArray[np.floating]) -> float:
    """The absolute value shown in full colour: the 99 % quantile of what is not zero."""
    finite = np.abs(values[np.isfinite(values)])
    finite = finite[finite > 0]
    return float(np.quantile(finite, 0.99)) if finite.size else 1.0


def stacked(overview: NDArray[np.uint8], layer: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The overview ``(h, w, 3)`` with a layer ``(h, w, 4)`` over it."""
    alpha = layer[..., 3:].astype(np.float32) / 255
    return np.asarray(np.rint(overview * (1 - alpha) + layer[..., :3] * alpha), np.uint8)


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """PNG of ``(h, w, 3)`` or ``(h, w, 4)``, equal bytes for equal pixels."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes a PNG, whole or not at all."""
    with atomic(path) as draft:
        draft.write_bytes(png_bytes(image))


def grid_picture(path: Path, overview: NDArray[np.uint8], grid: PatchGrid) -> None:
    """Draws the patches of a grid on an overview of the whole slide."""
    import cv2

    picture = overview.copy()
    across = overview.shape[1] / grid.slide_size.width
    down = overview.shape[0] / grid.slide_size.height
    for box in grid.boxes():
        corner = (round(box.x * across), round(box.y * down))
        opposite = (round(box.right * across), round(box.bottom * down))
        cv2.rectangle(picture, corner, opposite, (0, 110, 60), 2)
    write_png(path, picture)


def explain_figure(path: Path, panels: Panels) -> None:
    """Slide, objects, patch map, object-aware map, and what each object adds: one picture."""
    from matplotlib.figure import Figure

    height, width = panels.overview.shape[:2]
    panel, bars, above = 3.6, 4.6, 0.75  # inches
    below = max(1.05, 0.35 + 0.17 * math.ceil(len(painted(panels.shares)) / LEGEND_COLUMNS))
    size = (4 * panel + bars, panel * height / width + above + below)
    figure = Figure(figsize=size, dpi=110)
    axes = figure.subplots(1, 5)
    bottom, tall = below / size[1], 1 - (above + below) / size[1]
    for column, axis in enumerate(axes[:4]):
        left = (column * panel + 0.05) / size[0]
        axis.set_position((left, bottom, (panel - 0.1) / size[0], tall))
    axes[4].set_position((1 - 2.05 / size[0], bottom, 1.9 / size[0], tall))
    layers = (
        ("slide", None),
        ("objects found by words", objects_rgba(panels.shares, panels.objects)),
        ("patches: standard model", _signed(panels.patch_map)),
        ("objects: object-aware model", _signed(panels.object_map)),
    )
    for axis, (title, layer) in zip(axes, layers, strict=False):
        picture = panels.overview if layer is None else stacked(panels.overview, layer)
        axis.imshow(picture)
        axis.set_title(title, fontsize=11)
        axis.set_axis_off()
    _scale_bar(axes[0], panels.um_per_pixel, width, height)
    _legend(axes[1], panels)
    _bars(axes[4], panels)
    figure.suptitle(panels.title, fontsize=13, x=0.005, y=0.99, ha="left", va="top")
    words = f"red speaks for {panels.class_name}, blue against it, no colour is zero"
    figure.text(3 * panel / size[0], 0.55 * bottom, words, fontsize=10.5, ha="center")
    with atomic(path) as draft:
        figure.savefig(
            draft, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 3}
        )


def _signed(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return signed_rgba(values, signed_limit(values))


def _scale_bar(axis: Any, um_per_pixel: float | None, width: int, height: int) -> None:
    bar = scale_bar(um_per_pixel, width)
    if bar is None:
        return
    x, y, length = 0.05 * width, 0.95 * height, bar.share * width
    axis.plot([x, x + length], [y, y], color="black", linewidth=4, solid_capstyle="butt")
    box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1.5}
    axis.text(x, y - 0.02 * height, bar.words, fontsize=9, va="bottom", bbox=box)


def _legend(axis: Any, panels: Panels) -> None:
    from matplotlib.patches import Patch

    names = [panels.objects[j] for j in painted(panels.shares)]
    handles = [
        Patch(facecolor=hex_colour(object_colour(name)), label=short_name(name)) for name in names
    ]
    axis.legend(
        handles=handles, fontsize=7.5, ncols=LEGEND_COLUMNS, loc="upper center",
        bbox_to_anchor=(0.5, 0.0), frameon=False, handlelength=1, columnspacing=0.8,
        borderaxespad=0.1,
    )  # fmt: skip


def _bars(axis: Any, panels: Panels) -> None:
    order = np.argsort(-np.abs(panels.contribution))[:8][::-1]
    order = order[panels.contribution[order] != 0]  # no slide has what adds nothing at all
    values = panels.contribution[order]
    colours = [hex_colour(FOR if value > 0 else AGAINST) for value in values]
    axis.barh(range(len(values)), values, color=colours)
    axis.set_yticks(range(len(values)))
    names = [panels.bar_name(panels.contribution_names[j]) for j in order]
    axis.set_yticklabels(names, fontsize=8.5)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_title("adds to the logit", fontsize=11)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
