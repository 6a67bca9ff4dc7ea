"""Findings for people and other programs: table, JSON, text, page, and GeoJSON for QuPath."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from xpath.export.colour import hex_colour, object_colour
from xpath.export.overlay import short_name
from xpath.export.report.pages import LIMITS, environment
from xpath.store.tables import table_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xpath.review.findings import Finding

__all__ = [
    "findings_csv",
    "findings_geojson",
    "findings_html",
    "findings_json",
    "findings_text",
]

SCHEMA = "xpath.reviews/1"

COLUMNS = (
    *("slide_id", "label", "object", "verdict", "instead", "reviewer", "comment"),
    *("x", "y", "changed"),
)


def findings_csv(findings: Sequence[Finding]) -> str:
    """One row per finding, its numbers in further columns."""
    numbers = sorted({name for finding in findings for name in finding.numbers})
    rows = [
        {name: getattr(finding, name) for name in COLUMNS} | dict(finding.numbers)
        for finding in findings
    ]
    return table_text(rows, (*COLUMNS, *numbers))


def findings_json(findings: Sequence[Finding]) -> str:
    """All findings as data, with outlines in level-0 pixels."""
    rows = [{"id": finding.id} | asdict(finding) for finding in findings]
    return json.dumps({"schema": SCHEMA, "findings": rows}, indent=1, allow_nan=False) + "\n"


def findings_text(findings: Sequence[Finding]) -> str:
    """A line per finding."""
    lines = (
        f"{finding.slide_id}: {short_name(finding.label)} at {finding.x:.0f}, {finding.y:.0f}:"
        f" {_verdict(finding)} ({finding.reviewer}, {finding.changed[:10]})"
        + (f": {' '.join(finding.comment.split())}" if finding.comment.strip() else "")
        for finding in findings
    )
    return "".join(f"{line}\n" for line in lines)


def findings_html(findings: Sequence[Finding], run: str) -> str:
    """A page with a table of all findings."""
    rows = [
        {
            "finding": finding,
            "name": short_name(finding.label),
            "colour": hex_colour(object_colour(finding.label)),
        }
        for finding in findings
    ]
    page = environment().get_template("reviews.html")
    return page.render(run=run, rows=rows, limits=LIMITS, report={"facts": {"run": run}})


def findings_geojson(findings: Sequence[Finding]) -> str:
    """Annotations of one slide with stable ids, as QuPath's own parser reads them.

    QuPath measures from the corner of the scanned part, so that corner is subtracted.
    """
    features = [_feature(finding) for finding in findings]
    return json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False) + "\n"


def _verdict(finding: Finding) -> str:
    return finding.verdict + (f", rather {finding.instead}" if finding.instead else "")


def _feature(finding: Finding) -> dict[str, Any]:
    shifted = [
        [[round(x - finding.origin_x, 2), round(y - finding.origin_y, 2)] for x, y in ring]
        for ring in finding.rings
    ]
    names = [finding.label, finding.verdict]
    return {
        "type": "Feature",
        "id": finding.id,
        "geometry": {"type": "Polygon", "coordinates": shifted},
        "properties": {
            "objectType": "annotation",
            "name": f"{finding.reviewer}: {_verdict(finding)}",
            "classification": {"names": names, "color": list(object_colour(finding.label))},
            "isLocked": True,
            "measurements": dict(finding.numbers),
            "metadata": {
                "reviewer": finding.reviewer,
                "verdict": finding.verdict,
                "instead": finding.instead,
                "comment": finding.comment,
                "changed": finding.changed,
            },
        },
    }
