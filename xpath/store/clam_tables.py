"""CLAM's tables of splits."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from typing import TYPE_CHECKING

from xpath.errors import DataError
from xpath.store.names import is_missing, plain_name
from xpath.store.tables import read_user_table, write_table

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_clam_split", "write_clam_split"]

SPLIT_OF = {"train": "train", "val": "validation", "test": "test"}
"""CLAM's word to ours."""
YES = frozenset({"true", "1", "1.0"})


def read_clam_split(path: Path) -> dict[str, str]:
    """Split (train, validation, test) of each slide of ``splits_k.csv`` or ``splits_k_bool.csv``.

    Raises:
        DataError: Unreadable, a missing column, no slide, or a slide in two splits.
    """
    rows = read_user_table(path, *SPLIT_OF)
    if {row[word].lower() for row in rows for word in SPLIT_OF} <= YES | {"false", "0", "0.0"}:
        # slide ids are in the first column, the index, which has no name or any
        names = [next(iter(row.values())) for row in rows]
        placed = [
            (name, word)
            for name, row in zip(names, rows, strict=True)
            for word in SPLIT_OF
            if row[word].lower() in YES
        ]
    else:
        cells = [(row[word], word) for word in SPLIT_OF for row in rows]
        placed = [(name, word) for name, word in cells if not is_missing(name)]
    placed = [(plain_name(slide_id), word) for slide_id, word in placed]
    _refuse_twice(path, [slide_id for slide_id, _ in placed])
    if not placed:
        raise DataError(f"{path} has no slide in any split")
    return {slide_id: SPLIT_OF[word] for slide_id, word in placed}


def write_clam_split(path: Path, splits: dict[str, str]) -> None:
    """Writes ``splits_k.csv`` as CLAM reads it, so that others can use the same split.

    Args:
        path: File to write.
        splits: train, validation or test of each slide id.

    Raises:
        StoreError: The disk is full.
    """
    columns = {
        word: [name for name, split in splits.items() if split == ours]
        for word, ours in SPLIT_OF.items()
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
