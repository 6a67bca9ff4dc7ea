"""SICAPv2: prostate cancer, outlined by Gleason pattern, in patches of 155 biopsies."""

from __future__ import annotations

import re
import zipfile
from functools import partial
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from xpath.errors import DataError
from xpath.pathseg.reading import (
    absent_labels,
    folder_with,
    list_files,
    masks_of_classes,
    read_pair,
    read_table,
    refuse_damage,
    too_few,
    unpaired,
)
from xpath.pathseg.record import Annotated, SourceImage, published

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SOURCE", "read_sheet"]

CANCER = "prostate-tissue-prostate cancer"
CLASSES = dict.fromkeys((3, 4, 5), CANCER) | dict.fromkeys((1, 2), CANCER)
"""Value in the mask to label id: Gleason patterns 3, 4 and 5 as distributed; copies that number
them 1, 2 and 3 mean the same, for the paper does not tell patterns apart."""
PARTITION = {"Train": "train", "Test": "test"}
"""Table in ``partition/Test`` to split; ``partition/Validation`` divides its training part."""
ORIGINALS = 18783

INFO = published("SICAPv2", (CANCER,))
"""Patches are at 10x (1.0 mpp), though the paper's table has 20x: at 20x each gives one window at
40x, and the paper's 23,924 are more than the 18,783 distributed."""


class Sicapv2:
    """Patches in their official split, grouped by patient where the tables tell, else by slide.

    Patches overlap by half, and not all are in the official split: the others go with their slide.
    """

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All patches, sorted by name.

        Raises:
            DataError: A table is damaged or lacks a column.
        """
        top = folder_with(root, "images", "masks") or root
        splits, patients = _splits(top), _patients(top)
        for path in list_files(top / "images", ".jpg", ".png"):
            slide = _slide(path.name)
            yield INFO.image(
                path,
                partial(_read, path, top / "masks" / f"{path.stem}.png"),
                group=patients.get(slide, slide),
                split=splits.get(slide),
            )

    def missing(self, root: Path) -> list[str]:
        """Tables and masks that are not there, and how many patches."""
        top = folder_with(root, "images", "masks")
        if top is None:
            return [f"{name}/" for name in ("images", "masks") if folder_with(root, name) is None]
        images = {path.stem for path in list_files(top / "images", ".jpg", ".png")}
        gaps = too_few(len(images), ORIGINALS, "patches in images")
        gaps += [f"masks/{name}" for name in unpaired(images, top / "masks", ".png")]
        gaps += [
            f"partition/Test/{name}.xlsx (no official split without it)"
            for name in PARTITION
            if _table(top / "partition" / "Test" / name) is None
        ]
        if _table(top / "wsi_labels") is None:
            gaps.append("wsi_labels.xlsx (patients are not known without it)")
        return gaps


SOURCE = Sicapv2()


def _slide(name: str) -> str:
    """``16B0001851`` of ``16B0001851_Block_Region_1_0_0_xini_6803_yini_59786.jpg``."""
    return name.partition("_Block_")[0]


def _table(stem: Path) -> Path | None:
    """A table as distributed or exported."""
    candidates = (stem.with_name(f"{stem.name}{suffix}") for suffix in (".xlsx", ".csv"))
    return next((path for path in candidates if path.exists()), None)


def _rows(stem: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a table, none if it is not there."""
    path = _table(stem)
    if path is None:
        return []
    return read_sheet(path, *columns) if path.suffix == ".xlsx" else read_table(path, *columns)


def _splits(top: Path) -> dict[str, str]:
    """Split of every slide, which the official one never cuts."""
    return {
        _slide(row["image_name"]): split
        for table, split in PARTITION.items()
        for row in _rows(top / "partition" / "Test" / table, "image_name")
    }


def _patients(top: Path) -> dict[str, str]:
    """Patient of every slide."""
    rows = _rows(top / "wsi_labels", "slide_id", "patient_id")
    return {row["slide_id"]: row["patient_id"] for row in rows if row["patient_id"]}


def _read(path: Path, mask_path: Path) -> Annotated:
    """A patch with all its cancer."""
    image, values = read_pair(path, mask_path)
    masks = masks_of_classes(values, CLASSES, path=mask_path)
    return Annotated(image, masks, None, absent_labels(INFO.labels, masks))


def read_sheet(path: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of the first sheet of an Excel file, by the names in its first row, all as text.

    Reads just what a plain table needs, so that no package for Excel is.

    Args:
        path: An ``.xlsx`` file.
        columns: Names that must be there.

    Raises:
        DataError: The file is missing or damaged, or lacks a column.
    """
    with refuse_damage(path, "Excel table"), zipfile.ZipFile(path) as archive:
        shared = []
        if "xl/sharedStrings.xml" in archive.namelist():
            shared = [
                _text(item) for item in _xml(archive, "xl/sharedStrings.xml").findall(".//{*}si")
            ]
        sheet = _xml(archive, "xl/worksheets/sheet1.xml")
        rows = [_cells(row, shared) for row in sheet.findall(".//{*}row")]
    header = rows[0] if rows else {}
    lacking = [name for name in columns if name not in header.values()]
    if lacking:
        raise DataError(
            f"{path} has no column {lacking[0]!r}, only {', '.join(header.values()) or 'nothing'}; "
            "take the file as distributed"
        )
    return [
        {name: row.get(column, "") for column, name in header.items()} for row in rows[1:] if row
    ]


def _xml(archive: zipfile.ZipFile, name: str) -> ET.Element:
    return ET.fromstring(archive.read(name))


def _cells(row: ET.Element, shared: list[str]) -> dict[str, str]:
    """Text of the filled cells of a row, by the letters of their column."""
    cells = {}
    for number, cell in enumerate(row.findall(".//{*}c")):
        letters = re.match("[A-Z]+", cell.get("r", ""))
        content = cell.findtext("{*}v", "") or _text(cell)
        if cell.get("t") == "s" and content:
            content = shared[int(content)]
        if content.strip():
            cells[letters[0] if letters else str(number)] = content.strip()
    return cells


def _text(element: ET.Element) -> str:
    """Text of a cell, whose parts may be formatted differently."""
    return "".join(part.text or "" for part in element.findall(".//{*}t"))
