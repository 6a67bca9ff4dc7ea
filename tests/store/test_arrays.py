"""A dataclass of arrays keeps arrays, names and numbers apart and whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from xpath.errors import StoreError
from xpath.store.arrays import read_arrays, write_arrays
from xpath.store.hdf5 import create_h5

SCHEMA = "xpath.test/2"


@dataclass(frozen=True, kw_only=True)
class Inner:
    values: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    target: int
    logit: float
    inner: Inner
    other: Inner
    present: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Newer(Outer):
    width: float = 2.5


@pytest.fixture
def outer():
    return Outer(
        name="slide-1",
        target=1,
        logit=0.1 + 0.2,
        inner=Inner(values=np.array([[0.1, np.nan]]), names=("tumor", "stroma")),
        other=Inner(values=np.zeros((0, 3), np.int64), names=()),
        present=np.array([True, False]),
    )


def same(one, other):
    np.testing.assert_array_equal(one, other)
    return type(one) is type(other) and getattr(one, "dtype", 0) == getattr(other, "dtype", 0)


def test_round_trip_and_equal_bytes(tmp_path, outer):
    path = tmp_path / "outer.h5"
    write_arrays(path, SCHEMA, outer)
    first = path.read_bytes()

    result = read_arrays(path, SCHEMA, Outer)

    for name in ("name", "target", "logit", "present"):
        assert same(getattr(result, name), getattr(outer, name))
    for group in ("inner", "other"):
        for name in ("values", "names"):
            one, other = getattr(result, group), getattr(outer, group)
            assert same(getattr(one, name), getattr(other, name))
    write_arrays(path, SCHEMA, result)
    assert path.read_bytes() == first


def test_a_new_field_takes_its_default_an_old_one_must_be_there(tmp_path, outer):
    path = tmp_path / "outer.h5"
    write_arrays(path, SCHEMA, outer)

    assert read_arrays(path, SCHEMA, Newer).width == 2.5
    with create_h5(path, SCHEMA) as file:
        file.attrs["name"] = '"slide-1"'
    with pytest.raises(StoreError, match="is damaged"):
        read_arrays(path, SCHEMA, Outer)


def test_another_version_is_refused_with_its_remedy(tmp_path, outer):
    path = tmp_path / "outer.h5"
    write_arrays(path, "xpath.test/1", outer)

    with pytest.raises(StoreError, match=r"has schema 'xpath.test/1', .*/2': run `xpath explain`"):
        read_arrays(path, SCHEMA, Outer, remedy="run `xpath explain`")


def test_damage_is_refused(tmp_path, outer):
    path = tmp_path / "outer.h5"
    write_arrays(path, SCHEMA, outer)
    whole = path.read_bytes()

    for size in range(0, len(whole), 307):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreError, match="truncated"):
            read_arrays(path, SCHEMA, Outer)


def test_a_field_of_a_newer_version_is_named(tmp_path, outer, caplog):
    path = tmp_path / "outer.h5"
    values = {name: getattr(outer, name) for name in outer.__dataclass_fields__}
    write_arrays(path, SCHEMA, Newer(**values))

    assert read_arrays(path, SCHEMA, Newer).width == 2.5 and not caplog.records
    assert same(read_arrays(path, SCHEMA, Outer).present, outer.present)
    assert "outer.h5 has width of a newer version" in caplog.text
