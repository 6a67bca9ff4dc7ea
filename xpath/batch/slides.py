"""Which slides to work on: a table, a folder, or a file."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xpath.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["SlideEntry", "find_slides", "read_labels", "with_labels"]

SUFFIXES = frozenset(
    ".svs .tif .tiff .ndpi .mrxs .scn .svslide .bif .vms .vmu .dcm .czi".split()
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideEntry:
    """A slide to work on."""

    slide_id: str
    path: Path
    label: str = ""
    """Class name; empty where unknown."""
    patient: str = ""
    """Whose slide it is; by default each slide has a patient of its own."""
    mpp: float | None = None
    """Microns per pixel, where the slide stores none or a wrong one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideLabel:
    """A row of a label table."""

    label: str
    patient: str
    mpp: float | None


def find_slides(places: Iterable[Path]) -> list[SlideEntry]:
    """Slides among files and, one level deep or more, in folders; named by their file's stem.

    Raises:
        DataError: Nothing found, or two slides of one name.
    """
    paths: list[Path] = []
    for place in places:
        if place.is_dir():
            paths += sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES)
        else:
            paths.append(place)
    if not paths:
        raise DataError(f"no slides found; looked for {', '.join(sorted(SUFFIXES))}")
    twice = [name for name, count in Counter(path.stem for path in paths).items() if count > 1]
    if twice:
        raise DataError(f"several slides are named {twice[:5]}; rename them, results go by name")
    return [SlideEntry(slide_id=path.stem, path=path) for path in paths]


def read_labels(path: Path) -> dict[str, SlideLabel]:
    """Labels by slide id.

    A CSV file with columns ``slide_id`` and ``label``, and if wanted ``patient`` (or CLAM's
    ``case_id``) and ``mpp``.

    Raises:
        DataError: The file or a column is missing, a slide stands there twice, or mpp is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    columns = set(rows[0]) if rows else set()
    if not {"slide_id", "label"} <= columns:
        raise DataError(f"{path} needs columns slide_id and label, got {sorted(columns)}")
    twice = [name for name, count in Counter(r["slide_id"] for r in rows).items() if count > 1]
    if twice:
        raise DataError(f"{path} names slides twice: {twice[:5]}")
    return {row["slide_id"]: _label(row, path) for row in rows}


def with_labels(
    slides: Sequence[SlideEntry], labels: Mapping[str, SlideLabel]
) -> list[SlideEntry]:
    """Slides with their labels; slides the table does not name keep none.

    Raises:
        DataError: The table names none of the slides.
    """
    if slides and not any(slide.slide_id in labels for slide in slides):
        raise DataError(
            f"the labels name none of the {len(slides)} slides; they name {list(labels)[:3]}, the"
            f" slides are {[slide.slide_id for slide in slides[:3]]} (file names without suffix)"
        )
    return [_labelled(slide, labels.get(slide.slide_id)) for slide in slides]


def _label(row: dict[str, str], path: Path) -> SlideLabel:
    mpp = row.get("mpp") or ""
    try:
        value = float(mpp) if mpp else None
    except ValueError:
        raise DataError(f"{path}: mpp of {row['slide_id']} must be a number, got {mpp!r}") from None
    patient = row.get("patient") or row.get("case_id") or ""
    return SlideLabel(label=row["label"], patient=patient, mpp=value)


def _labelled(slide: SlideEntry, label: SlideLabel | None) -> SlideEntry:
    if label is None:
        return slide
    return SlideEntry(
        slide_id=slide.slide_id,
        path=slide.path,
        label=label.label,
        patient=label.patient,
        mpp=label.mpp if slide.mpp is None else slide.mpp,
    )
