import numpy as np
import pytest

from xpath.errors import ConfigError, ShapeError
from xpath.explain.grouping import redundant_groups, shared_area

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


NOTHING_MOVES = np.zeros((0, len(NAMES)))


def groups_of(shared, contributions=NOTHING_MOVES, names=NAMES, **settings):
    return redundant_groups(shared, contributions, names, **settings)


def test_names_of_the_same_pixels_are_a_group(masks):
    shared = shared_area(masks)

    # of tumour's 32 px fat has 8, of fat's and epithelium's 16 the nuclei have 1 at most
    assert groups_of(shared) == [(name,) for name in NAMES]
    assert groups_of(shared, least=0.25)[0] == ("tumour", "fat")
    # 4 of 32 px are nuclei, and of these one joins the epithelium's 16
    assert groups_of(shared, least=0.0625)[0] == ("tumour", "nuclei", "fat", "epithelium")


def test_contributions_that_go_together_are_a_group():
    rng = np.random.default_rng(0)
    moves = rng.normal(size=(6, 5))
    moves[:, 4] = 2 * moves[:, 1] + 3

    assert ("nuclei", "epithelium") in groups_of(np.zeros((5, 5), int), moves)
    assert groups_of(np.zeros((5, 5), int), moves[:4]) == [(name,) for name in NAMES]


def test_groups_do_not_depend_on_the_order(masks):
    shared, turned = shared_area(masks), [4, 2, 0, 3, 1]

    one = groups_of(shared, least=0.25)
    names = [NAMES[i] for i in turned]
    other = groups_of(shared[np.ix_(turned, turned)], names=names, least=0.25)

    assert {frozenset(group) for group in one} == {frozenset(group) for group in other}


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="least"):
        groups_of(np.eye(5, dtype=int), least=0.0)
    with pytest.raises(ShapeError, match="shared"):
        groups_of(np.eye(4, dtype=int))
