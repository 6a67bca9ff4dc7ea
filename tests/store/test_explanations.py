"""explanation.h5 keeps arrays, names and numbers apart and whole."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from xpath.errors import StoreError
from xpath.store.explanations import SlideExplanation, read_explanation, write_explanation


@pytest.fixture
def explanation():
    values = {}
    for number, field in enumerate(fields(SlideExplanation)):
        if "NDArray" in str(field.type):
            dtype = np.int64 if "int64" in str(field.type) else np.float64
            values[field.name] = np.arange(number, number + 3, dtype=dtype)
        elif "tuple" in str(field.type):
            values[field.name] = ("tumor", "stroma")
        elif field.type == "str":
            values[field.name] = "slide-1"
        else:
            values[field.name] = number
    return SlideExplanation(**values)


def test_round_trip_and_equal_bytes(tmp_path, explanation):
    path = tmp_path / "explanation.h5"
    write_explanation(path, explanation)
    first = path.read_bytes()
    found = read_explanation(path)

    for field in fields(explanation):
        wanted, value = getattr(explanation, field.name), getattr(found, field.name)
        np.testing.assert_array_equal(value, wanted)
        assert type(value) is type(wanted)
    write_explanation(path, found)
    assert path.read_bytes() == first


def test_damage_is_refused(tmp_path, explanation):
    path = tmp_path / "explanation.h5"
    write_explanation(path, explanation)
    whole = path.read_bytes()

    for size in range(0, len(whole), 307):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreError, match="truncated"):
            read_explanation(path)
