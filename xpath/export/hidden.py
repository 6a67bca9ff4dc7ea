"""Patches with an object hidden, beside the loss it costs (paper, Fig. 10a, above).

Axes: L object classes, H W pixels of a patch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.explain.perturbation import MaskedPerturbation, Removal, feather, perturbed
from xpath.export.colour import hex_colour, object_colour
from xpath.export.figures import save_for_print
from xpath.export.overlay import short_name
from xpath.export.report.records import HiddenPicture
from xpath.wsi.patches import read_patch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.explain.importance import ObjectImportance
    from xpath.explain.perturbation import Perturbation
    from xpath.store.masks import SlideMasks
    from xpath.wsi.slide import Slide

__all__ = ["hidden_figure", "hidden_pictures"]

SIDE = 256
"""Pixels of a picture at most."""
INCHES = 1.15
IN_PRINT = 3
"""Objects of a slide in the figure."""


def hidden_pictures(
    slide: Slide,
    masks: SlideMasks,
    importance: ObjectImportance,
    perturbation: Perturbation | MaskedPerturbation | Removal,
    *,
    feather_um: float,
    most: int = 6,
) -> tuple[HiddenPicture, ...]:
    """For each object class the patch that holds most of it, as it is and with the class hidden.

    Args:
        slide: Open for reading.
        masks: Object masks of the slide.
        importance: Of the slide, by this perturbation.
        perturbation: How objects are hidden; ``Removal`` shows nothing, so it gives no pictures.
        feather_um: Width of the soft edge.
        most: Object classes, those with the largest IMP (Eq. 12).

    Raises:
        SlideError: A patch cannot be read.
    """
    if isinstance(perturbation, Removal):
        return ()
    order = np.argsort(-np.nan_to_num(importance.imp), kind="stable")
    chosen = [j for j in order if importance.patches[j] and importance.objects[j] in masks.labels]
    pictures = []
    for j in chosen[:most]:
        name = importance.objects[j]
        column = masks.labels.index(name)
        patch = int(np.argmax(masks.area[:, column]))
        plain = read_patch(slide, masks.grid, patch)
        mask = _at_size(masks.read(patch)[column], plain.shape[0])
        shown = _hidden(plain, mask, perturbation, feather_um, float(masks.grid.mpp or 1.0))
        corner = masks.grid.coords[patch]
        pictures.append(
            HiddenPicture(
                name=short_name(name),
                colour=hex_colour(object_colour(name)),
                plain=_small(plain),
                hidden=_small(shown),
                loss=float(-np.log(max(importance.probability, 1e-300))),
                hidden_loss=float(-np.log(max(importance.hidden_probability[j], 1e-300))),
                position=f"patch {patch} at {corner[0]}, {corner[1]}",
            )
        )
    return tuple(pictures)


def hidden_figure(
    stem: Path, slides: Sequence[tuple[str, Sequence[HiddenPicture]]]
) -> tuple[Path, Path] | None:
    """A row per slide: patches as they are and with the object hidden, both losses below.

    Args:
        stem: Where to write, without suffix; ``.pdf`` and ``.png`` are added.
        slides: Title and pictures of each; slides without pictures are left out.

    Returns:
        The two files, None where no slide has a picture.
    """
    from matplotlib.figure import Figure

    rows = [(title, pictures[:IN_PRINT]) for title, pictures in slides if pictures]
    if not rows:
        return None
    pairs = max(len(pictures) for _, pictures in rows)
    figure = Figure(figsize=(2 * pairs * (INCHES + 0.12), len(rows) * (INCHES + 0.62)))
    axes = figure.subplots(len(rows), 2 * pairs, squeeze=False)
    figure.subplots_adjust(0.01, 0.3 / (2 * len(rows)), 0.99, 1 - 0.5 / (2 * len(rows)), 0.05, 0.5)
    for line, (title, pictures) in zip(axes, rows, strict=True):
        for axis in line:
            axis.set_axis_off()
        for number, one in enumerate(pictures):
            _pair(line[2 * number], line[2 * number + 1], one)
        line[0].text(0, 1.21, title, fontsize=8, weight="bold", transform=line[0].transAxes)
    return save_for_print(figure, stem)


def _pair(plain: Any, hidden: Any, one: HiddenPicture) -> None:
    """A patch as it is on one axis, and hidden on the next."""
    sides = (
        ("as it is", plain, one.plain, one.loss),
        ("hidden", hidden, one.hidden, one.hidden_loss),
    )
    for words, axis, picture, loss in sides:
        axis.imshow(picture)
        axis.text(
            0.5, -0.06, f"{words}: loss {loss:.3g}", fontsize=7, ha="center", va="top",
            transform=axis.transAxes,
        )  # fmt: skip
    plain.text(0, 1.06, one.name, fontsize=7.5, color=one.colour, transform=plain.transAxes)


def _hidden(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    perturbation: Perturbation | MaskedPerturbation,
    feather_um: float,
    mpp: float,
) -> NDArray[np.uint8]:
    """The patch with the pixels under the mask replaced."""
    if isinstance(perturbation, MaskedPerturbation):
        replacement = perturbation.replacement_under(image, mask, mpp)
    else:
        replacement = perturbation.replacement(image, mpp)
    return perturbed(image, replacement, feather(mask, feather_um, mpp))


def _at_size(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """A mask ``(side, side)``, each pixel taken from the nearest."""
    nearest = ((np.arange(side) + 0.5) * mask.shape[-1] / side).astype(np.int64)
    return np.asarray(mask[nearest[:, None], nearest])


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture at ``SIDE`` pixels at most."""
    import cv2

    if image.shape[0] <= SIDE:
        return image
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
