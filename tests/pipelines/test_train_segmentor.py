"""The pipeline from two tables to weights: stopped and resumed, it is the undisturbed one."""

import csv
import runpy
import shutil
import sys

import cv2
import numpy as np
import pytest
import torch

from xpath.errors import CheckpointError
from xpath.segment.checkpoints.checkpoint import read_config


@pytest.fixture(scope="module")
def pipeline(load_script):
    return load_script("pipelines/train_segmentor.py")


@pytest.fixture
def data(tmp_path, rng):
    """Three images with a gland each. The last is held out."""
    folder = tmp_path / "data"
    folder.mkdir()
    gland = np.zeros((96, 96), np.uint8)
    gland[20:60, 20:60] = 1
    cv2.imwrite(str(folder / "mask.png"), gland)
    images, labels, split = [], [], []
    for name in "abc":
        noise = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), noise)
        images.append(("glas", f"{name}.png", "mask.png", "colon", name, 0.5))
        labels.append(("glas", f"{name}.png", "mask.png", 1, "colon-tissue-gland", "gland"))
        split.append(("glas", name, name, "test" if name == "c" else "train"))
    for file, columns, rows in (
        ("images.csv", "source,image,mask,region,group,mpp", images),
        ("labels.csv", "source,image,mask,value,label,original", labels),
        ("split.csv", "source,image,group,split", split),
    ):
        with (folder / file).open("w", newline="") as handle:
            csv.writer(handle).writerows([columns.split(","), *rows])
    return folder


@pytest.fixture
def train(pipeline, data, monkeypatch):
    def call(out, *more):
        words = f"train --data {data} --split {data / 'split.csv'} --out {out} --model tiny"
        words += " --shapes 2x64 --steps 3 --drop-path 0.5"
        monkeypatch.setattr(sys, "argv", [*words.split(), *more])
        pipeline.main()
        return torch.load(out / "state.pt", weights_only=True)

    return call


def test_stopped_and_resumed_equals_undisturbed(train, tmp_path):
    whole = train(tmp_path / "whole")
    assert train(tmp_path / "cut", "--minutes", "0")["step"] == 1
    cut = train(tmp_path / "cut")

    assert cut["step"] == whole["step"] == 3
    for name, value in whole["model"].items():
        assert torch.equal(value, cut["model"][name]), name
    assert whole["facts"] == cut["facts"]
    assert read_config(tmp_path / "cut" / "weights")[1].image_size == 64

    for changed in (("--drop-path", "0.1"), ("--seed", "1")):
        with pytest.raises(CheckpointError, match=r"another training.*(drop_path|train\.seed)"):
            train(tmp_path / "cut", *changed)


def test_it_goes_on_elsewhere_in_another_precision(train, data, tmp_path):
    """All it needs is its folder and the images, wherever they are now."""
    train(tmp_path / "here", "--minutes", "0", "--precision", "fp32")
    shutil.move(tmp_path / "here", tmp_path / "there")
    shutil.move(data, tmp_path / "elsewhere")
    again = tmp_path / "elsewhere"
    more = ("--data", str(again), "--split", str(again / "split.csv"))

    # with an architecture of its own it never looks where it came from
    state = train(tmp_path / "there", *more, "--precision", "bf16", "--init", "gone")

    assert state["step"] == 3
    with (tmp_path / "there" / "sessions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["first"], row["steps"], row["precision"]) for row in rows] == [
        ("0", "1", "fp32"),
        ("1", "2", "bf16"),
    ]
    (tmp_path / "there" / "model.json").write_text("{}")
    with pytest.raises(CheckpointError, match="copy it from where the training began"):
        train(tmp_path / "there", *more)


def test_other_images_are_another_training(train, data, tmp_path):
    train(tmp_path / "run", "--minutes", "0")
    (tmp_path / "run" / "index-0.csv").unlink()
    (data / "split.csv").write_text("source,image,group,split\nglas,b,b,test\n")

    with pytest.raises(CheckpointError, match="images"):
        train(tmp_path / "run")


def test_validation_images_are_neither_trained_on_nor_held_out(train, data, tmp_path):
    text = (data / "split.csv").read_text()
    (data / "split.csv").write_text(text.replace("glas,b,b,train", "glas,b,b,validation"))

    train(tmp_path / "run")

    info = read_config(tmp_path / "run" / "weights")[1]
    assert info.taught == {"colon-tissue-gland": 1}
    assert info.labels == ("colon-tissue-gland",)
    with (tmp_path / "run" / "samples.csv").open() as file:
        assert {row["image"] for row in csv.DictReader(file)} == {"b"}


def test_sizes_can_be_changed_from_the_command_line(train, tmp_path):
    train(tmp_path / "run", "--minutes", "0", "--set", "mask_dim=64,fine=separable")

    config = read_config(tmp_path / "run" / "weights")[0]
    assert (config.mask_dim, config.fine) == (64, "separable")
    again = train(tmp_path / "run", "--minutes", "0", "--set", "fine=separable,mask_dim=64")
    assert again["step"] == 2
    with pytest.raises(CheckpointError, match=r"set\.mask_dim.*64.*32"):
        train(tmp_path / "run", "--set", "fine=separable,mask_dim=32")


def test_ctrl_c_says_in_a_line_how_to_go_on(repository, data, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("xpath.pathseg.collection.collect", interrupted)
    words = ["--data", str(data), "--out", str(data / "run")]
    monkeypatch.setattr(sys, "argv", ["train_segmentor.py", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(repository / "pipelines" / "train_segmentor.py"), run_name="__main__")

    assert ended.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
