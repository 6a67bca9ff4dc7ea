"""The script that brings our objects into QuPath and opens its measurement maps."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from xpath.errors import DataError
from xpath.export.colour import AGAINST, FOR
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_qupath_script"]

ZERO = (247, 247, 247)
"""Colour of zero between ``AGAINST`` and ``FOR``."""


def write_qupath_script(
    path: Path, *, geojson: str, measurement: str = "", signed: bool = True
) -> None:
    """Writes a Groovy script for QuPath beside a GeoJSON file.

    Args:
        path: ``.groovy`` file to write.
        geojson: Name of the GeoJSON file, without folder: the person chooses where it lies.
        measurement: What colours detections and tiles at first; empty for their classes.
        signed: Whether zero lies in the middle of the colours, which a contribution needs; else
            colours run from the smallest to the largest value, as for attention.

    Raises:
        DataError: ``geojson`` with a folder.
        StoreError: The disk is full.
    """
    if not geojson or "/" in geojson or "\\" in geojson:
        raise DataError(f"geojson must be the name of a file without its folder, got {geojson!r}")
    text = files("xpath.export").joinpath("templates/open_in_qupath.groovy").read_text("utf-8")
    channels = zip(AGAINST, ZERO, FOR, strict=True)
    filled = {
        "@FILE@": _quoted(geojson),
        "@MEASUREMENT@": _quoted(measurement),
        "@SIGNED@": str(signed).lower(),
    } | {
        name: "[" + ", ".join(f"{part / 255:.4f}" for part in channel) + "]"
        for name, channel in zip(("@RED@", "@GREEN@", "@BLUE@"), channels, strict=True)
    }
    for mark, value in filled.items():
        text = text.replace(mark, value)
    with atomic(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _quoted(text: str) -> str:
    """A Groovy string in which nothing is replaced or run."""
    safe = text.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + "".join(sign if sign.isprintable() else " " for sign in safe) + "'"
