"""GeoJSON of annotation programs: one tolerant reader of all forms that QuPath reads or writes.

What cannot be an area is passed over, counted, and named in one line of the log; only a file that
is no GeoJSON, or an outline nobody can close, is refused. Coordinates are those of the file.
Axes: K corners.
"""

from __future__ import annotations

import gzip
import json
import logging
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Polygon", "Region", "load_features", "read_areas", "union_area"]

logger = logging.getLogger(__name__)

Polygon = tuple["NDArray[np.float64]", ...]
GEOMETRIES = frozenset((
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon",
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

    polygons = [
        shapely.make_valid(shapely.Polygon(rings[0], rings[1:]))  # its lines, even-odd
        for region in regions
        for rings in region.polygons
    ]
    return float(shapely.union_all(polygons).area)


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
    while waiting:
        feature = waiting.pop()
        region = _region(path, feature, passed_over)
        if region is not None:
            regions.append(region)
        waiting += _children(path, feature)[::-1]
    if passed_over:
        counts = ", ".join(f"{count} {what}" for what, count in passed_over.items())
        logger.warning("%s: passed over: %s", path, counts)
    return regions


def _region(path: Path, feature: dict[str, Any], passed_over: Counter[str]) -> Region | None:
    properties = _properties(feature)
    type_ = _type(properties)
    if type_ == "root":
        return None
    try:
        polygons = list(_polygons(feature.get("geometry"), passed_over))
        nucleus = _nucleus(feature) if type_ == "cell" else []
    except (ValueError, TypeError) as error:
        name = feature.get("id") or properties.get("name")
        raise DataError(f"{path}: feature {name!r} {error}; correct or remove it") from error
    if not polygons:
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
    """Child objects, under either of the two names QuPath reads."""
    properties = _properties(feature)
    children = properties.get("childObjects") or properties.get("children") or []
    if isinstance(children, list) and all(isinstance(each, dict) for each in children):
        return children
    raise DataError(
        f"{path}: childObjects of feature {feature.get('id')!r} are not a list of features; export"
        " it again, or remove them"
    )


def _nucleus(feature: dict[str, Any]) -> list[Polygon]:
    return list(_polygons(feature.get("nucleusGeometry") or {}, Counter()))


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
    closed = [_ring("hole" if index else "outline", ring) for index, ring in enumerate(rings or [])]
    if closed and closed[0] is None:
        passed_over["outlines without area"] += 1
    elif closed and closed[0] is not None:
        yield tuple(ring for ring in closed if ring is not None)


def _ring(what: str, ring: Any) -> NDArray[np.float64] | None:
    """A closed ring ``(K, 2)``, None if it has fewer than three different points."""
    try:
        points = np.array([[float(x), float(y)] for x, y, *_ in ring], np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise ValueError(f"has an {what} that is no list of finite x, y pairs") from error
    if not np.isfinite(points).all():
        raise ValueError(f"has an {what} that is no list of finite x, y pairs")
    if len(np.unique(points, axis=0)) < 3:
        return None
    if (points[0] != points[-1]).any():
        raise ValueError(f"has an {what} of {len(points)} points that does not end where it begins")
    return points


def _type(properties: Mapping[str, Any]) -> str:
    """Object type by the first alias QuPath looks for, an annotation if it is unknown."""
    for key in ("objectType", "object_type", "type"):
        if key in properties:
            plain = str(properties[key]).lower().replace("_", "")
            return TYPES.get(plain.removeprefix("path").removesuffix("object"), "annotation")
    return "annotation"


def _class(classification: Any) -> tuple[str, tuple[int, int, int] | None]:
    """Name and colour of a class, a word or a mapping. The empty mapping is no class."""
    if not isinstance(classification, dict):
        return str(classification or ""), None
    names = classification.get("names")
    parts = names if isinstance(names, list) else [names] if names else []
    name = str(classification.get("name") or "") or ": ".join(map(str, parts))
    colour = classification.get("color", classification.get("colorRGB"))
    if isinstance(colour, int):
        return name, (colour >> 16 & 255, colour >> 8 & 255, colour & 255)
    if isinstance(colour, list) and len(colour) >= 3 and all(isinstance(c, int) for c in colour):
        return name, (colour[0], colour[1], colour[2])
    return name, None


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
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _bytes(path: Path) -> bytes:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.lower().endswith((".geojson", ".json"))]
            if len(names) != 1:
                raise ValueError(f"{len(names)} GeoJSON files in the archive, wanted one")
            with archive.open(names[0]) as file:
                return _limited(file)
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as file:
            return _limited(file)
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
    for number, feature in enumerate(features):
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            got = feature.get("type") if isinstance(feature, dict) else type(feature).__name__
            raise DataError(
                f"{path}: entry {number} is {got!r}, wanted a GeoJSON Feature; in QuPath choose"
                " File, Export objects as GeoJSON"
            )
    return features
