import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from xpath.grounded.checkpoint import GroundedInfo, load_grounded, save_grounded


@pytest.fixture(scope="module")
def pipeline(load_script):
    return load_script("pipelines/train_grounded.py")


@pytest.fixture(scope="module")
def examiner(load_script):
    return load_script("pipelines/evaluate_grounded.py")


@pytest.fixture(scope="module")
def tiny(load_script):
    return load_script("tests/grounded/conftest.py")


@pytest.fixture(scope="module")
def weights(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    tokenizer = tiny.tiny_tokenizer()
    model = tiny.tiny_model(tokenizer)
    info = GroundedInfo(name="tiny", licence="CC0-1.0")
    save_grounded(folder, model.state_dict(), model.config, tokenizer, info)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A disc in BiomedParseData's layout, and its report."""
    folder = tmp_path_factory.mktemp("data") / "discs"
    (folder / "train").mkdir(parents=True)
    (folder / "train_mask").mkdir()
    rows, columns = np.ogrid[:64, :64]
    disc = (rows - 30) ** 2 + (columns - 30) ** 2 < 200
    image = np.where(disc[..., None], (90, 30, 120), (230, 200, 220)).astype(np.uint8)
    Image.fromarray(image).save(folder / "train" / "a_pathology_breast.png")
    mask = "a_pathology_breast_tumor.png"
    Image.fromarray(disc.astype(np.uint8) * 255).save(folder / "train_mask" / mask)
    sentence = {"raw": "tissue-level tumor in breast pathology.", "sent_id": 0}
    index = {
        "images": [{"id": 0, "file_name": "a_pathology_breast.png", "height": 64, "width": 64}],
        "annotations": [
            {"id": 0, "image_id": 0, "mask_file": mask, "sentences": [sentence], "split": "train"}
        ],
    }
    (folder / "train.json").write_text(json.dumps(index))
    report = {
        "image_file": "train/a_pathology_breast.png",
        "mask_file": f"train_mask/{mask}",
        "abnormality": "tumor",
        "anatomy": "breast",
        "report": "a dark disc",
    }
    (folder / "reports.json").write_text(json.dumps([report]))
    return folder


def command(weights, data, out, *more):
    arguments = ["--init", weights, "--data", data, "--reports", data / "reports.json"]
    arguments += ["--out", out, "--rank", 4, "--batch", 2, "--accumulate", 2, "--lr", 1e-3]
    return [str(it) for it in (*arguments, "--max-tiles", 1, "--no-repeat", *more)]


def test_training_goes_on_where_it_stopped_and_leaves_weights(pipeline, weights, data, tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"

    assert pipeline.main(command(weights, data, whole, "--steps", 4)) == 0
    assert pipeline.main(command(weights, data, halves, "--steps", 4, "--minutes", 0)) == 0
    stopped = torch.load(halves / "state.pt", weights_only=True)["step"]
    assert pipeline.main(command(weights, data, halves, "--steps", 4)) == 0

    assert stopped == 1
    with (whole / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert all(float(row["language"]) > 0 for row in rows)
    one, other = load_grounded(whole / "weights"), load_grounded(halves / "weights")
    assert one.info.digest == other.info.digest != load_grounded(weights).info.digest
    assert (one.info.name, one.info.licence) == ("tiny-tuned", "CC0-1.0")
    assert (
        "fine-tuned for 4 steps on discs, reports.json"
        in (whole / "weights" / "README.md").read_text()
    )


def test_other_settings_are_not_resumed(pipeline, weights, data, tmp_path, capsys):
    assert pipeline.main(command(weights, data, tmp_path / "run", "--steps", 1)) == 0

    assert pipeline.main(command(weights, data, tmp_path / "run", "--steps", 2, "--seed", 1)) == 1
    assert "belongs to another training" in capsys.readouterr().err


def test_weights_that_are_none_are_refused(pipeline, data, tmp_path, capsys):
    assert pipeline.main(command(tmp_path / "nothing", data, tmp_path / "run")) == 1
    assert "is no folder" in capsys.readouterr().err


def examine(weights, data, out, *more):
    arguments = ["--weights", weights, "--data", data, "--split", "train", "--out", out]
    arguments += ["--reports", data / "reports.json", "--max-tokens", 8, "--max-tiles", 1, *more]
    return [str(it) for it in arguments]


def table_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_examination_judges_every_task(examiner, weights, data, tmp_path, capsys):
    assert examiner.main(examine(weights, data, tmp_path)) == 0

    answers = table_of(tmp_path / "answers.csv")
    assert [row["task"] for row in answers] == ["segment", "disease", "region", "anatomy", "report"]
    digest = load_grounded(weights).info.digest
    assert {(row["model"], row["weights_sha256"]) for row in answers} == {("tiny", digest)}
    assert all(row["question"] and row["truth"] for row in answers)
    scores = {(row["task"], row["measure"]): row for row in table_of(tmp_path / "scores.csv")}
    assert float(scores["segment", "dice"]["mean"]) == float(answers[0]["dice"])
    assert set(scores) == {
        ("segment", "dice"),
        *((task, measure) for task in ("disease", "anatomy") for measure in ("right", "dice")),
        ("region", "right"),
        ("report", "dice"),
    }
    assert "segment dice" in capsys.readouterr().out


def test_examination_names_what_is_broken(examiner, weights, data, tmp_path, capsys):
    path = data / "broken.json"
    path.write_text((data / "reports.json").read_text().replace("a_pathology_breast.png", "b.png"))

    code = examiner.main(examine(weights, data, tmp_path, "--reports", path, "--tasks", "segment"))

    assert code == 1
    assert "left out" in capsys.readouterr().err
    assert [row["task"] for row in table_of(tmp_path / "answers.csv")] == ["segment"]
