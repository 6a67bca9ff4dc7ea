"""Touching nuclei are one object each: no pixel lost, none twice, nothing else changed."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from xpath.export.qupath.geojson import ObjectNumbers, object_features
from xpath.objects import separate as module
from xpath.objects.find import find_in_image, find_objects
from xpath.objects.rule import ObjectConfig

NUCLEI, CELL, TISSUE = "breast-nuclei-neoplastic", "breast-cell-plasma", "breast-tissue-tumor"


def discs(*circles, shape=(64, 96)):
    canvas = np.zeros(shape, np.uint8)
    for x, y, radius in circles:
        cv2.circle(canvas, (x, y), radius, 1, -1)
    return canvas.astype(bool)


def square(mask):
    """A mask ``(h, w)`` in the corner of a square one."""
    side = max(mask.shape)
    return np.pad(mask, ((0, side - mask.shape[0]), (0, side - mask.shape[1])))


def detections(masks, *numbers, **rule):
    """The objects of the masks' labels as they are exported, by a rule."""
    table = find_objects(masks, ObjectConfig(**rule))
    return list(
        object_features(table, numbers or [ObjectNumbers(label=name) for name in masks.labels])
    )


def filled(feature, shape, scale=1):
    """Pixels within a feature's rings, counted crossing by crossing."""
    mask = np.zeros(shape, bool)
    for ring in feature.rings:
        points = np.rint(np.asarray(ring) / scale).astype(int).tolist()
        for (x, above), (right, below) in pairwise(points):
            if x == right:
                mask[min(above, below) : max(above, below), x:] ^= True
    return mask


def rough_field(rng, shape=(192, 192), *, holes=True):
    """Nuclei of many sizes, many of them touching, with rough edges, specks and holes."""
    field = np.zeros(shape, np.float32)
    for x, y, radius in zip(
        *rng.integers(6, shape[0] - 6, (2, 90)), rng.integers(4, 10, 90), strict=True
    ):
        cv2.circle(field, (int(x), int(y)), int(radius), 1.0, -1)
    mask = cv2.GaussianBlur(field + rng.normal(0, 0.8, shape).astype(np.float32), (0, 0), 1) > 0.5
    return mask & (rng.random(shape) > 0.01) if holes else mask


def one_cover(features, whole, scale=1):
    """How often each pixel is covered."""
    return np.sum([filled(f, whole.shape, scale) for f in features], axis=0)


def test_two_overlapping_discs_are_two_detections(masks_of):
    union = discs((30, 30, 14), (54, 34, 14))

    first, second = detections(masks_of([square(union)]))

    left, right = filled(first, union.shape), filled(second, union.shape)
    assert np.array_equal(left ^ right, union)
    assert not (left & right).any()
    assert left[30, 30]
    assert right[34, 54]
    # half way between the centres, within the waist's width
    assert abs(np.flatnonzero(left[32])[-1] - 42) <= 2
    areas = [f.measurements["area um2"] for f in (first, second)]
    assert areas == pytest.approx([left.sum() / 4, right.sum() / 4])
    assert sum(areas) == pytest.approx(union.sum() / 4)


@pytest.mark.parametrize(
    ("label", "mask", "count"),
    [
        (NUCLEI, discs((40, 30, 14)), 1),
        (NUCLEI, discs((30, 30, 14), (54, 34, 14)), 2),
        (CELL, discs((30, 30, 14), (54, 34, 14)), 2),
        (TISSUE, discs((30, 30, 14), (54, 34, 14)), 1),
        ("gland", discs((30, 30, 14), (54, 34, 14)), 1),
        (NUCLEI, discs((24, 30, 14), (47, 34, 14), (70, 30, 14)), 3),
    ],
)
def test_what_is_taken_apart(label, mask, count, masks_of):
    masks = masks_of([square(mask)], labels=(label,))

    found = detections(masks)
    whole = detections(masks, separate=False)

    assert len(found) == count
    assert len(whole) == 1
    if count == 1:
        assert found[0].name == whole[0].name
        assert found[0].measurements == whole[0].measurements
        assert np.array_equal(found[0].rings[0], whole[0].rings[0])


def test_without_a_resolution_nothing_is_taken_apart(masks_of):
    mask = square(discs((30, 30, 14), (54, 34, 14)))

    assert len(detections(masks_of([mask], mpp=None))) == 1
    # discs of 28 pixels are 0.28 microns wide
    assert not detections(masks_of([mask], mpp=0.01))


def test_a_pair_across_a_seam_is_two_and_each_is_counted_in_its_patches(masks_of, tiles):
    """The waist lies in the right patches; the left disc lies in all four."""
    union = square(discs((44, 46, 16), (74, 50, 16)))
    parts, corners = tiles(union, 48)
    masks = masks_of(parts, np.multiply(corners, 2), scale=2, mpp=0.25)
    adds = np.array([1.0, 10.0, 100.0, 1000.0])
    numbers = ObjectNumbers(label=NUCLEI, shared={"adds": adds})

    first, second = detections(masks, numbers)

    left, right = (filled(f, union.shape, scale=2) for f in (first, second))
    assert np.array_equal(left ^ right, union)
    for feature, own in ((first, left), (second, right)):
        counts = tiles(own, 48)[0].sum(axis=(1, 2))
        wanted = adds @ (counts / masks.area[:, 0])
        assert feature.measurements["adds"] == pytest.approx(wanted)
        confidence = masks.presence[:, 0] @ counts / counts.sum()
        assert feature.measurements["confidence"] == pytest.approx(confidence)
    assert sum(f.measurements["adds"] for f in (first, second)) == pytest.approx(1111)


@pytest.mark.parametrize("seed", range(3))
def test_every_pixel_is_covered_once_and_shares_add_up(seed, masks_of, tiles):
    rng = np.random.default_rng(seed)
    whole = rough_field(rng)
    parts, corners = tiles(whole, 64)
    masks = masks_of(parts, corners)
    adds = rng.normal(size=len(parts))
    numbers = ObjectNumbers(label=NUCLEI, shared={"adds": adds})

    found = detections(masks, numbers, min_area_um2=0)
    components = detections(masks, numbers, min_area_um2=0, separate=False)

    assert len(found) > len(components) + 10
    assert np.array_equal(one_cover(found, whole), whole)
    assert len({f.name for f in found}) == len(found)
    for feature in found:
        own = filled(feature, whole.shape).view(np.uint8)
        assert cv2.connectedComponents(own, connectivity=4)[0] == 2
    assert sum(f.measurements["adds"] for f in found) == pytest.approx(adds.sum())


def test_shares_add_up_where_a_patch_is_fitted_to_its_neighbour(masks_of, tiles):
    """Patches of 48 px lie 49 apart: the first column is drawn twice, and the pair lies on it."""
    union = np.pad(discs((48, 13, 12), (48, 34, 12), shape=(48, 96)), ((0, 0), (0, 48)))
    masks = masks_of(tiles(union, 48)[0], [(0, 0), (49, 0), (98, 0)])
    numbers = ObjectNumbers(label=NUCLEI, shared={"adds": np.array([1.0, 10.0, 100.0])})

    (whole,) = detections(masks, numbers, separate=False)
    first, second = detections(masks, numbers)

    total = first.measurements["adds"] + second.measurements["adds"]
    assert total == pytest.approx(whole.measurements["adds"], rel=1e-12)


def facts_of(features):
    return [(f.name, [np.asarray(r).tolist() for r in f.rings], f.measurements) for f in features]


def test_a_nucleus_is_the_same_whatever_else_is_written(rng, masks_of):
    """Other labels must not move a border."""
    planes = np.stack([rough_field(rng), rough_field(rng)])
    masks = masks_of(planes[None], labels=(NUCLEI, CELL))
    numbers = [ObjectNumbers(label=label) for label in (NUCLEI, CELL)]

    both = detections(masks, *numbers)
    again = detections(masks, *numbers)
    alone = detections(masks, numbers[0])

    assert facts_of(both) == facts_of(again)
    assert facts_of([f for f in both if f.label == NUCLEI]) == facts_of(alone)
    assert len(alone) > 20


def test_too_large_a_component_is_left_whole(monkeypatch, masks_of):
    masks = masks_of([square(discs((30, 30, 14), (54, 34, 14)))])

    monkeypatch.setattr(module, "LARGEST", 53 * 33 - 1)  # its box is 53 by 33
    assert len(detections(masks)) == 1
    monkeypatch.setattr(module, "LARGEST", 53 * 33)
    assert len(detections(masks)) == 2


def test_a_speck_goes_to_the_nucleus_it_hangs_on(masks_of):
    """Two discs, a bridge of one pixel's width to a blob too small for a nucleus of its own."""
    union = discs((20, 30, 14), (44, 34, 14))
    union[34, 59:61] = True
    union[32:37, 61:63] = True  # 12 px with the bridge are 3 um2

    first, second = detections(masks_of([square(union)]))

    assert np.array_equal(one_cover([first, second], union), union)
    assert filled(second, union.shape)[32:37, 61:63].all()


def test_a_hole_stays_a_hole(masks_of):
    union = discs((30, 30, 14), (54, 34, 14))
    union[28, 26] = union[30:32, 30:32] = False

    first, second = detections(masks_of([square(union)]))

    assert [len(first.rings), len(second.rings)] == [3, 1]
    assert np.array_equal(one_cover([first, second], union), union)


def test_a_hollow_nucleus_stays_one(masks_of):
    """Its outline has no bays; taken as a mask it would have waists all around."""
    ring = discs((40, 32, 24)) & ~discs((40, 32, 14))

    (found,) = detections(masks_of([square(ring)]))

    assert len(found.rings) == 2


def test_names_differ_far_out_on_a_slide_of_fine_masks(masks_of):
    """A pair within a level-0 pixel of another, 600,000 of them from the corner."""
    mask = discs((22, 30, 12), (44, 30, 12), shape=(128, 128))
    masks = masks_of([mask], [(600_000, 600_000)], scale=4 / 128, mpp=16.0)

    first, second = detections(masks)

    assert first.name != second.name
    assert np.abs(np.subtract(first.rings[0][0], second.rings[0][0])).max() < 1


def test_joined_nuclei_of_annotated_images_are_counted(shared, masks_of):
    """The exact instance maps of PanNuke, each joined to one mask."""
    paths = sorted((shared / "data" / "annotated" / "pannuke_exact" / "instances").glob("*.png"))
    if not paths:
        pytest.skip("no instance maps of PanNuke")
    true = found = joined = 0
    for path in paths:
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        masks = masks_of([ids > 0], mpp=0.25)
        true += np.sum(np.bincount(ids[ids > 0]) >= 64)  # of 4 square microns
        found += len(detections(masks))
        joined += len(detections(masks, separate=False))

    assert abs(found - true) < 0.1 * true
    assert joined < 0.9 * true


def test_the_same_tissue_at_another_resolution_has_as_many_nuclei():
    fine = find_in_image(discs((60, 80, 32), (116, 80, 32), shape=(256, 256)), NUCLEI, mpp=0.125)
    coarse = find_in_image(discs((30, 40, 16), (58, 40, 16), shape=(128, 128)), NUCLEI, mpp=0.25)

    assert len(fine) == len(coarse) == 2


def test_one_disc_with_a_rough_edge_and_one_ellipse_stay_one(rng):
    canvas = discs((64, 64, 40), shape=(128, 128)).astype(np.float32)
    noise = rng.normal(0, 1.0, canvas.shape).astype(np.float32)
    rough = cv2.GaussianBlur(canvas + noise, (0, 0), 2) > 0.5
    ellipse = np.zeros((128, 128), np.uint8)
    cv2.ellipse(ellipse, (64, 64), (40, 16), 30, 0, 360, 1, -1)

    assert len([one for one in find_in_image(rough, NUCLEI, mpp=0.25) if one.pixels > 320]) == 1
    assert len(find_in_image(ellipse.astype(bool), CELL, mpp=0.25)) == 1


def test_a_pair_at_the_edge_of_an_image_is_separated_at_its_waist():
    mask = discs((30, 0, 16), (58, 0, 16), shape=(64, 96))

    left, right = sorted(find_in_image(mask, NUCLEI, mpp=0.25), key=lambda one: one.rings[0].min())

    assert left.pixels + right.pixels == mask.sum()
    assert abs(left.rings[0][:, 0].max() - 44) <= 2


@pytest.mark.parametrize(("hole", "count"), [(1.0, 1), (0.0, 2)])
def test_a_small_hole_is_no_waist(hole, count):
    """A nucleus with a bay, so that it is looked at, and a hole of 13 pixels at 0.25 micron."""
    pierced = discs((30, 30, 10), shape=(64, 64)) & ~discs((30, 30, 2), shape=(64, 64))
    pierced[28:34, :23] = False
    config = ObjectConfig(max_hole_um2=hole)

    assert len(find_in_image(pierced, NUCLEI, mpp=0.25, config=config)) == count
