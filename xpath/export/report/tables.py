"""Content of a page from the tables and models of the run folder, where it has them."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from xpath.errors import StoreError
from xpath.explain.verdict import Evidence
from xpath.export.report.records import CohortNeed, FileTable
from xpath.store.tables import read_rows, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["cohort_evidence", "cohort_needs", "file_table", "temperatures", "training_sentences"]

MOST_ROWS = 40
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
            f"{verb[0].upper()}{verb[1:]} {len(slides)} slides ({by_class or 'none'})."
        )
    if "patch_um" in about:
        sentences.append(
            f"Patches of {about['patch_um']:g} \N{GREEK SMALL LETTER MU}m at"
            f" {about.get('mpp', math.nan):g} \N{GREEK SMALL LETTER MU}m per pixel, features of"
            f" {about.get('encoder', 'an unknown encoder')}; another scanner, stain or organ is"
            " unknown to it."
        )
    return tuple(sentences)


def _short(text: str) -> str:
    """Numbers to four significant digits."""
    try:
        value = float(text)
    except ValueError:
        return text
    return text if len(text) <= 6 or not math.isfinite(value) else f"{value:.4g}"
