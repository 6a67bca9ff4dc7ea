"""CLAM's tables: which slides there are, and which part of the split each is in."""

from __future__ import annotations

import csv
from collections import Counter
from io import StringIO
from typing import TYPE_CHECKING, NamedTuple

from xpath.errors import DataError
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CLAMSlide", "read_clam_dataset", "read_clam_split", "write_clam_split"]

PARTS = {"train": "train", "val": "validation", "test": "test"}
"""CLAM's word to ours."""
YES = frozenset({"true", "1", "1.0"})


class CLAMSlide(NamedTuple):
    """A row of a dataset table."""

    case_id: str
    """The patient."""
    slide_id: str
    """Name of the feature file without suffix."""
    label: str


def read_clam_dataset(path: Path, *, label_column: str = "label") -> list[CLAMSlide]:
    """Slides of a dataset table: ``case_id``, ``slide_id`` and a column of labels.

    Slides with an empty label are left out, as CLAM does with labels it does not know.

    Raises:
        DataError: Unreadable, a missing column, no labelled slide, or a slide twice.
    """
    rows = _rows(path, ["case_id", "slide_id", label_column])
    slides = [
        CLAMSlide(row["case_id"], row["slide_id"], row[label_column])
        for row in rows
        if row["slide_id"] and row[label_column]
    ]
    _refuse_twice(path, [slide.slide_id for slide in slides])
    if not slides:
        raise DataError(f"{path} has no slide with a {label_column!r}")
    return slides


def read_clam_split(path: Path) -> dict[str, str]:
    """Part (train, validation, test) of each slide of ``splits_k.csv`` or ``splits_k_bool.csv``.

    Raises:
        DataError: Unreadable, a missing column, no slide, or a slide in two parts.
    """
    rows = _rows(path, list(PARTS))
    if {row[word].lower() for row in rows for word in PARTS} <= YES | {"false", "0", "0.0"}:
        # the index, slide ids, has no name
        placed = [(row[""], word) for row in rows for word in PARTS if row[word].lower() in YES]
    else:
        placed = [(row[word], word) for word in PARTS for row in rows if row[word]]
    _refuse_twice(path, [slide_id for slide_id, _ in placed])
    if not placed:
        raise DataError(f"{path} has no slide in any part")
    return {slide_id: PARTS[word] for slide_id, word in placed}


def write_clam_split(path: Path, parts: dict[str, str]) -> None:
    """Writes ``splits_k.csv`` as CLAM reads it, so that others can use the same split.

    Args:
        path: File to write.
        parts: train, validation or test of each slide id.

    Raises:
        StoreError: The disk is full.
    """
    columns = [[name for name, part in parts.items() if part == ours] for ours in PARTS.values()]
    lines = [",".join(["", *PARTS])]
    for number in range(max(len(column) for column in columns)):
        cells = [column[number] if number < len(column) else "" for column in columns]
        lines.append(",".join([str(number), *cells]))
    with atomic(path) as draft:
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(path: Path, wanted: list[str]) -> list[dict[str, str]]:
    """Rows with every cell as text, so that ids keep their leading zeros."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); pass a CSV file in UTF-8") from error
    rows = [
        {
            (key or "").strip(): (value or "").strip()
            for key, value in row.items()
            if key is not None
        }
        for row in csv.DictReader(StringIO(text, newline=""))
    ]
    columns = sorted(rows[0]) if rows else []
    if not set(wanted) <= set(columns):
        raise DataError(
            f"{path} needs the columns {wanted} and at least one row, got {columns} and"
            f" {len(rows)} rows"
        )
    return rows


def _refuse_twice(path: Path, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path} names slides twice: {twice[:5]}; leave one row of each")
