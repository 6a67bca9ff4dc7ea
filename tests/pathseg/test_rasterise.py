from __future__ import annotations

import json

import numpy as np
import pytest

from xpath.errors import DataError
from xpath.pathseg.rasterise import (
    Outline,
    fill_boxes,
    fill_ellipses,
    fill_outlines,
    parse_points,
    read_geojson,
    read_imagescope,
)

SQUARE = [[1, 1], [1, 6], [6, 6], [6, 1], [1, 1]]
HOLE = [[3, 3], [3, 4], [4, 4], [4, 3], [3, 3]]


def test_a_box_covers_the_pixels_whose_centre_it_holds():
    mask = fill_boxes([(1, 0, 3, 2)], (4, 5))

    assert np.argwhere(mask).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert fill_boxes([(0.6, 0.6, 1.6, 1.6)], (3, 3)).sum() == 1


@pytest.mark.parametrize("fill", [fill_boxes, fill_ellipses])
def test_what_lies_over_the_border_is_cut_off(fill):
    whole = fill([(10, 10, 18, 22)], (40, 40))

    assert np.array_equal(fill([(-4, -3, 4, 9)], (20, 10)), whole[13:33, 14:24])
    assert not fill([(-9, -9, -2, -2), (50, 50, 60, 60)], (20, 10)).any()
    assert not fill([(5, 5, 5, 9), (7, 7, 3, 3)], (20, 20)).any()


def test_an_ellipse_touches_the_sides_of_its_box_and_has_its_area():
    mask = fill_ellipses([(10, 20, 70, 60)], (80, 90))
    rows, columns = np.nonzero(mask)

    assert (rows.min(), rows.max() + 1) == (20, 60)
    assert (columns.min(), columns.max() + 1) == (10, 70)
    assert mask.sum() == pytest.approx(np.pi * 30 * 20, rel=0.01)


def test_a_hole_is_cut_out_of_its_own_outline_only():
    square, hole = np.array(SQUARE, float), np.array(HOLE, float)
    with_hole = fill_outlines([Outline("a", square, (hole,))], (8, 8))

    assert with_hole.sum() == 36 - 4
    assert not with_hole[3:5, 3:5].any()
    both = fill_outlines([Outline("a", square, (hole,)), Outline("b", square)], (8, 8))
    assert both.sum() == 36


def test_points_of_two_lists(tmp_path):
    assert parse_points("1,2.5,3", " 4,5,6", tmp_path).tolist() == [[1, 4], [2.5, 5], [3, 6]]
    assert parse_points("", "", tmp_path).shape == (0, 2)


@pytest.mark.parametrize(("xs", "ys"), [("1,2", "1"), ("1,b", "1,2"), ("1,nan", "1,2")])
def test_broken_points_are_refused_with_their_file(tmp_path, xs, ys):
    with pytest.raises(DataError, match=r"t\.csv has a broken outline .* take the file"):
        parse_points(xs, ys, tmp_path / "t.csv")


def feature(geometry_type, coordinates, properties):
    return {
        "type": "Feature",
        "geometry": {"type": geometry_type, "coordinates": coordinates},
        "properties": properties,
    }


def test_geojson_keeps_classes_and_holes(tmp_path):
    path = tmp_path / "a.geojson"
    features = [
        feature("Polygon", [SQUARE, HOLE], {"classification": {"name": "Tumor"}}),
        feature("MultiPolygon", [[SQUARE], [HOLE]], {"name": "Stroma"}),
        feature("Polygon", [SQUARE], None),
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))

    outlines = read_geojson(path)

    assert [outline.name for outline in outlines] == ["Tumor", "Stroma", "Stroma", ""]
    assert [len(outline.holes) for outline in outlines] == [1, 0, 0, 0]
    assert fill_outlines(outlines[:1], (8, 8)).sum() == 32
    path.write_text(json.dumps(features[0]))
    assert [outline.name for outline in read_geojson(path)] == ["Tumor"]
    path.write_text(json.dumps(features))
    assert len(read_geojson(path)) == 4


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"features": [feature("Point", [1, 2], {})]}),
        json.dumps({"features": [{"type": "Feature"}]}),
        "5",
        '{"features": [',
    ],
)
def test_geojson_without_areas_is_refused(tmp_path, content):
    path = tmp_path / "a.geojson"
    path.write_text(content)

    with pytest.raises(DataError, match=r"a\.geojson"):
        read_geojson(path)


IMAGESCOPE = """<Annotations><Annotation Name="{name}">
<Attributes><Attribute Name="Epithelial" Id="0"/></Attributes>
<Regions><Region NegativeROA="0"><Vertices>
<Vertex X="1" Y="2" Z="0"/><Vertex X="5.5" Y="2" Z="0"/><Vertex X="5.5" {y} Z="0"/>
</Vertices></Region><Region NegativeROA="1"><Vertices/></Region></Regions>
</Annotation></Annotations>"""


def test_imagescope_names_a_layer_or_its_attribute(tmp_path):
    path = tmp_path / "a.xml"
    for name, wanted in [("Tumor", "Tumor"), ("", "Epithelial")]:
        path.write_text(IMAGESCOPE.format(name=name, y='Y="7"'))
        (outline,) = read_imagescope(path)

        assert outline.name == wanted
        assert outline.points.tolist() == [[1, 2], [5.5, 2], [5.5, 7]]
    path.write_text(IMAGESCOPE.format(name="Tumor", y=""))
    with pytest.raises(DataError, match=r"a\.xml has a broken outline"):
        read_imagescope(path)


def test_geojson_is_read_as_the_other_reader_does(tmp_path, caplog):
    """All that QuPath writes: nuclei of cells, derived classes, children, what has no area."""
    cell = feature("Polygon", [SQUARE], {"objectType": "cell", "classification": "Immune"})
    cell["nucleusGeometry"] = {"type": "Polygon", "coordinates": [HOLE]}
    derived = feature("Polygon", [SQUARE], {"classification": {"names": ["Tumor", "Positive"]}})
    parent = feature("Polygon", [SQUARE], {"name": "A", "children": [cell], "childObjects": []})
    core = feature("Polygon", [SQUARE], {"objectType": "TMACoreObject"})
    root = {"type": "Feature", "geometry": {}, "properties": {"objectType": "root"}}
    nothing = {"type": "Feature", "geometry": None, "properties": {"classification": {}}}
    point = feature("Point", [1, 2], {})
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps([root, nothing, point, core, derived, parent, None]))

    outlines = read_geojson(path)

    assert [outline.name for outline in outlines] == ["Tumor: Positive", "A", "Immune"]
    assert fill_outlines(outlines[2:], (8, 8)).sum() == 4  # the nucleus; the cell has 36
    assert "passed over: 2 objects without geometry, 1 points and lines" in caplog.text
