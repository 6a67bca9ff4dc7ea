"""The U-Net that the segmentor is compared with is as large as the segmentor, and runs."""

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


def test_the_default_is_as_large_as_the_segmentor(baseline, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["unet.py", "--data", "data", "--out", "out"])
    model = baseline.UNet(baseline.arguments().width, kinds=19)

    ours = sum(p.numel() for p in pathsegmentor_mini(642).parameters())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(ours, rel=0.05)
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 32, 48)).shape == (1, 19, 32, 48)
