"""``xpath compare``: areas counted by hand, and a plain word for everything that can go wrong."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from xpath.batch.done import mark_done
from xpath.batch.slides import SlideEntry
from xpath.cli.main import main
from xpath.export.qupath.geojson import (
    ObjectNumbers,
    object_features,
    region_features,
    write_geojson,
)
from xpath.geometry import Box, PatchGrid, Size
from xpath.objects.find import find_objects
from xpath.objects.rule import ObjectConfig
from xpath.store.geojson import read_areas
from xpath.store.masks import MaskWriter, open_masks
from xpath.study.config import StudyConfig
from xpath.study.study import new_study
from xpath.testing.slides import write_slide
from xpath.wsi.slide import Slide

LYMPHOCYTE, TUMOR = "breast-nuclei-lymphocyte", "breast-tissue-tumor"
BOUNDS = Box(0, 0, 256, 256)
COORDS = [[32, 32], [96, 32], [32, 96], [96, 96]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A slide of 256 x 256 pixels of 0.5 microns, patches on its 32 to 160, 2 pixels a mask pixel.

    Lymphocytes: x 64 to 128 and y 64 to 96, across the seam of two patches, and 8 x 8 pixels at
    (40, 140). Tumor: the whole patch at (96, 96).
    """
    whole = np.zeros((2, 256, 256), np.bool_)
    whole[0, 64:96, 64:128] = whole[0, 140:148, 40:48] = whole[1, 96:160, 96:160] = True
    return run_of(whole, tmp_path_factory.mktemp("compare"))


def run_of(whole, folder):
    """A run whose masks are cut out of ``(L, 256, 256)``."""
    slide = folder / "case-7.tiff"
    write_slide(slide, np.full((256, 256, 3), 200, np.uint8), mpp=0.5, levels=1)
    study = new_study(folder / "run", StudyConfig(), [SlideEntry(slide_id="case-7", path=slide)])
    grid = PatchGrid(
        coords=np.array(COORDS),
        footprint=64,
        pixels=32,
        mpp=1.0,
        overlap=0,
        slide_size=Size(256, 256),
        slide_mpp=0.5,
    )
    masks = np.stack([whole[:, y : y + 64 : 2, x : x + 64 : 2] for x, y in COORDS])
    with MaskWriter(
        study.folder.masks("case-7"), grid=grid, labels=[LYMPHOCYTE, TUMOR], size=32, provenance={}
    ) as writer:
        writer.write(0, masks, np.ones((4, 2), np.float32))
    mark_done(study.folder.masks("case-7"), "made by hand")
    return folder / "run"


def box(label, x, y, right, bottom, type="annotation"):
    ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
    properties = {"objectType": type, "classification": {"name": label, "color": [1, 2, 3]}}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties if label else {"objectType": type},
    }


@pytest.fixture
def drawn(tmp_path):
    def write(*features):
        path = tmp_path / "corrected.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return path

    return write


@pytest.fixture
def compared(run, tmp_path):
    """Rows of the table by label."""

    def read(path, *options):
        out = tmp_path / "out.csv"
        assert main(["compare", str(run), str(path), "--out", str(out), *options]) == 0
        with out.open(newline="") as file:
            return {row["label"]: row for row in csv.DictReader(file)}

    return read


def numbers(row, *names):
    return [float(row[name]) for name in names]


def test_the_runs_own_export_agrees_with_itself(run, compared, tmp_path):
    masks = open_masks(run / "slides" / "case-7" / "masks.zarr")
    measured = [ObjectNumbers(label=label) for label in masks.labels]
    features = [*object_features(find_objects(masks), measured)]
    features += region_features(np.ones((4, 4), np.bool_), (64, 64), "tissue", title="tissue")
    write_geojson(tmp_path / "a.geojson", features, slide_id="case-7", bounds=BOUNDS)

    rows = compared(tmp_path / "a.geojson", "--slide", "case-7")

    assert list(rows) == [LYMPHOCYTE, TUMOR]
    for row in rows.values():
        assert numbers(row, "dice", "iou") == [1, 1]
        assert row["model_objects"] == row["corrected_objects"]
    # 64 x 32 and 8 x 8 pixels of a quarter square micron: one object crosses a seam
    assert numbers(rows[LYMPHOCYTE], "model_area", "model_objects") == [(2048 + 64) / 4, 2]
    assert numbers(rows[TUMOR], "corrected_area", "corrected_objects") == [4096 / 4, 1]


def as_cells(feature):
    """The outline as the nucleus of a cell that is the whole picture, as QuPath writes cells."""
    whole = [[0, 0], [256, 0], [256, 256], [0, 256], [0, 0]]
    properties = feature["properties"] | {"objectType": "cell"}
    outline = {"type": "Polygon", "coordinates": [whole]}
    return feature | {
        "geometry": outline, "nucleusGeometry": feature["geometry"], "properties": properties,
    }  # fmt: skip


def as_annotation(feature):
    properties = feature["properties"] | {"objectType": "PathAnnotationObject"}
    return feature | {"properties": properties}


def as_hierarchy(features):
    """``toJson(rootObject)``: everything is below a root without geometry."""
    children = {"objectType": "annotation", "childObjects": features}
    leaf = {"type": "Feature", "geometry": None, "properties": children}
    return [
        {
            "type": "Feature",
            "geometry": {},
            "properties": {"objectType": "root", "children": [leaf]},
        }
    ]


FORMS = ["detections", "cells", "annotations", "hierarchy"]


def exported_as(form, run, path, label):
    """The objects of a label of a run, in one of the forms that QuPath writes."""
    masks = open_masks(run / "slides" / "case-7" / "masks.zarr")
    exported = object_features(find_objects(masks), [ObjectNumbers(label=label)])
    write_geojson(path, exported, slide_id="case-7", bounds=BOUNDS)
    features = json.loads(path.read_text())["features"]
    features = {
        "detections": features,
        "cells": [as_cells(each) for each in features],
        "annotations": [as_annotation(each) for each in features],
        "hierarchy": as_hierarchy(features),
    }[form]
    path.write_text(json.dumps(features))
    return path


@pytest.mark.parametrize("form", FORMS)
def test_the_runs_objects_through_every_form_of_qupath(run, compared, tmp_path, form):
    path = exported_as(form, run, tmp_path / "a.geojson", LYMPHOCYTE)

    row = compared(path)[LYMPHOCYTE]

    assert numbers(row, "dice", "corrected_area") == [1.0, (2048 + 64) / 4]


@pytest.fixture(scope="module")
def porous(tmp_path_factory):
    """A run whose objects have holes, and islands in them, also over the seams of patches."""
    y, x = np.indices((256, 256)) // 2  # blocks of 2 pixels, each a pixel of the masks
    rings = np.hypot(y - 48, x - 48) % 16 < 8
    sieve = (y // 3 % 2 == 0) | (x // 5 % 2 == 0)
    return run_of(np.stack((rings, sieve)), tmp_path_factory.mktemp("porous"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", [LYMPHOCYTE, TUMOR])
def test_objects_with_holes_through_every_form_of_qupath(porous, tmp_path, form, label):
    if (form, label) == ("cells", TUMOR):
        pytest.skip("a tissue has no nuclei: its cells are compared whole")
    path = exported_as(form, porous, tmp_path / "a.geojson", label)
    holes = [rings for each in read_areas(path) for rings in each.polygons if len(rings) > 1]

    assert main(["compare", str(porous), str(path), "--out", str(tmp_path / "out.csv")]) == 0

    with (tmp_path / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert holes
    assert numbers(row, "dice", "iou") == [1.0, 1.0]
    assert float(row["model_area"]) == float(row["corrected_area"]) > 0


def test_a_hole_of_an_annotation_is_left_out(drawn, compared):
    # tumor is 96 to 160 in both axes; 16 x 16 of it are cut out by the person
    area = box("tumor", 96, 96, 160, 160)
    area["geometry"]["coordinates"].append([
        [112, 112],
        [128, 112],
        [128, 128],
        [112, 128],
        [112, 112],
    ])

    assert numbers(compared(drawn(area))[TUMOR], "corrected_area") == [(4096 - 256) / 4]


def test_a_cell_of_a_tissue_is_compared_whole(drawn, compared, capsys):
    cell = box("tumor", 96, 96, 160, 160, type="cell")
    cell["nucleusGeometry"] = box("", 100, 100, 110, 110)["geometry"]

    assert numbers(compared(drawn(cell))[TUMOR], "dice") == [1]
    assert "compared by their nuclei" not in capsys.readouterr().err


def test_a_derived_class_is_its_base_and_that_is_said(drawn, compared, capsys):
    row = compared(drawn(box("Tumor: Positive", 96, 96, 160, 160)))[TUMOR]

    assert numbers(row, "dice") == [1]
    assert f"'Tumor: Positive' is taken for {TUMOR}" in capsys.readouterr().err


def test_marked_area_is_that_of_the_union(drawn, compared, capsys):
    region = box("ROI", 96, 32, 200, 96)
    compared(drawn(region, region, box("lymphocyte", 64, 64, 128, 90)))

    assert "2 regions of interest: 0.001024 mm2 of 0.001664 mm2" in capsys.readouterr().out


def test_odd_objects_beside_good_ones_are_passed_over(drawn, compared, caplog):
    core = box("", 0, 0, 9, 9, type="tma_core")
    nothing = {"type": "Feature", "geometry": None, "properties": {}}
    good = box("tumor", 96, 96, 160, 160)
    good["properties"]["measurements"] = {"a": "Infinity"}

    assert numbers(compared(drawn(core, nothing, good))[TUMOR], "dice") == [1]
    assert "passed over: 1 objects without geometry" in caplog.text


def test_a_shifted_object_overlaps_by_what_is_left(drawn, compared):
    # 64 x 32 moved by 16 to the right: 48 of 64 columns are shared; the small one is missed
    rows = compared(drawn(box("Lymphocytes", 80, 64, 144, 96)))

    row = rows[LYMPHOCYTE]
    assert list(rows) == [LYMPHOCYTE]
    assert numbers(row, "both_area") == [48 * 32 / 4]
    assert float(row["dice"]) == pytest.approx(2 * 48 * 32 / (2048 + 64 + 2048), abs=1e-5)
    assert float(row["iou"]) == pytest.approx(48 * 32 / (2048 + 64 + 16 * 32), abs=1e-5)
    assert numbers(row, "model_objects", "corrected_objects") == [2, 1]
    assert row["unit"] == "um2"


def test_what_lies_outside_the_patches_does_not_count(drawn, compared):
    # 32 of its 64 columns lie right of the patches, which end at 160
    row = compared(drawn(box("tumor", 128, 96, 192, 160), box("tumor", 200, 0, 240, 40)))[TUMOR]

    assert numbers(row, "corrected_area", "both_area") == [32 * 64 / 4] * 2
    assert numbers(row, "corrected_objects") == [1]


@pytest.mark.parametrize("name", ["Region*", "ROI", "region of interest"])
def test_regions_bound_what_is_compared(drawn, compared, capsys, name):
    # right of x = 96 only: 32 of the model's 64 columns, all of which the person agrees with
    region = box(name, 96, 32, 200, 96)
    row = compared(drawn(region, box("lymphocyte", 64, 64, 128, 90)))[LYMPHOCYTE]

    assert numbers(row, "model_area", "corrected_area") == [32 * 32 / 4, 32 * 26 / 4]
    assert float(row["dice"]) == pytest.approx(2 * 26 / (32 + 26), abs=1e-5)
    assert numbers(row, "model_objects") == [1]  # the small one lies elsewhere
    # 64 x 64 pixels have patches, of 104 x 64 that were marked
    assert "1 region of interest: 0.001024 mm2 of 0.001664 mm2" in capsys.readouterr().out


def test_touching_objects_stay_apart_and_specks_are_none(drawn, compared):
    halves = [box("tumor", 96, 96, 128, 160), box("tumor", 128, 96, 160, 160)]
    row = compared(drawn(*halves))[TUMOR]

    assert numbers(row, "dice", "model_objects", "corrected_objects") == [1, 1, 2]


def test_labels_asked_for_count_where_the_file_has_none(drawn, compared, capsys):
    features = [box("Region*", 32, 96, 96, 160), box("Artefact", 0, 0, 9, 9)]
    rows = compared(drawn(*features), "--objects", "lymphocyte,tumor")

    assert numbers(rows[LYMPHOCYTE], "dice", "model_objects", "corrected_objects") == [0, 1, 0]
    assert rows[TUMOR]["dice"] == rows[TUMOR]["iou"] == ""  # neither has it there
    assert "classes not asked for: Artefact" in capsys.readouterr().err


def test_the_table_tells_what_was_read_how(run, drawn, capsys):
    features = [box("Tumour", 96, 96, 160, 160), box("Ignore*", 0, 0, 99, 99), box("", 0, 0, 9, 9)]

    assert main(["compare", str(run), str(drawn(*features))]) == 0

    output = capsys.readouterr()
    assert f"class 'Tumour' is taken for {TUMOR}" in output.err
    assert f"not compared: {LYMPHOCYTE}; if the person found none" in output.err
    assert "objects without a class, left out: 1" in output.err
    lines = output.out.splitlines()
    assert lines[0] == "compared wherever there are patches: 0.004096 mm2"
    assert lines[1].split()[:3] == ["label", "Dice", "IoU"]
    assert lines[2].split() == [TUMOR, "1.000", "1.000", "1024", "1024", "1024", "1", "1"]
    assert len({len(line) for line in lines[1:3]}) == 1
    assert lines[3] == f"counted as objects of the model: {ObjectConfig().sentence(0.5)}"


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ([box("tumor", 96, 96, 160, 160)], ["--slide", "case-8"], "choose one of its 1"),
        ([box("Plasma cell", 96, 96, 160, 160)], [], "no label 'Plasma cell'; the run has"),
        ([box("tumor", 96, 96, 160, 160)], ["--objects", "stroma"], "the run has breast-nuclei"),
        ([], [], "no object to compare"),
        ([], ["--objects", "tumor"], "no object to compare"),
        ([box("ROI", 32, 32, 99, 99)], [], "no object to compare"),
        ([box("tumor", 32, 32, 99, 99, type="tile")], [], "no object to compare"),
        ([box("tumor", 200, 200, 250, 250)], [], "no object of the file lies in one of the 4"),
        (
            [box("tumor", 96, 96, 99, 99), box("ROI", 200, 200, 250, 250)],
            [],
            "no region of interest lies",
        ),
    ],
)
def test_errors_tell_the_way_out(run, drawn, capsys, features, options, message):
    assert main(["compare", str(run), str(drawn(*features)), *options]) == 1
    assert message in capsys.readouterr().err


def test_a_class_that_may_be_several_labels_is_refused(run, drawn, capsys):
    assert main(["compare", str(run), str(drawn(box("breast", 0, 0, 99, 99)))]) == 1
    assert "'breast'" in capsys.readouterr().err


def test_a_missing_file_and_a_strange_folder_are_named(run, tmp_path, capsys):
    assert main(["compare", str(run), str(tmp_path / "gone.geojson")]) == 1
    assert "gone.geojson is no file" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), str(tmp_path / "gone.geojson")]) == 1
    assert "is no run folder" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "--help"])

    assert stopped.value.code == 0
    output = capsys.readouterr().out
    assert "xpath compare RUN corrected.geojson --slide case-7" in output
    assert "Region*" in output


def test_a_file_that_measures_from_the_corner_of_the_slide_is_read_so(
    run, drawn, compared, monkeypatch
):
    """As QuPath opened with --no-crop exports it, of a slide whose scan begins at (40, 20)."""
    monkeypatch.setattr(Slide, "bounds", property(lambda slide: Box(40, 20, 200, 200)))
    path = drawn(box("tumor", 96, 96, 160, 160))

    assert numbers(compared(path, "--whole-slide")[TUMOR], "dice") == [1]
    assert numbers(compared(path)[TUMOR], "dice")[0] < 0.5
