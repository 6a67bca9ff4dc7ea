"""What is written for QuPath: exact outlines, signed numbers, stable ids, locked annotations."""

from __future__ import annotations

import json
import math
import uuid

import numpy as np
import pytest

from xpath.errors import DataError
from xpath.export.colour import object_colour
from xpath.export.qupath.geojson import (
    Feature,
    ObjectNumbers,
    object_features,
    region_features,
    tile_features,
    write_geojson,
)
from xpath.export.qupath.rules import check_geojson
from xpath.geometry import Box, PatchGrid, Size
from xpath.objects.find import find_objects
from xpath.objects.rule import ObjectConfig

TUMOR, STROMA = "breast-tissue-tumor", "breast-tissue-stroma"


def grid_of(coords, footprint=16, slide=64, mpp=0.5):
    return PatchGrid(
        coords=np.asarray(coords, np.int64),
        footprint=footprint,
        pixels=footprint,
        mpp=mpp,
        overlap=0,
        slide_size=Size(slide, slide),
        slide_mpp=mpp,
    )


def test_an_object_across_patches_is_one_with_its_share_of_each(masks_of, tiles):
    """A square of 8 mask pixels in the middle of four patches; each holds a quarter."""
    whole = np.zeros((16, 16), bool)  # a mask pixel is 2 x 2 level-0 pixels
    whole[4:12, 4:12] = True
    planes, corners = tiles(whole, 8)
    masks = masks_of(planes, np.multiply(corners, 2), labels=[TUMOR], scale=2)
    numbers = ObjectNumbers(
        label=TUMOR, label_numbers={"log-odds": -2.0}, shared={"adds": np.arange(4.0) - 6}
    )

    (found,) = object_features(find_objects(masks), [numbers])

    assert found.rings[0].tolist() == [[8, 8], [24, 8], [24, 24], [8, 24], [8, 8]]
    assert found.name == f"{TUMOR}/8,8"
    assert found.measurements == pytest.approx({
        "area um2": 256 * 0.25,
        "confidence": 0.5,
        "log-odds": -2.0,
        "adds": -6 - 5 - 4 - 3,
    })


def test_amounts_are_shared_by_area_and_keep_their_sign(masks_of):
    mask = np.zeros((1, 2, 16, 16), bool)
    mask[0, 0, 1:4, 1:4] = mask[0, 0, 8:9, 8:9] = True  # 9 and 1 pixels
    mask[0, 1] = True
    masks = masks_of(mask, labels=(TUMOR, STROMA))
    numbers = [
        ObjectNumbers(label=TUMOR, shared={"adds": np.array([-5.0])}),
        ObjectNumbers(label=STROMA, shared={"adds": np.array([2.0])}),
    ]

    found = list(object_features(find_objects(masks, ObjectConfig(min_area_um2=0)), numbers))

    adds = [feature.measurements["adds"] for feature in found]
    assert [feature.label for feature in found] == [TUMOR, TUMOR, STROMA]
    assert adds == pytest.approx([-4.5, -0.5, 2.0])


def test_a_label_that_was_not_segmented_is_refused(masks_of):
    table = find_objects(masks_of(np.ones((1, 16, 16)), labels=[TUMOR]))

    with pytest.raises(DataError, match=STROMA):
        list(object_features(table, [ObjectNumbers(label=STROMA)]))


def test_tiles_carry_signed_numbers():
    grid = grid_of([[0, 0], [16, 32]])
    numbers = {"attention": np.array([0.25, 0.75]), "activation: A": np.array([-1.0, 2.0])}

    first, second = tile_features(grid, numbers)

    assert second.rings[0].tolist() == [[16, 32], [32, 32], [32, 48], [16, 48], [16, 32]]
    assert first.measurements == {"attention": 0.25, "activation: A": -1.0}
    assert first.type == "tile"
    with pytest.raises(DataError, match="attention"):
        list(tile_features(grid, {"attention": np.zeros(3)}))


def test_tissue_is_a_locked_annotation_in_level_0_pixels():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2:4] = True

    (found,) = region_features(mask, (10.0, 10.5), "tissue", title="tissue")

    assert found.type == "annotation"
    assert found.locked
    assert found.rings[0].tolist() == [[20, 10.5], [40, 10.5], [40, 31.5], [20, 31.5], [20, 10.5]]


@pytest.fixture
def feature():
    ring = [[10.0, 20.0], [30.0, 20.0], [30.0, 40.126], [10.0, 20.0]]
    numbers = {"importance": -1.5, "unknown": math.nan, "much": math.inf}
    return Feature(name="a/1", type="detection", rings=(ring,), label=TUMOR, measurements=numbers)


def test_a_line_is_what_qupath_reads(tmp_path, feature):
    path = tmp_path / "a.geojson"

    count = write_geojson(path, [feature], slide_id="s", bounds=Box(10, 20, 100, 100))

    (read,) = json.loads(path.read_text())["features"]
    assert count == check_geojson(path) == 1
    assert uuid.UUID(read["id"]).version == 5
    assert read["geometry"]["coordinates"] == [[[0, 0], [20, 0], [20, 20.13], [0, 0]]]
    assert read["properties"] == {
        "objectType": "detection",
        "classification": {"name": TUMOR, "color": list(object_colour(TUMOR))},
        "isLocked": False,
        "measurements": {"importance": -1.5},
    }


def test_the_same_input_gives_the_same_file_and_other_slides_other_ids(tmp_path, feature):
    texts = []
    for slide in ("s", "s", "t"):
        write_geojson(tmp_path / "a", [feature], slide_id=slide, bounds=Box(0, 0, 9, 9))
        texts.append((tmp_path / "a").read_text())

    assert texts[0] == texts[1]
    assert json.loads(texts[0])["features"][0]["id"] not in texts[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "cells"}, "type must be"),
        ({"rings": ()}, "no outline"),
        ({"rings": ([[0, 0], [1, 0], [1, 1]],)}, "end where"),
        ({"rings": ([[0, 0], [1, 0], [math.nan, 1], [0, 0]],)}, "finite"),
    ],
)
def test_what_qupath_could_not_read_is_refused(tmp_path, feature, change, message):
    from dataclasses import replace

    path = tmp_path / "a.geojson"

    with pytest.raises(DataError, match=message):
        write_geojson(path, [replace(feature, **change)], slide_id="s", bounds=Box(0, 0, 9, 9))

    assert list(tmp_path.iterdir()) == []  # nothing half written


def test_two_objects_of_one_name_are_refused(tmp_path, feature):
    with pytest.raises(DataError, match="name them apart"):
        write_geojson(tmp_path / "a", [feature, feature], slide_id="s", bounds=Box(0, 0, 9, 9))
