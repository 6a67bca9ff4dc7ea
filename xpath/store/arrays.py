"""A dataclass of arrays, names and numbers as one HDF5 file.

Arrays are datasets, all else is JSON in attributes, and a dataclass within the dataclass is a group
of the same.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import numpy as np

from xpath.store.hdf5 import create_h5, open_h5
from xpath.store.schema import name_unknown

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import DataclassInstance

__all__ = ["read_arrays", "write_arrays"]

T = TypeVar("T", bound="DataclassInstance")


def write_arrays(path: Path, schema: str, instance: DataclassInstance) -> None:
    """Writes a dataclass, equal bytes for equal input.

    Args:
        path: The file; replaced if it exists.
        schema: Name and version, such as ``xpath.explanation/4``.
        instance: Of arrays, strings, numbers, tuples of these, and dataclasses of the same.

    Raises:
        StoreError: The disk is full.
    """
    with create_h5(path, schema) as file:
        _write(file, instance)


def read_arrays(path: Path, schema: str, of: type[T], *, remedy: str = "make it again") -> T:
    """Reads a dataclass that ``write_arrays`` wrote.

    A field that an older version did not write takes its default. One that we do not know, as a
    newer version may write, is named in a warning.

    Args:
        path: The file.
        schema: Name and version it must have.
        of: The dataclass; the types of dataclasses within it must be known where it is defined.
        remedy: What to do about a file of another version.

    Raises:
        StoreError: The file is missing, truncated, not ours, incomplete, or of another version.
    """
    with open_h5(path, schema, remedy=remedy) as file:
        return _read(path, file, of)


def _write(group: Any, instance: DataclassInstance) -> None:
    for field in fields(instance):
        value = getattr(instance, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            _write(group.create_group(field.name), value)
        elif isinstance(value, np.ndarray):
            group[field.name] = value
        else:
            group.attrs[field.name] = json.dumps(value)


def _read(path: Path, group: Any, of: type[T]) -> T:
    values: dict[str, Any] = {}
    names = [field.name for field in fields(of)]
    name_unknown(path, [*group, *group.attrs], [*names, "schema"])
    for name in names:
        if name in group.attrs:
            value = json.loads(group.attrs[name])
            values[name] = tuple(value) if isinstance(value, list) else value
        elif name in group and hasattr(group[name], "keys"):  # a group
            values[name] = _read(path, group[name], get_type_hints(of)[name])
        elif name in group:
            values[name] = group[name][()]
    return of(**values)
