"""Tables of a run about its labels: which are on each slide, and how their masks overlapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xpath.batch.done import is_done
from xpath.store.label_facts import overlap_rows
from xpath.store.masks import open_masks
from xpath.store.tables import write_table

if TYPE_CHECKING:
    from xpath.study.study import Study

__all__ = ["LabelRow", "OverlapRow", "tabulate_labels"]


class LabelRow(NamedTuple):
    """A label on a slide."""

    slide_id: str
    label: str
    present: bool
    """Whether it is taken as there; if not it has no mask, feature or bar."""
    probability: float
    """Calibrated, that it is on the slide at all."""
    taught: bool
    """False if the segmentor never learnt it: its mask is a guess."""
    pixels: int
    """Of the masks as they are stored."""
    answers_for: str = ""
    """Ids of the labels that were asked for and that it answers in their place."""


class OverlapRow(NamedTuple):
    """How much of a label lies in another on a slide."""

    slide_id: str
    label: str
    other: str
    pixels: int
    """Of the label before labels competed."""
    before: float
    """Share of them in the other, 0..1."""
    after: float
    """The same share of the masks as they are stored."""


def tabulate_labels(study: Study) -> None:
    """Writes ``tables/labels.csv`` and ``tables/overlap.csv`` of the slides that are segmented."""
    labels, overlaps = [], []
    for entry in study.slides:
        path = study.folder.masks(entry.slide_id)
        if not entry.path.exists() or not is_done(path, study.masks_key(entry)):
            continue
        masks = open_masks(path)
        facts = masks.facts
        labels += [
            LabelRow(
                entry.slide_id,
                label,
                bool(facts.present[index]),
                round(float(facts.probability[index]), 6),
                bool(facts.taught[index]),
                int(masks.area[:, index].sum()),
                study.asked.columns(label)["answers_for"],
            )
            for index, label in enumerate(masks.labels)
        ]
        overlaps += [OverlapRow(entry.slide_id, *row) for row in overlap_rows(masks.labels, facts)]
    write_table(study.folder.table("labels"), labels, LabelRow)
    write_table(study.folder.table("overlap"), overlaps, OverlapRow)
