"""Content of a page from the tables and models of the run folder, where it has them."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.errors import StoreError
from xpath.explain.verdict import Evidence
from xpath.export.overlay import short_name
from xpath.export.report.records import CohortNeed, FileTable
from xpath.store.tables import read_rows, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "cohort_evidence",
    "cohort_needs",
    "file_table",
    "morphometry_table",
    "temperatures",
    "training_sentences",
]

MOST_ROWS = 40


class _Measure(NamedTuple):
    """A column of the table of morphometry on a page."""

    title: str
    columns: tuple[str, ...]
    """Of ``morphometry.csv``."""
    digits: int
    """Behind the point."""
    scale: float = 1.0


MORPHOMETRY = (
    _Measure("objects", ("count",), 0),
    _Measure("area, mm\N{SUPERSCRIPT TWO}", ("area_um2",), 3, 1e-6),
    _Measure("of the area looked at, %", ("area_fraction",), 1, 100),
    _Measure("objects per mm\N{SUPERSCRIPT TWO}", ("density_mm2",), 0),
    _Measure("median area, \N{GREEK SMALL LETTER MU}m\N{SUPERSCRIPT TWO}", ("area_median_um2",), 0),
    _Measure("length and width, \N{GREEK SMALL LETTER MU}m", ("length_um", "width_um"), 1),
    _Measure("circularity (1: round)", ("circularity",), 2),
    _Measure("to the nearest, \N{GREEK SMALL LETTER MU}m", ("nearest_um",), 1),
    _Measure("spacing (1: random, less: clustered)", ("clark_evans",), 2),
)
INTERVALS = {"object": str, "class_name": str} | dict.fromkeys(CohortNeed._fields, float)


def file_table(path: Path, root: Path, *, most: int = MOST_ROWS) -> FileTable | None:
    """The first rows of a CSV file as they are, None where the run has no such file."""
    rows = read_table(path)
    if not rows:
        return None
    columns = tuple(name for name in rows[0] if name != "rule")
    return FileTable(
        columns=columns,
        rows=tuple(tuple(_short(row[column]) for column in columns) for row in rows[:most]),
        source=path.relative_to(root).as_posix(),
        cut=max(0, len(rows) - most),
        rule=rows[0].get("rule", ""),
    )


def morphometry_table(path: Path, root: Path, *, most: int = MOST_ROWS) -> FileTable | None:
    """The first rows of ``morphometry.csv`` as they are read, None where the run has no such file.

    Raises:
        StoreError: The file lacks a column.
    """
    columns = {name: float for spec in MORPHOMETRY for name in spec.columns}
    rows = read_table(path, label=str, rule=str, **columns)
    if not rows:
        return None
    return FileTable(
        columns=("object", *(spec.title for spec in MORPHOMETRY)),
        rows=tuple(
            (short_name(row["label"]), *(_measured(spec, row) for spec in MORPHOMETRY))
            for row in rows[:most]
        ),
        source=path.relative_to(root).as_posix(),
        cut=max(0, len(rows) - most),
        rule=rows[0]["rule"],
    )


def temperatures(path: Path, fold: int = 0) -> dict[str, float]:
    """Temperature of each calibrated model, ``tables/calibration.csv``, empty where there is none.

    The table has the columns ``model``, ``fold`` and ``temperature``, by which logits are divided.

    Raises:
        StoreError: The file has other columns, or a temperature that is no positive number.
    """
    rows = read_table(path, model=str, fold=int, temperature=float)
    found = {row["model"]: row["temperature"] for row in rows if row["fold"] == fold}
    wrong = [name for name, value in found.items() if not (math.isfinite(value) and value > 0)]
    if wrong:
        raise StoreError(f"{path}: temperatures must be above 0; look at {wrong[:3]}")
    return found


def cohort_needs(path: Path, class_name: str) -> dict[str, CohortNeed]:
    """95 % intervals of each object for a class, from ``tables/importance.csv``."""
    return {
        row["object"]: CohortNeed(*(row[end] for end in CohortNeed._fields))
        for row in read_table(path, **INTERVALS)
        if row["class_name"] == class_name
    }


def cohort_evidence(path: Path) -> dict[str, Evidence]:
    """The verdict on each object as a reason of the classifiers, from ``tables/evidence.csv``."""
    return {row.object: row for row in read_rows(path, Evidence)}


def training_sentences(model: Path, split: Path) -> tuple[str, ...]:
    """The training data of a classifier in sentences.

    Args:
        model: Its folder, with ``config.json``.
        split: ``tables/split.csv``.
    """
    if not (model / "config.json").exists():
        return ()
    about: Mapping[str, Any] = json.loads((model / "config.json").read_text()).get("metadata", {})
    label = {row["slide_id"]: row["label"] for row in read_table(split)}
    sentences = []
    for which, slides in about.get("slides", {}).items():
        count = Counter(label.get(slide, "unknown") for slide in slides)
        by_class = ", ".join(f"{number} {name}" for name, number in sorted(count.items()))
        verb = {"train": "trained on", "validation": "chosen on", "test": "judged on"}.get(
            which, which
        )
        sentences.append(
            f"{verb[0].upper()}{verb[1:]} {len(slides)} slide{'s' if len(slides) != 1 else ''}"
            f" ({by_class or 'none'})."
        )
    if "patch_um" in about:
        sentences.append(
            f"Patches of {about['patch_um']:g} \N{GREEK SMALL LETTER MU}m at"
            f" {about.get('mpp', math.nan):g} \N{GREEK SMALL LETTER MU}m per pixel, features of"
            f" {about.get('encoder', 'an unknown encoder')}; another scanner, stain or organ is"
            " unknown to it."
        )
    return tuple(sentences)


def _measured(spec: _Measure, row: Mapping[str, Any]) -> str:
    """Numbers of a row in their unit, a dash where one is unknown."""
    values = [row[name] * spec.scale for name in spec.columns]
    if not all(map(math.isfinite, values)):
        return "\N{EN DASH}"
    return " \N{MULTIPLICATION SIGN} ".join(f"{value:,.{spec.digits}f}" for value in values)


def _short(text: str) -> str:
    """Numbers to four significant digits."""
    try:
        value = float(text)
    except ValueError:
        return text
    return text if len(text) <= 6 or not math.isfinite(value) else f"{value:.4g}"
