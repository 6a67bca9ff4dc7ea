"""Which DICOM files are one slide: those of a series, a file or more for each level.

DICOM PS3.10, section 7.1, and PS3.5, sections 7.1 and 7.5.
"""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING, BinaryIO

from xpath.store.names import shown

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["one_of_each_series"]

logger = logging.getLogger(__name__)

MAGIC_AT, MAGIC = 128, b"DICM"
SERIES = (0x0020, 0x000E)
ITEM_END, SEQUENCE_END = (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR"))
LONG |= {b"UT", b"UV"}
"""Types of values whose length takes four bytes."""
UNTIL_ITS_END = 0xFFFFFFFF
LONGEST_HEADER = 1 << 20
"""Bytes before the series' element."""


def one_of_each_series(paths: Iterable[Path]) -> list[Path]:
    """The paths, but of the files of a DICOM series in one folder only the first.

    Any of them opens the whole slide, which would otherwise be as many slides. A line of the log
    says which file stands for which.
    """
    kept: list[Path] = []
    first: dict[tuple[Path, str], Path] = {}
    others: dict[Path, list[str]] = {}
    for path in paths:
        series = _series(path) if path.suffix.lower() == ".dcm" else ""
        one = first.setdefault((path.parent, series), path) if series else path
        if one == path:
            kept.append(path)
        else:
            others.setdefault(one, []).append(path.name)
    for path, names in others.items():
        logger.warning(
            "%s: %d more files of its DICOM series are the same slide, named %s: %s",
            path, len(names), path.stem, shown(names),
        )  # fmt: skip
    return kept


def _series(path: Path) -> str:
    """The series' number, empty where it cannot be told."""
    try:
        with path.open("rb") as file:
            file.seek(MAGIC_AT)
            return _find(file) if file.read(len(MAGIC)) == MAGIC else ""
    except (OSError, struct.error, RecursionError):
        return ""


def _find(file: BinaryIO) -> str:
    """The value of the series' element among the elements of the file, which are sorted."""
    while True:
        tag, length = _element(file)
        if tag >= SERIES:
            return file.read(length).decode("ascii", "replace").strip("\0 ") * (tag == SERIES)
        _skip(file, length)


def _element(file: BinaryIO) -> tuple[tuple[int, int], int]:
    """Tag of the next element, and the length of its value.

    Raises:
        struct.error: The header ends, or does not where every header has.
    """
    if file.tell() > LONGEST_HEADER:
        raise struct.error("no DICOM")
    group, number, kind, length = struct.unpack("<HH2sH", file.read(8))
    if group == ITEM_END[0]:
        file.seek(-4, 1)
        return (group, number), struct.unpack("<I", file.read(4))[0]
    if kind in LONG:
        length = struct.unpack("<I", file.read(4))[0]
    return (group, number), length


def _skip(file: BinaryIO, length: int) -> None:
    """Passes over a value, also a sequence of items that end with a mark."""
    if length != UNTIL_ITS_END:
        file.seek(length, 1)
        return
    while (found := _element(file))[0] not in (ITEM_END, SEQUENCE_END):
        _skip(file, found[1])
