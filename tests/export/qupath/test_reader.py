"""Written, checked by QuPath's rules, read back: the same polygons, classes, numbers, masks."""

from __future__ import annotations

import gzip
import json
import zipfile

import numpy as np
import pytest

from xpath.errors import DataError
from xpath.export.qupath.geojson import Feature, region_features, write_geojson
from xpath.export.qupath.reader import named, read_regions, region_mask
from xpath.export.qupath.rules import check_geojson, find_problems
from xpath.geometry import Box, Size
from xpath.objects.outline import components
from xpath.store.geojson import union_area

BOUNDS = Box(100, 50, 1000, 1000)
SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [2, 4], [4, 4], [4, 2], [2, 2]]


def drawn(geometry=None, **properties):
    geometry = geometry or {"type": "Polygon", "coordinates": [SQUARE]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def written(tmp_path, content, name="a.geojson"):
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return path


def test_a_round_trip_keeps_polygons_classes_and_numbers(tmp_path, rng):
    mask = rng.random((40, 60)) < 0.6
    features = [
        Feature(
            name=str(number),
            type="detection",
            rings=tuple(np.asarray(ring) * 1.337 + (100, 50) for ring in each.rings),
            label="breast-tissue-tumor" if number % 2 else "breast-tissue-stroma",
            measurements={"importance": float(rng.normal()), "area um2": number / 7},
            locked=number % 3 == 0,
        )
        for number, each in enumerate(components(mask))
    ]
    path = tmp_path / "a.geojson"
    write_geojson(path, features, slide_id="s", bounds=BOUNDS)

    assert check_geojson(path) == len(features)
    regions = read_regions(path, bounds=BOUNDS)

    assert len(regions) == len(features)
    for region, feature in zip(regions, features, strict=True):
        (rings,) = region.polygons
        for back, ring in zip(rings, feature.rings, strict=True):
            np.testing.assert_allclose(back, ring, atol=0.0051)
        assert region.measurements == feature.measurements
        facts = (region.label, region.type, region.locked)
        assert facts == (feature.label, "detection", feature.locked)


@pytest.mark.parametrize("scale", [1, 4])
def test_masks_come_back_as_they_were_written(tmp_path, rng, scale):
    mask = rng.random((30, 40)) < 0.55
    path = tmp_path / "a.geojson"
    features = region_features(mask, (scale, scale), "tissue")
    write_geojson(path, features, slide_id="s", bounds=Box(7, 3, 9, 9))

    regions = read_regions(path, bounds=Box(7, 3, 9, 9))

    back = region_mask(regions, Box(0, 0, 40 * scale, 30 * scale), Size(40, 30))
    np.testing.assert_array_equal(back, mask)
    assert sum(region.area for region in regions) == pytest.approx(mask.sum() * scale**2)
    wide = np.pad(mask, 20)[20:, 20:]
    for x, y in [(0, 0), (10, 10), (35, 25)]:  # the last reaches beyond the slide
        box = Box(x * scale, y * scale, 10 * scale, 10 * scale)
        found = region_mask(regions, box, Size(10, 10))
        np.testing.assert_array_equal(found, wide[y : y + 10, x : x + 10])


def test_a_triangle_covers_the_pixels_whose_centre_is_in_it(tmp_path):
    triangle = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [0, 4], [0, 0]]]}
    regions = read_regions(written(tmp_path, drawn(triangle)), bounds=Box(0, 0, 9, 9))

    mask = region_mask(regions, Box(-1, 0, 6, 5), Size(6, 5))

    wanted = [[0, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0] * 6, [0] * 6]
    assert mask.astype(int).tolist() == wanted


def test_multipolygons_and_holes_as_drawn_in_qupath(tmp_path):
    far = (np.array(SQUARE) + 20).tolist()
    geometry = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [far]], "plane": {"z": 0}}

    (region,) = read_regions(written(tmp_path, drawn(geometry)), bounds=Box(5, 5, 90, 90))

    assert region.area == 100 - 4 + 100
    assert region.polygons[0][1][0].tolist() == [7, 7]  # bounds are added
    mask = region_mask([region], Box(5, 5, 40, 40), Size(40, 40))
    assert mask.sum() == 196
    assert not mask[2:4, 2:4].any()


@pytest.mark.parametrize(
    ("properties", "type_", "label"),
    [
        ({"objectType": "annotation", "classification": {"name": "Tumor"}}, "annotation", "Tumor"),
        ({"object_type": "Detection", "classification": "Tumor"}, "detection", "Tumor"),
        ({"type": "tile", "classification": {"names": ["Immune", "CD3"]}}, "tile", "Immune: CD3"),
        ({"objectType": "PathThing"}, "annotation", ""),
        ({}, "annotation", ""),
    ],
)
def test_variants_of_names(tmp_path, properties, type_, label):
    (region,) = read_regions(written(tmp_path, [drawn(**properties)]), bounds=BOUNDS)

    assert (region.type, region.label) == (type_, label)


def test_colours_packed_or_listed(tmp_path):
    packed = {"name": "A", "colorRGB": -3670016}  # 0xffc80000, as older versions wrote it
    listed = {"name": "A", "color": [1, 2, 3]}
    path = written(tmp_path, [drawn(classification=packed), drawn(classification=listed)])

    colours = [region.colour for region in read_regions(path, bounds=BOUNDS)]

    assert colours == [(200, 0, 0), (1, 2, 3)]


def test_measurements_old_and_new_and_not_a_number(tmp_path):
    new = {"a": -1, "b": "NaN", "c": "-inf", "d": None}
    old = [{"name": "a", "value": -2.5}]
    path = written(tmp_path, [drawn(measurements=new), drawn(measurements=old)])

    first, second = read_regions(path, bounds=BOUNDS)

    assert list(first.measurements) == ["a", "b", "c"]
    assert first.measurements["a"] == -1
    assert np.isnan(first.measurements["b"])
    assert first.measurements["c"] == -np.inf
    assert second.measurements == {"a": -2.5}


def test_names_typed_by_hand_are_found(tmp_path):
    content = [
        drawn(classification={"name": "Breast Tissue_tumor", "color": [1, 2, 3]}),
        drawn(name="breast/tissue/tumor"),
        drawn(classification="stroma"),
    ]
    regions = read_regions(written(tmp_path, content), bounds=BOUNDS)

    assert named(regions, "breast-tissue-tumor") == regions[:2]


def test_children_packages_and_bare_geometries(tmp_path):
    parent = drawn(objectType="annotation", childObjects=[drawn(objectType="detection")])
    point = {"type": "Point", "coordinates": [1, 2]}
    collection = {"type": "FeatureCollection", "features": [parent, drawn(point)]}
    text = json.dumps(collection)
    (tmp_path / "b.geojson.gz").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("objects.geojson", text)
        archive.writestr("__MACOSX/._objects.geojson", b"\0\5\x16\7")
    (tmp_path / "d.geojson").write_bytes(gzip.compress(text.encode()))  # whatever its suffix
    paths = [written(tmp_path, collection), *(tmp_path / n for n in ("b.geojson.gz", "c.zip"))]
    paths.append(tmp_path / "d.geojson")

    types = [[r.type for r in read_regions(path, bounds=BOUNDS)] for path in paths]

    assert types == [["annotation", "detection"]] * 4
    bare = written(tmp_path, {"type": "Polygon", "coordinates": [SQUARE]})
    assert len(read_regions(bare, bounds=BOUNDS)) == 1


OPEN = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1]]]}
HOLED = {"type": "Polygon", "coordinates": [SQUARE, OPEN["coordinates"][0]]}
WORDS = {"type": "Polygon", "coordinates": [[[0, 0], [1, "x"], [1, 1], [0, 0]]]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        (json.dumps({"type": "FeatureCollection", "features": [{"a": 1}]}), "entry 0"),
        (json.dumps([drawn(), 3]), "entry 0 is 'int'"),
        (json.dumps(drawn(OPEN)), "feature 1 has an outline of 4 points.*end where it begins"),
        (json.dumps([drawn(), drawn(HOLED)]), "feature 2 has a hole of 4 points"),
        (json.dumps(drawn(WORDS)), "finite x, y"),
        (json.dumps(drawn({"type": {}, "coordinates": [[1, 2]]})), "wanted Polygon or"),
        (json.dumps(drawn({"type": "Circle", "coordinates": [[1, 2]]})), "wanted Polygon or"),
        ("[" * 100_000, "is no JSON"),
        (json.dumps(drawn(childObjects=["x"])), "childObjects"),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / "broken.geojson"
    path.write_text(content)

    with pytest.raises(DataError, match=message) as caught:
        read_regions(path, bounds=BOUNDS)

    assert "broken.geojson" in str(caught.value)


POINT = {"type": "Point", "coordinates": [1, 2]}
ON_A_LINE = {"type": "Polygon", "coordinates": [[[0, 0], [5, 5], [10, 10], [0, 0]]]}
TWO_POINTS = {"type": "Polygon", "coordinates": [[[0, 0], [5, 5], [0, 0]]]}


@pytest.mark.parametrize(
    ("odd", "counted"),
    [
        ({"type": "Feature", "geometry": None}, "1 objects without geometry"),
        (None, "1 objects without geometry"),
        (drawn({"type": "Polygon", "coordinates": []}), "1 objects without geometry"),
        (drawn({"type": "GeometryCollection", "geometries": []}), "1 objects without geometry"),
        (drawn(POINT), "1 points and lines"),
        (drawn(TWO_POINTS), "1 outlines without area"),
        (drawn(ON_A_LINE), "1 outlines without area"),
    ],
)
def test_what_is_no_area_is_passed_over_and_counted(tmp_path, caplog, odd, counted):
    path = written(tmp_path, [odd, drawn(classification="Tumor")])

    assert [region.label for region in read_regions(path, bounds=BOUNDS)] == ["Tumor"]
    assert [record.getMessage() for record in caplog.records] == [f"{path}: passed over: {counted}"]


@pytest.mark.parametrize(
    ("value", "number"),
    [("Infinity", np.inf), ("-Infinity", -np.inf), ("NaN", np.nan), ("1.5", 1.5), (np.nan, np.nan)],
)
def test_numbers_as_each_version_of_qupath_writes_them(tmp_path, value, number):
    (region,) = read_regions(written(tmp_path, drawn(measurements={"a": value})), bounds=BOUNDS)

    np.testing.assert_equal(region.measurements, {"a": number})


def test_measurements_that_are_no_numbers_are_skipped_and_counted(tmp_path, caplog):
    features = [drawn(measurements={"a": "1_000", "b": True, "c": 2}), drawn(measurements=[3])]

    first, second = read_regions(written(tmp_path, features), bounds=BOUNDS)

    assert (first.measurements, second.measurements) == ({"c": 2.0}, {})
    assert "passed over: 3 measurements that are no numbers" in caplog.text


@pytest.mark.parametrize("key", ["childObjects", "children"])
@pytest.mark.parametrize("geometry", [{}, None, {"type": "Polygon", "coordinates": [SQUARE]}])
def test_a_root_is_only_its_children(tmp_path, caplog, key, geometry):
    leaf = drawn(objectType="detection", classification="A")
    parent = drawn(objectType="annotation", classification="B", **{key: [leaf]})
    root = {"type": "Feature", "geometry": geometry, "properties": {"objectType": "root"}}
    root["properties"][key] = [parent]

    regions = read_regions(written(tmp_path, root), bounds=BOUNDS)

    assert [region.label for region in regions] == ["B", "A"]
    assert not caplog.records


def test_children_are_found_wherever_they_stand_and_once(tmp_path):
    leaf, twig = drawn(classification="A"), drawn(classification="B")
    inside = drawn(classification="C", childObjects=[leaf], children=[leaf])
    beside = drawn(classification="D") | {
        "childObjects": {"type": "FeatureCollection", "features": [None, twig]}
    }

    regions = read_regions(written(tmp_path, [inside, beside]), bounds=BOUNDS)

    assert [region.label for region in regions] == ["C", "A", "D", "B"]


@pytest.mark.parametrize(
    "classification",
    [
        ["Tumor", "Positive"],
        {"name": ["Tumor", "Positive"]},
        {"names": [" Tumor", None, "Positive "]},
        {"name": " Tumor: Positive "},
    ],
)
def test_a_derived_class_may_be_a_list(tmp_path, classification):
    path = written(tmp_path, drawn(classification=classification))

    assert read_regions(path, bounds=BOUNDS)[0].label == "Tumor: Positive"


@pytest.mark.parametrize(
    ("spelling", "type_"),
    [
        ("tma_core", "tmaCore"),
        ("TMACoreObject", "tmaCore"),
        ("tmaCore", "tmaCore"),
        ("TMA core", "tmaCore"),
        ("PathDetectionObject", "detection"),
        ("Cell", "cell"),
    ],
)
def test_all_spellings_of_types(tmp_path, spelling, type_):
    (region,) = read_regions(written(tmp_path, drawn(objectType=spelling)), bounds=BOUNDS)

    assert region.type == type_


@pytest.mark.parametrize("classification", [{}, None, {"color": [1, 2, 3]}, {"names": []}])
def test_the_null_class_is_no_class(tmp_path, classification):
    path = written(tmp_path, drawn(classification=classification))

    assert read_regions(path, bounds=BOUNDS)[0].label == ""


def test_a_cell_is_its_nucleus_and_keeps_its_outline(tmp_path):
    nucleus = {"type": "Polygon", "coordinates": [(np.array(SQUARE) / 2).tolist()]}
    cells = [{**drawn(objectType="cell"), "nucleusGeometry": given} for given in (nucleus, None)]

    whole, bare = read_regions(written(tmp_path, cells), bounds=BOUNDS)

    assert (whole.area, bare.area) == (25, 100)
    assert (len(whole.cell), len(bare.cell)) == (1, 0)
    assert whole.cell[0][0][0].tolist() == [100, 50]  # bounds are added


@pytest.mark.parametrize("geometry", [None, {}])
def test_a_cell_of_which_only_the_nucleus_was_found_is_an_area(tmp_path, caplog, geometry):
    nucleus = {"type": "Polygon", "coordinates": [SQUARE]}
    cell = {**drawn(objectType="cell"), "geometry": geometry, "nucleusGeometry": nucleus}

    (region,) = read_regions(written(tmp_path, cell), bounds=BOUNDS)

    assert (region.area, region.cell) == (100, ())
    assert not caplog.records


def test_a_collection_is_all_its_polygons(tmp_path):
    far = (np.array(SQUARE) + 20).tolist()
    parts = [{"type": "Polygon", "coordinates": [ring]} for ring in (SQUARE, far)]
    geometry = {"type": "GeometryCollection", "geometries": [*parts, POINT]}

    (region,) = read_regions(written(tmp_path, drawn(geometry)), bounds=BOUNDS)

    assert region.area == 200


def test_areas_are_those_of_even_odd_masks_and_of_unions(tmp_path):
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [8, 8], [8, 0], [0, 8], [0, 0]]]}
    moved = {"type": "Polygon", "coordinates": [np.add(SQUARE, (5, 0)).tolist()]}
    path = written(tmp_path, [drawn(bow_tie), drawn(), drawn(moved)])

    cross, square, other = read_regions(path, bounds=Box(0, 0, 90, 90))

    assert cross.area == 32  # two triangles of 8 x 4 / 2
    assert union_area([square, other]) == 150
    assert union_area([square, square]) == 100


@pytest.mark.parametrize(
    ("hole", "area"),
    [
        ([[0, 0], [5, 0], [5, 5], [0, 5], [0, 0]], 75),  # along the outline
        (SQUARE, 0),
        ([[20, 0], [25, 0], [25, 5], [20, 5], [20, 0]], 100),  # beside it
        ([[5, 5], [15, 5], [15, 15], [5, 15], [5, 5]], 75),  # over its corner
        ([[2, 2], [8, 8], [8, 2], [2, 8], [2, 2]], 82),  # two triangles
    ],
)
def test_areas_of_holes_are_those_of_the_mask(tmp_path, hole, area):
    path = written(tmp_path, drawn({"type": "Polygon", "coordinates": [SQUARE, hole]}))

    (region,) = read_regions(path, bounds=Box(0, 0, 90, 90))

    assert region.area == area == region_mask([region], Box(0, 0, 30, 30), Size(30, 30)).sum()


def test_a_packed_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("xpath.store.geojson.LARGEST", 1000)
    monkeypatch.setattr("xpath.store.geojson.CHUNK", 100)
    path = tmp_path / "bomb.geojson.gz"
    path.write_bytes(gzip.compress(b" " * 100_000))

    with pytest.raises(DataError, match="once unpacked"):
        read_regions(path, bounds=BOUNDS)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.geojson is no file"):
        read_regions(tmp_path / "gone.geojson", bounds=BOUNDS)


SOUND = {
    "objectType": "detection",
    "classification": {"name": "A", "color": [1, 2, 3]},
    "measurements": {"a": 1.0, "b": "NaN"},
}
ID = "e9a9d9b6-3b2c-5d2e-9c5f-0123456789ab"


@pytest.mark.parametrize(
    ("feature", "message", "fatal"),
    [
        ({**drawn(**SOUND), "id": "7"}, "no UUID", False),
        ({**drawn(**SOUND), "id": ID, "objectType": "tile"}, "put it inside", False),
        ({**drawn(**{**SOUND, "objectType": "cells"}), "id": ID}, "becomes an annotation", False),
        ({**drawn(**SOUND, type="tumor"), "id": ID}, "properties.type", False),
        ({**drawn(**{**SOUND, "classification": {"name": "A"}}), "id": ID}, "colour None", True),
        (
            {**drawn(**{**SOUND, "classification": {"name": "A", "color": [1, 2]}}), "id": ID},
            "wanted [r, g, b]",
            True,
        ),
        ({**drawn(**{**SOUND, "measurements": {"a": float("nan")}}), "id": ID}, "bare nan", True),
        ({**drawn(**{**SOUND, "measurements": {"a": None}}), "id": ID}, "skipped", False),
        ({**drawn(OPEN, **SOUND), "id": ID}, "end where", True),
        (
            {**drawn({"type": "Polygon", "coordinates": [[[0, 0]] * 4]}, **SOUND), "id": ID},
            "vanish",
            False,
        ),
    ],
)
def test_each_rule_of_qupaths_parser(feature, message, fatal):
    (problem,) = find_problems([feature])

    assert message in problem.message
    assert problem.fatal == fatal


def test_a_sound_feature_has_no_problem_and_twins_have_one():
    feature = {**drawn(**SOUND), "id": ID}

    assert list(find_problems([feature])) == []
    (problem,) = find_problems([feature, feature])
    assert problem == (1, "has the id of feature 0", False)
