"""One door for tables: what is written comes back, and old and new columns do no harm."""

import csv
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

from xpath.errors import StoreError
from xpath.store.tables import (
    append_row,
    read_rows,
    read_table,
    read_user_table,
    table_text,
    write_table,
)


@dataclass(kw_only=True)
class Row:
    slide_id: str
    count: int
    share: float = 0.5
    good: bool = False


class Pair(NamedTuple):
    name: str
    size: int


@pytest.fixture
def table(tmp_path):
    return tmp_path / "tables" / "one.csv"


@pytest.mark.parametrize("name", ["NA", "None", "nan", "007", "1e5", " a, b ", 'x "y"', "ä\nö"])
def test_names_stay_as_they_are(table, name):
    write_table(table, [{"slide_id": name, "n": 1}])
    assert read_table(table) == [{"slide_id": name, "n": "1"}]


@pytest.mark.parametrize(
    "name", ["=1+1", "+a", "-cmd", "@x", "'=x", "''@", "\tx", "=A1", "'a", "+-"]
)
def test_names_a_spreadsheet_would_run_are_guarded_and_come_back(table, name):
    write_table(table, [{"slide_id": name, name: 1}])

    text = table.read_text()
    assert not any(
        cell.lstrip('"')[:1] in "=+-@\t" for line in text.split() for cell in line.split(",")
    )
    assert read_table(table) == [{"slide_id": name, name: "1"}]
    assert read_user_table(table)[0]["slide_id"] == name


@pytest.mark.parametrize("number", ["-1", "-1.5e-7", "+3", "-inf", "-.5"])
def test_numbers_are_not_guarded(number):
    assert table_text([{"a": number}]) == f"a\n{number}\n"


def test_what_is_not_known_is_an_empty_cell(table):
    write_table(table, [{"a": None, "b": math.nan, "n": 1}, {"a": "x", "b": np.float32("nan")}])
    assert table.read_text() == "a,b,n\n,,1\nx,,\n", "the 1 beside a gap stays an integer"
    first, second = read_table(table, a=str, b=float)
    assert first["a"] == "" and math.isnan(first["b"]) and second["n"] == ""


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-300, -0.0, math.inf, 1 / 3, 123456789.123456789])
def test_floats_come_back_bit_for_bit(table, value):
    write_table(table, [{"x": value}])
    (row,) = read_table(table, x=float)
    assert math.copysign(1, row["x"]) == math.copysign(1, value) and row["x"] == value


def test_floats_are_as_short_as_they_can_be():
    assert table_text([{"x": 0.1, "y": np.float64(1e-7), "z": np.float32(0.3)}]) == (
        "x,y,z\n0.1,1e-07,0.3\n"
    )


def test_columns_come_in_the_order_asked_for_and_none_is_lost(table):
    write_table(table, [{"b": 1, "c": 2}, {"a": 3, "d": 4}], ["a", "b"])
    assert table.read_text() == "a,b,c,d\n,1,2,\n3,,,4\n"


def test_dataclasses_and_named_tuples_come_back(table):
    rows = [Row(slide_id="NA", count=3, share=1 / 3, good=True), Row(slide_id="b", count=0)]
    write_table(table, rows)
    assert read_rows(table, Row) == rows
    write_table(table, [Pair("a", 1)])
    assert read_rows(table, Pair) == [Pair("a", 1)]


def test_a_column_of_an_older_version_takes_its_default(table):
    write_table(table, [{"slide_id": "a", "count": 2}])
    assert read_rows(table, Row) == [Row(slide_id="a", count=2, share=0.5, good=False)]


def test_a_column_of_a_newer_version_is_named(table, caplog):
    write_table(table, [{"slide_id": "a", "colour": "red", "count": 2}])
    assert read_rows(table, Row) == [Row(slide_id="a", count=2)]
    assert "one.csv has colour of a newer version" in caplog.text


def test_without_rows_there_is_a_header(table):
    write_table(table, [], Row)
    assert table.read_text() == "slide_id,count,share,good\n" and read_rows(table, Row) == []
    write_table(table, [], ["a", "b"])
    assert table.read_text() == "a,b\n" and read_table(table, a=str) == []
    with pytest.raises(StoreError, match="nothing to write"):
        write_table(table, [])
    assert table.read_text() == "a,b\n"


def test_a_table_that_is_not_there_has_no_rows(table):
    assert read_table(table, a=str) == [] == read_rows(table, Row)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("slide_id\na\n", "needs the columns count"),
        ("slide_id,count\na,1.5\n", "row 1: count must be int, got '1.5'"),
        ("slide_id,count\na,\n", "count must be int, got ''"),
        ("slide_id,count,share\na,1,much\n", "share must be float, got 'much'"),
        ("slide_id,count,good\na,1,yes\n", "good must be bool, got 'yes'"),
        ("slide_id,count\na,1,2\n", "cannot be read as a table"),
        ('slide_id,count\n"a,1\n', "cannot be read as a table"),
        ("", "cannot be read as a table"),
    ],
)
def test_a_broken_table_is_refused(tmp_path, content, message):
    path = tmp_path / "broken.csv"
    path.write_text(content)
    with pytest.raises(StoreError, match=message):
        read_rows(path, Row)


def test_another_encoding_is_refused_and_that_of_spreadsheets_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("name\nä\n".encode("latin-1"))
    with pytest.raises(StoreError, match="cannot be read"):
        read_table(path)
    path.write_bytes("name\nä\n".encode("utf-8-sig"))
    assert read_table(path, name=str) == [{"name": "ä"}]


def test_a_log_grows_by_a_row_at_a_time(tmp_path):
    path = tmp_path / "log.csv"
    append_row(path, {"step": 1, "loss": 0.5})
    append_row(path, {"step": 2, "loss": math.nan})
    assert path.read_text() == "step,loss\n1,0.5\n2,\n"


def test_python_reads_the_same(table):
    write_table(table, [{"a": 'x "y", z', "b": "two\nlines", "c": ""}])
    with table.open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": 'x "y", z', "b": "two\nlines", "c": ""}]
