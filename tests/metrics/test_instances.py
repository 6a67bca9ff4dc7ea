import numpy as np
import pytest
from scipy import ndimage

from xpath.errors import DataError, ShapeError
from xpath.metrics.instances import aggregated_jaccard, find_instances, panoptic_quality

TRUTH = np.array([
    [1, 1, 0, 2, 2, 2],
    [1, 1, 0, 2, 2, 2],
    [0, 0, 0, 0, 0, 0],
    [3, 3, 0, 0, 0, 0],
])
PREDICTED = np.array([
    [7, 7, 0, 9, 9, 0],
    [7, 0, 0, 9, 9, 0],
    [0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 5, 5],
])
"""IoU 3/4 and 4/6; the third is missed, one of 2 px is invented."""


def test_regions_are_joined_by_corners_and_specks_are_left_out():
    mask = np.zeros((20, 30), bool)
    mask[2:8, 1:7] = True  # 36 pixels, touched at a corner by 35 more
    mask[8:13, 7:14] = True
    mask[15:20, 20:27] = True  # 35 pixels: noise

    found = find_instances(mask)

    assert found.area.tolist() == [71]
    assert found.boxes.tolist() == [[1, 2, 14, 13]]
    x, y = (36 * 3.5 + 35 * 10) / 71, (36 * 4.5 + 35 * 10) / 71
    assert found.centroid[0].tolist() == pytest.approx([x, y])
    assert np.array_equal(found.labels > 0, mask & (np.arange(20) < 15)[:, None])
    assert len(find_instances(mask, min_pixels=35).area) == 2


def test_the_same_regions_as_scipy(rng):
    mask = rng.random((80, 90)) < 0.35
    wanted, count = ndimage.label(mask, np.ones((3, 3)))

    found = find_instances(mask, min_pixels=1)

    assert len(found.area) == count
    pairs = {(int(a), int(b)) for a, b in zip(found.labels.ravel(), wanted.ravel(), strict=True)}
    assert len(pairs) == count + 1  # one to one, background included
    for number, box in enumerate(found.boxes, start=1):
        rows, columns = ndimage.find_objects(found.labels)[number - 1]
        assert box.tolist() == [columns.start, rows.start, columns.stop, rows.stop]


def test_empty_and_unfit_masks():
    empty = find_instances(np.zeros((4, 5), bool))
    assert (len(empty.area), empty.boxes.shape, empty.centroid.shape) == (0, (0, 4), (0, 2))
    with pytest.raises(DataError, match="boolean"):
        find_instances(np.zeros((4, 5), np.uint8))
    with pytest.raises(ShapeError, match="H, W"):
        find_instances(np.zeros((4, 5, 3), bool))


def test_panoptic_quality_by_hand():
    found = panoptic_quality(PREDICTED, TRUTH)

    assert (found.matched, found.missed, found.invented) == (2, 1, 1)
    assert found.detection == pytest.approx(2 / 3)
    assert found.segmentation == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert found.pq == pytest.approx(2 / 3 * 17 / 24)


def test_half_an_overlap_is_no_match():
    truth, half = np.array([[1, 1]]), np.array([[1, 0]])

    assert panoptic_quality(half, truth).matched == 0
    assert panoptic_quality(half, truth).pq == 0


def test_aggregated_jaccard_by_hand():
    """Common 3 + 4; unions 4 + 6, the missed 2, the invented 2."""
    assert aggregated_jaccard(PREDICTED, TRUTH) == pytest.approx(7 / 14)


def test_merged_instances_are_counted_twice_by_the_aggregated_jaccard():
    """One blob of 4 over two objects of 2: 2 + 2 common, unions 4 + 4 (Kumar's algorithm)."""
    truth, blob = np.array([[1, 1, 2, 2]]), np.array([[5, 5, 5, 5]])

    assert aggregated_jaccard(blob, truth) == pytest.approx(4 / 8)


def test_numbers_of_instances_do_not_matter():
    renumbered = np.array([0, 40, 2, 900])[TRUTH]
    other = PREDICTED * 1000

    assert panoptic_quality(other, renumbered) == panoptic_quality(PREDICTED, TRUTH)
    assert aggregated_jaccard(other, renumbered) == aggregated_jaccard(PREDICTED, TRUTH)


def test_perfect_and_empty():
    nothing = np.zeros_like(TRUTH)

    assert aggregated_jaccard(TRUTH, TRUTH) == panoptic_quality(TRUTH, TRUTH).pq == 1
    assert aggregated_jaccard(nothing, nothing) == panoptic_quality(nothing, nothing).pq == 1
    assert aggregated_jaccard(nothing, TRUTH) == panoptic_quality(nothing, TRUTH).pq == 0
    assert aggregated_jaccard(TRUTH, nothing) == panoptic_quality(TRUTH, nothing).pq == 0


@pytest.mark.parametrize("measure", [aggregated_jaccard, panoptic_quality])
def test_unfit_maps_are_refused(measure):
    with pytest.raises(ShapeError, match="one shape"):
        measure(TRUTH, TRUTH[:2])
    with pytest.raises(DataError, match="integers"):
        measure(TRUTH.astype(float), TRUTH)
    with pytest.raises(DataError, match="0 or more"):
        measure(-TRUTH, TRUTH)
