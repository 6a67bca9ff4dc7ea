"""The U-Nets that the segmentor is compared with are as large as the segmentor, and learn."""

import argparse
import itertools
import math
import sys

import pytest
import torch

from xpath.segment.model.variants import pathsegmentor_mini


@pytest.fixture(scope="module")
def baseline(load_script):
    return load_script("benchmarks/baselines/unet.py")


@pytest.fixture(params=["plain", "pretrained"])
def model(baseline, monkeypatch, request):
    if request.param == "pretrained":
        return baseline.pretrained_unet(classes=19)
    monkeypatch.setattr(sys, "argv", ["unet.py", "--data", "data", "--out", "out"])
    return baseline.plain_unet(baseline.arguments().width, classes=19)


def test_it_is_as_large_as_the_segmentor(model):
    ours = sum(p.numel() for p in pathsegmentor_mini(642).parameters())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(ours, rel=0.05)


def test_it_answers_every_pixel_for_every_class(model):
    with torch.inference_mode():
        assert model.eval()(torch.zeros(1, 3, 32, 64)).shape == (1, 19, 32, 64)


def test_every_weight_is_trained_once(baseline, model):
    groups = baseline.groups(model, share=0.4)

    trained = [weight for group in groups for weight in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in model.parameters()}
    assert len(trained) == len(list(model.parameters()))


@pytest.mark.parametrize(("steps", "minutes", "made"), [(3, math.inf, 3), (0, 1, 0), (50, 2, 3)])
def test_it_tells_how_many_steps_it_made(baseline, monkeypatch, steps, minutes, made):
    """The clock is looked at once before the training and once a step, and is 30 s further then."""
    clock = itertools.count(0, 30)
    monkeypatch.setattr(baseline.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(baseline, "tqdm", lambda loader, **_: loader)
    model = baseline.plain_unet(9, classes=2)
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    batch = (image, torch.tensor([[0, 1]]), torch.ones(1, 2, 32, 32, dtype=torch.uint8))
    args = argparse.Namespace(
        steps=steps,
        minutes=minutes,
        workers=0,
        precision="fp32",
        device="cpu",
        lr=1e-3,
        encoder_lr=1,
    )

    assert baseline.train_unet(model, [batch] * steps, args) == made
