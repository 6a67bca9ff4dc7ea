"""Counts of images and masks, here and as published (paper, Tables 1 to 5)."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.labels import load_labels

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from xpath.labels import Label

__all__ = ["LEVELS", "TableRow", "Tally", "published_table", "table_of", "total"]

LEVELS = ("region", "structure", "object_type", "label")
"""The paper's Tables 2, 3, 4 and 5."""


class TableRow(NamedTuple):
    """One line of a table, both sides."""

    name: str
    labels: int
    """Labels with a mask."""
    published_labels: int
    images: int
    published_images: int
    masks: int
    published_masks: int


@dataclass(slots=True)
class Tally:
    """Counts of images and masks. An image counts once in each row it has a mask for."""

    images: int = 0
    masks: int = 0
    by_split: Counter[str] = field(default_factory=Counter)
    """Masks by split."""
    by_label: Counter[str] = field(default_factory=Counter)
    """Masks by label id."""
    images_by: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Images by level and name."""

    def add(self, labels: Collection[str], split: str) -> None:
        """Counts one standardised image by the ids of its labels."""
        if not labels:
            return
        self.images += 1
        self.masks += len(labels)
        self.by_split[split] += len(labels)
        self.by_label.update(labels)
        parsed = [load_labels().parse(label, allow_new=True) for label in labels]
        self.images_by.update({(level, _key(label, level)) for label in parsed for level in LEVELS})

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Counts the images of one line of a build's ledger."""
        for entry in record["entries"]:
            self.add([mask["label"] for mask in entry["masks"]], record["split"])

    def update(self, other: Tally) -> None:
        """Adds what another tally has."""
        self.images += other.images
        self.masks += other.masks
        self.by_split.update(other.by_split)
        self.by_label.update(other.by_label)
        self.images_by.update(other.images_by)


def table_of(tally: Tally, level: str) -> list[TableRow]:
    """A table of the paper, counted beside published, in its order, then labels of one's own."""
    published = published_table(level)
    rows = {row.name: row for row in published}
    parsed = [load_labels().parse(label, allow_new=True) for label in tally.by_label]
    names = dict.fromkeys([*rows, *(_key(label, level) for label in parsed)])
    return [
        rows.get(name, TableRow(name, 0, 0, 0, 0, 0, 0))._replace(
            labels=sum(_key(label, level) == name for label in parsed),
            images=tally.images_by[level, name],
            masks=sum(tally.by_label[label.id] for label in parsed if _key(label, level) == name),
        )
        for name in names
    ]


def published_table(level: str) -> list[TableRow]:
    """A table of the paper with nothing counted yet. Masks are summed from Table 5."""
    rows: dict[str, list[Label]] = {}
    for label in load_labels():
        rows.setdefault(_key(label, level), []).append(label)
    table, images = [], _published_images()
    for name, labels in rows.items():
        masks = sum(label.masks or 0 for label in labels)
        # Tables 4 and 5 give one number for masks and images
        table.append(TableRow(name, 0, len(labels), 0, images.get((level, name), masks), 0, masks))
    return table


@cache
def _published_images() -> dict[tuple[str, str], int]:
    """Images by level and name (Tables 2 and 3). One image may show several structures."""
    text = files("xpath").joinpath("published_images.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {(row["level"], row["name"]): int(row["images"]) for row in rows}


def _key(label: Label, level: str) -> str:
    return label.id if level == "label" else str(getattr(label, level))


def total(rows: Iterable[TableRow]) -> TableRow:
    """The sum of a table's lines. Images that are in several lines count in each."""
    sums = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    return TableRow("total", *sums)
