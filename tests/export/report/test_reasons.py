"""The first screen of a page: the prediction with its doubts, and reasons with their verdicts."""

import math
from dataclasses import replace

import pytest

from xpath.explain.verdict import Evidence
from xpath.export.report.reasons import cohort_reasons, doubts, prediction_doubt, reasons
from xpath.export.report.records import (
    CohortReport,
    ObjectRow,
    PatchPicture,
    PatchStrip,
    SlideReport,
)

NECROSIS = "breast-tissue-necrosis or debris"


def verdict(words, speaking="hiding", name=NECROSIS):
    return Evidence(
        object=name, verdict=words, speaking=speaking, hiding_q=0.01, loss_without=0.5,
        loss_low=0.2, loss_high=0.8, area_auc=0.5, area_low=0.3, area_high=0.7, seeds_held=5,
        seeds=5,
    )  # fmt: skip


def row(name, value, words="", **change):
    given = {"colour": "#cc3311", "area": 0.25, "contribution": value}
    evidence = verdict(words) if words else None
    return ObjectRow(name=name, evidence=evidence, **given | change)


def picture(value):
    return PatchPicture(jpeg=b"", value=value, position=f"patch at {value}")


def report(*rows, **change):
    values = {
        "slide_id": "s", "label": "B", "split": "test", "predicted": "B", "explained": "B",
        "probability": {"object-aware": {"A": 0.05, "B": 0.95}, "standard": {"A": 0.2, "B": 0.8}},
        "figure": b"", "overview": b"", "layers": (), "rows": rows, "calibration": "by 1.5",
    }  # fmt: skip
    return SlideReport(**values | change)


def test_the_best_verdict_comes_first_then_the_largest():
    rows = (
        row("large", 3.0, "not distinguishable"),
        row("untested", 9.0),
        row("small", -0.5, "supported"),
        row("smaller", 0.25, "supported"),
        row("nothing", 0.0, "supported"),
        row("guessed", 7.0, "supported", guess=True),
        row("middle", 1.0, "suggestive"),
    )

    names = [reason.name for reason in reasons(report(*rows), most=10)]

    assert names == [
        "small", "smaller", "middle", "large", "untested", "guessed (guess: never learnt)",
    ]  # fmt: skip
    assert len(reasons(report(*rows))) == 3


def test_a_reason_says_its_side_its_area_and_its_checks():
    present, absent = reasons(
        report(row("fat", 0.5, "supported"), row("duct", -0.25, area=0.0, contribution=0.0,
                                                 centred=-0.25))
    )  # fmt: skip

    assert present.words == "speaks for B (+0.500), on 25.0 % of the area looked at"
    assert present.because == "in this cohort the evidence supports it (for it: hiding)"
    assert absent.words == "not found; its absence speaks against B (\N{MINUS SIGN}0.250)"
    assert absent.verdict == "not tested"


def test_the_picture_is_the_patch_that_speaks_most_for_its_side():
    strip = PatchStrip(
        name="fat", colour="#cc3311", top=(picture(0.5), picture(0.25)), bottom=(picture(-0.75),)
    )

    (speaks_for,) = reasons(report(row("fat", 1.0), strips=(strip,)))
    (against,) = reasons(report(row("fat", -1.0), strips=(strip,)))
    (elsewhere,) = reasons(report(row("duct", 1.0), strips=(strip,)))

    assert (speaks_for.picture.value, against.picture.value) == (0.5, -0.75)
    assert elsewhere.picture is None


def test_doubts_are_said():
    good = " ".join(doubts(report()))
    assert good == "The model is sure. The standard model agrees (80.0 %)."

    bad = " ".join(
        doubts(
            report(
                label="A", split="train", calibration="",
                probability={
                    "object-aware": {"A": 0.4, "B": 0.6}, "standard": {"A": 0.9, "B": 0.1},
                },
            )
        )
    )  # fmt: skip
    assert bad == (
        "The model is unsure. The standard model disagrees: A (90.0 %). Wrong: the slide is"
        " labelled A. The models have learnt from this slide, so they are surer than they should"
        " be. The probability is not calibrated: read it as a score."
    )


def test_doubt_grows_when_the_other_model_disagrees():
    sure = {"A": 0.1, "B": 0.9}

    assert prediction_doubt(sure, {}) == pytest.approx(0.1)
    assert prediction_doubt(sure, sure) == pytest.approx(0.1)
    assert prediction_doubt(sure, {"A": 0.7, "B": 0.3}) == pytest.approx(0.4)


def test_a_cohort_names_what_its_evidence_supports_and_for_which_class():
    importance = {
        "object": NECROSIS,
        "effect": 2.0,
        "excess": 1.5,
        "excess_low": 1,
        "excess_high": 2,
    }
    weaker = importance | {"class_name": "A", "effect": -1.0, "excess": -0.5}
    cohort = CohortReport(
        title="t", headline="h", classes=("A", "B"), metrics=(), examples=(), slides=(),
        importance=(weaker, importance | {"class_name": "B"}),
        evidence=(
            verdict("suggestive", name="breast-tissue-fat"), verdict("supported"),
            verdict("not distinguishable", name="breast-tissue-stroma"),
        ),
    )  # fmt: skip

    first, second = cohort_reasons(cohort)

    assert (first.verdict, second.verdict) == ("supported", "suggestive")
    assert first.words == (
        "hiding it lowers the log-odds of B by 2; less the fall for as much of the rest of its"
        " patches +1.500 [+1.000, +2.000]"
    )
    assert second.words == "not hidden on any slide"
    alone = replace(
        cohort, importance=(weaker | {"excess_low": math.nan},), evidence=(verdict("supported"),)
    )
    assert "raises the log-odds of A by 1 (one patient" in cohort_reasons(alone)[0].words
