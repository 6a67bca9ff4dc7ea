"""The U-Nets that the segmentor is compared with are as large as the segmentor, and learn."""

import importlib.util
import sys

import pytest
import torch

from xpath.segment.variants import pathsegmentor_mini


@pytest.fixture(scope="module")
def baseline(repository):
    path = repository / "benchmarks" / "baselines" / "unet.py"
    spec = importlib.util.spec_from_file_location("unet", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["plain", "pretrained"])
def model(baseline, monkeypatch, request):
    if request.param == "pretrained":
        return baseline.pretrained_unet(kinds=19)
    monkeypatch.setattr(sys, "argv", ["unet.py", "--data", "data", "--out", "out"])
    return baseline.plain_unet(baseline.arguments().width, kinds=19)


def test_it_is_as_large_as_the_segmentor(model):
    ours = sum(p.numel() for p in pathsegmentor_mini(642).parameters())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(ours, rel=0.05)


def test_it_answers_every_pixel_for_every_kind(model):
    with torch.inference_mode():
        assert model.eval()(torch.zeros(1, 3, 32, 64)).shape == (1, 19, 32, 64)


def test_every_weight_is_trained_once(baseline, model):
    groups = baseline.groups(model, share=0.4)

    trained = [weight for group in groups for weight in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in model.parameters()}
    assert len(trained) == len(list(model.parameters()))
