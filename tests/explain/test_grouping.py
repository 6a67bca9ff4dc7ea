import numpy as np
import pytest

from xpath.errors import ConfigError, ShapeError
from xpath.explain.grouping import overlap_groups, shared_area

NAMES = ("tumour", "nuclei", "fat", "absent", "epithelium")


@pytest.fixture
def masks(make_slide):
    result = np.zeros((2, 5, 8, 8), bool)
    result[0, 0, :4] = True  # 32 px of tumour
    result[0, 1, 1:3, 1:3] = True  # 4 px of nuclei in it
    result[1, 1, 0, 0] = True  # and one elsewhere
    result[0, 2, 3:5] = True  # fat: 8 of 16 px on tumour
    result[1, 4, :2] = True  # epithelium on one nucleus: 1 of 5
    return make_slide(np.zeros((2, 8, 8, 3), np.uint8), NAMES, result)[1]


def test_shared_area_by_hand(masks):
    shared = shared_area(masks)

    np.testing.assert_array_equal(np.diag(shared), [32, 5, 16, 0, 16])
    assert (shared[0, 1], shared[0, 2], shared[1, 4], shared[2, 4]) == (4, 8, 1, 0)
    np.testing.assert_array_equal(shared, shared.T)


def test_what_lies_in_another_is_of_its_group(masks):
    shared = shared_area(masks)

    assert overlap_groups(shared, NAMES, least=0.6) == [
        ("tumour", "nuclei"),
        ("fat",),
        ("absent",),
        ("epithelium",),
    ]
    assert overlap_groups(shared, NAMES, least=0.5)[0] == ("tumour", "nuclei", "fat")
    # one nucleus of five joins the chain
    assert overlap_groups(shared, NAMES, least=0.2)[0] == ("tumour", "nuclei", "fat", "epithelium")


def test_groups_do_not_depend_on_the_order(masks):
    shared, turned = shared_area(masks), [4, 2, 0, 3, 1]

    one = overlap_groups(shared, NAMES)
    other = overlap_groups(shared[np.ix_(turned, turned)], [NAMES[i] for i in turned])

    assert {frozenset(group) for group in one} == {frozenset(group) for group in other}


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="least"):
        overlap_groups(np.eye(2, dtype=int), "ab", least=0.0)
    with pytest.raises(ShapeError, match="shared"):
        overlap_groups(np.eye(2, dtype=int), "abc")
