import math

import numpy as np
import pytest

from xpath.grounded.scores import mean_by_phrase, names_finding, names_region, paired_dice


def test_a_finding_is_named_if_the_answer_holds_it():
    assert names_finding("It is. Tumor in breast pathology.", "tumor in Breast pathology.")
    assert not names_finding("It is. tumor in colon pathology.", "tumor in breast pathology")
    assert not names_finding("anything", "")


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("gland in colon pathology", "Gland in colon pathology.", True),
        ("left kidney in abdominal CT", "right kidney in CT", True),
        (
            "gland in colon pathology",
            "gland in breast pathology",
            True,
        ),  # only the last word counts
        ("glands in pathology", "gland in pathology", False),
        ("gland in colon slides", "gland in colon pathology", False),
        ("gland in histopathology", "gland in pathology", True),
        ("", "gland in pathology", False),
        ("gland in pathology", "", False),
    ],
)
def test_regions_are_named_by_what_stands_before_in(answer, truth, right):
    assert names_region(answer, truth) is right


def test_masks_are_paired_best_first():
    first, second = np.zeros((2, 1, 8), bool)
    first[0, :4] = second[0, 4:] = True
    poor = np.zeros((1, 8), bool)
    poor[0, 3:5] = True  # Dice 1/3 with either

    pairs = paired_dice(np.stack((poor, second)), np.stack((second, first)))

    assert pairs == pytest.approx((1 + 1 / 3) / 2)
    assert paired_dice(np.stack((poor, second)), first[None]) == pytest.approx(1 / 3)
    assert paired_dice(np.zeros((0, 1, 8), bool), first[None]) == 0
    assert math.isnan(paired_dice(first[None], np.zeros((0, 1, 8), bool)))


def test_every_phrase_weighs_alike():
    means = mean_by_phrase([("a", 1.0), ("a", 0.0), ("b", 0.2)])

    assert means == pytest.approx({"a": 0.5, "b": 0.2})
