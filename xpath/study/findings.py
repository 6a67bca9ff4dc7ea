"""``findings.json`` of a slide, and the page and the text made from it."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from xpath.export.overlay import short_name
from xpath.export.report.facts import findings_json, findings_of, paragraphs, said_absent
from xpath.export.report.linked import (
    LinkedPage,
    Outline,
    linked_layer,
    outline_path,
    write_linked_page,
)
from xpath.export.report.pictures import jpeg_bytes
from xpath.export.report.tables import cohort_needs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from xpath.explain.explanation import Explanation
    from xpath.export.overlay import Panels
    from xpath.export.report.facts import Findings
    from xpath.export.report.linked import LinkedLayer
    from xpath.export.report.records import SlideReport
    from xpath.store.objects import ObjectTable
    from xpath.study.study import Study

__all__ = ["FINDINGS_FILES", "export_findings", "write_findings"]

FINDINGS_FILES = ("findings.json", "findings.txt", "findings.html")
SYNTHETIC = (
    "Drawn tissue, or a segmentor that has only seen drawn tissue: nothing here is a finding."
)


def export_findings(
    folder: Path,
    study: Study,
    explanation: Explanation,
    objects: ObjectTable,
    report: SlideReport,
    panels: Panels,
) -> None:
    """Writes the findings of a slide beside its report (``write_findings``)."""
    findings = findings_of(
        explanation,
        objects,
        classes=study.classes,
        probability=report.probability["object-aware"][report.predicted],
        guesses=study.asked.guesses,
        answers=study.asked.answers,
        needs=cohort_needs(study.folder.table("importance"), report.measured),
    )
    findings = said_absent(findings, json.loads(report.facts.get("absent", "[]")))
    write_findings(
        folder, findings, objects, panels, facts=report.facts, synthetic=report.synthetic
    )


def write_findings(
    folder: Path,
    findings: Findings,
    objects: ObjectTable,
    panels: Panels,
    *,
    facts: Mapping[str, str],
    synthetic: bool,
) -> None:
    """Writes the facts as JSON, as plain text, and as a page whose words show their objects.

    Args:
        folder: Where.
        findings: The facts.
        objects: The objects of the slide.
        panels: Its overview and the shares of the masks on it.
        facts: Provenance.
        synthetic: Say that the tissue is drawn.

    Raises:
        StoreError: The disk is full.
    """
    lines = paragraphs(findings)
    content, text, page = (folder / name for name in FINDINGS_FILES)
    provenance = {"provenance": dict(facts), "synthetic": synthetic}
    values = json.dumps(findings_json(findings, lines) | provenance, indent=1, allow_nan=False)
    content.write_text(values + "\n", encoding="utf-8")
    sentences = ["".join(words.text for words in line) for line in lines]
    warning = [SYNTHETIC] if synthetic else []
    text.write_text("\n".join([*warning, *sentences]) + "\n", encoding="utf-8")
    height, width = panels.overview.shape[:2]
    guesses = [short_name(fact.label) for fact in findings.facts if fact.guess]
    learnt = f"The segmentor never learnt {', '.join(guesses)}: what is said of them is a guess."
    home = f"slides/{findings.slide_id}"
    write_linked_page(
        page,
        LinkedPage(
            title=f"{findings.slide_id}: findings",
            lead="Measured facts in sentences; no language model wrote them.",
            paragraphs=lines,
            overview=jpeg_bytes(panels.overview),
            width=width,
            height=height,
            layers=tuple(_layers(findings, objects, panels)),
            um_per_pixel=panels.um_per_pixel,
            notices=(*warning, *([learnt] if guesses else [])),
            facts={**facts, "xpath": version("xpath-pathology")},
            files=(
                f"The same as data: findings.json. Objects: {home}/objects.h5, counted as"
                f" {findings.rule}; masks: {home}/masks.zarr; evidence: {home}/explanation.h5.",
                "Evidence is what an object adds to the object-aware model's logit beyond the"
                " average training slide, as a share of all that was added, whatever the sign; in"
                " brackets 95 % over patches.",
            ),
        ),
    )


def _layers(findings: Findings, objects: ObjectTable, panels: Panels) -> Iterator[LinkedLayer]:
    """A layer per label, in the order of the facts."""
    scale = panels.overview.shape[1] / objects.grid.slide_size.width
    areas, resolved = objects.areas_um2, objects.grid.slide_mpp is not None
    for fact in findings.facts:
        index = objects.of(fact.label)
        largest = index[np.argsort(-objects.pixels[index], kind="stable")].tolist()
        outlines = (
            Outline(
                id=objects.id(one),
                path=outline_path(objects.rings(one), (0, 0), scale),
                numbers=f"row {one} of objects.h5, "
                + (f"{areas[one]:,.0f} um2, " if resolved else "")
                + f"confidence {objects.confidence[one]:.2f}",
            )
            for one in largest
        )
        share = panels.shares[panels.objects.index(fact.label)]
        yield linked_layer(fact.label, share, outlines, count=len(index), guess=fact.guess)
