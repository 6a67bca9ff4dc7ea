import math
from dataclasses import replace

import numpy as np
import pytest

from xpath.explain.explanation import read_explanation
from xpath.review.agreement import (
    hiding_in_a_sentence,
    objects_disagreed_on,
    predictions_disagree,
)


def test_models_that_predict_the_same_need_no_sentence():
    same = {"object-aware model": {"A": 0.9, "B": 0.1}, "standard model": {"A": 0.6, "B": 0.4}}
    assert not predictions_disagree(same)

    other = same | {"standard model": {"A": 0.25, "B": 0.75}}
    assert predictions_disagree(other) == (
        "The two models disagree: the object-aware model predicts A (90.0 %), the standard model"
        " predicts B (75.0 %)."
    )


@pytest.mark.parametrize(
    ("effect", "random", "wanted"),
    [
        (0.5, 0.25, "lowers the standard model's score for A by 0.500; {} lowers it by 0.250."),
        (-0.114, 0, "raises the standard model's score for A by 0.114; {} does not change it."),
        (2e-4, -2, "does not change the standard model's score for A; {} raises it by 2.000."),
    ],
)
def test_a_sentence_holds_for_the_sign_of_its_number(effect, random, wanted):
    other = "hiding as much other tissue"

    assert hiding_in_a_sentence(effect, random, "A") == f"Hiding it {wanted.format(other)}"


def test_hiding_that_leaves_nothing_has_no_sign():
    assert "leaves nothing" in hiding_in_a_sentence(math.nan, math.nan, "A")


@pytest.mark.parametrize(
    ("effect", "random", "disagree"),
    [
        (2.2, 0.25, False),
        (0.2, 0.25, True),
        (-2.2, 0.25, True),
        (0.0, 0.0, True),
        (math.nan, math.nan, False),
    ],
)
def test_an_object_speaks_in_both_models_or_they_disagree(made, effect, random, disagree):
    """Tumour speaks for the class where its bar is above 0 and hiding it lowers the score more."""
    explanation = read_explanation(made / "run" / "slides" / "one" / "explanation.h5")
    by_object, hiding = explanation.object, explanation.importance
    sign = np.sign(by_object.bars[0])
    effects = np.zeros_like(hiding.effects)
    effects[by_object.target] = sign * effect
    drawn = np.full_like(hiding.random, sign * random)
    asked = replace(explanation, importance=replace(hiding, effects=effects, random=drawn))

    sentences = objects_disagreed_on(asked, ("A", "B"))

    assert len(sentences) == disagree
    assert all("disagree on tumor (tissue)" in sentence for sentence in sentences)


def test_of_an_absent_object_nothing_is_said(made):
    explanation = read_explanation(made / "run" / "slides" / "one" / "explanation.h5")
    hiding = explanation.importance
    absent = replace(hiding, effects=0 * hiding.effects, patches=0 * hiding.patches)

    assert objects_disagreed_on(replace(explanation, importance=absent), ("A", "B")) == ()
