"""From a folder of two sources to a model each, scored by the command that scores ours."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from xpath.pathseg.annotated import read_annotated
from xpath.pathseg.biomedparse_writer import PromptedImage, write_biomedparse
from xpath.pathseg.record import Annotated, LabelMask

UNET = ("--model", "unet", "--encoder", "resnet18", "--shapes", "1x64")


@pytest.fixture(scope="module")
def train(load_script):
    return load_script("pipelines/train_baseline.py")


@pytest.fixture
def evaluate(load_script, monkeypatch):
    """Without pictures, which take most of the time."""
    pipeline = load_script("pipelines/evaluate_segmentor.py")
    monkeypatch.setattr(pipeline, "write_figures", lambda *_, **__: None)
    monkeypatch.setattr(pipeline, "write_comparison_figures", lambda *_: None)
    monkeypatch.setattr(pipeline, "draw_examples", lambda *_: None)
    return pipeline


def drawn(rng, labels):
    """Labels in quarters of a noisy image."""
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    masks = []
    for number, label in enumerate(labels):
        mask = np.zeros((64, 64), bool)
        mask[32 * (number // 2) :][:32, 32 * (number % 2) :][:, :32] = True
        masks.append(LabelMask(label, mask))
    return Annotated(image, tuple(masks), None)


@pytest.fixture
def data(tmp_path, rng):
    """Two sources of two images, the first with a label more."""
    sources = {
        "a": ("breast-nuclei-lymphocyte", "breast-tissue-tumor"),
        "b": ("colon-tissue-gland",),
    }
    for source, labels in sources.items():
        for split in ("train", "test"):
            items = [PromptedImage(f"{split}{n}", "x", drawn(rng, labels), 0.25) for n in range(2)]
            write_biomedparse(tmp_path / "data" / source, split, items)
    return tmp_path / "data"


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_model_per_source_is_trained_resumed_and_scored(train, evaluate, data, tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    common = [*UNET, "--data", str(data), "--out", str(runs)]

    assert train.main([*common, "--steps", "2", "--minutes", "0"]) == 0
    assert "stopped" in capsys.readouterr().out
    assert torch.load(runs / "a" / "state.pt", weights_only=True)["step"] == 1
    assert train.main([*common, "--steps", "2"]) == 0
    assert "finished" in capsys.readouterr().out
    assert [row["label"] for row in table(runs / "b" / "samples.csv")] == ["colon-tissue-gland"] * 2

    code = evaluate.main([
        *("--data", str(data / "a"), str(data / "b"), "--out", str(out)),
        *("--model", f"U-Net={runs}", "--model", "Otsu=otsu", "--model", f"Other={runs / 'b'}"),
    ])

    assert code == 0
    rows = table(out / "compare_by_source.csv")
    assert {"U-Net", "Otsu", "Other"} <= set(rows[0])
    assert [row["n"] for row in rows] == ["4", "2", "6"]
    scores = table(out / "models" / "U-Net" / "samples.csv")
    assert sorted({row["source"] for row in scores}) == ["a", "b"]
    tumor = [row for row in table(out / "models" / "Other" / "samples.csv") if row["source"] == "a"]
    assert {float(row["dice"]) for row in tumor} == {0.0}  # its model of b knows neither label


def test_a_straight_training_is_the_same_as_a_resumed_one(train, data, tmp_path):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    common = [*UNET, "--data", str(data), "--sources", "b", "--steps", "2"]

    assert train.main([*common, "--out", str(straight)]) == 0
    assert train.main([*common, "--out", str(resumed), "--minutes", "0"]) == 0
    assert train.main([*common, "--out", str(resumed)]) == 0

    files = [run / "b" / "weights" / "model.safetensors" for run in (straight, resumed)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_whole_images_are_taken_at_any_resolution(train, data, tmp_path):
    command = [*UNET, "--steps", "1", "--data", str(data), "--out", str(tmp_path)]

    assert train.main([*command, "--sources", "b", "--preset", "paper"]) == 0

    config = json.loads((tmp_path / "b" / "weights" / "config.json").read_text())
    assert config["mpp_range"] is None
    assert config["labels"] == ["colon-tissue-gland"]


def test_sam_path_starts_from_segment_anything(train, data, tmp_path, capsys):
    from transformers import SamConfig, SamModel

    sizes = {"hidden_size": 16, "image_size": 64, "patch_size": 16}
    vision = {
        "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 16, "output_channels": 16,
        "global_attn_indexes": [0], "num_pos_feats": 8,
    }  # fmt: skip
    decoder = {"hidden_size": 16, "num_hidden_layers": 1, "mlp_dim": 16, "iou_head_hidden_dim": 8}
    sam = SamModel(
        SamConfig(
            vision_config=sizes | vision,
            prompt_encoder_config=sizes | {"image_embedding_size": 4},
            mask_decoder_config=decoder,
        )
    )
    sam.save_pretrained(tmp_path / "sam")
    common = ["--model", "sam-path", "--data", str(data), "--out", str(tmp_path / "runs")]
    common += ["--shapes", "1x64", "--sources", "b", "--steps", "1"]

    assert train.main([*common, "--sam", str(tmp_path / "sam")]) == 0
    assert (tmp_path / "runs" / "b" / "weights" / "model.safetensors").is_file()
    assert train.main(common) == 1
    assert "--sam" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--sources", "c"], "no source is called ['c']; there are ['a', 'b']"),
        (["--encoder", "resnet0"], "resnet0"),
        (["--model", "nnunet", "--nnunet", "nowhere"], "pip install nnunetv2"),
    ],
)
def test_what_cannot_be_used_is_named(train, data, tmp_path, capsys, change, said):
    command = [*UNET, "--steps", "1", "--data", str(data), "--out", str(tmp_path / "out"), *change]

    assert train.main(command) == 1
    assert said in capsys.readouterr().err


def test_another_training_in_the_folder_is_named(train, data, tmp_path, capsys):
    common = [*UNET, "--steps", "1", "--data", str(data), "--out", str(tmp_path), "--sources", "b"]
    assert train.main(common) == 0

    assert train.main([*common, "--lr", "0.5"]) == 1
    assert "belongs to another training; (then, now): {'train.lr': (0.0003, 0.5)}" in (
        capsys.readouterr().err
    )


def test_models_of_other_sources_are_named(train, evaluate, data, tmp_path, capsys):
    runs = tmp_path / "runs"
    command = [*UNET, "--steps", "1", "--data", str(data), "--out", str(runs), "--sources", "b"]
    assert train.main(command) == 0
    common = ["--data", str(data / "a"), "--out", str(tmp_path / "out"), "--model"]

    assert evaluate.main([*common, f"U-Net={runs}"]) == 1
    assert "trained on b, and the questions are of a" in capsys.readouterr().err
    assert evaluate.main([*common, f"U-Net={data}"]) == 1
    assert "no model in it" in capsys.readouterr().err
    assert evaluate.main([*common[:-1], "--detector", "DINO=here"]) == 1
    assert "NAME=DINO,WEIGHTS" in capsys.readouterr().err


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    """Twenty real images of two sources, six of them to be scored."""
    data = tmp_path_factory.mktemp("real")
    images = read_annotated(shared / "data")
    for source in ("glas", "pannuke_figures"):
        some = [one for one in images if one.source == source and one.read().masks][:10]
        for split, part in (("train", some[:7]), ("test", some[7:])):
            items = [PromptedImage(one.name, one.region, one.read(), one.mpp) for one in part]
            write_biomedparse(data / source, split, items)
    return data


TWO_MINUTES = {
    "deeplabv3plus": ("--encoder", "resnet18", "--shapes", "2x256", "--steps", "100"),
    "unet": ("--encoder", "resnet18", "--shapes", "2x256", "--steps", "100"),
    "nnunet": ("--steps", "40"),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", TWO_MINUTES)
def test_two_minutes_on_twenty_real_images(train, evaluate, real, tmp_path, model):
    """A minute on each source. How far a model comes in it depends on the machine."""
    options = []
    if model == "nnunet":
        programs = os.environ.get("XPATH_NNUNET") or shutil.which("nnUNetv2_train")
        if programs is None:
            pytest.skip("no nnUNetv2_train on the path, nor its folder in XPATH_NNUNET")
        folder = Path(programs) if Path(programs).is_dir() else Path(programs).parent
        options = ["--nnunet", str(folder)]
    runs, out = tmp_path / "runs", tmp_path / "out"
    command = ["--model", model, *TWO_MINUTES[model], "--minutes", "1", "--data", str(real)]

    assert train.main([*command, "--out", str(runs), *options]) == 0
    asked = [str(real / source) for source in ("glas", "pannuke_figures")]
    asked = ["--data", *asked, "--out", str(out), "--model", f"{model}={runs}", *options]
    assert evaluate.main(asked) == 0

    rows = {row["source"]: row for row in table(out / "compare_by_source.csv")}
    scores = table(out / "models" / model / "samples.csv")
    assert len(scores) == int(rows["overall"]["n"]) >= 10
    assert 0 < float(rows["overall"][model]) < 1
    assert any(row["found"] == "True" for row in scores)
