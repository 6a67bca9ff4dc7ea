import math

import pytest
import torch

from xpath.mil.pool import (
    GatedAttention,
    PlainAttention,
    segment_max,
    segment_softmax,
    segment_sum,
    segment_weighted_sum,
)

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
    attention = kind(4, 6, pools=3).double()
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
    weights = PlainAttention(4, 6, pools=2).value_weight

    assert not torch.equal(weights[0], weights[1])


def test_dropout_only_while_training():
    attention = GatedAttention(4, 6, 0.5)
    features = torch.ones(3, 1, 4)

    assert len(attention.train()(features).unique()) == 3
    assert len(attention.eval()(features).unique()) == 1


def test_largest_by_hand():
    values = torch.tensor([
        [1.0, 9.0],
        [2.0, -1.0],
        [3.0, 3.0],
        [0.0, 0.0],
        [-4.0, 5.0],
        [1.0, 5.0],
    ])

    assert segment_max(values, INDEX, 4)[:3].tolist() == [[2, 9], [3, 3], [1, 5]]
    assert (segment_max(values, INDEX, 4)[3] == -math.inf).all()


def test_the_gradient_goes_to_the_largest_and_is_shared_by_equals():
    values = torch.tensor([1.0, 2.0, 3.0, 5.0, 4.0, 5.0], requires_grad=True)

    segment_max(values, INDEX, 3).sum().backward()

    assert values.grad.tolist() == [0, 1, 1, 0.5, 0, 0.5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_it_is_summed(dtype):
    ones = torch.ones(5000, dtype=dtype)
    index = torch.zeros(5000, dtype=torch.int64)

    assert segment_sum(ones, index, 1).tolist() == [5000]
    assert segment_softmax(ones, index, 1).dtype == torch.float32


@pytest.mark.parametrize("shape", [(), (3,)])
def test_weighted_sum_is_the_sum_of_the_products_and_so_are_its_gradients(shape, generator):
    sizes = torch.tensor([3, 0, 1, 4, 0])
    index = torch.repeat_interleave(torch.arange(5), sizes)
    weights = torch.rand(8, *shape, generator=generator, dtype=torch.float64).requires_grad_()
    values = torch.randn(8, *shape, 2, generator=generator, dtype=torch.float64).requires_grad_()
    slope = torch.randn(5, *shape, 2, generator=generator, dtype=torch.float64)

    wanted = segment_sum(weights[..., None] * values, index, 5)
    found = segment_weighted_sum(weights, values, index, sizes)

    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)
    assert (found[[1, 4]] == 0).all()
    for part in (weights, values):
        (one,) = torch.autograd.grad((found * slope).sum(), part, retain_graph=True)
        (two,) = torch.autograd.grad((wanted * slope).sum(), part, retain_graph=True)
        torch.testing.assert_close(one, two, rtol=0, atol=1e-14)


def test_weighted_sum_of_no_rows_at_all():
    nothing = torch.zeros(0, dtype=torch.int64)

    found = segment_weighted_sum(
        torch.zeros(0, 3), torch.zeros(0, 3, 2), nothing, torch.tensor([0])
    )

    assert found.tolist() == [[[0, 0]] * 3]
