import dataclasses

import numpy as np
import pytest

from xpath.errors import DataError, StoreError
from xpath.objects.find import find_objects
from xpath.objects.rule import ObjectConfig
from xpath.store.objects import ARRAYS, read_objects, write_objects

TUMOR, LYMPHOCYTE = "breast-tissue-tumor", "breast-nuclei-lymphocyte"


@pytest.fixture
def table(masks_of, tiles):
    """A tumour with a hole over two patches, a lymphocyte in it, one in the hole; 2 x 2 pixels."""
    picture = np.zeros((2, 16, 32), bool)
    picture[0, 2:14, 8:28] = True
    picture[0, 6:10, 12:18] = False
    picture[1, 3:5, 9:11] = picture[1, 7:9, 14:16] = True
    planes, corners = tiles(picture, 16)
    masks = masks_of(planes, np.multiply(corners, 2), labels=(TUMOR, LYMPHOCYTE), scale=2)
    return find_objects(masks, ObjectConfig(min_area_um2=1))


def test_a_table_comes_back_as_it_was_written(table, tmp_path):
    write_objects(tmp_path / "objects.h5", table)

    back = read_objects(tmp_path / "objects.h5")

    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name), name)
    assert (back.labels, back.rule, back.origin, back.scale) == (
        table.labels, table.rule, table.origin, table.scale,
    )  # fmt: skip
    np.testing.assert_array_equal(back.grid.coords, table.grid.coords)
    assert back.counts == {TUMOR: 1, LYMPHOCYTE: 2}
    assert [back.id(index) for index in range(3)] == [
        f"{TUMOR}/16,4", f"{LYMPHOCYTE}/18,6", f"{LYMPHOCYTE}/28,14",
    ]  # fmt: skip


def test_equal_tables_give_equal_bytes(table, tmp_path):
    for name in "ab":
        write_objects(tmp_path / name, table)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_empty_table_can_be_written(masks_of, tmp_path):
    empty = find_objects(masks_of(np.zeros((1, 16, 16))))

    write_objects(tmp_path / "objects.h5", empty)

    assert len(read_objects(tmp_path / "objects.h5")) == 0


@pytest.mark.parametrize(
    ("x", "y", "wanted"),
    [
        (17, 5, [0]),  # only the tumour
        (18, 6, [1, 0]),  # the corner pixel of the lymphocyte, the smaller one first
        (22, 10, [0]),  # just right of and below it
        (25, 13, []),  # in the hole
        (29, 15, [2]),  # the lymphocyte in the hole
        (55.9, 27.9, [0]),
        (56, 20, []),  # right of the last pixel
        (-1, 5, []),
    ],
)
def test_the_objects_under_a_point_the_smallest_first(table, x, y, wanted):
    assert table.at(x, y, (0, 1)) == wanted
    assert table.at(x, y, (0,)) == [index for index in wanted if index == 0]


def test_numbers_of_objects_by_hand(table):
    assert table.pixels.tolist() == [12 * 20 - 4 * 6, 4, 4]
    assert table.areas_um2.tolist() == [216, 4, 4]  # a mask pixel is 1 micron wide
    assert table.patches_of(0).tolist() == [0, 1]
    np.testing.assert_array_equal(table.patch_pixels[:2], [12 * 8 - 4 * 4, 12 * 12 - 4 * 2])
    assert len(table.rings(0)) == 2
    with pytest.raises(DataError, match="fat"):
        table.of("breast-tissue-fat")


@pytest.mark.parametrize("name", ["ring_ends", "share_ends", "corner_ends"])
def test_ends_that_do_not_fit_are_refused(table, name):
    with pytest.raises(DataError, match=name):
        dataclasses.replace(table, **{name: getattr(table, name) + 1})


def test_a_cut_or_strange_file_is_refused(table, tmp_path):
    path = tmp_path / "objects.h5"
    write_objects(path, table)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(StoreError, match="truncated"):
        read_objects(path)
    with pytest.raises(StoreError, match="does not exist"):
        read_objects(tmp_path / "none.h5")
