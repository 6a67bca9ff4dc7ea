"""Tables: the one door to every CSV file we write, and to those that users bring.

A value that is not known is an empty cell, and an empty cell of a number is NaN. Text stays as it
is ("007", "NA" and "None" are names of slides as good as others), but for a ``'`` before text that
a spreadsheet would run as a formula, which is taken away again when it is read. Floats are written
with the fewest digits that give them back exactly, and equal rows give equal bytes.
"""

from __future__ import annotations

import csv
import re
import typing
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from inspect import signature
from io import StringIO
from itertools import zip_longest
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
    "parse_number",
    "parse_whole",
    "read_rows",
    "read_table",
    "read_user_table",
    "table_text",
    "write_table",
]

T = TypeVar("T")
FORMULA = re.compile(r"(?![+-]?[\d.]+(e[+-]?\d+)?$|[+-]?(inf|nan)$)'*[=+\-@\t\r]", re.IGNORECASE)
"""Text that spreadsheets run: it begins with one of these signs and is no number."""
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""First bytes of gzip, bzip2, xz and Zstandard."""
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How files of Excel begin: today's are archives."""
MOST_SHOWN = 300
"""Letters of the names of columns in a message."""
QUOTED = re.compile(r'"[^"]*"')
LONGEST_HEADER = 1 << 16
"""Letters in which the names of columns are looked for, to see what separates them."""
GUARDED = re.compile(r"'+[=+\-@\t\r]")


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
    cells = [[_guarded(record.get(name)) for name in names] for record in records]
    header = [_guarded(name) for name in names]
    frame = pd.DataFrame(cells, columns=header, dtype=object)  # an int beside a gap stays one
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


def read_user_table(path: Path, *columns: str, also: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows of a table that a user or another program wrote, all as text.

    Cells are separated by commas, semicolons, tabs or bars. Names of columns come in lower case,
    all without blanks around them, and gaps as ``""``. Rows of nothing but gaps are left out, also
    before the names of columns.

    Args:
        path: The file, in UTF-8, UTF-16 or UTF-32.
        columns: Names that must be there. Capitals, blanks, dashes and ``_`` make no difference:
            ``Slide ID`` is ``slide_id``.
        also: Names that may be there, spelt so, too.

    Raises:
        DataError: It cannot be read, lacks a column, has one twice, has no row, or has a row with
            more cells than there are columns.
    """
    table = _user_cells(path)
    names = _column_names(table[0] if table else [], (*columns, *also))
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise DataError(
            f"{path} has several columns named {', '.join(twice)} (capitals make no difference);"
            " leave the one that is meant"
        )
    cells = [[_unguarded(cell) for cell in row] for row in table[1:]]
    longer = next((row for row in cells if any(row[len(names) :])), None)
    if not cells or not {name.lower() for name in columns} <= set(names):
        raise DataError(
            f"{path} needs the columns {', '.join(columns)} and at least one row, got the"
            f" columns {', '.join(names)[:MOST_SHOWN] or 'none'} and {len(cells)} rows;"
            " rename the columns, or add what is missing"
        )
    if longer:
        numbered = all(len(row) == len(names) + 1 for row in cells)
        raise DataError(
            f"{path} has {len(longer)} cells in the row of {longer[0]!r}, but {len(names)} columns;"
            + (
                " write it without names of rows (R: row.names = FALSE)"
                if numbered
                else " put text with a comma in it in quotes"
            )
        )
    return [dict(zip_longest(names, row[: len(names)], fillvalue="")) for row in cells]


def parse_number(text: str) -> float:
    """A number as spreadsheets write it, with a decimal point or comma.

    Raises:
        ValueError: It is none.
    """
    if "_" in text:  # Python's own way to write thousands, which makes 25 of 0_25
        raise ValueError(f"{text!r} is no number")
    return float(text if "." in text else text.replace(",", "."))


def parse_whole(text: str) -> int:
    """A whole number, also as pandas writes it beside gaps: ``1.0``.

    Raises:
        ValueError: It is none.
    """
    number = parse_number(text)
    if not number.is_integer():  # so are NaN and infinity
        raise ValueError(f"{text!r} is no whole number")
    return int(number)


def _column_names(given: Sequence[str], known: Iterable[str]) -> list[str]:
    """Names of columns in lower case, known ones as we spell them if one alone may be meant."""
    names = [name.lower() for name in given]
    for wanted in known:
        alike = [index for index, name in enumerate(names) if _letters(name) == _letters(wanted)]
        if wanted not in names and len(alike) == 1:
            names[alike[0]] = wanted
    return names


def _letters(name: str) -> str:
    return "".join(sign for sign in name if sign.isalnum())


def _user_cells(path: Path) -> list[list[str]]:
    """Cells without blanks around them, however they are separated, of rows that have any.

    Raises:
        DataError: No text, in an encoding that is only guessed, or quotes that do not end.
    """
    try:
        text = _user_text(path).lstrip("\r\n")
        first, _, rest = text.partition("\n")
        if first.strip(' "\r').lower().startswith("sep="):  # as Excel writes to itself
            text = rest
        lines = QUOTED.sub("x", text[:LONGEST_HEADER]).splitlines()
        header = next((line for line in lines if line.strip(",;|\t ")), "")
        comma = max(",;\t|", key=header.count)  # spreadsheets of some countries write semicolons
        table = csv.reader(StringIO(text, newline=""), delimiter=comma, strict=True)
        rows = ([cell.strip() for cell in row] for row in table)
        return [row for row in rows if any(row)]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read ({error}); pass a CSV file in UTF-8 (Excel: save as CSV UTF-8)"
        ) from error


def _user_text(path: Path) -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32.

    Encodings of one byte a letter are not guessed: a name read wrongly would be another name.

    Raises:
        ValueError: It is in another encoding, or a workbook of Excel.
    """
    content = path.read_bytes()
    if content.startswith(WORKBOOKS):
        raise ValueError("it is a workbook of Excel, or another archive")
    if content.startswith(PACKED):
        raise ValueError("it is packed; unpack it")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    if content.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        encoding = "utf-32"
    elif b"\0" in content[:2]:  # a letter of two bytes, without a mark before it
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        text = content.decode(encoding).lstrip("\ufeff")  # some programs write the mark twice
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        before = content[max(0, error.start - 10) : error.start].rpartition(b"\n")[2]
        near = before + content[error.start : error.end + 5].partition(b"\n")[0]
        raise ValueError(
            f"line {line} has letters that are not {encoding.removesuffix('-sig').upper()}, near"
            f" {near!r}; of Windows' own encoding: iconv -f WINDOWS-1252 -t UTF-8"
        ) from error
    text = text.rstrip("\x1a")  # ends files of DOS
    if "\0" in text:
        raise ValueError("it holds bytes of zero, as files that were not written to their end")
    return text


def _guarded(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula, with a ``'`` before it."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def _unguarded(text: str) -> str:
    return text[1:] if GUARDED.match(text) else text


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
            frame = pd.read_csv(
                path, dtype=str, na_filter=False, index_col=False, encoding="utf-8-sig"
            )
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise StoreError(f"{path} cannot be read as a table: {error}") from error
    return frame.rename(columns=_unguarded).map(_unguarded)


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
