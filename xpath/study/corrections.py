"""Areas a person drew or corrected in QuPath, sorted by the labels of a run.

A class means a label by any spelling that fits one label only (``Tumor``, ``lymphocytes``). Some
classes have a meaning of their own: ``Region*``, ``ROI`` and ``Region of interest`` bound what is
compared; ``Ignore*``, and the ``tissue`` and tiles xpath itself exports, are passed over.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from xpath.errors import DataError, LabelError
from xpath.export.qupath.reader import read_regions
from xpath.labels import LabelTree, load_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from xpath.geometry import Box
    from xpath.store.geojson import Region

__all__ = ["BOUNDING", "PASSED_OVER", "Corrections", "chosen_labels", "read_corrections"]

BOUNDING = ("region", "roi", "region of interest")
"""Classes that bound what is compared; in any case, a ``*`` at the end makes no difference."""
PASSED_OVER = ("tissue", "patch", "ignore")
"""Classes that are never objects: what xpath exports beside them, and QuPath's ``Ignore*``."""
TYPES_PASSED_OVER = ("tile", "tmaCore")
NUCLEI = "nuclei"
"""Structure of the labels that are compared with the nuclei of cells, not with the cells."""


class Corrections(NamedTuple):
    """The areas of a file, in level-0 pixels."""

    objects: Mapping[str, Sequence[Region]]
    """By label id; labels that were asked for and are not there have none."""
    regions: Sequence[Region]
    """That bound what is compared; none bound nothing."""
    meant: Mapping[str, str]
    """Class as it is written to label id, where they differ."""
    unnamed: int
    """Areas with neither class nor name, which are left out."""
    nuclei: int = 0
    """Cells that are compared by their nuclei."""
    others: Sequence[str] = ()
    """Classes that were not asked for, as they are written."""


def chosen_labels(names: Iterable[str], labels: Sequence[str]) -> tuple[str, ...]:
    """The labels of a run that somebody means, by any spelling.

    Raises:
        LabelError: The run has no such label, or several; it names those it has.
    """
    tree = _tree(labels)
    meant, unknown = _meant(names, tree)
    if unknown:
        raise LabelError(f"{'; '.join(unknown)}; the run has {', '.join(labels)}")
    return tuple(dict.fromkeys(meant.values()))


def read_corrections(
    path: Path, labels: Sequence[str], *, bounds: Box, only: Sequence[str] = ()
) -> Corrections:
    """The areas of a GeoJSON file by label.

    Args:
        path: As QuPath exports it.
        labels: What the run has, label ids.
        bounds: The slide's scanned part, from whose corner QuPath measures.
        only: Label ids to read; other classes are then passed over, whatever they are. By default
            all classes of the file, each of which must be a label of the run.

    Raises:
        DataError: No GeoJSON, a broken feature, or no area that could be compared.
        LabelError: A class that is no label of the run, or may be several.
    """
    areas = [
        area for area in read_regions(path, bounds=bounds) if area.type not in TYPES_PASSED_OVER
    ]
    regions = [area for area in areas if _bare(_name(area)) in BOUNDING]
    named = [area for area in areas if _name(area) and _bare(_name(area)) not in BOUNDING]
    named = [area for area in named if _bare(_name(area)) not in PASSED_OVER]
    tree = _tree(labels)
    meant, unknown = _meant((_name(area) for area in named), tree)
    if unknown and not only:
        raise LabelError(
            f"{path}: {'; '.join(unknown)}; the run has {', '.join(labels)}: rename the classes in"
            " QuPath, or choose with --objects what to compare"
        )
    objects: dict[str, list[Region]] = {label: [] for label in only}
    for area in named:
        label = meant.get(_name(area), "")
        if label and (not only or label in only):
            objects.setdefault(label, []).append(_outlined(area, tree, label))
    if not objects or not areas:
        raise DataError(
            f"{path} has no object to compare ({len(areas)} areas, {len(regions)} of them regions);"
            " give objects a class in QuPath, then File, Export objects as GeoJSON"
        )
    in_order = {label: objects[label] for label in labels if label in objects}
    shown = {name: label for name, label in meant.items() if name != label and label in in_order}
    return Corrections(
        in_order,
        regions,
        shown,
        unnamed=sum(not _name(area) for area in areas),
        nuclei=sum(bool(area.cell) for each in in_order.values() for area in each),
        others=tuple(dict.fromkeys(n for n in map(_name, named) if meant.get(n) not in in_order)),
    )


def _meant(names: Iterable[str], tree: LabelTree) -> tuple[dict[str, str], list[str]]:
    """Name to label id, perhaps by the base of a derived class, and what is wrong with others."""
    meant, unknown = {}, []
    for name in dict.fromkeys(names):
        try:
            meant[name] = tree.parse(name).id
        except LabelError as error:
            base = _base(name, tree)
            if base:
                meant[name] = base
            else:
                unknown.append(str(error).partition(";")[0])
    return meant, unknown


def _base(name: str, tree: LabelTree) -> str:
    """Label id of the class that a class such as ``Tumor: Positive`` is derived from, or empty."""
    base, colon, _ = name.partition(":")
    try:
        return tree.parse(base.strip()).id if colon else ""
    except LabelError:
        return ""


def _outlined(area: Region, tree: LabelTree, label: str) -> Region:
    """A cell as the label has it: its nucleus for nuclei, else the whole cell."""
    if not area.cell or tree.parse(label).structure == NUCLEI:
        return area
    return replace(area, polygons=area.cell, cell=())


def _tree(labels: Sequence[str]) -> LabelTree:
    """The labels of the run alone, so that what is ambiguous elsewhere is not here."""
    known = load_labels()
    return LabelTree((known.parse(label, allow_new=True) for label in labels), known.digest)


def _name(area: Region) -> str:
    """Of a class, else what the person called it."""
    return area.label or area.title


def _bare(name: str) -> str:
    """The base of a class, without the star that QuPath puts behind those it does not count."""
    return name.partition(":")[0].strip().casefold().removesuffix("*").strip()
