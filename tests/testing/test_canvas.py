"""The pen and the noise of the painters."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label as components
from skimage.measure import regionprops

from xpath.geometry import Size
from xpath.testing.canvas import Canvas
from xpath.testing.compartments import FIBROBLAST, LYMPHOCYTE, NEOPLASTIC
from xpath.testing.rings import DUCTAL

PIXEL = 1.0  # microns: what an outline drawn on pixels adds and takes


def canvas(mpp=0.5, side=400, seed=0):
    return Canvas(Size(side, side), mpp, np.random.default_rng(seed), glass=0.0)


@pytest.mark.parametrize("mpp", [0.25, 0.5])
@pytest.mark.parametrize(
    ("kind", "long", "short"),
    [
        (LYMPHOCYTE, (5.5, 7.5), (4.5, 7.5)),
        (DUCTAL, (7, 9), (5, 9)),
        (NEOPLASTIC, (10, 15), (6.5, 14.5)),
        (FIBROBLAST, (11, 17), (2, 5.5)),
    ],
)
def test_nuclei_have_their_size_in_microns(kind, long, short, mpp):
    """Drawn far apart, so that every component is one nucleus."""
    side = round(200 / mpp)
    field = canvas(mpp, side)
    steps = np.arange(20, 190, 22) / mpp
    points = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)

    field.draw_nuclei(kind, points, np.ones((side, side), bool))

    found = regionprops(components(field.masks()[kind.label]))
    assert len(found) == len(points)
    for region in found:
        assert long[0] - PIXEL <= region.axis_major_length * mpp <= long[1] + PIXEL
        assert short[0] - PIXEL <= region.axis_minor_length * mpp <= short[1] + PIXEL


def test_mask_of_nuclei_is_what_was_inked():
    field = canvas()
    within = np.zeros((400, 400), bool)
    within[:, :200] = True

    field.draw_nuclei(LYMPHOCYTE, field.scatter(within, 12.0), within)

    mask = field.masks()[LYMPHOCYTE.label]
    np.testing.assert_array_equal(mask, field.haematoxylin > 0)
    assert not mask[:, 200:].any()


def test_a_pixel_belongs_to_the_nucleus_drawn_last():
    field, everywhere = canvas(side=64), np.ones((64, 64), bool)
    point = np.array([[32.0, 32.0]])

    field.draw_nuclei(NEOPLASTIC, point, everywhere)
    field.draw_nuclei(LYMPHOCYTE, point, everywhere)

    masks = field.masks()
    assert masks[LYMPHOCYTE.label][32, 32]
    assert not masks[NEOPLASTIC.label][32, 32]
    assert masks[NEOPLASTIC.label].any()  # its rim looks out


def test_scatter_keeps_to_the_mask_and_its_spacing():
    field = canvas()
    mask = np.zeros((400, 400), bool)
    mask[100:300, 50:350] = True

    points = field.scatter(mask, 10.0, jitter=0.2)

    cells = np.floor(points).astype(int)
    assert mask[cells[:, 1], cells[:, 0]].all()
    assert len(points) == pytest.approx(mask.sum() / 20**2, rel=0.1)  # one per 10 x 10 microns


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_region_covers_its_share(share):
    field = canvas()

    assert field.region(share, 100.0, (0,)).mean() == pytest.approx(share, abs=0.01)
    assert not field.region(0.0, 100.0, (0,)).any()
    assert not field.region(share, 100.0, (1,)).any()  # nothing of that kind is there


def test_noise_has_its_grain():
    """Neighbours half a wavelength apart differ, those a tenth apart hardly do."""
    noise = canvas().noise(40.0)  # 80 pixels

    assert noise.mean() == pytest.approx(0, abs=1e-4)
    assert noise.std() == pytest.approx(1, abs=1e-3)
    near = np.abs(noise[:, 8:] - noise[:, :-8]).mean()
    far = np.abs(noise[:, 80:] - noise[:, :-80]).mean()
    assert near < 0.4 * far
