"""Objects across seams, gaps and overlaps, against the canvas of the whole slide at once."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
from scipy import ndimage

from xpath.geometry import Size
from xpath.objects import find as module
from xpath.objects.find import find_in_image, find_objects
from xpath.objects.outline import fill
from xpath.objects.rule import ObjectConfig

SIDE = 16
ALL = ObjectConfig(min_area_um2=0, separate=False)


def corners_of(across, down, step):
    return [(x * step, y * step) for y in range(down) for x in range(across)]


def random_masks(masks_of, seed, *, overlap, scale=1, thick=0.3):
    """Blobs that lie across patches, the patches not agreeing on all of them."""
    rng = np.random.default_rng(seed)
    step = SIDE - overlap
    corners = corners_of(4, 3, step)
    shape = (2, 3 * step + SIDE, 4 * step + SIDE)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (0, 1, 1))
    picture = smooth > thick * smooth.std()
    planes = np.stack([picture[:, y : y + SIDE, x : x + SIDE] for x, y in corners])
    planes ^= rng.random(planes.shape) < 0.02
    planes[5, 0] = planes[6, 1] = False
    return masks_of(planes, np.multiply(corners, scale), labels="ab", scale=scale)


def random_corners(masks_of, seed):
    """Patches wherever: some apart, some side by side, some deep in each other, two the same."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 50, (10, 2))
    corners[3] = corners[9]
    return masks_of(rng.random((10, 2, SIDE, SIDE)) < 0.35, corners, labels="ab")


def random_islands(masks_of, seed):
    """Pairs of patches with glass of all widths between them, one column of it the least."""
    rng = np.random.default_rng(seed)
    islands = [(0, 0), (33, 7), (50, 400), (82, 410), (150, 3), (151, 90), (700, 700), (9, 690)]
    corners = [(x + step, y) for x, y in islands for step in (0, SIDE)]
    return masks_of(rng.random((len(corners), 2, SIDE, SIDE)) < 0.6, corners, labels="ab")


CASES = {
    "side by side": lambda make: random_masks(make, 0, overlap=0),
    "scaled": lambda make: random_masks(make, 1, overlap=0, scale=3),
    "overlapping": lambda make: random_masks(make, 2, overlap=3),
    "overlapping by half": lambda make: random_masks(make, 3, overlap=8, scale=2),
    "sparse": lambda make: random_masks(make, 4, overlap=2, thick=1.5),
    "anywhere": lambda make: random_corners(make, 5),
    "islands": lambda make: random_islands(make, 6),
}


def whole_canvas(masks, column):
    """The mask ``(H, W)`` of a label, and its corner in mask pixels."""
    corners = masks.grid.coords * masks.size // masks.grid.footprint
    left, top = corners.min(axis=0)
    width, height = corners.max(axis=0) - (left, top) + masks.size
    canvas = np.zeros((height, width), bool)
    for (x, y), plane in zip(corners - (left, top), masks.planes[:, column], strict=True):
        canvas[y : y + masks.size, x : x + masks.size] |= plane
    return canvas, corners - (left, top)


@pytest.mark.parametrize("case", CASES)
def test_objects_are_the_components_of_the_whole_canvas(case, masks_of):
    masks = CASES[case](masks_of)

    table = find_objects(masks, ALL)

    assert masks.reads == len(masks)  # one pass
    for column, label in enumerate(masks.labels):
        canvas, corners = whole_canvas(masks, column)
        numbered, count = ndimage.label(canvas)
        indices = table.of(label)
        assert table.counts[label] == len(indices) == count
        assert table.label_pixels[column] == table.pixels[indices].sum() == canvas.sum()
        step, total = masks.grid.footprint / masks.size, np.zeros(canvas.shape, int)
        for index in indices.tolist():
            own = fill(table.canvas_rings(index), canvas.shape)
            assert len(np.unique(numbered[own])) == 1
            total += own
            y, x = (np.argwhere(own).mean(axis=0) + 0.5) * step + table.origin[::-1]
            np.testing.assert_allclose(table.centres[index], (x, y), rtol=1e-9)
            held = [own[y : y + SIDE, x : x + SIDE].sum() for x, y in corners]
            assert table.patches_of(index).tolist() == np.flatnonzero(held).tolist()
            outline = table.rings(index)[0]
            assert table.boxes[index].tolist() == [*outline.min(axis=0), *outline.max(axis=0)]
        np.testing.assert_array_equal(total, canvas)


@pytest.mark.parametrize("case", CASES)
def test_shares_of_all_objects_add_up_to_one_in_every_patch(case, masks_of):
    masks = CASES[case](masks_of)
    table = find_objects(masks, ALL)

    shares = np.zeros((len(masks), 2))
    for index in range(len(table)):
        shares[table.patches_of(index), table.label[index]] += table.shares_of(index)

    np.testing.assert_allclose(shares, table.label_patch_pixels > 0)


def test_an_object_across_four_patches_by_hand(masks_of):
    planes = np.zeros((4, SIDE, SIDE), bool)
    planes[0, -2:, -2:] = planes[1, -2:, :1] = planes[2, :1, -2:] = planes[3, :1, :1] = True
    planes[3, 1, 1] = True  # meets the object at a corner only
    masks = masks_of(planes, corners_of(2, 2, SIDE))

    table = find_objects(masks, ALL)

    assert table.pixels.tolist() == [9, 1]
    assert table.patches_of(0).tolist() == [0, 1, 2, 3]
    assert table.shares_of(0).tolist() == [1, 1, 1, 0.5]
    assert table.id(0) == "breast-nuclei-neoplastic/14,14"
    assert table.boxes[0].tolist() == [14, 14, 17, 17]
    assert table.centres[0].tolist() == [15.5, 15.5]
    confidence = masks.presence[:, 0] @ [4, 2, 2, 1] / 9
    assert table.confidence[0] == pytest.approx(confidence)


def test_labels_come_in_order_and_their_objects_from_the_top(masks_of):
    planes = np.zeros((1, 2, SIDE, SIDE), bool)
    planes[0, 1, 2:4, 2:4] = planes[0, 1, 10:12, 3:5] = planes[0, 0, 5:9, 5:9] = True

    table = find_objects(masks_of(planes, labels="ab"), ALL)

    assert [table.id(index) for index in range(3)] == ["a/5,5", "b/2,2", "b/3,10"]


def test_many_labels_are_traced_in_several_passes(masks_of, monkeypatch):
    masks = CASES["overlapping"](masks_of)
    together = find_objects(masks, ALL)
    monkeypatch.setattr(module, "CANVAS_BYTES", 1)

    apart = find_objects(masks, ALL)

    assert [apart.id(i) for i in range(len(apart))] == [
        together.id(i) for i in range(len(together))
    ]
    assert masks.reads == len(masks) + (masks.area > 0).sum()  # a pass, then one for each label


def test_a_seam_of_one_pixel_does_not_cut_an_object(masks_of):
    """Steps of 16.5 px are rounded one by one: patches of 16 px may lie 17 apart."""
    masks = masks_of(np.ones((2, 16, 16)), [[0, 0], [17, 0]])

    table = find_objects(masks)

    assert table.pixels.tolist() == [33 * 16]


def test_a_gap_of_a_patch_is_an_end(masks_of):
    table = find_objects(masks_of(np.ones((2, 16, 16)), [[0, 0], [32, 0]]))

    assert table.pixels.tolist() == [256, 256]


def test_nothing_lies_outside_the_slide(masks_of):
    table = find_objects(masks_of(np.ones((1, 16, 16)), [[56, 56]], slide=Size(64, 64)))

    assert np.max(table.rings(0)[0]) == 64
    assert table.pixels.tolist() == [64]


def test_too_small_is_no_object_but_its_pixels_count(masks_of):
    plane = np.zeros((1, SIDE, SIDE), bool)
    plane[0, :4, :4] = plane[0, 8:11, 8:13] = True  # 4 and 3.75 square microns

    table = find_objects(masks_of(plane))

    assert table.pixels.tolist() == [16]
    assert table.label_pixels.tolist() == [31]
    assert table.shares_of(0).tolist() == [16 / 31]
    assert len(find_objects(masks_of(plane, mpp=None))) == 2  # without a resolution, none is


def test_an_empty_slide_has_an_empty_table(masks_of):
    table = find_objects(masks_of(np.zeros((2, 2, SIDE, SIDE)), [(0, 0), (16, 0)], labels="ab"))

    assert len(table) == 0
    assert table.counts == {"a": 0, "b": 0}
    assert table.at(5, 5, (0, 1)) == []


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("label", ["breast-nuclei-neoplastic", "breast-tissue-tumor"])
def test_an_image_of_nothing_and_of_everything(value, label):
    found = find_in_image(np.full((90, 70), value), label, mpp=0.25)

    assert [one.pixels for one in found] == [6300] * value


def test_tissue_everywhere_takes_little_memory(masks_of):
    """As bool, these masks are 13 MB; 15,000 patches of 512 pixels are 8 GB."""
    planes = np.broadcast_to(np.ones((1, 2, 256, 256), bool), (100, 2, 256, 256))
    masks = masks_of(planes, corners_of(10, 10, 256), labels="ab")
    find_objects(masks_of(planes[:1], labels="ab"))  # imports

    tracemalloc.start()
    table = find_objects(masks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(table) == 2
    strips = 2 * 2 * 256 * 2560
    assert peak < 8 * strips  # and as much for twice as many rows


@pytest.mark.parametrize("case", CASES)
def test_closing_gaps_changes_nothing(masks_of, case, monkeypatch):
    masks = CASES[case](masks_of)
    closed = find_objects(masks)
    moves = module.closing_gaps(module.patch_windows(masks, module.patch_canvas(masks)))
    assert moves.any() == (case == "islands")
    monkeypatch.setattr(module, "closing_gaps", lambda windows: np.zeros(len(windows), np.int64))
    open_ = find_objects(masks)

    for field in fields(closed):
        np.testing.assert_equal(getattr(closed, field.name), getattr(open_, field.name))


def test_glass_between_islands_takes_no_memory(masks_of):
    """The canvas of one label is 10 GB, a strip of it 50 MB."""
    planes = np.ones((3, 256, 256), bool)
    find_objects(masks_of(planes[:1]))  # imports

    tracemalloc.start()
    table = find_objects(masks_of(planes, [(0, 0), (50_000, 256), (100_000, 100_000)]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert table.boxes[:, :2].tolist() == [[0, 0], [50_000, 256], [100_000, 100_000]]
    assert table.pixels.tolist() == [256 * 256] * 3
    assert peak < 16e6
