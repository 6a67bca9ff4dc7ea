"""Content of a page from the tables and models of the run folder, where it has them."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from xpath.errors import StoreError
from xpath.export.report.records import CohortNeed, FileTable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["cohort_needs", "file_table", "temperatures", "training_sentences"]

MOST_ROWS = 40


def file_table(path: Path, root: Path, *, most: int = MOST_ROWS) -> FileTable | None:
    """The first rows of a CSV file as they are, None where the run has no such file."""
    rows = _rows(path)
    if not rows:
        return None
    columns = tuple(rows[0])
    return FileTable(
        columns=columns,
        rows=tuple(tuple(_short(row[column] or "") for column in columns) for row in rows[:most]),
        source=path.relative_to(root).as_posix(),
        cut=max(0, len(rows) - most),
    )


def temperatures(path: Path, fold: int = 0) -> dict[str, float]:
    """Temperature of each calibrated model, ``tables/calibration.csv``, empty where there is none.

    The table has the columns ``model``, ``temperature`` and, with several, ``fold``; logits are
    divided by the temperature.

    Raises:
        StoreError: The file has other columns, or a temperature that is no positive number.
    """
    try:
        found = {
            row["model"]: float(row["temperature"])
            for row in _rows(path)
            if row.get("fold", str(fold)) == str(fold)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} needs the columns model and temperature ({error})") from error
    wrong = [name for name, value in found.items() if not (math.isfinite(value) and value > 0)]
    if wrong:
        raise StoreError(f"{path}: temperatures must be above 0; look at {wrong[:3]}")
    return found


def cohort_needs(path: Path, class_name: str) -> dict[str, CohortNeed]:
    """95 % intervals of each object for a class, from ``tables/importance.csv``."""
    return {
        row["object"]: CohortNeed(*(float(row[end] or "nan") for end in CohortNeed._fields))
        for row in _rows(path)
        if row.get("class_name") == class_name
    }


def training_sentences(model: Path, split: Path) -> tuple[str, ...]:
    """The training data of a classifier in sentences.

    Args:
        model: Its folder, with ``config.json``.
        split: ``tables/split.csv``.
    """
    if not (model / "config.json").exists():
        return ()
    about: Mapping[str, Any] = json.loads((model / "config.json").read_text()).get("metadata", {})
    label = {row["slide_id"]: row["label"] for row in _rows(split)}
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


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _short(text: str) -> str:
    """Numbers to four significant digits."""
    try:
        value = float(text)
    except ValueError:
        return text
    return text if len(text) <= 6 or not math.isfinite(value) else f"{value:.4g}"
