import math

import pytest
import torch

from xpath.mil.pool import GatedAttention, PlainAttention, segment_softmax, segment_sum

INDEX = torch.tensor([0, 0, 1, 2, 2, 2])


def test_sums_by_hand():
    values = torch.tensor([
        [1.0, 10.0],
        [2.0, 20.0],
        [3.0, 30.0],
        [4.0, 40.0],
        [5.0, 50.0],
        [6.0, 60],
    ])

    assert segment_sum(values, INDEX, 4).tolist() == [[3, 30], [3, 30], [15, 150], [0, 0]]


def test_softmax_by_hand():
    scores = torch.tensor([math.log(3), 0.0, -5.0, 0.0, 0.0, math.log(2)])

    found = segment_softmax(scores, INDEX, 3)

    torch.testing.assert_close(found, torch.tensor([0.75, 0.25, 1, 0.25, 0.25, 0.5]))


def test_masked_rows_are_as_if_they_were_not_there():
    scores = torch.tensor([0.0, 1000.0, -5.0, 0.0, 1e38, math.log(3)])
    mask = torch.tensor([True, False, False, True, False, True])

    found = segment_softmax(scores, INDEX, 3, mask)

    torch.testing.assert_close(found, torch.tensor([1.0, 0, 0, 0.25, 0, 0.75]))
    assert (found[~mask] == 0).all()


def test_equals_torch_softmax_column_by_column(generator):
    scores = torch.randn(6, 2, 3, generator=generator, dtype=torch.float64) * 50

    found = segment_softmax(scores, INDEX, 3)

    for bag in range(3):
        torch.testing.assert_close(found[bag == INDEX], scores[bag == INDEX].softmax(dim=0))


@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_huge_scores_neither_overflow_nor_vanish(shift):
    scores = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])

    found = segment_softmax(scores + shift, INDEX, 3)

    torch.testing.assert_close(found, segment_softmax(scores, INDEX, 3))


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_right(generator, masked):
    scores = torch.randn(6, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    # Bag 0: column 0 keeps one row, column 1 none; bag 1: none.
    mask = torch.tensor([[1, 0], [0, 0], [0, 0], [1, 1], [1, 0], [0, 1]]) > 0

    assert torch.autograd.gradcheck(
        lambda x: segment_softmax(x, INDEX, 3, mask if masked else None), scores
    )


def test_a_bag_without_a_true_row_is_zero_with_zero_gradient():
    scores = torch.ones(6, requires_grad=True)
    mask = torch.tensor([False, False, True, True, True, True])

    found = segment_softmax(scores, INDEX, 3, mask)
    (found * torch.arange(6.0)).sum().backward()

    assert found[:2].tolist() == [0, 0]
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[:2].tolist() == [0, 0]
    assert scores.grad[3] != 0


def test_same_input_same_bits(generator):
    index = torch.arange(40).repeat_interleave(500)
    scores = torch.randn(20_000, generator=generator)

    def run():
        leaf = scores.clone().requires_grad_()
        segment_softmax(leaf, index, 40).pow(2).sum().backward()
        return leaf.grad

    assert torch.equal(run(), run())


@pytest.mark.parametrize("kind", [PlainAttention, GatedAttention])
def test_scores_are_the_formula_kind_by_kind(kind, generator):
    torch.manual_seed(0)
    attention = kind(4, 6, kinds=3).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
    features = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)

    found = attention(features)

    for j in range(3):
        hidden = torch.tanh(features[:, j] @ attention.value_weight[j].T + attention.value_bias[j])
        if kind is GatedAttention:
            gate = features[:, j] @ attention.gate_weight[j].T + attention.gate_bias[j]
            hidden = hidden / (1 + torch.exp(-gate))
        torch.testing.assert_close(found[:, j], hidden @ attention.score_weight[j])


def test_kinds_start_apart():
    weights = PlainAttention(4, 6, kinds=2).value_weight

    assert not torch.equal(weights[0], weights[1])


def test_dropout_only_while_training():
    attention = GatedAttention(4, 6, 0.5)
    features = torch.ones(3, 1, 4)

    assert len(attention.train()(features).unique()) == 3
    assert len(attention.eval()(features).unique()) == 1
