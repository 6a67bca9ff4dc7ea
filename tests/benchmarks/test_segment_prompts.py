"""The benchmarks run, count right, and compare what they say they compare."""

import json

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture(scope="module")
def benchmark(load_script):
    return load_script("benchmarks/segment_prompts.py")


@pytest.fixture(scope="module")
def setup(benchmark):
    return benchmark.setup_of(benchmark.parse(["--model", "tiny", "--size", "64"]))


def test_both_ways_give_the_same_masks(benchmark, setup):
    prompts = benchmark.prompts_of(3)

    facts = benchmark.compare(setup, prompts)

    assert facts["largest_difference"] < 1e-4 < facts["largest_logit"]
    assert facts["same_query"]
    assert 0.01 < facts["inside"] < 0.99
    np.testing.assert_array_equal(benchmark.naive(setup, prompts), benchmark.ours(setup, prompts))


def test_flops_of_a_layer_by_hand(benchmark):
    """Three rows through 4 x 5: 3 * 4 * 5 multiply-adds."""
    layer = nn.Linear(4, 5).requires_grad_(False)

    assert benchmark.flops(lambda: layer(torch.ones(3, 4))) == pytest.approx(120e-12)


def test_the_large_model_falls_from_54_to_3_teraflop(benchmark):
    """And from 392 to 7 at 160 prompts (segmentor specification, 5.1)."""
    naive, ours = zip(*benchmark.count_flops("large", 1024, [22, 160]).values(), strict=True)

    assert naive == pytest.approx((54, 392), rel=0.01)
    assert ours == pytest.approx((3, 7), rel=0.02)


def test_many_prompts_are_scaled_up(benchmark, setup, monkeypatch):
    """Forty naive calls are timed as twenty-two, ours as they are."""
    monkeypatch.setattr(benchmark, "seconds", lambda way, setup, prompts: float(len(prompts)))
    monkeypatch.setattr(benchmark, "naive", lambda setup, prompts: None)
    monkeypatch.setattr(benchmark, "ours", lambda setup, prompts: None)

    assert benchmark.time_both(setup, [40], 1) == {40: (40.0, 40.0)}


def test_the_last_line_is_json(benchmark, capsys):
    """Counting only: no figure is invented for what was not measured."""
    benchmark.main(["--model", "tiny", "--size", "64", "--prompts", "1", "3", "--flops-only"])

    last = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert last["prompts"] == 3
    assert last["time_ratio"] is last["memory_ratio"] is None
    assert last["flop_ratio"] > 2
