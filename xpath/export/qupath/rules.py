"""The rules of QuPath's own GeoJSON parser: what it takes, and what it drops silently.

Rules as in QuPath's type adapters: a colour must go with a class name or the import aborts, only a
UUID is kept as id, and what is not inside ``properties`` under the right name is lost.
"""

from __future__ import annotations

import math
import uuid
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.errors import DataError
from xpath.store.geojson import load_features

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Problem", "check_geojson", "find_problems"]

OBJECT_TYPES = ("annotation", "detection", "tile", "cell", "tmaCore", "root")
GEOMETRIES = {
    "Polygon": 2,
    "MultiPolygon": 3,
    "LineString": 1,
    "MultiLineString": 2,
    "MultiPoint": 1,
    "Point": 0,
}
"""Type of geometry to how deep its lists of points are nested."""
NUMBERS_AS_TEXT = ("NaN", "inf", "-inf", "Infinity", "-Infinity")
LEAST_AREA = 0.01
"""Square pixels; QuPath rounds to two decimals, and what is smaller may vanish."""


class Problem(NamedTuple):
    """A deviation from the rules, in one feature."""

    feature: int
    """Its index in the file, from 0."""
    message: str
    fatal: bool
    """Whether QuPath aborts the import; else it drops something."""


def find_problems(features: list[dict[str, Any]]) -> Iterator[Problem]:
    """Everything QuPath would refuse, drop or misread, feature by feature."""
    known: dict[str, int] = {}
    for number, feature in enumerate(features):
        messages = [*_geometry(feature.get("geometry")), *_properties(feature.get("properties"))]
        messages += [
            (f"{key!r} beside properties is dropped; put it inside", False)
            for key in ("objectType", "classification", "measurements", "isLocked", "name")
            if key in feature
        ]
        name = feature.get("id")
        if name is None or not _is_uuid(name):
            messages.append((
                f"id {name!r} is no UUID and is ignored: importing again doubles",
                False,
            ))
        elif known.setdefault(name, number) != number:
            messages.append((f"has the id of feature {known[name]}", False))
        yield from (Problem(number, message, fatal) for message, fatal in messages)


def check_geojson(path: Path) -> int:
    """The number of objects of a file that QuPath reads as it is meant.

    Raises:
        DataError: Anything QuPath would refuse, drop or misread; the message names the first ten.
    """
    features = load_features(path)
    problems = list(find_problems(features))
    if problems:
        first = "; ".join(f"feature {p.feature}: {p.message}" for p in problems[:10])
        raise DataError(f"{path} has {len(problems)} problems for QuPath: {first}")
    return len(features)


def _geometry(geometry: Any) -> Iterator[tuple[str, bool]]:
    if not isinstance(geometry, dict):
        yield "has no geometry", True
        return
    type_ = geometry.get("type")
    if type_ not in GEOMETRIES or not isinstance(geometry.get("coordinates"), list):
        yield f"geometry {type_!r} without coordinates QuPath knows; use MultiPolygon", True
        return
    if not _nested(geometry["coordinates"], GEOMETRIES[type_]):
        yield f"coordinates of {type_} are not lists of finite x, y pairs", True
        return
    polygons = {"Polygon": [geometry["coordinates"]], "MultiPolygon": geometry["coordinates"]}
    for rings in polygons.get(type_, []):
        for index, ring in enumerate(rings):
            yield from _ring("hole" if index else "outline", ring)


def _nested(values: Any, depth: int) -> bool:
    if not isinstance(values, list):
        return False
    if depth:
        return bool(values) and all(_nested(each, depth - 1) for each in values)
    return len(values) >= 2 and all(_is_number(each) and math.isfinite(each) for each in values)


def _ring(what: str, ring: list[list[float]]) -> Iterator[tuple[str, bool]]:
    if ring[0][:2] != ring[-1][:2]:
        yield f"{what} of {len(ring)} points does not end where it begins", True
        return
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2
    if abs(area) < LEAST_AREA:
        yield f"{what} has no area and would vanish", False


def _properties(properties: Any) -> Iterator[tuple[str, bool]]:
    if not isinstance(properties, dict):
        yield "has no properties and becomes an annotation without a class", False
        return
    type_ = properties.get("objectType")
    if type_ not in OBJECT_TYPES:
        yield f"objectType {type_!r} is not one of {OBJECT_TYPES}; becomes an annotation", False
    if "type" in properties:
        yield "properties.type is taken for an object type; name it otherwise", False
    children = properties.get("childObjects") or []
    if not isinstance(children, list) or not all(isinstance(each, dict) for each in children):
        yield "childObjects are not a list of features", True
    yield from _classification(properties.get("classification"))
    yield from _measurements(properties.get("measurements"))


def _classification(classification: Any) -> Iterator[tuple[str, bool]]:
    if classification is None or isinstance(classification, str):
        return
    if not isinstance(classification, dict) or not (
        classification.get("name") or classification.get("names")
    ):
        yield "classification has no name", True
        return
    colour = classification.get("color")
    parts = colour if isinstance(colour, list) else [colour]
    sound = all(isinstance(each, int) and not isinstance(each, bool) for each in parts)
    if isinstance(colour, list):
        sound = sound and len(colour) in (3, 4) and all(0 <= each <= 255 for each in colour)
    if not sound:
        yield f"classification has the colour {colour!r}, wanted [r, g, b]; QuPath aborts", True


def _measurements(measurements: Any) -> Iterator[tuple[str, bool]]:
    if measurements is None:
        return
    if isinstance(measurements, list):
        named = [each for each in measurements if isinstance(each, dict) and "name" in each]
        pairs = [(each["name"], each.get("value")) for each in named]
        if len(named) < len(measurements):
            yield "a measurement has no name", True
    elif isinstance(measurements, dict):
        pairs = list(measurements.items())
    else:
        yield f"measurements are {type(measurements).__name__}, wanted names and numbers", True
        return
    for name, value in pairs:
        if not _is_number(value) and value not in NUMBERS_AS_TEXT:
            yield f"measurement {name!r} is {value!r}, no number, and is skipped", False
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"measurement {name!r} is a bare {value}; write it as a string", True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_uuid(name: Any) -> bool:
    try:
        return isinstance(name, str) and str(uuid.UUID(name)) == name.lower()
    except ValueError:
        return False
