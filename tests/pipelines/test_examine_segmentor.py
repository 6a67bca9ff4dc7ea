"""From weights to cuts, and to one report on all held-out images."""

import csv
import json
import sys

import cv2
import numpy as np
import pytest
import torch

from xpath.pathseg.prompts import sentences
from xpath.segment.checkpoints.checkpoint import SegmentorInfo, read_info, save_segmentor
from xpath.segment.model.tokenizer import fit_tokenizer
from xpath.segment.model.variants import build_segmentor, tiny_config

LABELS = ("unspecified-nuclei-neoplastic", "unspecified-nuclei-inflammatory")


@pytest.fixture
def data(tmp_path, rng):
    """Twelve images of PanNuke with two classes, four of them held out."""
    folder = tmp_path / "data"
    folder.mkdir()
    images, labels, split = [], [], []
    for number in range(12):
        mask = np.zeros((64, 64), np.uint8)
        mask[8:24, 8:40], mask[40:50, 20:50] = 1, 2
        cv2.imwrite(str(folder / f"m{number}.png"), mask)
        picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        files = ("pannuke_figures", f"{number}.png", f"m{number}.png")
        images.append((*files, "mixed", f"p{number}", 0.25))
        labels += [(*files, value, LABELS[value - 1], "x") for value in (1, 2)]
        split.append((files[0], number, f"p{number}", "test" if number % 3 == 0 else "train"))
    for file, columns, rows in (
        ("images.csv", "source,image,mask,region,group,mpp", images),
        ("labels.csv", "source,image,mask,value,label,original", labels),
        ("split.csv", "source,image,group,split", split),
    ):
        with (folder / file).open("w", newline="") as handle:
            csv.writer(handle).writerows([columns.split(","), *rows])
    return folder


@pytest.fixture
def weights(tmp_path):
    tokenizer = fit_tokenizer(sentences())
    config = tiny_config(tokenizer.vocabulary)
    torch.manual_seed(1)
    info = SegmentorInfo(
        name="tiny",
        mpp=0.25,
        image_size=64,
        labels=LABELS,
        licence="",
        synthetic_only=False,
        taught=dict.fromkeys(LABELS, 8),
        cuts={"nuclei-neoplastic": 0.3},
    )
    model = build_segmentor(config, layer_scale=1.0)
    save_segmentor(tmp_path / "weights", model, config, tokenizer, info, card="# as it was")
    return tmp_path / "weights"


def test_one_report_tells_of_classes_words_tissue_and_refusal(load_script, data, weights, tmp_path):
    pipeline = load_script("pipelines/examine_segmentor.py")
    words = f"--weights {weights} --data {data} --more {data} --split {data / 'split.csv'}"
    pipeline.main([*words.split(), "--out", str(tmp_path / "out" / "result.json")])

    report = json.loads((tmp_path / "out" / "result.json").read_text())
    assert report["images"] == 4
    by_class = report["classes"]["by_class"]
    assert {name for name, row in by_class.items() if "dice" in row} == {
        "nuclei-neoplastic",
        "nuclei-inflammatory",
        "nuclei-nuclei",
    }
    assert by_class["nuclei-dead"]["absent"] == 4
    assert report["classes"]["mean"] is None  # no class with ten images
    near = report["words"]["as_nearest_taught"]
    for word in ("cell-lymphocyte", "nuclei-macrophage"):
        assert near[word] == by_class["nuclei-inflammatory"] | {"images": 4}
    assert near["cell-malignant epithelial"]["dice"] == by_class["nuclei-neoplastic"]["dice"]
    asked = report["words"]["as_asked"]
    assert asked["cell-epithelial"]["images"] == asked["cell-lymphocyte"]["images"] == 4
    assert report["tissue"] == by_class
    assert report["refusal"]["untaught_asked"] == 16
    assert report["refusal"]["taught"] == dict.fromkeys(LABELS, 8)


def test_calibrating_begins_anew_and_keeps_the_rest(
    load_script, data, weights, monkeypatch, tmp_path
):
    pipeline = load_script("pipelines/calibrate_segmentor.py")
    monkeypatch.setattr(pipeline, "drawn_images", lambda _: [])
    before = read_info(weights)
    words = f"calibrate --weights {weights} --data {data} --split {data / 'split.csv'} --thin 1"
    monkeypatch.setattr(sys, "argv", words.split())

    pipeline.main()

    after = read_info(weights)
    assert after.cuts == {}  # eight images teach none
    assert (after.taught, after.labels) == (before.taught, before.labels)
    assert (weights / "README.md").read_text() == "# as it was"
    with (weights / "cuts.csv").open() as file:
        rows = {row["object_class"]: row for row in csv.DictReader(file)}
    assert rows["nuclei-neoplastic"]["images"] == "8"
    assert "cell-epithelial" in rows
    offsets = json.loads((weights / "presence.json").read_text())["offsets"]
    assert {*LABELS, "untaught"} <= set(offsets)

    monkeypatch.setattr(sys, "argv", [*words.split(), "--refuse", LABELS[0]])
    pipeline.main()

    assert read_info(weights).drawn == (LABELS[0],)
