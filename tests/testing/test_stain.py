"""Colours by the law of Beer and Lambert."""

from __future__ import annotations

import numpy as np
import pytest

from xpath.testing.stain import Stain, compose, random_stain

PURE = {"blur": 0.01, "noise": 0.0}


def flat(value):
    return np.full((8, 8), value, np.float32)


def test_colour_by_hand(rng):
    """One unit of a stain of density (1, 2, 0) on glass of 200: 200/e, 200/e^2, 200."""
    stain = Stain(haematoxylin=(1.0, 2.0, 0.0), glass=(200.0, 200.0, 200.0), **PURE)

    image = compose(flat(1.0), flat(0.0), stain, rng)

    assert np.unique(image.reshape(-1, 3), axis=0).tolist() == [[74, 27, 200]]


def test_strength_multiplies_each_stain(rng):
    half = Stain(eosin=(0.0, 1.0, 0.0), strength=(1.0, 0.5), **PURE)
    whole = Stain(eosin=(0.0, 1.0, 0.0), strength=(3.0, 1.0), **PURE)

    np.testing.assert_array_equal(
        compose(flat(0.0), flat(1.0), half, rng), compose(flat(0.0), flat(0.5), whole, rng)
    )


def test_no_stain_is_glass(rng):
    image = compose(flat(0.0), flat(0.0), Stain(**PURE), rng)

    assert np.unique(image.reshape(-1, 3), axis=0).tolist() == [[244, 243, 245]]


def test_noise_has_its_deviation(rng):
    big = np.zeros((200, 200), np.float32)

    image = compose(big, big, Stain(glass=(128.0, 128.0, 128.0), noise=3.0), rng)

    assert image.std() == pytest.approx(3.0, abs=0.1)


def test_random_stains_stay_haematoxylin_and_eosin():
    """Haematoxylin takes out red, eosin does not, whoever stains."""
    for seed in range(200):
        stain = random_stain(np.random.default_rng(seed))
        assert np.linalg.norm(stain.haematoxylin) == pytest.approx(1)
        assert np.linalg.norm(stain.eosin) == pytest.approx(1)
        assert stain.haematoxylin[0] > 0.5 > 0.3 > stain.eosin[0]
        assert min(stain.glass) > 225
