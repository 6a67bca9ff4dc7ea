"""nnU-Net as a subprocess: how labels become values, what it is given, what is read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xpath.errors import CheckpointError, ConfigError, DataError
from xpath.pathseg.record import Annotated, LabelMask, SourceImage
from xpath.segment.baselines.nnunet import NnuNet, NnuNetConfig, find_nnunet
from xpath.segment.baselines.nnunet_labels import LabelValues, dataset_json, label_values

NUCLEI = "unspecified-nuclei-nuclei"
NEOPLASTIC = "unspecified-nuclei-neoplastic"
DEAD = "unspecified-nuclei-dead"
TUMOR = "breast-tissue-tumor"


def image_of(name, *, size=(8, 8), ignore=None, **masks):
    """An image whose labels are given as slices."""

    def read():
        planes = []
        for label, place in masks.items():
            mask = np.zeros(size, bool)
            mask[place] = True
            planes.append(LabelMask(label.replace("_", "-"), mask))
        dark = None
        if ignore is not None:
            dark = np.zeros(size, bool)
            dark[ignore] = True
        return Annotated(np.full((*size, 3), 200, np.uint8), tuple(planes), dark)

    return SourceImage(
        source="s", name=name, group=name, split="train", mpp=0.25, region="breast",
        path=Path(name), read=read,
    )  # fmt: skip


@pytest.fixture
def nested():
    """Every nucleus is neoplastic or dead, tumour lies across some of them."""
    return image_of(
        "a",
        ignore=np.s_[7],
        unspecified_nuclei_nuclei=np.s_[0:2],
        unspecified_nuclei_neoplastic=np.s_[0:1],
        unspecified_nuclei_dead=np.s_[1:2],
        breast_tissue_tumor=np.s_[1:5],
    )


def test_each_combination_of_labels_has_its_value(nested):
    values = label_values([nested])

    assert values.labels == (TUMOR, NUCLEI, DEAD, NEOPLASTIC)  # the largest first
    assert set(values.combinations) == {
        frozenset({TUMOR}), frozenset({NUCLEI}), frozenset({NUCLEI, NEOPLASTIC}),
        frozenset({NUCLEI, DEAD, TUMOR}),
    }  # fmt: skip
    assert values.overlap
    painted = values.paint(nested.read())
    assert set(np.unique(painted[7])) == {5}  # unknown
    for label, mask in nested.read().masks:
        assert (np.isin(painted, values.values(label)) == mask).all()
    assert (painted[5:7] == 0).all()


def test_what_nnunet_paints_for_nested_labels_is_read_back(nested):
    """It paints its regions in their order; nuclei of no type are nuclei and nothing else."""
    values = label_values([nested])
    about = dataset_json(values, 1, ignored=True)
    order = about["regions_class_order"]

    painted = np.zeros((8, 8), int)
    answer = {NUCLEI: np.s_[0:4], NEOPLASTIC: np.s_[0:2]}
    for label, value in zip(values.labels, order, strict=True):
        if label in answer:
            painted[answer[label]] = value

    assert np.isin(painted, values.values(NUCLEI))[:4].all()
    assert np.isin(painted, values.values(NEOPLASTIC))[:2].all()
    assert not np.isin(painted, values.values(NEOPLASTIC))[2:].any()
    assert not np.isin(painted, values.values(DEAD) + values.values(TUMOR)).any()
    assert about["labels"]["background"] == 0
    assert about["labels"][NUCLEI] == values.values(NUCLEI)
    assert about["labels"]["ignore"] == 5


def test_labels_apart_are_plain_classes():
    apart = image_of("a", unspecified_nuclei_dead=np.s_[0:1], breast_tissue_tumor=np.s_[2:6])
    values = label_values([apart])

    about = dataset_json(values, 1, ignored=False)

    assert not values.overlap
    assert about == {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, TUMOR: 1, DEAD: 2},
        "numTraining": 1,
        "file_ending": ".png",
    }


def test_no_label_is_refused():
    with pytest.raises(DataError, match="got 0"):
        label_values([image_of("a")])


PROGRAM = """#!/bin/sh
echo "$0" "$@" >> "$nnUNet_raw/../calls.txt"
env | grep -E '^(nnUNet|XPATH_)' | sort > "$nnUNet_raw/../environment.txt"
{body}
"""
RESULTS = "nnUNet_results/Dataset001_xpath/XPathTrainer__nnUNetPlans__2d/fold_all"


@pytest.fixture
def programs(tmp_path):
    """Programs under nnU-Net's names that write what it would."""
    folder = tmp_path / "bin"
    folder.mkdir()
    bodies = {
        "nnUNetv2_plan_and_preprocess": "",
        "nnUNetv2_train": f'mkdir -p "$nnUNet_raw/../{RESULTS}"\n'
        f'touch "$nnUNet_raw/../{RESULTS}/checkpoint_latest.pth"',
        "nnUNetv2_predict": 'for f in "$2"/*_0000.png; do cp'
        ' "$nnUNet_raw/Dataset001_xpath/labelsTr/a.png" "$4/$(basename "$f" _0000.png).png"; done',
    }
    for name, body in bodies.items():
        (folder / name).write_text(PROGRAM.format(body=body))
        (folder / name).chmod(0o755)
    return folder


def test_it_is_given_images_plans_and_length(programs, nested, tmp_path):
    model = NnuNet(tmp_path / "run", programs)

    finished = model.train([nested], NnuNetConfig(steps=250, minutes=2, device="cpu"))

    raw = tmp_path / "run" / "nnUNet_raw" / "Dataset001_xpath"
    assert not finished  # only the latest checkpoint is there
    assert np.asarray(Image.open(raw / "imagesTr" / "a_0000.png")).shape == (8, 8, 3)
    painted = np.asarray(Image.open(raw / "labelsTr" / "a.png"))
    assert (painted == label_values([nested]).paint(nested.read())).all()
    assert json.loads((raw / "dataset.json").read_text())["numTraining"] == 1
    calls = (tmp_path / "run" / "calls.txt").read_text().splitlines()
    assert [Path(call.split()[0]).name for call in calls] == [
        "nnUNetv2_plan_and_preprocess", "nnUNetv2_train"
    ]  # fmt: skip
    assert calls[1].endswith("Dataset001_xpath 2d all -tr XPathTrainer -device cpu")
    environment = (tmp_path / "run" / "environment.txt").read_text()
    assert "XPATH_EPOCHS=125\nXPATH_EPOCH_STEPS=2\nXPATH_MINUTES=2" in environment
    assert "nnUNet_extTrainer=" in environment


def test_it_goes_on_and_refuses_other_images(programs, nested, tmp_path):
    config = NnuNetConfig(device="cpu")
    NnuNet(tmp_path / "run", programs).train([nested], config)

    NnuNet(tmp_path / "run", programs).train([nested], config)

    calls = (tmp_path / "run" / "calls.txt").read_text().splitlines()
    assert len(calls) == 3  # planned once
    assert calls[2].endswith("--c")
    with pytest.raises(CheckpointError, match="1 other images than these 2"):
        NnuNet(tmp_path / "run", programs).train([nested, image_of("b")], config)


def test_predictions_are_label_maps_beside_labels(programs, nested, tmp_path):
    from xpath.store.tables import read_table

    model, out = NnuNet(tmp_path / "run", programs), tmp_path / "out"
    config = NnuNetConfig(device="cpu")
    with pytest.raises(CheckpointError, match="no trained nnU-Net"):
        model.predict([], out, config)
    model.train([nested], config)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "new.png")

    model.predict([tmp_path / "new.png"], out, config)
    asked = (NUCLEI, "colon-tissue-tumor", "breast-tissue-fat")  # the last was never taught
    model.write_labels(out, asked)

    assert np.asarray(Image.open(out / "new.png")).shape == (8, 8)
    assert not (out / "images").exists()
    rows = read_table(out / "labels.csv")
    values = model.values()
    assert [(int(row["value"]), row["label"]) for row in rows] == [
        *((value, NUCLEI) for value in values.values(NUCLEI)),
        *((value, "colon-tissue-tumor") for value in values.values(TUMOR)),
    ]


def test_its_last_words_are_told(programs, nested, tmp_path):
    (programs / "nnUNetv2_train").write_text("#!/bin/sh\necho out of memory\nexit 3\n")

    with pytest.raises(DataError, match=r"nnUNetv2_train failed with 3: .*out of memory"):
        NnuNet(tmp_path / "run", programs).train([nested], NnuNetConfig(device="cpu"))


def test_without_it_one_is_told_how_to_get_it(tmp_path):
    with pytest.raises(ConfigError, match="pip install nnunetv2"):
        find_nnunet(tmp_path)


def test_a_damaged_record_is_named(programs, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "nnunet.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"nnunet\.json cannot be read"):
        NnuNet(tmp_path / "run", programs).values()
    assert LabelValues((TUMOR,), (frozenset({TUMOR}),)).painted(TUMOR) == 1
