"""The findings of a slide in measured facts: each can be traced to objects and masks.

No language model is involved: the sentences are put together from numbers of ``explanation.h5``
and ``objects.h5``, and every stretch of them names the array it was taken from.
Axes: N patches, L object classes with masks.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.export.answers import NEAREST, answers_in_words
from xpath.export.overlay import short_name
from xpath.export.report.linked import Words
from xpath.export.report.words import (
    MINUS,
    baseline_of,
    percent,
    printed,
    signed,
    where_in_words,
)
from xpath.labels import OTHER
from xpath.objects.measure import covered_pixels

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.explain.explanation import Explanation
    from xpath.export.report.records import CohortNeed
    from xpath.store.objects import ObjectTable

__all__ = [
    "FINDINGS",
    "Fact",
    "Findings",
    "Share",
    "findings_json",
    "findings_of",
    "paragraphs",
    "said_absent",
    "shares_of_evidence",
]

FINDINGS = "xpath.findings/1"
EVIDENCE = "explanation.h5: object/patch_contribution"
PIXELS = "objects.h5: label_pixels"
DRAWS, AT_ONCE = 1000, 50
"""Bootstrap samples of patches, and how many of them are held in memory."""
MOST_IDS = 20
"""Objects of a label named one by one, the largest; the others lie between first and stop."""


class Share(NamedTuple):
    """A signed share of all evidence, and where it may lie."""

    value: float
    low: float
    high: float


NOTHING = Share(0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """All that was measured of one object class on one slide. None is not known."""

    label: str
    guess: bool
    """True for a label that the segmentor's weights never learnt."""
    answers_for: tuple[str, ...]
    """Ids of labels that were asked for and that it answers in their place."""
    contribution: float
    """To the object-aware model's logit of the explained class, beyond that of the average training
    slide where the classifier keeps one; 0 for what the classifier does not read."""
    share: Share
    """Of the sum of all absolute contributions, signed; 95 % over patches drawn anew."""
    first: int
    stop: int
    """Its objects are the rows from first up to stop of ``objects.h5``."""
    ids: tuple[str, ...]
    """Names of the largest of them."""
    area_fraction: float
    """Of the area that was looked at, the union of all patches, glass in them included."""
    area_um2: float | None
    density_mm2: float | None
    """Objects per square millimetre looked at."""
    confidence: float | None
    """Mean presence score, weighted by area."""
    where: str
    """Where on the slide, in words; empty where there is none."""
    hidden: float | None = None
    """Fall of the standard model's log-odds of the measured class when it is hidden."""
    random: float | None = None
    """The same for random tissue of the same area."""
    patients: tuple[float, float] | None = None
    """95 % interval of hidden minus random over patients."""
    present: bool = True
    """False for a label that is taken as not on the slide. Where labels do not compete it may have
    masks all the same, and objects in all tables of these."""
    enough: bool = True
    """False where no patch has enough of it to be read: to the classifier it is absent."""

    @property
    def count(self) -> int:
        """Number of its objects."""
        return self.stop - self.first


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """The facts of a slide."""

    slide_id: str
    predicted: str
    probability: float
    """Of the predicted class, by the object-aware model."""
    measured: str
    """The class that hiding is measured for."""
    baseline: str
    """What contributions are compared with, in a sentence."""
    rest: Share
    """Of the evidence that lies under no mask."""
    facts: tuple[Fact, ...]
    """The strongest first, whatever its sign."""
    rule: str
    """The rule for one object, in words."""


def findings_of(
    explanation: Explanation,
    objects: ObjectTable,
    *,
    classes: Sequence[str],
    probability: float,
    guesses: frozenset[str] = frozenset(),
    answers: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    needs: Mapping[str, CohortNeed] | None = None,
) -> Findings:
    """The facts of a slide.

    Args:
        explanation: Of the slide.
        objects: Its objects.
        classes: Names of the slide classes.
        probability: Of the predicted class.
        guesses: Ids of labels that the weights never learnt.
        answers: Ids of labels that were asked for, by the one that answers in their place.
        needs: Intervals over patients by label, of ``tables/importance.csv``.
    """
    by_object = explanation.object
    offset = by_object.contribution - by_object.bars
    evidence = shares_of_evidence(by_object.patch_contribution, offset)
    shares = dict(zip(by_object.objects, evidence, strict=True))
    covered = covered_pixels(objects.grid)
    facts = [
        Fact(
            guess=label in guesses,
            answers_for=answers.get(label, ()),
            share=shares.get(label, NOTHING),
            patients=_known((needs or {}).get(label)),
            **_measured(explanation, objects, j, covered),
        )
        for j, label in enumerate(objects.labels)
    ]
    facts.sort(key=lambda it: -abs(it.contribution))
    return Findings(
        slide_id=explanation.slide_id,
        predicted=classes[explanation.target],
        probability=probability,
        measured=classes[explanation.importance.target],
        rest=shares.get(OTHER, NOTHING),
        baseline=baseline_of(by_object, classes),
        facts=tuple(facts),
        rule=objects.rule,
    )


def said_absent(findings: Findings, absent: Container[str]) -> Findings:
    """The findings with some labels, by id, taken as not on the slide."""
    facts = [replace(fact, present=fact.label not in absent) for fact in findings.facts]
    return replace(findings, facts=tuple(facts))


def shares_of_evidence(
    patch_contribution: NDArray[np.floating], offset: NDArray[np.floating], *, seed: int = 0
) -> tuple[Share, ...]:
    """Signed share of each object in the sum of all absolute contributions, 95 % over patches.

    Patches are drawn anew, one by one; neighbours are alike, so the interval is rather too narrow.
    A single patch tells nothing of others: -1 to 1.

    Args:
        patch_contribution: ``(N, L)`` what each object adds to the logit in each patch.
        offset: ``(L,)`` what is subtracted from its sums: that of the average training slide.
        seed: Of the bootstrap.
    """
    values = np.asarray(patch_contribution, np.float64)
    rng, count = np.random.default_rng(seed), len(values)
    drawn = []
    for _ in range(DRAWS // AT_ONCE):
        times = rng.multinomial(count, np.full(count, 1 / count), size=AT_ONCE)
        drawn.append(_shares(times @ values - offset))
    low, high = np.quantile(np.concatenate(drawn), (0.025, 0.975), axis=0)
    if count < 2:
        low, high = np.where(low, -1.0, 0.0), np.where(high, 1.0, 0.0)
    columns = np.stack([_shares(values.sum(axis=0) - offset), low, high], axis=1)
    return tuple(Share(*column) for column in columns.tolist())


def paragraphs(findings: Findings) -> tuple[tuple[Words, ...], ...]:
    """The facts in sentences, every stretch with its label and its source."""
    source = _source(findings, "explanation.h5: object/logits")
    first = (
        Words(text="The object-aware model predicts "),
        Words(text=f"{findings.predicted} ({percent(findings.probability)})", source=source),
        Words(text="."),
    )
    there = [fact for fact in findings.facts if fact.present and fact.area_fraction > 0]
    absent = [fact for fact in findings.facts if fact not in there]
    source = _source(findings, "explanation.h5: object/class_baseline")
    lines = [
        first,
        (Words(text=findings.baseline, source=source),),
        *(tuple(_sentence(fact, findings)) for fact in there),
    ]
    if findings.rest.value:
        rest = f"{_share(findings.rest)} of the evidence"
        source = _source(findings, EVIDENCE)
        lines.append((Words(text=rest, source=source), Words(text=" lies under no mask.")))
    if absent:
        names = [part for fact in absent for part in (Words(text=", "), *_absence(fact, findings))]
        lines.append((Words(text="Looked for, and not there: "), *names[1:], Words(text=".")))
    answers = {fact.label: fact.answers_for for fact in findings.facts if fact.answers_for}
    if answers:
        lines.append((Words(text=f"{NEAREST}: {answers_in_words(answers)}."),))
    return tuple(lines)


def findings_json(findings: Findings, lines: Sequence[Sequence[Words]]) -> dict[str, Any]:
    """The facts as JSON, schema ``xpath.findings/1``, and the sentences made from them."""
    home = f"slides/{findings.slide_id}"
    facts = [
        asdict(fact)
        | {"share": fact.share._asdict(), "name": short_name(fact.label), "count": fact.count}
        for fact in findings.facts
    ]
    sentences = [
        {
            "text": "".join(words.text for words in line),
            "words": [
                {"text": words.text, "labels": list(words.labels), "source": words.source}
                for words in line
            ],
        }
        for line in lines
    ]
    return {
        "schema": FINDINGS,
        "slide_id": findings.slide_id,
        "objects": f"{home}/objects.h5",
        "masks": f"{home}/masks.zarr",
        "explanation": f"{home}/explanation.h5",
        "predicted": findings.predicted,
        "probability": findings.probability,
        "measured": findings.measured,
        "baseline": findings.baseline,
        "rest": findings.rest._asdict(),
        "rule": findings.rule,
        "facts": facts,
        "sentences": sentences,
    }


def _known(need: CohortNeed | None) -> tuple[float, float] | None:
    """The interval of the excess over patients, None where one patient has none."""
    if need is None or not (math.isfinite(need.excess_low) and math.isfinite(need.excess_high)):
        return None
    return need.excess_low, need.excess_high


def _measured(
    explanation: Explanation, objects: ObjectTable, j: int, covered: float
) -> dict[str, Any]:
    """Fields of the fact about one class, but for its share and what other slides tell."""
    label, mpp = objects.labels[j], objects.grid.slide_mpp
    index, importance = objects.of(label), explanation.importance
    first = int(index[0]) if len(index) else 0
    pixels = objects.pixels[index]
    area = float(objects.label_pixels[j]) * objects.scale**2
    largest = index[np.argsort(-pixels, kind="stable")[:MOST_IDS]].tolist()
    sure = float(objects.confidence[index] @ pixels / pixels.sum()) if len(index) else None
    at, e = (
        names.index(label) if label in names else None
        for names in (explanation.object.objects, importance.objects)
    )
    return {
        "label": label,
        "contribution": 0.0 if at is None else float(explanation.object.bars[at]),
        "enough": at is None or bool(explanation.object.present[at]),
        "first": first,
        "stop": first + len(index),
        "ids": tuple(objects.id(one) for one in largest),
        "area_fraction": area / covered,
        "area_um2": None if mpp is None else area * mpp**2,
        "density_mm2": None if mpp is None else len(index) / (covered * mpp**2) * 1e6,
        "confidence": sure,
        "where": where_in_words(objects.label_patch_pixels[:, j], objects.grid),
        "hidden": None if e is None else _finite(importance.effect[e]),
        "random": None if e is None else _finite(importance.null[e]),
    }


def _sentence(fact: Fact, findings: Findings) -> Iterator[Words]:
    def linked(text: str, array: str) -> Words:
        return Words(text=text, labels=(fact.label,), source=_source(findings, array))

    yield _name(fact)
    if not fact.enough:
        yield Words(text=", too little to be read,")
    if printed(fact.contribution):
        verb = "does not surely speak for or against"
        if fact.share.low > 0 or fact.share.high < 0:
            verb = "speaks for" if fact.contribution > 0 else "speaks against"
        yield Words(text=f" {verb} {findings.predicted}, with ")
        yield linked(f"{_share(fact.share)} of the evidence", EVIDENCE)
    else:
        yield Words(text=f" adds nothing to {findings.predicted}")
    yield Words(text=": ")
    noun = "object" if fact.count == 1 else "objects"
    rows = f"rows {fact.first} to {fact.stop - 1}" if fact.count else "label"
    yield linked(f"{fact.count:,} {noun}", f"objects.h5: {rows}")
    yield Words(text=" on ")
    mm2 = "" if fact.area_um2 is None else f" ({fact.area_um2 / 1e6:.3g} mm\N{SUPERSCRIPT TWO})"
    yield linked(f"{percent(fact.area_fraction)} of the area looked at{mm2}", PIXELS)
    if fact.density_mm2 is not None:
        yield Words(text=", ")
        yield linked(f"{fact.density_mm2:,.0f} per mm\N{SUPERSCRIPT TWO}", "objects.h5: label")
    yield Words(text=", ")
    yield linked(fact.where, "objects.h5: label_patch_pixels")
    if fact.hidden is not None and fact.random is not None:
        yield Words(text=f". Hidden, the standard model's log-odds of {findings.measured} fall by ")
        text = f"{signed(fact.hidden)} (random tissue: {signed(fact.random)})"
        yield linked(text, "explanation.h5: importance/effect, importance/null")
    if fact.patients is not None:
        text = f"{signed(fact.patients[0])} to {signed(fact.patients[1])}"
        source = "tables/importance.csv: excess_low, excess_high"
        yield Words(text=", over patients by ")
        yield Words(text=text, labels=(fact.label,), source=source)
        yield Words(text=" more than random tissue")
    yield Words(text=".")


def _absence(fact: Fact, findings: Findings) -> Iterator[Words]:
    """The name of what is not there, and what its absence says."""
    yield _name(fact)
    if fact.share.value:
        source = _source(findings, "explanation.h5: object/class_baseline")
        text = f" ({_share(fact.share)} of the evidence)"
        yield Words(text=text, labels=(fact.label,), source=source)
    if fact.area_fraction > 0:
        where = f"{percent(fact.area_fraction)} of the area looked at"
        text, source = f" (its masks, on {where}, are not believed)", _source(findings, PIXELS)
        yield Words(text=text, labels=(fact.label,), source=source)


def _name(fact: Fact) -> Words:
    name = short_name(fact.label)
    return Words(text=name[:1].upper() + name[1:], labels=(fact.label,), source=fact.label)


def _share(share: Share) -> str:
    value, low, high = (_percent(it) for it in share)
    return f"{value} % [{low}, {high}]"


def _percent(share: float) -> str:
    """Whole percents with a real minus sign."""
    return f"{100 * share:+.0f}".replace("-", MINUS).replace(f"{MINUS}0", "0").replace("+0", "0")


def _shares(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.abs(sums).sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(sums, total, out=np.zeros_like(sums), where=total > 0))


def _source(findings: Findings, array: str) -> str:
    return f"slides/{findings.slide_id}/{array}"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
