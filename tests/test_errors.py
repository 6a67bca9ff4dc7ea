"""The tree of errors is as drawn, and one ``except`` catches all of it."""

from __future__ import annotations

import inspect
import pickle

import pytest

import xpath.errors
from xpath.errors import XPathError

ERRORS = [getattr(xpath.errors, name) for name in xpath.errors.__all__]

PARENTS = {
    "ConfigError": ("XPathError", "ValueError"),
    "DataError": ("XPathError", "ValueError"),
    "ShapeError": ("DataError",),
    "LabelError": ("XPathError", "ValueError"),
    "SlideError": ("XPathError",),
    "ResolutionError": ("SlideError",),
    "EmptyTissueError": ("SlideError",),
    "StoreError": ("XPathError",),
    "CheckpointError": ("XPathError",),
    "ReaderError": ("XPathError",),
    "MissingDependencyError": ("XPathError", "ImportError"),
    "XPathError": ("Exception",),
}


def test_the_tree():
    found = {error.__name__: tuple(base.__name__ for base in error.__bases__) for error in ERRORS}

    assert found == PARENTS


def test_everything_defined_is_public_and_drawn():
    defined = {
        name
        for name, kind in inspect.getmembers(xpath.errors, inspect.isclass)
        if kind.__module__ == "xpath.errors"
    }

    assert defined == set(xpath.errors.__all__)
    assert all(name in xpath.errors.__doc__ for name in defined)


@pytest.mark.parametrize("error", ERRORS)
def test_one_except_catches_it_and_keeps_the_message(error):
    with pytest.raises(XPathError) as caught:
        raise error("got 3, wanted 4; pass four")

    assert str(caught.value) == "got 3, wanted 4; pass four"


@pytest.mark.parametrize("error", ERRORS)
def test_errors_travel_between_processes(error):
    again = pickle.loads(pickle.dumps(error("message")))  # noqa: S301  # our own bytes

    assert type(again) is error
    assert str(again) == "message"


@pytest.mark.parametrize("error", ERRORS)
def test_each_says_what_it_is_for(error):
    assert error.__doc__
    assert error.__doc__ != error.__base__.__doc__
