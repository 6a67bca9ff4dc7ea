"""Cutting and turning: image and masks stay together."""

import numpy as np
import pytest

from xpath.pathseg.packed import IGNORE, View, cut, pack
from xpath.pathseg.record import Annotated, LabelMask


@pytest.fixture
def tell_tale(rng):
    """Ten overlapping masks. The image is dark where the first is, ignored in a corner."""
    masks = [rng.random((60, 80)) < 0.3 for _ in range(10)]
    masks[0] = np.kron(rng.random((6, 8)) < 0.5, np.ones((10, 10))).astype(bool)
    image = np.where(masks[0][..., None], 20, 230).repeat(3, axis=2).astype(np.uint8)
    ignore = np.zeros((60, 80), bool)
    ignore[:10, :10] = True
    names = [f"colon-nuclei-kind {i}" for i in range(10)]
    labels = tuple(LabelMask(n, m) for n, m in zip(names, masks, strict=True))
    return Annotated(image, labels, ignore, ("colon-nuclei-absent",))


def test_looking_straight_gives_the_image_back(tell_tale):
    """A crop of the image's height around its middle, without turn or zoom."""
    packed = pack(tell_tale, 0.25)

    image, target = cut(packed, View((39.5, 29.5), 1.0, 0.0, False), 60, packed.labels)

    np.testing.assert_array_equal(image, tell_tale.image[:, 10:70])
    for row, (_, mask) in enumerate(tell_tale.masks):
        np.testing.assert_array_equal(target[row], mask[:, 10:70])


def test_the_unknown_part_is_marked_unless_the_object_is_there(tell_tale):
    packed = pack(tell_tale, 0.25)

    _, target = cut(packed, View((29.5, 29.5), 1.0, 0.0, False), 60, ("colon-nuclei-absent",))

    assert (target[0, :10, :10] == IGNORE).all()
    assert (target[0, 10:, 10:] == 0).all()


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_quarter_turns_are_numpys(tell_tale, turns, mirror):
    packed = pack(tell_tale, 0.25)
    view = View((29.5, 29.5), 1.0, turns * np.pi / 2, mirror)

    image, target = cut(packed, view, 60, packed.labels[3:4])

    wanted = np.rot90(tell_tale.image[:, :60], turns)
    mask = np.rot90(tell_tale.masks[3].mask[:, :60] & ~tell_tale.ignore[:, :60], turns)
    if mirror:
        wanted, mask = wanted[:, ::-1], mask[:, ::-1]
    assert np.abs(image.astype(int) - wanted).max() <= 1
    np.testing.assert_array_equal((target[0] == 1)[10:-10, 10:-10], mask[10:-10, 10:-10])


def test_any_view_shows_the_mask_where_the_image_is_dark(tell_tale, rng):
    packed = pack(tell_tale._replace(ignore=None), 0.25)
    for _ in range(20):
        view = View(
            (rng.uniform(0, 80), rng.uniform(0, 60)),
            rng.uniform(0.3, 3),
            rng.uniform(0, 6.28),
            bool(rng.random() < 0.5),
        )
        image, target = cut(packed, view, 48, packed.labels[:1])
        sure = (image[..., 0] < 30) | (image[..., 0] > 220)  # between, two squares meet
        agree = (target[0] == 1)[sure] == (image[..., 0] < 128)[sure]
        assert agree.mean() > 0.98


def test_shrinking_averages_instead_of_picking(rng):
    """Grey noise seen four times smaller has half the spread of pixels picked from it at most."""
    noise = rng.integers(0, 256, (512, 512, 1), dtype=np.uint8).repeat(3, axis=2)
    packed = pack(Annotated(noise, (), None), 0.25)

    image, _ = cut(packed, View((255.5, 255.5), 4.0, 0.0, False), 64, ())

    assert image.std() < noise.std() / 3
