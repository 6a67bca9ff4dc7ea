"""Tables: the one door to every CSV file we write, and to those that users bring.

A value that is not known is an empty cell, and an empty cell of a number is NaN. Text stays as it
is ("007", "NA" and "None" are names of slides as good as others), floats are written with the
fewest digits that give them back exactly, and equal rows give equal bytes.
"""

from __future__ import annotations

import csv
import typing
import warnings
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from inspect import signature
from io import StringIO
from typing import TYPE_CHECKING, Any, TypeVar

from xpath.errors import DataError, StoreError
from xpath.store.schema import atomic, name_unknown

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence
    from pathlib import Path

    from pandas import DataFrame

__all__ = [
    "aligned",
    "append_row",
    "read_rows",
    "read_table",
    "read_user_table",
    "table_text",
    "write_table",
]

T = TypeVar("T")


def write_table(path: Path, rows: Iterable[Any], columns: Iterable[str] | type = ()) -> None:
    """Writes rows as CSV, whole or not at all.

    Args:
        path: The file.
        rows: Mappings, dataclasses or named tuples; what a row lacks, None and NaN become empty.
        columns: The first columns in their order, or the class of the rows; others follow as they
            come. They are the header of a table without rows.

    Raises:
        StoreError: The disk is full, or there are neither rows nor columns.
    """
    text = table_text(rows, columns)
    if not text.strip():
        raise StoreError(f"{path}: there is nothing to write, no rows and no columns")
    with atomic(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def table_text(rows: Iterable[Any], columns: Iterable[str] | type = ()) -> str:
    """The CSV that ``write_table`` writes."""
    import pandas as pd

    records = [_record(row) for row in rows]
    first = signature(columns).parameters if isinstance(columns, type) else columns
    names = dict.fromkeys([*first, *(name for record in records for name in record)])
    frame = pd.DataFrame(
        records, columns=list(names), dtype=object
    )  # an int beside a gap stays one
    return str(frame.to_csv(index=False, lineterminator="\n"))


def aligned(rows: Sequence[Sequence[str]], *, left: Container[int] = (0,)) -> Iterator[str]:
    """Lines of a table to print, its columns aligned to the right but for those named ``left``."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        texts = (
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(texts).rstrip()


def append_row(path: Path, row: Any) -> None:
    """Adds a row to a log that grows, with a header if it is new.

    Args:
        path: The file; a killed process may leave its last line cut short.
        row: A mapping, dataclass or named tuple with the columns of the rows before.
    """
    head, _, line = table_text([row]).partition("\n")
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(line if file.tell() else f"{head}\n{line}")


def read_table(path: Path, /, **types: type) -> list[dict[str, Any]]:
    """Rows of a table by column, none where there is no file.

    Args:
        path: The file.
        types: Columns that must be there, and what they hold: ``str``, ``int``, ``float`` (empty is
            NaN) or ``bool``. All others are read as text, in which empty is ``""``.

    Raises:
        StoreError: No table, a column is missing, or a cell is not of its type.
    """
    return _typed(path, _frame(path), types) if path.exists() else []


def read_rows(path: Path, row: type[T]) -> list[T]:
    """Rows of a table as dataclasses or named tuples, none where there is no file.

    A column that an older version did not write takes the default of its field. One that we do not
    know, as a newer version may write, is named in a warning and passed over.

    Args:
        path: The file.
        row: The class; its fields are of the types ``read_table`` knows.

    Raises:
        StoreError: No table, a column without default is missing, or a cell is not of its type.
    """
    if not path.exists():
        return []
    frame, hints = _frame(path), typing.get_type_hints(row)
    name_unknown(path, frame.columns, hints)
    needed = {p.name for p in signature(row).parameters.values() if p.default is p.empty}
    types = {name: hints[name] for name in hints if name in frame.columns or name in needed}
    return [row(**{name: values[name] for name in types}) for values in _typed(path, frame, types)]


def read_user_table(path: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a table that a user or another program wrote, all as text.

    Cells are separated by commas, semicolons or tabs. Names of columns come in lower case, all
    without blanks around them, and gaps as ``""``.

    Args:
        path: The file, in UTF-8.
        columns: Names that must be there, in any case.

    Raises:
        DataError: It cannot be read, lacks a column or has no row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); pass a CSV file in UTF-8 (Excel: save as CSV UTF-8)"
        ) from error
    head = text.partition("\n")[0]
    comma = max(",;\t", key=head.count)  # spreadsheets of some countries write semicolons
    rows = [
        {
            (name or "").strip().lower(): cell.strip()
            for name, cell in row.items()
            if isinstance(cell, str)  # a row that is too long ends in a list
        }
        for row in csv.DictReader(StringIO(text, newline=""), delimiter=comma, restval="")
    ]
    known = sorted(rows[0]) if rows else sorted(head.split(comma))
    if not rows or not {name.lower() for name in columns} <= set(known):
        raise DataError(
            f"{path} needs the columns {', '.join(columns)} and at least one row, got the"
            f" columns {known} and {len(rows)} rows"
        )
    return rows


def _record(row: Any) -> Mapping[str, Any]:
    """A row by column."""
    if isinstance(row, Mapping):
        return row
    if is_dataclass(row):
        return {field.name: getattr(row, field.name) for field in fields(row)}
    return dict(row._asdict())


def _frame(path: Path) -> DataFrame:
    """A table with every cell as text."""
    import pandas as pd

    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            return pd.read_csv(
                path, dtype=str, na_filter=False, index_col=False, encoding="utf-8-sig"
            )
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise StoreError(f"{path} cannot be read as a table: {error}") from error


def _typed(path: Path, frame: DataFrame, types: Mapping[str, type]) -> list[dict[str, Any]]:
    """Rows with some columns as their types."""
    missing = [name for name in types if name not in frame.columns]
    if missing:
        raise StoreError(
            f"{path} needs the columns {', '.join(missing)}; it has {', '.join(frame.columns)}"
        )
    rows: list[dict[str, Any]] = frame.to_dict("records")
    for number, row in enumerate(rows, start=1):
        for name, wanted in types.items():
            try:
                row[name] = _value(row[name], wanted)
            except ValueError as error:
                raise StoreError(
                    f"{path}, row {number}: {name} must be {wanted.__name__}, got {row[name]!r}"
                ) from error
    return rows


def _value(text: str, wanted: type) -> Any:
    """A cell as its type."""
    if wanted is bool:
        return bool(("False", "True").index(text))  # bool("False") is True
    return wanted(text or "nan") if wanted is float else wanted(text)
