import os
from pathlib import Path

import numpy as np
import pytest

from xpath.errors import DataError, ShapeError
from xpath.metrics.shape_map import object_crops, on_canvas, shape_map

GOLDEN = Path(os.environ.get("XPATH_SHARED", "/")) / "golden/unibiomed/attention_shape.safetensors"


@pytest.mark.skipif(not GOLDEN.exists(), reason="golden numbers are not there")
def test_it_is_what_a_search_over_all_moves_gives():
    from safetensors.numpy import load_file

    golden = load_file(GOLDEN)

    answer = shape_map(list(golden["maps"]))

    assert answer.shifts.tolist() == golden["shifts_yx"].tolist()
    np.testing.assert_allclose(answer.map, golden["shape_map"], atol=1e-6)


def square(top, left, value=1.0):
    image = np.zeros((9, 11))
    image[top : top + 2, left : left + 3] = value
    return image


def test_maps_are_moved_onto_the_first():
    answer = shape_map([square(3, 4), np.zeros((9, 11)), square(0, 8, 0.5), square(6, 1)])

    assert answer.shifts.tolist() == [[0, 0], [3, -4], [-3, 3]]
    np.testing.assert_allclose(answer.map, square(3, 4, 2.5 / 3))


def test_nothing_has_no_shape():
    with pytest.raises(DataError, match="not empty"):
        shape_map([np.zeros((4, 4))])
    with pytest.raises(ShapeError):
        shape_map([np.ones((4, 4)), np.ones((4, 5))])
    with pytest.raises(DataError, match="probabilities"):
        shape_map([np.full((4, 4), 1.5)])


def test_proportions_are_kept_on_the_canvas():
    canvas = on_canvas(np.ones((10, 20)), 8)

    assert canvas.sum(axis=1).tolist() == [0, 0, 8, 8, 8, 8, 0, 0]


def test_an_object_is_cropped_without_its_neighbours():
    probability = np.full((20, 20), 0.75)
    one, other = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    one[1:4, 6:9] = True
    other[4:6, 6:9] = True

    first, second = object_crops(probability, [one, np.zeros_like(one), other], margin=2)

    assert (first.shape, second.shape) == ((6, 7), (6, 7))
    assert first.sum() == 9 * 0.75
    assert first[1, 2] == 0.75 and first[4, 2] == 0
