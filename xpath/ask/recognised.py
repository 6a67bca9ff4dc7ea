"""Everything in an image at once, as files: label maps, a table, outlines for QuPath.

Axes: H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.export.overlay import objects_rgba, stacked, write_png
from xpath.export.qupath.geojson import Feature, write_geojson
from xpath.geometry import Box
from xpath.objects.find import find_in_image
from xpath.store.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.segment.predict.recognition import Recognition

__all__ = ["recognised_features", "write_recognised"]


def write_recognised(
    folder: Path,
    image: NDArray[np.uint8],
    name: str,
    found: Mapping[str, Recognition],
    *,
    mpp: float | None = None,
) -> tuple[Path, ...]:
    """Writes what was recognised and returns the paths, the table first.

    For every structure ``STRUCTURE/NAME.png`` is a label map, 0 where nothing is, and
    ``STRUCTURE/labels.csv`` says which value is which label: evaluate_segmentor.py takes the folder
    as ``--predictions``. ``recognised.csv`` has a row per label asked, ``objects.geojson`` the
    outlines, ``overlay.png`` the image with all of them.

    Args:
        folder: Where.
        image: RGB ``(H, W, 3)`` uint8.
        name: Of the image.
        found: By structure; within one no pixel has two labels.
        mpp: Microns per pixel of the image, None where unknown.

    Raises:
        StoreError: The disk is full.
    """
    rows, paths = [], []
    for structure, one in found.items():
        values = [{"value": i + 1, "label": label.id} for i, label in enumerate(one.labels)]
        path = folder / structure / f"{name}.png"
        write_png(path, (one.label_map + 1).astype(np.uint8))
        write_table(folder / structure / "labels.csv", values, ("value", "label"))
        paths.append(path)
        for index, label in enumerate(one.labels):
            pixels = int(np.count_nonzero(one.label_map == index))
            row = {"label": label.id, "structure": structure, "value": index + 1}
            row |= {"recognised": index in one.kept, "score": float(one.scores[index])}
            rows.append(row | {"pixels": pixels, "area_um2": pixels * mpp**2 if mpp else None})
    table, outlines, overlay = (
        folder / file for file in ("recognised.csv", "objects.geojson", "overlay.png")
    )
    write_table(table, rows, ("label", "structure", "value", "recognised", "score"))
    bounds = Box(0, 0, image.shape[1], image.shape[0])
    write_geojson(outlines, recognised_features(found, mpp=mpp), slide_id=name, bounds=bounds)
    names = [label for one in found.values() for label in one.names]
    masks = [one.masks.astype(np.float32) for one in found.values()]
    shares = np.concatenate(masks) if masks else np.zeros((0, *image.shape[:2]), np.float32)
    write_png(overlay, stacked(image, objects_rgba(shares, names)))
    return (table, outlines, overlay, *paths)


def recognised_features(
    found: Mapping[str, Recognition], *, mpp: float | None = None
) -> tuple[Feature, ...]:
    """Outlines of the objects, label by label, in pixels of the image.

    Args:
        found: By structure.
        mpp: Microns per pixel of the image, for areas; None gives them in pixels.
    """
    return tuple(
        feature
        for one in found.values()
        for index, mask in zip(one.kept, one.masks, strict=True)
        for feature in _features(one.labels[index].id, mask, float(one.scores[index]), mpp)
    )


def _features(
    label: str, mask: NDArray[np.bool_], score: float, mpp: float | None
) -> Iterator[Feature]:
    """The objects of one mask ``(H, W)``, from top to bottom."""
    for component in find_in_image(mask, label, mpp=mpp):
        x, y = component.rings[0][0]
        area = {"area um2": component.pixels * mpp**2} if mpp else {}
        yield Feature(
            name=f"{label}/{x:.12g},{y:.12g}",
            type="detection",
            rings=component.rings,
            label=label,
            measurements={"area px": float(component.pixels), **area, "confidence": score},
        )
