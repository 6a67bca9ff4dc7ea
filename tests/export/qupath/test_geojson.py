"""What is written for QuPath: exact outlines, signed numbers, stable ids, locked annotations."""

from __future__ import annotations

import json
import math
import uuid
from types import SimpleNamespace

import numpy as np
import pytest

from xpath.errors import DataError
from xpath.export.colour import object_colour
from xpath.export.qupath.geojson import (
    Feature,
    ObjectNumbers,
    mask_features,
    object_features,
    polygons,
    region_features,
    tile_features,
    write_geojson,
)
from xpath.export.qupath.rules import check_geojson
from xpath.geometry import Box, PatchGrid, Size
from xpath.objects.outline import ring_area

TUMOR, STROMA = "breast-tissue-tumor", "breast-tissue-stroma"


def area(rings):
    return sum(ring_area(np.asarray(ring)) for ring in rings)


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


def masks_of(grid, masks, labels=(TUMOR,), presence=None):
    """Masks ``(N, L, S, S)`` behind the face of ``SlideMasks``."""
    masks = np.asarray(masks, bool)
    presence = np.ones(masks.shape[:2], np.float32) if presence is None else presence

    class Masks(SimpleNamespace):
        def __len__(self):
            return len(masks)

        def read(self, patches):
            return masks[patches]

    return Masks(
        grid=grid,
        labels=labels,
        size=masks.shape[-1],
        area=masks.sum(axis=(2, 3)),
        presence=np.asarray(presence, np.float32),
    )


def test_a_pixel_covers_from_its_index_to_the_next():
    mask = np.zeros((9, 9), bool)
    mask[3, 5] = True

    ((ring,),) = polygons(mask)

    assert ring == [[5, 3], [6, 3], [6, 4], [5, 4], [5, 3]]


def test_an_object_across_patches_is_one_with_all_its_pixels():
    """A square of 8 mask pixels in the middle of four patches; each holds a quarter."""
    grid = grid_of([[0, 0], [16, 0], [0, 16], [16, 16]])
    whole = np.zeros((16, 16), bool)  # a mask pixel is 2 x 2 level-0 pixels
    whole[4:12, 4:12] = True
    parts = [whole[y : y + 8, x : x + 8] for y in (0, 8) for x in (0, 8)]
    presence = [[0.2], [0.4], [0.6], [0.8]]
    masks = masks_of(grid, np.stack(parts)[:, None], presence=presence)
    told = ObjectNumbers(label=TUMOR, kind={"log-odds": -2.0}, shared={"adds": np.arange(4.0) - 6})

    (found,) = object_features(masks, [told])

    assert found.rings[0].tolist() == [[8, 8], [24, 8], [24, 24], [8, 24], [8, 8]]
    assert found.measurements == pytest.approx({
        "area um2": 256 * 0.25,
        "confidence": 0.5,
        "log-odds": -2.0,
        "adds": -6 - 5 - 4 - 3,
    })


def test_amounts_are_shared_by_area_and_keep_their_sign():
    mask = np.zeros((1, 2, 16, 16), bool)
    mask[0, 0, 1:4, 1:4] = mask[0, 0, 8:9, 8:9] = True  # 9 and 1 pixels
    mask[0, 1] = True
    masks = masks_of(grid_of([[0, 0]]), mask, labels=(TUMOR, STROMA))
    told = [
        ObjectNumbers(label=TUMOR, shared={"adds": np.array([-5.0])}),
        ObjectNumbers(label=STROMA, shared={"adds": np.array([2.0])}),
    ]

    found = list(object_features(masks, told, min_um2=0))

    adds = [feature.measurements["adds"] for feature in found]
    assert [feature.label for feature in found] == [TUMOR, TUMOR, STROMA]
    assert adds == pytest.approx([-4.5, -0.5, 2.0])
    assert len(list(object_features(masks, told, min_um2=0.5))) == 2  # 1 px is 0.25 um2


def test_noise_over_many_patches_is_traced_exactly(rng):
    """Against the whole canvas at once; patches of one row begin at different heights."""
    corners = [[x, y + (x // 16) % 2 * 4] for y in range(0, 60, 16) for x in range(0, 60, 16)]
    whole = np.zeros((40, 40), bool)
    noise = rng.random((16, 1, 8, 8)) < 0.5
    for (x, y), mask in zip(corners, noise, strict=True):
        whole[y // 2 : y // 2 + 8, x // 2 : x // 2 + 8] |= mask[0]
    masks = masks_of(grid_of(corners, slide=80), noise)

    found = list(mask_features(masks, TUMOR, {}, min_um2=0))

    wanted = sorted(area(rings) * 4 for rings in polygons(whole))
    assert sorted(area(feature.rings) for feature in found) == wanted
    assert sum(wanted) == whole.sum() * 4


def test_a_seam_of_one_pixel_does_not_cut_an_object():
    """Steps of 16.5 px are rounded one by one: patches of 16 px may lie 17 apart."""
    masks = masks_of(grid_of([[0, 0], [17, 0]]), np.ones((2, 1, 16, 16)))

    (found,) = mask_features(masks, TUMOR, {})

    assert area(found.rings) == 33 * 16


def test_nothing_lies_outside_the_slide():
    masks = masks_of(grid_of([[56, 56]]), np.ones((1, 1, 16, 16)))

    (found,) = mask_features(masks, TUMOR, {})

    assert np.max(found.rings[0]) == 64


def test_a_label_without_pixels_has_no_objects():
    masks = masks_of(grid_of([[0, 0]]), np.zeros((1, 1, 16, 16)))

    assert list(mask_features(masks, TUMOR, {})) == []


def test_tiles_carry_signed_numbers():
    grid = grid_of([[0, 0], [16, 32]])
    numbers = {"attention": np.array([0.25, 0.75]), "activation: A": np.array([-1.0, 2.0])}

    first, second = tile_features(grid, numbers)

    assert second.rings[0].tolist() == [[16, 32], [32, 32], [32, 48], [16, 48], [16, 32]]
    assert first.measurements == {"attention": 0.25, "activation: A": -1.0}
    assert first.kind == "tile"
    with pytest.raises(DataError, match="attention"):
        list(tile_features(grid, {"attention": np.zeros(3)}))


def test_tissue_is_a_locked_annotation_in_level_0_pixels():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2:4] = True

    (found,) = region_features(mask, (10.0, 10.5), "tissue", title="tissue")

    assert found.kind == "annotation"
    assert found.locked
    assert found.rings[0].tolist() == [[20, 10.5], [40, 10.5], [40, 31.5], [20, 31.5], [20, 10.5]]


@pytest.fixture
def feature():
    ring = [[10.0, 20.0], [30.0, 20.0], [30.0, 40.126], [10.0, 20.0]]
    numbers = {"importance": -1.5, "unknown": math.nan, "much": math.inf}
    return Feature(name="a/1", kind="detection", rings=(ring,), label=TUMOR, measurements=numbers)


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
        ({"kind": "cells"}, "kind must be"),
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
