"""Painted fields that several tests look at."""

from __future__ import annotations

import numpy as np
import pytest

from xpath.geometry import Size
from xpath.testing.tissue import TissueRecipe, paint_tissue

SIZE = Size(720, 640)
RICH = {
    "tumour": 0.25,
    "necrosis": 0.15,
    "infiltrate": 0.15,
    "fat": 0.15,
    "ducts": 90,  # most do not find room in so small a field
    "vessels": 60,
    "glass": 0.2,
}


@pytest.fixture(scope="session")
def paint():
    """Paints a field of a recipe, the same for the same seed."""

    def painted(seed=0, size=SIZE, mpp=0.5, **recipe):
        return paint_tissue(size, TissueRecipe(**recipe), np.random.default_rng(seed), mpp=mpp)

    return painted


@pytest.fixture(scope="session")
def much():
    """Settings for a field with some of everything."""
    return RICH


@pytest.fixture(scope="session")
def rich(paint, much):
    """That field."""
    return paint(2, **much)
