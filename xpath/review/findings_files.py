"""Findings for other programs: a table, and GeoJSON that QuPath reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xpath.export.colour import object_colour
from xpath.store.tables import table_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xpath.review.findings import Finding

__all__ = ["findings_csv", "findings_geojson"]

COLUMNS = ("slide_id", "label", "object", "verdict", "reviewer", "comment", "x", "y", "changed")


def findings_csv(findings: Sequence[Finding]) -> str:
    """One row per finding, its numbers in further columns."""
    numbers = sorted({name for finding in findings for name in finding.numbers})
    rows = [
        {name: getattr(finding, name) for name in COLUMNS} | dict(finding.numbers)
        for finding in findings
    ]
    return table_text(rows, (*COLUMNS, *numbers))


def findings_geojson(findings: Sequence[Finding]) -> str:
    """Annotations of one slide with stable ids, as QuPath's own parser reads them.

    QuPath measures from the corner of the scanned part, so that corner is subtracted.
    """
    features = [_feature(finding) for finding in findings]
    return json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False) + "\n"


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
            "name": f"{finding.reviewer}: {finding.verdict}",
            "classification": {"names": names, "color": list(object_colour(finding.label))},
            "isLocked": True,
            "measurements": dict(finding.numbers),
            "metadata": {
                "reviewer": finding.reviewer,
                "verdict": finding.verdict,
                "comment": finding.comment,
                "changed": finding.changed,
            },
        },
    }
