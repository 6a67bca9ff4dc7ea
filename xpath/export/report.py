"""Pages for people: one per slide, one per run; each a single file that asks no network."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from jinja2 import Environment

__all__ = ["CohortReport", "Layer", "ObjectRow", "SlideReport", "write_index", "write_report"]

LIMITS = (
    "For research only; not a medical device, not for diagnosis.",
    "An explanation says what the classifier used, not what is true of the disease.",
    "Masks are predictions of a segmentor: what it does not find cannot be blamed.",
    "Hiding an object makes pixels no laboratory produces; compare with the random masks of the "
    "same area.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A transparent picture over the slide that can be switched on."""

    name: str
    png: bytes
    shown: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectRow:
    """One kind of object on one slide; None where it was not asked."""

    name: str
    colour: str
    """``#rrggbb``."""
    area: float
    """Share of the patches' area."""
    contribution: float
    """What it adds to the object-aware logit of the explained class."""
    effect: float | None = None
    """Fall of the standard model's log-odds when it is hidden."""
    null: float | None = None
    """The same for random masks of the same area."""
    imp: float | None = None
    """The paper's Eq. 12."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideReport:
    """Everything on a slide's page."""

    slide_id: str
    label: str
    """True class; empty where unknown."""
    part: str
    """``train``, ``validation``, ``test`` or empty: how far the prediction can be believed."""
    predicted: str
    explained: str
    """The class the maps speak of."""
    probability: Mapping[str, Mapping[str, float]]
    """Model name to class name to probability."""
    figure: bytes
    """The side-by-side picture, PNG."""
    overview: bytes
    """The slide alone, PNG."""
    layers: tuple[Layer, ...]
    rows: tuple[ObjectRow, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    """Provenance."""
    synthetic: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CohortReport:
    """Everything on the index page of a run."""

    title: str
    headline: str
    """The result in one plain sentence."""
    classes: tuple[str, ...]
    metrics: tuple[Mapping[str, Any], ...]
    """Rows: model, slides, auc, balanced_accuracy, f1."""
    importance: tuple[Mapping[str, Any], ...]
    """Rows of ``tables/importance.csv``."""
    examples: tuple[SlideReport, ...]
    """Slides shown side by side."""
    slides: tuple[Mapping[str, str], ...]
    """Rows: slide_id, label, predicted, part, status, link."""
    facts: Mapping[str, str] = field(default_factory=dict)
    synthetic: bool = False


def write_report(path: Path, report: SlideReport) -> None:
    """Writes the page of a slide."""
    _write(path, "slide.html", report=report)


def write_index(path: Path, report: CohortReport) -> None:
    """Writes the index page of a run."""
    ends = [abs(row[end]) for row in report.importance for end in ("excess_low", "excess_high")]
    ends += [abs(row["excess"]) for row in report.importance]
    widest = max((end for end in ends if math.isfinite(end)), default=1.0)
    _write(path, "index.html", report=report, widest=widest or 1.0)


def _write(path: Path, template: str, **values: Any) -> None:
    page = _environment().get_template(template).render(limits=LIMITS, **values)
    with atomic(path) as draft:
        draft.write_text(page, encoding="utf-8")


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("xpath.export"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data"] = _data_uri
    environment.filters["signed"] = lambda value: f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
    return environment


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
