"""Outlines and boxes, as annotation programs write them, made into masks.

Coordinates are in pixels of the image, x right, y down, the corner of the first pixel at (0, 0).
Axes: H W pixels, N boxes, K points of an outline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.pathseg.reading import fill_polygons, read_xml
from xpath.store.geojson import read_areas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "Outline",
    "fill_boxes",
    "fill_ellipses",
    "fill_outlines",
    "parse_points",
    "read_geojson",
    "read_imagescope",
]


class Outline(NamedTuple):
    """An annotated object."""

    name: str
    """Class, as the annotator called it; empty if unnamed."""
    points: NDArray[np.float64]
    """(K, 2), x then y."""
    holes: tuple[NDArray[np.float64], ...] = ()
    """Outlines of its holes, each (K, 2)."""


def parse_points(xs: str, ys: str, path: Path) -> NDArray[np.float64]:
    """Points ``(K, 2)`` of two comma-separated lists of coordinates.

    Args:
        xs: Horizontal coordinates.
        ys: Vertical ones.
        path: The file, for the message.

    Raises:
        DataError: Lists of different lengths, or something that is no finite number.
    """
    try:
        points = np.array([_numbers(xs), _numbers(ys)]).T
    except ValueError as error:
        raise DataError(
            f"{path} has a broken outline (x {xs[:40]!r}, y {ys[:40]!r}); wanted as many finite "
            "numbers in both: take the file as distributed"
        ) from error
    return points.reshape(-1, 2)


def _numbers(text: str) -> list[float]:
    numbers = [float(part) for part in text.split(",") if part.strip()]
    if not np.isfinite(numbers).all():
        raise ValueError("not finite")
    return numbers


def fill_boxes(
    boxes: Sequence[tuple[float, float, float, float]], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Pixels ``(H, W)`` whose centre lies in any box.

    Args:
        boxes: Left, top, right, bottom; may reach over the border.
        size: Height and width.
    """
    return _fill(boxes, size, lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= 1)


def fill_ellipses(
    boxes: Sequence[tuple[float, float, float, float]], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Pixels ``(H, W)`` whose centre lies in the ellipse that touches the sides of any box.

    The likeliest outline of a nucleus of which only the box is known.

    Args:
        boxes: Left, top, right, bottom; may reach over the border.
        size: Height and width.
    """
    return _fill(boxes, size, lambda x, y: x**2 + y**2 <= 1)


def _fill(
    boxes: Sequence[tuple[float, float, float, float]],
    size: tuple[int, int],
    within: Callable[[NDArray[np.floating], NDArray[np.floating]], NDArray[np.bool_]],
) -> NDArray[np.bool_]:
    """Pixels within a shape given in coordinates that are -1 and 1 at the sides of a box."""
    canvas = np.zeros(size, bool)
    for left, top, right, bottom in boxes:
        if right <= left or bottom <= top:
            continue
        rows = slice(max(int(top), 0), max(int(np.ceil(bottom)), 0))
        columns = slice(max(int(left), 0), max(int(np.ceil(right)), 0))
        y = np.arange(size[0])[rows, None] + 0.5
        x = np.arange(size[1])[None, columns] + 0.5
        canvas[rows, columns] |= within(
            (2 * x - left - right) / (right - left), (2 * y - top - bottom) / (bottom - top)
        )
    return canvas


def fill_outlines(outlines: Iterable[Outline], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels ``(H, W)`` within any object and outside its own holes.

    Args:
        outlines: Objects; a hole of one may be filled by another.
        size: Height and width.
    """
    canvas = np.zeros(size, bool)
    for outline in outlines:
        inside = fill_polygons([outline.points], size)
        if outline.holes:
            inside &= ~fill_polygons(outline.holes, size)
        canvas |= inside
    return canvas


def read_geojson(path: Path) -> tuple[Outline, ...]:
    """Objects of a GeoJSON file in any form that QuPath reads. Of cells their nuclei.

    Tiles and cores of tissue arrays are no objects. One without a class goes by its name.

    Raises:
        DataError: The file is missing or damaged, or holds no areas.
    """
    regions = [region for region in read_areas(path) if region.type not in ("tile", "tmaCore")]
    if not regions:
        raise DataError(f"{path} holds no areas; export objects with outlines as GeoJSON")
    return tuple(
        Outline(region.label or region.title, rings[0], rings[1:])
        for region in regions
        for rings in region.polygons
    )


def read_imagescope(path: Path) -> tuple[Outline, ...]:
    """Objects of an Aperio ImageScope XML file, without negative regions.

    The class is the name of the annotation layer, or its first attribute if it has no name.

    Raises:
        DataError: The file is missing or damaged, or a vertex lacks a coordinate.
    """
    outlines = []
    for layer in read_xml(path).iter("Annotation"):
        attribute = layer.find("Attributes/Attribute")
        name = layer.get("Name") or (attribute.get("Name") if attribute is not None else "") or ""
        for region in layer.iter("Region"):
            if region.get("NegativeROA") == "1":
                continue
            vertices = list(region.iter("Vertex"))
            xs, ys = (",".join(vertex.get(axis) or "nan" for vertex in vertices) for axis in "XY")
            outlines.append(Outline(name, parse_points(xs, ys, path)))
    return tuple(outlines)
