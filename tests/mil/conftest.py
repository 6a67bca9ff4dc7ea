"""Small bags and models, and slow ways to the same logits."""

from __future__ import annotations

import pytest
import torch

from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag
from xpath.mil.object_aware import ObjectAwareMIL

KINDS = 3
DIM = 4


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


@pytest.fixture
def patch_bags(generator):
    def draw(n):
        return torch.randn(n, DIM, generator=generator, dtype=torch.float64)

    return [Bag(draw(n), label=n % 2, slide_id=f"s{n}") for n in (5, 1, 8)]


@pytest.fixture
def object_bags(generator):
    """Three slides; the second has no object 2, the third none at all."""

    def draw(n, chance):
        features = torch.randn(n, KINDS, DIM, generator=generator, dtype=torch.float64)
        present = torch.rand(n, KINDS, generator=generator) < torch.tensor(chance)
        present[0] = torch.tensor(chance) > 0
        return Bag(features, present, label=n % 2, slide_id=f"s{n}")

    return [draw(5, [0.5, 0.5, 0.5]), draw(4, [0.5, 0.5, 0.0]), draw(6, [0.0, 0.0, 0.0])]


def awaken(model):
    """Double precision, and no bias or scaler left at its quiet start."""
    torch.manual_seed(11)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        model.scaler.mean.normal_()
        model.scaler.std.uniform_(0.5, 2.0)
    return model


@pytest.fixture(params=[None, 5], ids=["raw", "projected"])
def attention_mil(request):
    return awaken(AttentionMIL(DIM, 3, hidden=6, proj=request.param))


@pytest.fixture(params=["all", "present"])
def object_aware(request):
    return awaken(ObjectAwareMIL(DIM, KINDS, 3, hidden=6, average=request.param))
