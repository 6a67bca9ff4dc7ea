"""Pages for people, one per slide and one per run, each a single file without network."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING

from xpath.errors import DataError
from xpath.export.answers import NEAREST
from xpath.export.overlay import short_name
from xpath.export.report.pictures import jpeg_bytes
from xpath.export.report.reasons import cohort_reasons, doubts, reasons
from xpath.export.report.words import (
    cohort_need,
    evidence_in_words,
    groups_in_words,
    hiding_in_words,
    in_words,
    need,
    need_in_words,
    percent,
    scale_bar,
    signed,
    summary,
)
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from jinja2 import Environment

    from xpath.export.report.records import CohortReport, SlideReport

__all__ = [
    "LIMITS",
    "MOST_BYTES",
    "environment",
    "write_index",
    "write_report",
]

LIMITS = (
    "For research only; not a medical device, not for diagnosis.",
    "An explanation shows what the classifier used, not what is true of the disease.",
    "The model sees only the tissue patches, each by itself: not what lies between them, not other "
    "slides or stains, nothing of the patient.",
    "Masks are predictions of a segmentor: what it does not find, or was not asked for, cannot be "
    "blamed.",
    "Hiding an object makes pixels no laboratory produces; compare with the random masks on the "
    "rest of its patches.",
)
MOST_BYTES = 15_000_000
"""A page is sent by mail."""


def write_report(path: Path, report: SlideReport) -> None:
    """Writes the page of a slide.

    Raises:
        DataError: The pictures make it larger than 15 MB.
    """
    widest = max((abs(row.value) for row in report.rows), default=1.0) or 1.0
    _write(
        path,
        "slide.html",
        report=report,
        reasons=reasons(report),
        doubts=tuple(doubts(report)),
        widest=widest,
        sentence=summary(report),
        bar=scale_bar(report.um_per_pixel, report.width),
    )


def write_index(path: Path, report: CohortReport) -> None:
    """Writes the index page of a run."""
    ends = [abs(row[end]) for row in report.importance for end in ("excess_low", "excess_high")]
    ends += [abs(row["excess"]) for row in report.importance]
    widest = max((end for end in ends if math.isfinite(end)), default=1.0)
    reasons = cohort_reasons(report)
    _write(path, "index.html", report=report, reasons=reasons, widest=widest or 1.0)


def _write(path: Path, template: str, **values: Any) -> None:
    page = (
        environment()
        .get_template(template)
        .render(limits=LIMITS, nearest=NEAREST, **values)
        .encode()
    )
    if template == "slide.html" and len(page) > MOST_BYTES:
        raise DataError(
            f"{path} would have {len(page) / 1e6:.1f} MB, wanted at most {MOST_BYTES / 1e6:g};"
            " give it a smaller overview or fewer layers"
        )
    with atomic(path) as draft:
        draft.write_bytes(page)


def environment() -> Environment:
    """The templates, which escape whatever is put into them and refuse what is missing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("xpath.export"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "data": _data_uri,
        "jpeg": lambda image: _data_uri(jpeg_bytes(image)),
        "signed": signed,
        "percent": percent,
        "words": in_words,
        "hiding": hiding_in_words,
        "need": lambda row: need(cohort_need(row)),
        "need_words": need_in_words,
        "group_words": groups_in_words,
        "evidence_words": evidence_in_words,
        "short": short_name,
    }
    return environment


def _data_uri(picture: bytes) -> str:
    media = "jpeg" if picture.startswith(b"\xff\xd8") else "png"
    return f"data:image/{media};base64," + base64.b64encode(picture).decode()
