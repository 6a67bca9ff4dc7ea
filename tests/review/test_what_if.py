import numpy as np
import pytest
import torch

from xpath.mil.bag import Bag, pack
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.review.what_if import WhatIf, what_if_of


@pytest.fixture(params=["all", "present"])
def slide(request):
    """A classifier of three classes, and a slide with four object classes, one of them absent."""
    torch.manual_seed(3)
    model = ObjectAwareMIL(
        6, ("a", "b", "c", "d"), ("x", "y", "z"), hidden=5, average=request.param
    )
    present = torch.rand(9, 4) > 0.4
    present[:, 3] = False
    present[:, 2] = torch.arange(9) == 4  # in one patch
    return model.eval(), Bag(torch.randn(9, 4, 6), present)


def asked_again(model, bag, j, patches):
    """The slow way: the classifier itself, without the object."""
    present = bag.present.clone()
    present[slice(None) if patches is None else patches, j] = False
    with torch.inference_mode():
        return model(pack([Bag(bag.features, present)])).logits[0].double().numpy()


@pytest.mark.parametrize("j", [0, 1, 2, 3])
@pytest.mark.parametrize("patches", [None, [4], [0, 3, 8], list(range(9))])
def test_it_is_what_the_classifier_says_without_the_object(slide, j, patches):
    model, bag = slide
    index = None if patches is None else np.array(patches)
    before, after = asked_again(model, bag, 0, []), asked_again(model, bag, j, patches)

    for target in range(3):
        answer = what_if_of(model, bag).without(target, j, index)
        p = np.exp(after[target]) / np.exp(after).sum()
        q = np.exp(before[target]) / np.exp(before).sum()
        assert answer.probability == pytest.approx(p, abs=1e-5)
        assert answer.log_odds == pytest.approx(np.log(p / (1 - p)) - np.log(q / (1 - q)), abs=1e-4)


def test_an_absent_object_changes_nothing(slide):
    answer = what_if_of(*slide).without(1, 3, None)

    assert answer.log_odds == 0


def test_logits_are_those_of_the_classifier(slide):
    model, bag = slide

    assert what_if_of(model, bag).logits() == pytest.approx(
        asked_again(model, bag, 0, []), abs=1e-5
    )


def test_where_rounding_decides_there_is_no_answer():
    attention = np.array([[1.0 - 1e-12], [1e-12]])
    terms = attention[..., None] * np.ones((2, 1, 2))
    asked = WhatIf(attention=attention, terms=terms, bias=np.zeros(2), present_only=False)

    assert asked.without(0, 0, np.array([0])) is None
    assert asked.without(0, 0, np.array([1])) is not None
