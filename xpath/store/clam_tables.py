"""CLAM's tables: which slides there are, and which part of the split each is in."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from xpath.errors import DataError
from xpath.store.names import is_missing, plain_name
from xpath.store.tables import read_user_table, write_table

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

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

    Slides without a label are left out, as CLAM does with labels it does not know, and counted in a
    warning; one without a patient is a patient of its own.

    Raises:
        DataError: Unreadable, a missing column, no labelled slide, or a slide twice.
    """
    rows = read_user_table(path, "case_id", "slide_id", label_column)
    named = [row | {"slide_id": plain_name(row["slide_id"])} for row in rows if row["slide_id"]]
    slides = [
        CLAMSlide(
            row["slide_id"] if is_missing(row["case_id"]) else row["case_id"],
            row["slide_id"],
            row[label_column.lower()],
        )
        for row in named
        if not is_missing(row[label_column.lower()])
    ]
    if len(slides) < len(rows):
        lost = len(rows) - len(slides)
        logger.warning("%s: %d of %d rows have no slide or label", path, lost, len(rows))
    _refuse_twice(path, [slide.slide_id for slide in slides])
    if not slides:
        raise DataError(f"{path} has no slide with a {label_column!r}")
    return slides


def read_clam_split(path: Path) -> dict[str, str]:
    """Part (train, validation, test) of each slide of ``splits_k.csv`` or ``splits_k_bool.csv``.

    Raises:
        DataError: Unreadable, a missing column, no slide, or a slide in two parts.
    """
    rows = read_user_table(path, *PARTS)
    if {row[word].lower() for row in rows for word in PARTS} <= YES | {"false", "0", "0.0"}:
        # the index, slide ids, has no name
        placed = [(row[""], word) for row in rows for word in PARTS if row[word].lower() in YES]
    else:
        placed = [(row[word], word) for word in PARTS for row in rows if not is_missing(row[word])]
    _refuse_twice(path, [plain_name(slide_id) for slide_id, _ in placed])
    if not placed:
        raise DataError(f"{path} has no slide in any part")
    return {plain_name(slide_id): PARTS[word] for slide_id, word in placed}


def write_clam_split(path: Path, parts: dict[str, str]) -> None:
    """Writes ``splits_k.csv`` as CLAM reads it, so that others can use the same split.

    Args:
        path: File to write.
        parts: train, validation or test of each slide id.

    Raises:
        StoreError: The disk is full.
    """
    columns = {
        word: [name for name, part in parts.items() if part == ours] for word, ours in PARTS.items()
    }
    rows = zip_longest(*columns.values())
    write_table(
        path,
        [{"": number, **dict(zip(columns, row, strict=True))} for number, row in enumerate(rows)],
    )


def _refuse_twice(path: Path, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path} names slides twice: {twice[:5]}; leave one row of each")
