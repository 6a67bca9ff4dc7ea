import numpy as np
import pytest
from scipy import ndimage

from xpath.errors import ConfigError, ShapeError
from xpath.explain.perturbation import (
    Blur,
    Fill,
    InsideBlur,
    SurroundFill,
    feather,
    perturbed,
)

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
MASK = np.zeros((64, 64), bool)
MASK[20:30, 25:45] = True


def hidden_by(perturbation, image=IMAGE, mask=MASK, *, mpp=0.5, feather_um=2.0):
    replacement = perturbation.replacement(image, mpp)
    return perturbed(image, replacement, feather(mask, feather_um, mpp))


@pytest.mark.parametrize("perturbation", [Blur(4.0), Fill()])
@pytest.mark.parametrize("feather_um", [0.0, 2.0])
def test_beyond_the_feather_nothing_changes_by_a_bit(perturbation, feather_um):
    hidden = hidden_by(perturbation, feather_um=feather_um)

    far = ndimage.distance_transform_edt(~MASK) * 0.5 >= max(feather_um, 1e-9)
    np.testing.assert_array_equal(hidden[far], IMAGE[far])
    assert (hidden[MASK] != IMAGE[MASK]).mean() > 0.9
    assert hidden.dtype == np.uint8


def test_under_the_mask_is_the_blurred_image():
    wanted = np.stack(
        [ndimage.gaussian_filter(IMAGE[..., c].astype(float), 8, mode="mirror") for c in range(3)],
        axis=-1,
    )

    np.testing.assert_allclose(hidden_by(Blur(4.0))[MASK], wanted[MASK], atol=1)


def test_the_width_of_the_blur_is_a_length_on_tissue():
    fine = hidden_by(Blur(2.0), mpp=0.25, feather_um=0.5)
    coarse = hidden_by(Blur(8.0), mpp=1.0, feather_um=2.0)

    np.testing.assert_array_equal(fine, coarse)
    assert (fine != hidden_by(Blur(8.0), mpp=0.25, feather_um=0.5)).any()


def test_an_even_image_stays_as_it_is():
    even = np.full((32, 32, 3), (200, 120, 255), np.uint8)

    np.testing.assert_array_equal(hidden_by(Blur(4.0), even, MASK[:32, :32]), even)
    np.testing.assert_array_equal(hidden_by(Fill(), even, MASK[:32, :32]), even)


def test_the_fill_is_the_mean_of_the_stain_not_of_the_light():
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 0], image[0, 1] = 3, 63  # light 4 / 256 and 64 / 256: densities of mean 16 / 256

    filled = Fill().replacement(image, 0.5)

    np.testing.assert_allclose(filled, 15, rtol=1e-6)


def test_the_feather_by_hand():
    mask = np.zeros((5, 9), bool)
    mask[2, 0] = True

    weight = feather(mask, feather_um=2.0, mpp=0.5)

    np.testing.assert_allclose(weight[2], [1, 0.75, 0.5, 0.25, 0, 0, 0, 0, 0])
    assert weight[0, 1] == pytest.approx(1 - np.sqrt(5) / 4, abs=1e-6)


def test_an_empty_mask_hides_nothing():
    np.testing.assert_array_equal(hidden_by(Blur(4.0), mask=np.zeros_like(MASK)), IMAGE)


def test_a_full_mask_hides_everything():
    full = np.ones_like(MASK)

    assert (feather(full, 2.0, 0.5) == 1).all()
    assert hidden_by(Fill(), mask=full).std(axis=(0, 1)).max() == 0


def test_bright_replacements_stay_in_range():
    bright = np.full(IMAGE.shape, 300, np.float32)

    assert (perturbed(IMAGE, bright, np.ones((64, 64), np.float32)) == 255).all()


def test_sizes_and_widths_that_cannot_be_are_refused():
    with pytest.raises(ShapeError, match="as large as"):
        hidden_by(Blur(1.0), mask=MASK[:32])
    with pytest.raises(ConfigError, match="sigma_um"):
        Blur(0.0)


def test_a_blur_inside_averages_the_object_alone():
    """Against the normalised convolution written out."""
    hidden = InsideBlur(2.0).replacement_under(IMAGE, MASK, 0.5)

    weight = ndimage.gaussian_filter(MASK.astype(float), 4, mode="mirror", truncate=6)
    for c in range(3):
        exact = ndimage.gaussian_filter(
            np.where(MASK, IMAGE[..., c].astype(float), 0), 4, mode="mirror", truncate=6
        )
        np.testing.assert_allclose(hidden[MASK][:, c], exact[MASK] / weight[MASK], atol=1)
    other = IMAGE.copy()
    other[~MASK] = 0
    np.testing.assert_allclose(
        InsideBlur(2.0).replacement_under(other, MASK, 0.5)[MASK], hidden[MASK], atol=1e-3
    )


def test_a_fill_from_around_knows_nothing_of_the_object():
    image = np.full((8, 8, 3), 255, np.uint8)
    mask = np.zeros((8, 8), bool)
    mask[:2], image[:2] = True, 10
    image[2, 0], image[2:, 1:] = 200, 200
    image[3:, 0] = 200

    filled = SurroundFill().replacement_under(image, mask, 0.5)

    np.testing.assert_allclose(filled, 200, rtol=1e-6)
    full = SurroundFill().replacement_under(image, np.ones_like(mask), 0.5)
    np.testing.assert_allclose(full, Fill().replacement(image, 0.5))
