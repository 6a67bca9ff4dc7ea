"""Findings two texts have in common."""

from __future__ import annotations

import math

import pytest

from xpath.errors import DataError
from xpath.language.facts import fact_scores
from xpath.metrics.text import bleu


def test_by_hand():
    """Right: tumour, fat. Wrong: necrosis, denied in truth, and nerve. Missed: DCIS."""
    found = fact_scores(
        ["Carcinoma with necrosis, fat and a nerve."],
        ["Invasive tumour and DCIS in adipose tissue. No necrosis."],
        regions=["breast"],
    )

    assert found == (2, 2, 1, 1)
    assert found.precision == 2 / 4
    assert found.recall == 2 / 3
    assert found.f1 == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))


def test_other_words_for_the_same_are_right_and_a_denial_is_not():
    """BLEU thinks the other way round."""
    reference = "Necrosis is present in this biopsy."
    same, opposite = "Comedonecrosis.", "Necrosis is not present in this biopsy."

    for text, f1 in ((same, 1.0), (opposite, 0.0)):
        assert fact_scores([text], [reference], regions=["breast"]).f1 == f1
    assert bleu([opposite], [reference])[0] > bleu([same], [reference])[0]


def test_counts_are_summed_over_texts():
    found = fact_scores(
        ["Fat.", "Crypts.", "Nothing."], ["Fat.", "Eosinophils.", "Nothing."],
        regions=["breast", "colon", None],
    )  # fmt: skip

    assert found == (1, 1, 1, 0)


def test_regions_are_read_from_the_texts_if_not_given():
    assert fact_scores(["Renal tumour"], ["Kidney: carcinoma"]) == (1, 0, 0, 0)


def test_without_findings_nothing_can_be_said():
    found = fact_scores(["Nothing."], ["No tumour."], regions=["breast"])

    assert found == (0, 0, 0, 0)
    assert all(map(math.isnan, (found.precision, found.recall, found.f1)))


def test_unequal_numbers_are_refused():
    with pytest.raises(DataError, match="got 1 texts, 2 references, 2 regions"):
        fact_scores(["a"], ["a", "b"])
    with pytest.raises(DataError, match="got 1 texts, 1 references, 2 regions"):
        fact_scores(["a"], ["a"], regions=["breast", None])
