"""Every package names its public things, lazily, and docs/api.md lists exactly those."""

from __future__ import annotations

import inspect
import runpy
from importlib import import_module
from pathlib import Path

import pytest

import xpath

PACKAGE = Path(xpath.__file__).parent
API = PACKAGE.parent / "docs" / "api.md"
MAKE_API = runpy.run_path(str(API.with_name("make_api.py")))
DOORS = MAKE_API["front_doors"]()
PRIVATE = {"cli"}
"""Packages with no public names: the command line is used by its commands."""


def test_every_package_has_a_front_door():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - PRIVATE

    assert {f"xpath.{name}" for name in packages} | {"xpath"} == set(DOORS)


@pytest.mark.parametrize("package", DOORS)
def test_a_front_door_is_short_and_opens(package):
    module, names = import_module(package), DOORS[package]

    assert 3 <= len(names) <= 12
    assert sorted(module.__all__) == names
    for name in names:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert thing.__doc__, name


@pytest.mark.parametrize("package", DOORS)
def test_no_public_name_is_a_module_s_name(package):
    """Once imported, a module of that name would take the place of the function."""
    folder = Path(import_module(package).__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }

    assert not modules & set(DOORS[package])


def test_the_page_is_made_from_the_front_doors():
    assert API.read_text(encoding="utf-8") == MAKE_API["page"](), "run python docs/make_api.py"
