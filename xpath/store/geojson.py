"""GeoJSON of annotation programs: one tolerant reader of all forms that QuPath reads or writes.

What cannot be an area is passed over, counted, and named in one line of the log; only a file that
is no GeoJSON, or an outline nobody can close, is refused. Coordinates are those of the file.
Axes: K corners.
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from shapely import Geometry

__all__ = ["Polygon", "Region", "load_features", "read_areas", "union_area"]

logger = logging.getLogger(__name__)

Polygon = tuple["NDArray[np.float64]", ...]
GEOMETRIES = frozenset((
    "Point", "MultiPoint", "LineString", "LinearRing", "MultiLineString", "Polygon", "MultiPolygon",
    "GeometryCollection",
))  # fmt: skip
TYPES = {
    "annotation": "annotation",
    "detection": "detection",
    "tile": "tile",
    "cell": "cell",
    "tmacore": "tmaCore",
    "root": "root",
}
FLAT = 1e-6
"""Square pixels; what is smaller is no area but the rounding of one."""
FARTHEST = 1e9
"""Pixels from the origin. No slide is so large, and areas would overflow."""
LARGEST = 1 << 30
"""Bytes of a packed file once unpacked; a few kilobytes can unpack to the whole memory."""
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class Region:
    """An object as it stands in the file, in level-0 pixels."""

    type: str
    """``annotation``, ``detection``, ``tile``, ``cell``, ``tmaCore``."""
    label: str
    """Its class; parts of a derived class are joined by ``": "``. Empty if unclassified."""
    polygons: tuple[Polygon, ...]
    """Each closed rings ``(K, 2)`` of x, y: the outline, then holes. Of a cell its nucleus, where
    the file has one."""
    cell: tuple[Polygon, ...] = ()
    """The whole cell, where ``polygons`` are its nucleus."""
    id: str = ""
    """Empty where there is none."""
    measurements: Mapping[str, float] = field(default_factory=dict)
    locked: bool = False
    title: str = ""
    """Name given by the person who drew it; empty for none."""
    colour: tuple[int, int, int] | None = None
    """Of the class; None where the file gives none."""

    @property
    def area(self) -> float:
        """Square pixels inside by the even-odd rule, by which masks are filled too."""
        return union_area([self])


def union_area(regions: Sequence[Region]) -> float:
    """Square pixels that any of the regions covers, each filled by the even-odd rule."""
    import shapely

    polygons = [_even_odd(rings) for region in regions for rings in region.polygons]
    return float(shapely.union_all(polygons).area)


def _even_odd(rings: Polygon) -> Geometry:
    """Inside of the outline and not of the holes, each even-odd, also where they cross or touch."""
    import shapely

    polygon = shapely.Polygon(rings[0], rings[1:])
    if polygon.is_valid:
        return polygon
    outline, *holes = (shapely.make_valid(shapely.Polygon(ring)) for ring in rings)
    return shapely.difference(outline, reduce(shapely.symmetric_difference, holes, shapely.Point()))


def load_features(path: Path) -> list[dict[str, Any]]:
    """The features of a file as QuPath takes it: also zipped, a single one, or a bare geometry.

    Raises:
        DataError: Missing, damaged, or no GeoJSON.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file; export the objects from QuPath as GeoJSON first")
    try:
        content = json.loads(_bytes(path))
    except (OSError, EOFError, ValueError, KeyError, RecursionError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is no JSON ({error}); export it again, as GeoJSON and not as a QuPath file"
        ) from error
    listed = content if isinstance(content, list) else [content]
    return [feature for part in listed for feature in _features(path, part)]


def read_areas(path: Path) -> list[Region]:
    """Areas of a GeoJSON file, parents before their child objects.

    Points, lines, the root of a hierarchy, and objects without outline or area are passed over.

    Args:
        path: ``.geojson`` or ``.json``, also gzipped or zipped.

    Raises:
        DataError: No GeoJSON, or an outline that is open or not of numbers; its feature is named.
    """
    passed_over: Counter[str] = Counter()
    regions = []
    waiting = load_features(path)[::-1]
    read = 0
    while waiting:
        feature = waiting.pop()
        read += 1
        region = _region(path, feature, passed_over, read)
        if region is not None:
            regions.append(region)
        waiting += _children(path, feature)[::-1]
    if passed_over:
        counts = ", ".join(f"{count} {what}" for what, count in passed_over.items())
        logger.warning("%s: passed over: %s", path, counts)
    return regions


def _region(
    path: Path, feature: dict[str, Any], passed_over: Counter[str], number: int
) -> Region | None:
    """A feature as an area, None if it is none. Its number is for those without a name."""
    properties = _properties(feature)
    type_ = _type(properties)
    if type_ == "root":
        return None
    try:
        nucleus = _nucleus(feature) if type_ == "cell" else []
        polygons = list(_polygons(feature.get("geometry"), Counter() if nucleus else passed_over))
    except (ValueError, TypeError) as error:
        name = feature.get("id") or properties.get("name") or number
        raise DataError(f"{path}: feature {name!r} {error}; correct or remove it") from error
    if not polygons and not nucleus:
        return None
    label, colour = _class(properties.get("classification"))
    return Region(
        id=str(feature.get("id") or ""),
        type=type_,
        label=label,
        polygons=tuple(nucleus or polygons),
        cell=tuple(polygons) if nucleus else (),
        measurements=_measurements(properties.get("measurements"), passed_over),
        locked=properties.get("isLocked") is True,
        title=str(properties.get("name") or ""),
        colour=colour,
    )


def _properties(feature: dict[str, Any]) -> dict[str, Any]:
    properties = feature.get("properties")
    return properties if isinstance(properties, dict) else {}


def _children(path: Path, feature: dict[str, Any]) -> list[dict[str, Any]]:
    """Child objects, under either of the two names QuPath reads, once if under both."""
    holders = (_properties(feature), feature)
    given = [holder.get(name) for holder in holders for name in ("childObjects", "children")]
    lists: list[Any] = []
    for each in given:
        children = each.get("features") if isinstance(each, dict) else each
        if children and children not in lists:
            lists.append(children)
    if all(isinstance(c, list) and all(isinstance(f, dict | None) for f in c) for c in lists):
        return [child for children in lists for child in children if child]
    raise DataError(
        f"{path}: childObjects of feature {feature.get('id')!r} are not a list of features; export"
        " it again, or remove them"
    )


def _nucleus(feature: dict[str, Any]) -> list[Polygon]:
    nucleus = feature.get("nucleusGeometry") or _properties(feature).get("nucleusGeometry")
    return list(_polygons(nucleus or {}, Counter()))


def _polygons(geometry: Any, passed_over: Counter[str]) -> Iterator[Polygon]:
    """Polygons of a geometry that have an area, also those of a collection.

    Raises:
        ValueError: A type nobody knows, coordinates that are no finite numbers, or an open ring.
    """
    waiting, empty = [geometry], True
    while waiting:
        part = waiting.pop(0)
        type_ = _type_in_file(part)
        if part and type_ not in GEOMETRIES:
            raise ValueError(f"has the geometry {type_ or part!r}, wanted Polygon or MultiPolygon")
        if type_ == "GeometryCollection":
            waiting += part.get("geometries") or []
            continue
        coordinates = (part or {}).get("coordinates") or []
        many = {"Polygon": [coordinates], "MultiPolygon": coordinates}.get(type_, [])
        empty = empty and not coordinates
        if coordinates and type_ not in ("Polygon", "MultiPolygon"):
            passed_over["points and lines"] += 1
        for rings in many:
            yield from _polygon(rings, passed_over)
    if empty:
        passed_over["objects without geometry"] += 1


def _type_in_file(part: Any) -> str:
    """``type`` of a GeoJSON object, empty if it is none or has none."""
    type_ = part.get("type") if isinstance(part, dict) else None
    return type_ if isinstance(type_, str) else ""


def _polygon(rings: Any, passed_over: Counter[str]) -> Iterator[Polygon]:
    """A polygon, nothing if its outline has no area. Holes without area are left out."""
    closed = [
        _ring("a hole" if index else "an outline", ring) for index, ring in enumerate(rings or [])
    ]
    if closed and closed[0] is None:
        passed_over["outlines without area"] += 1
    elif closed and closed[0] is not None:
        yield tuple(ring for ring in closed if ring is not None)


def _ring(what: str, ring: Any) -> NDArray[np.float64] | None:
    """A closed ring ``(K, 2)``, None if all its points are on one line."""
    try:
        points = np.array([[float(x), float(y)] for x, y, *_ in ring], np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise ValueError(f"has {what} that is no list of finite x, y pairs") from error
    if not (np.abs(points) < FARTHEST).all():
        raise ValueError(f"has {what} that is no list of finite x, y pairs")
    if _on_a_line(points):
        return None
    if (points[0] != points[-1]).any():
        raise ValueError(f"has {what} of {len(points)} points that does not end where it begins")
    return points


def _on_a_line(points: NDArray[np.float64]) -> bool:
    """Whether points ``(K, 2)`` span no area, and so do all polygons through them."""
    if not len(points):
        return True
    x, y = (points - points[0]).T
    far = np.argmax(x * x + y * y)
    return bool(np.abs(x * y[far] - y * x[far]).max() < FLAT)


def _type(properties: Mapping[str, Any]) -> str:
    """Object type by the first alias QuPath looks for, an annotation if it is unknown."""
    for key in ("objectType", "object_type", "type"):
        if key in properties:
            plain = re.sub(r"[\s_-]", "", str(properties[key]).lower())
            return TYPES.get(plain.removeprefix("path").removesuffix("object"), "annotation")
    return "annotation"


def _class(classification: Any) -> tuple[str, tuple[int, int, int] | None]:
    """Name and colour of a class, a word or a mapping. The empty mapping is no class."""
    if not isinstance(classification, dict):
        return _joined(classification), None
    name = _joined(classification.get("name")) or _joined(classification.get("names"))
    colour = classification.get("color", classification.get("colorRGB"))
    if isinstance(colour, int):
        return name, (colour >> 16 & 255, colour >> 8 & 255, colour & 255)
    if isinstance(colour, list) and len(colour) >= 3 and all(isinstance(c, int) for c in colour):
        return name, (colour[0], colour[1], colour[2])
    return name, None


def _joined(names: Any) -> str:
    """Name of a class, also of one that is derived from others and given as a list."""
    listed = names if isinstance(names, list) else [names]
    return ": ".join(str(name).strip() for name in listed if name)


def _measurements(given: Any, passed_over: Counter[str]) -> dict[str, float]:
    """Numbers by name, also written as text (``"Infinity"``, ``"1.5"``). Null is left out."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(given, dict):
        pairs = list(given.items())
    elif isinstance(given, list):
        pairs = [
            (each.get("name"), each.get("value")) if isinstance(each, dict) else (None, each)
            for each in given
        ]
    numbers = {}
    for name, value in pairs:
        number = None if name is None else _number(value)
        if number is not None:
            numbers[str(name)] = number
        elif value is not None:
            passed_over["measurements that are no numbers"] += 1
    return numbers


def _number(value: Any) -> float | None:
    """As a float, also of text. None if it is no number."""
    if isinstance(value, bool) or "_" in str(value):  # 1_000 is a number for Python alone
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _bytes(path: Path) -> bytes:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [
                name
                for name in archive.namelist()
                if name.lower().endswith((".geojson", ".json"))
                and not name.rpartition("/")[2].startswith(".")  # as macOS adds to each file
            ]
            if len(names) != 1:
                raise ValueError(f"{len(names)} GeoJSON files in the archive, wanted one")
            with archive.open(names[0]) as file:
                return _limited(file)
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed or path.suffix.lower() == ".gz":
        with gzip.open(path) as unpacked:
            return _limited(unpacked)
    return path.read_bytes()


def _limited(file: Any) -> bytes:
    """All bytes of an unpacked file.

    Raises:
        ValueError: They are more than ``LARGEST``.
    """
    content = bytearray()
    while chunk := file.read(CHUNK):
        content += chunk
        if len(content) > LARGEST:
            raise ValueError(f"more than {LARGEST >> 20} MiB once unpacked; unpack it yourself")
    return bytes(content)


def _features(path: Path, part: Any) -> list[dict[str, Any]]:
    type_ = _type_in_file(part)
    features: list[Any]
    if isinstance(part, dict) and isinstance(part.get("features"), list):
        features = part["features"]
    elif type_ in GEOMETRIES:
        features = [{"type": "Feature", "geometry": part, "properties": {}}]
    else:
        features = [part]
    features = [{"type": "Feature"} if each is None else each for each in features]
    for number, feature in enumerate(features):
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            got = feature.get("type") if isinstance(feature, dict) else type(feature).__name__
            raise DataError(
                f"{path}: entry {number} is {got!r}, wanted a GeoJSON Feature; in QuPath choose"
                " File, Export objects as GeoJSON"
            )
    return features
