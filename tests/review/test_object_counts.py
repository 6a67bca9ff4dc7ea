"""One number of objects, wherever a person reads it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from xpath.batch.done import mark_done
from xpath.cli.main import main
from xpath.objects.rule import ObjectConfig
from xpath.store.masks import MaskWriter, open_masks
from xpath.study.exports import export
from xpath.study.slides import explain_key, objects_of

pytestmark = pytest.mark.integration

TUMOR, STROMA, LYMPHOCYTE = (
    "breast-tissue-tumor",
    "breast-tissue-stroma",
    "breast-nuclei-lymphocyte",
)
WANTED = {TUMOR: 3, STROMA: 1, LYMPHOCYTE: 6}


def picture():
    """``(3, 384, 512)`` at 0.5 micron, cut into patches of 128 pixels."""
    planes = np.zeros((3, 384, 512), np.uint8)
    tumour, stroma, nuclei = planes
    tumour[20:40, 20:40] = tumour[40:60, 40:60] = 1  # two squares that meet at a corner
    tumour[100:150, 90:160] = 1  # one over four patches
    stroma[200:380] = 1
    stroma[10:13, 400:404] = stroma[60:63, 300:305] = 1  # 3 and 3.75 square microns: specks
    for x, y in ((40, 220), (60, 222), (120, 300), (140, 300), (300, 300)):
        cv2.circle(nuclei, (x, y), 12, 1, -1)  # two pairs that touch, one over a seam; one alone
    nuclei[325:327, 200:202] = nuclei[320:324, 250:254] = 1  # 1 square micron, and just 4
    return planes.astype(bool)


@pytest.fixture(params=[0, 24], ids=["side by side", "overlapping"])
def counted_run(run_folder, request):
    """The run whose first slide has these masks, sealed as if explained."""
    study, entry = run_folder.study, run_folder.study.slides[0]
    path, whole = study.folder.masks(entry.slide_id), picture()
    side, step = 128, 128 - request.param
    masks = open_masks(path)
    corners = [(column * step, row * step) for row in range(3) for column in range(4)]
    grid = replace(masks.grid, coords=np.array(corners), overlap=request.param)
    cut = np.stack([whole[:, y : y + side, x : x + side] for x, y in corners])
    with MaskWriter(path, grid=grid, labels=masks.labels, size=side, provenance={}) as writer:
        writer.write(0, cut, cut.any(axis=(2, 3)).astype(np.float32))
    mark_done(path, "made by hand")
    mark_done(study.folder.explanation(entry.slide_id), explain_key(study, entry))
    return study, entry


def test_morphometry_qupath_compare_and_review_count_the_same(
    counted_run, service, tmp_path, capsys
):
    study, entry = counted_run

    assert export(study, entry, "test")

    geojson = study.folder.exports(entry.slide_id) / "objects.geojson"
    features = json.loads(geojson.read_text())["features"]
    exported = Counter(
        feature["properties"]["classification"]["name"]
        for feature in features
        if feature["properties"]["objectType"] == "detection"
    )
    with study.folder.morphometry(entry.slide_id).open(newline="") as file:
        measured = {row["label"]: int(row["count"]) for row in csv.DictReader(file)}
    out = tmp_path / "compared.csv"
    arguments = ["compare", str(study.folder.root), str(geojson), "--slide", entry.slide_id]
    assert main([*arguments, "--out", str(out)]) == 0
    with out.open(newline="") as file:
        compared = {row["label"]: row for row in csv.DictReader(file)}
    slide = service.slide(entry.slide_id)
    reviewed = {one["label"]: one["count"] for one in slide["object_classes"] if one["masked"]}
    assert measured == exported == reviewed == WANTED
    assert {label: int(row["model_objects"]) for label, row in compared.items()} == WANTED
    assert {label: int(row["corrected_objects"]) for label, row in compared.items()} == WANTED

    rule = objects_of(study, entry).rule
    page = (study.folder.exports(entry.slide_id) / "report.html").read_text()
    assert rule in page
    assert slide["rule"] == rule
    assert f"counted as objects of the model: {rule}" in capsys.readouterr().out
    assert {row["rule"] for row in compared.values()} == {rule}


def test_a_click_gives_the_nucleus_and_not_its_clump(counted_run, service):
    study, entry = counted_run
    j = objects_of(study, entry).labels.index(LYMPHOCYTE)

    left, right = (service.at(entry.slide_id, x, 300, str(j))["objects"][0] for x in (120, 140))

    assert left["name"] != right["name"]
    areas = [one["numbers"]["area um2"] for one in (left, right)]
    assert sum(areas) == pytest.approx(0.25 * _clump_pixels())
    assert service.at(entry.slide_id, 200.5, 325.5, str(j))["objects"] == []  # a speck


def test_a_run_of_before_is_counted_when_it_is_first_looked_at(run_folder, service):
    path = run_folder.study.folder.objects("one")
    before = path.read_bytes()
    path.unlink()

    assert service.slide("one")["object_classes"][0]["count"] == 2
    assert path.read_bytes() == before


def test_another_rule_counts_anew(run_folder):
    study = run_folder.study
    entry, config = study.slides[0], study.config
    large = replace(config, counting=ObjectConfig(min_area_um2=1000))  # tumours of 2000 and 100

    assert objects_of(study, entry).counts[TUMOR] == 2
    assert objects_of(replace(study, config=large), entry).counts[TUMOR] == 1


def _clump_pixels():
    nuclei = picture()[2]
    return int(nuclei[280:320, 100:160].sum())
