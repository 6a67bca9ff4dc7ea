import math

import numpy as np
import pytest
import torch
from torch import nn

from xpath.errors import ConfigError, DataError
from xpath.explain.head import class_share, class_weights, forward, log_odds
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.pooling_mil import PoolingMIL

LOGITS = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("target", "contrast", "wanted"),
    [
        (None, "none", [0, 1, 0]),
        (0, "none", [1, 0, 0]),
        (0, "mean", [2 / 3, -1 / 3, -1 / 3]),
        (0, "runner_up", [1, -1, 0]),
        (1, "runner_up", [0, 1, -1]),
        (0, 2, [1, 0, -1]),
        (2, 0, [-1, 0, 1]),
    ],
)
def test_what_counts_how_much_by_hand(target, contrast, wanted):
    result, share = class_share(LOGITS, target, contrast)

    assert result == (1 if target is None else target)
    np.testing.assert_allclose(share, wanted)


def test_weights_bias_and_logit_belong_together():
    torch.manual_seed(0)
    model, bag = AttentionMIL(6, 3), Bag(torch.randn(9, 6))
    output = forward(model, bag)

    for contrast in ("none", "mean", "runner_up", 2):
        result = class_weights(model, output.logits[0], 1, contrast)
        logit = output.embedding[0] @ result.weight + result.bias
        assert float(logit) == pytest.approx(result.logit, abs=1e-12)


def test_a_head_without_bias_has_bias_zero():
    model = AttentionMIL(6, 3)
    model.classifier = nn.Linear(6, 3, bias=False)

    assert class_weights(model, LOGITS, 0, "none").bias == 0


@pytest.mark.parametrize("contrast", [1, 3, -1])
def test_a_class_against_itself_or_none_is_refused(contrast):
    with pytest.raises(DataError, match="another class than 1"):
        class_share(LOGITS, 1, contrast)


def test_other_contrasts_are_refused():
    with pytest.raises(ConfigError, match="runner_up"):
        class_share(LOGITS, 1, "best")


def test_a_model_without_attention_is_refused():
    with pytest.raises(DataError, match="no attention"):
        forward(PoolingMIL(6, 3), Bag(torch.zeros(2, 6)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_odds_are_finite_and_rise_with_the_margin(dtype):
    """From single precision logits, whose probability would be 1 from a margin of 17 on."""
    margins = np.linspace(-50, 50, 401).astype(dtype)
    logits = np.stack([np.zeros_like(margins), margins], axis=-1)

    result = log_odds(logits, 1)

    assert result.dtype == np.float64
    np.testing.assert_allclose(result, margins, atol=1e-12)
    assert (np.diff(result) > 0).all()
    np.testing.assert_allclose(log_odds(logits, 0), -margins, atol=1e-12)


def test_log_odds_of_the_models_own_single_precision():
    """The margin of a sure model survives from its weights to its log-odds."""
    model = AttentionMIL(1, 2)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor([[-0.5], [0.5]]))
        model.classifier.bias.zero_()
    margins = torch.arange(-50.0, 51.0)
    bags = pack([Bag(margin.reshape(1, 1)) for margin in margins])
    with torch.inference_mode():
        logits = model.eval()(bags).logits.numpy()

    result = log_odds(logits, 1)

    assert logits.dtype == np.float32
    np.testing.assert_allclose(result, margins.numpy(), rtol=1e-6)


def test_log_odds_of_three_classes_by_hand():
    logits = np.log([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])

    np.testing.assert_allclose(log_odds(logits, 0), [0, math.log(1 / 9)], atol=1e-12)
    np.testing.assert_allclose(log_odds(logits[1] + 700, 1), math.log(4))


@pytest.mark.parametrize(("logits", "target"), [([1.0, 2.0], 2), ([1.0, 2.0], -1), ([1.0], 0)])
def test_log_odds_of_no_class_are_refused(logits, target):
    with pytest.raises(DataError, match="2 or more classes"):
        log_odds(np.array(logits), target)


def test_a_class_is_a_number_and_a_bag_is_one():
    with pytest.raises(DataError, match=r"got 'ILC'; of a name, model\.classes\.index"):
        class_share(torch.zeros(2), "ILC", "none")
    with pytest.raises(DataError, match="wanted one Bag, got PackedBags"):
        forward(AttentionMIL(4, 2), pack([Bag(torch.zeros(3, 4))]))
