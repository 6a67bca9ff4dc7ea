import numpy as np
import pytest

from xpath.pathseg.augmentation import AugmentConfig, augment

NONE = AugmentConfig(stain=0, background=0, tint=0, gamma=0, grey=0, blur=0, noise=0, jpeg=0)


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)


def test_nothing_asked_nothing_changed(image, rng):
    """To density and back costs a grey level."""
    assert np.abs(augment(image, NONE, rng).astype(int) - image).max() <= 1


def test_white_stays_white_when_only_stains_change(rng):
    white = np.full((8, 8, 3), 255, np.uint8)

    for _ in range(20):
        found = augment(white, AugmentConfig(**{**as_dict(NONE), "stain": 0.5}), rng)
        assert found.min() >= 254


def test_more_haematoxylin_darkens_blue_nuclei(rng):
    nucleus = np.full((8, 8, 3), (90, 60, 140), np.uint8)
    found = [
        augment(nucleus, AugmentConfig(**{**as_dict(NONE), "stain": 0.4}), rng).mean()
        for _ in range(40)
    ]

    assert np.ptp(found) > 15


@pytest.mark.parametrize("what", ["grey", "blur", "noise", "jpeg"])
def test_each_change_changes_the_picture_and_keeps_its_form(image, rng, what):
    found = augment(image, AugmentConfig(**{**as_dict(NONE), what: 1.0}), rng)

    assert found.shape == image.shape
    assert found.dtype == np.uint8
    assert (np.abs(found.astype(int) - image) > 1).any()
    if what == "grey":
        assert np.ptp(found, axis=2).max() == 0


def as_dict(config):
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
