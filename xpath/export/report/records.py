"""The content of the pages for people, which is put into words and HTML elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from xpath.explain.verdict import Evidence

__all__ = [
    "CohortNeed",
    "CohortReport",
    "ComparedMethods",
    "FileTable",
    "HiddenPicture",
    "Layer",
    "ObjectRow",
    "PatchPicture",
    "PatchStrip",
    "SlideReport",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A transparent picture over the slide that can be switched on."""

    name: str
    png: bytes
    shown: bool = False
    colour: str = ""
    """``#rrggbb`` of an object class, empty for a signed map."""
    limit: float = 0.0
    """The absolute value in full colour, of a signed map."""
    source: str = ""
    """File of the run folder, and what in it."""
    value: float | None = None
    """The object's contribution to the logit."""

    @property
    def weight(self) -> float:
        """The absolute contribution."""
        return abs(self.value or 0.0)


class CohortNeed(NamedTuple):
    """95 % intervals of an object over patients, NaN for one patient."""

    effect_low: float
    effect_high: float
    """Fall of the log-odds when it is hidden."""
    excess_low: float
    excess_high: float
    """The same, less that of random masks."""
    need_low: float
    need_high: float
    """The same, held against the size of what random masks do (``ObjectImportance.needs``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectRow:
    """One object class on one slide, None where it was not hidden."""

    name: str
    colour: str
    """``#rrggbb``."""
    area: float
    """Share of the area of all patches together that its masks cover, as in ``morphometry.csv``."""
    contribution: float
    """To the object-aware log-odds of the explained class (paper, Eq. 16, over the divisor)."""
    centred: float = math.nan
    """The same, less its mean over the training slides; NaN where the classifier keeps none."""
    removal: float = math.nan
    """Fall of the log-odds if the object is taken out of the slide."""
    effect: float | None = None
    """Fall of the standard model's log-odds of the measured class when it is hidden."""
    null: float | None = None
    """The same for random masks on the rest of its patches."""
    p: float | None = None
    """Share of placements, its own among them, that do as much on this slide."""
    random_masks: int = 0
    """Of each patch; of R the smallest ``p`` is 1 / (R + 1)."""
    cover: float | None = None
    """Mean share of its patches that it covers; NaN where it is absent."""
    imp: float | None = None
    """The paper's Eq. 12."""
    cohort: CohortNeed | None = None
    """Over the patients of the measured class."""
    evidence: Evidence | None = None
    """The cohort's verdict on it as a reason of the classifiers."""
    guess: bool = False
    """True for a label that the segmentor's weights never learnt."""
    answers_for: str = ""
    """Names of the labels that were asked for and that it answers in their place."""
    enough: bool = True
    """False where no patch has enough of it to be read: to the classifier it is absent."""

    @property
    def title(self) -> str:
        """The name, with a mark if it is a guess."""
        return f"{self.name} (guess: never learnt)" if self.guess else self.name

    @property
    def value(self) -> float:
        """The length of its bar: beyond the average training slide, where that is known."""
        return self.contribution if math.isnan(self.centred) else self.centred


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchPicture:
    """A patch with the outline of an object."""

    jpeg: bytes
    value: float
    """The object's contribution to the logit in this patch."""
    position: str
    """Number of the patch and its corner, level-0 pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchStrip:
    """The patches in which an object speaks most for the class, and most against it."""

    name: str
    colour: str
    top: tuple[PatchPicture, ...]
    """Values above 0, the largest first."""
    bottom: tuple[PatchPicture, ...]
    """Values below 0, the smallest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileTable:
    """A table of the run, shown as it is."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    source: str
    cut: int = 0
    """Rows that are left out."""
    rule: str = ""
    """The rule by which objects were counted, its column ``rule``; empty without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenPicture:
    """A patch as it is and with an object hidden, and what that does to the slide's loss."""

    name: str
    colour: str
    plain: NDArray[np.uint8]
    """``(H, W, 3)``."""
    hidden: NDArray[np.uint8]
    """``(H, W, 3)``."""
    loss: float
    """Cross-entropy of the slide as it is."""
    hidden_loss: float
    """With the object hidden in all of its patches."""
    position: str
    """Number of the patch and its corner, level-0 pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedMethods:
    """Attribution methods on one slide: maps, objects and checks."""

    maps: bytes
    """PNG."""
    objects: FileTable | None
    """What each object class is worth, by method."""
    faithfulness: FileTable | None
    """A row per model and method."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideReport:
    """Everything on a slide's page."""

    slide_id: str
    label: str
    """True class, empty where unknown."""
    split: str
    """``train``, ``validation``, ``test`` or empty: how far the prediction can be believed."""
    predicted: str
    explained: str
    """The class of the maps."""
    probability: Mapping[str, Mapping[str, float]]
    """Model name to class name to probability."""
    figure: bytes
    """The side-by-side picture, PNG."""
    overview: bytes
    """The slide alone, PNG or JPEG."""
    layers: tuple[Layer, ...]
    rows: tuple[ObjectRow, ...]
    baseline: str = ""
    """What contributions are compared with, in a sentence."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Provenance."""
    synthetic: bool = False
    untaught: tuple[str, ...] = ()
    """Objects the segmentor's weights never learnt."""
    answers: str = ""
    """Which objects answer for which labels that were asked for, in words."""
    not_found: tuple[str, ...] = ()
    """Objects that were looked for and are not on the slide."""
    absence: float = 0.0
    """What these add to the log-odds by their absence; they have no row."""
    measured: str = ""
    """The class the hiding is measured for, the explained one if empty."""
    calibration: str = ""
    """How the probabilities were calibrated, empty where they were not."""
    training: tuple[str, ...] = ()
    """The training data, in sentences."""
    strips: tuple[PatchStrip, ...] = ()
    morphometry: FileTable | None = None
    hidden: tuple[HiddenPicture, ...] = ()
    hide: str = "blurred"
    """How objects were hidden, in words."""
    methods: ComparedMethods | None = None
    um_per_pixel: float | None = None
    """Of the overview, for the scale bar."""
    width: int = 0
    """Of the overview, pixels."""

    @property
    def source(self) -> str:
        """The file of the explanation in the run folder."""
        return f"slides/{self.slide_id}/explanation.h5"

    @property
    def hidden_class(self) -> str:
        """The class the hiding is measured for."""
        return self.measured or self.explained


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
    contributions: tuple[Mapping[str, Any], ...] = ()
    """Rows of ``tables/contributions.csv``."""
    evidence: tuple[Evidence, ...] = ()
    """Rows of ``tables/evidence.csv``."""
    faithfulness: FileTable | None = None
    """``tables/faithfulness.csv``."""
    controls: bool = False
    """Whether control classifiers were trained."""
    hide: str = "blurred"
    """How objects were hidden, in words."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Names of objects that go together in masks or contributions, two at least in each."""
    not_found: tuple[str, ...] = ()
    """Objects that were looked for and are on no slide."""
    examples: tuple[SlideReport, ...]
    """Slides shown side by side."""
    slides: tuple[Mapping[str, str], ...]
    """Rows: slide_id, label, predicted, probability, doubt, split, status, link."""
    facts: Mapping[str, str] = field(default_factory=dict)
    synthetic: bool = False
    untaught: tuple[str, ...] = ()
    """Objects the segmentor's weights never learnt."""
    answers: str = ""
    """Which objects answer for which labels that were asked for, in words."""
