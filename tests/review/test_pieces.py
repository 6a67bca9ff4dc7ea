import numpy as np
import pytest

from xpath.geometry import Mpp, PatchGrid, Size
from xpath.review import pieces
from xpath.review.pieces import piece_at, place_on
from xpath.store.masks import MaskWriter, open_masks


def slide_masks(path, whole, side, *, drop=()):
    """Masks ``(H, W)`` of one kind, cut into patches of two level-0 pixels per mask pixel."""
    rows, columns = whole.shape[0] // side, whole.shape[1] // side
    places = [(c, r) for r in range(rows) for c in range(columns) if (c, r) not in drop]
    grid = PatchGrid(
        coords=np.array([(c * side * 2, r * side * 2) for c, r in places], np.int64),
        footprint=2 * side, pixels=side, mpp=Mpp(1.0), overlap=0,
        slide_size=Size(2 * whole.shape[1], 2 * whole.shape[0]), slide_mpp=0.5,
    )  # fmt: skip
    cut = [whole[r * side : (r + 1) * side, c * side : (c + 1) * side] for c, r in places]
    masks = np.stack(cut)[:, None]
    with MaskWriter(path, grid=grid, labels=["a"], size=side, provenance={}) as writer:
        writer.write(0, masks, masks.any(axis=(2, 3)).astype(np.float32))
    return open_masks(path)


@pytest.fixture
def snake(tmp_path):
    """A U that leaves the left patch, turns in the right one, and comes back apart."""
    whole = np.zeros((16, 32), bool)
    whole[2:4, 8:28] = True
    whole[2:14, 26:28] = True
    whole[12:14, 8:28] = True
    return slide_masks(tmp_path / "masks.zarr", whole, 16)


def test_an_object_over_a_seam_is_one_from_wherever_it_is_asked(snake):
    found = [piece_at(snake, 0, place_on(snake, x, y)) for x, y in ((17, 5), (54, 20), (17, 25))]

    assert {piece.name for piece in found} == {"a/16,4"}  # top left corner, level-0 pixels
    piece = found[0]
    assert piece.complete
    assert piece.patches.tolist() == [0, 1]
    assert piece.pixels.tolist() == [2 * 8 * 2, 2 * 12 * 2 + 2 * 8]  # two arms; arms and the turn


def test_outlines_enclose_the_object_in_level_0_pixels(snake):
    (ring,) = piece_at(snake, 0, place_on(snake, 54, 20)).rings

    x, y = ring.T
    area = abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
    assert area == (2 * 20 * 2 + 2 * 8) * 2**2
    assert ring.min(axis=0).tolist() == [16, 4]
    assert ring.max(axis=0).tolist() == [56, 28]


def test_a_hole_is_a_ring_of_its_own(tmp_path):
    whole = np.zeros((16, 16), bool)
    whole[2:10, 2:10] = True
    whole[4:6, 4:6] = False
    masks = slide_masks(tmp_path / "masks.zarr", whole, 16)

    assert len(piece_at(masks, 0, place_on(masks, 5, 5)).rings) == 2
    assert piece_at(masks, 0, place_on(masks, 9, 9)) is None  # in the hole


def test_corners_that_touch_are_two_objects(tmp_path):
    whole = np.zeros((16, 32), bool)
    whole[4:8, 12:16] = whole[8:12, 16:20] = True  # over the seam, corner to corner
    masks = slide_masks(tmp_path / "masks.zarr", whole, 16)

    left, right = (piece_at(masks, 0, place_on(masks, x, y)) for x, y in ((26, 10), (34, 18)))

    assert left.name != right.name
    assert left.pixels.sum() == right.pixels.sum() == 16


def test_no_object_outside_the_patches(snake, tmp_path):
    assert place_on(snake, -1, 5) is None
    assert place_on(snake, 64, 5) is None
    assert place_on(snake, 63.9, 31.9) == (1, 15, 15)
    assert piece_at(snake, 0, place_on(snake, 0, 0)) is None
    full = slide_masks(tmp_path / "gap.zarr", np.ones((16, 48), bool), 16, drop=[(1, 0)])
    assert piece_at(full, 0, place_on(full, 1, 1)).patches.tolist() == [0]  # a gap is an end


def test_an_object_too_large_to_follow_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "REACH", 1)
    masks = slide_masks(tmp_path / "masks.zarr", np.ones((8, 48), bool), 8)

    first = piece_at(masks, 0, place_on(masks, 1, 1))
    middle = piece_at(masks, 0, place_on(masks, 40, 1))

    assert (first.complete, first.patches.tolist()) == (False, [0, 1])
    assert (middle.complete, middle.patches.tolist()) == (False, [1, 2, 3])
    assert first.name != middle.name
