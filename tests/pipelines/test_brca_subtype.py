"""The pipeline on feature files: tiny files as CLAM and TRIDENT write them, no slides."""

import csv
import json
import re
import tempfile

import h5py
import numpy as np
import pytest
import torch

from xpath.errors import DataError
from xpath.mil.classifier import load_classifier
from xpath.store.clam_tables import read_clam_split


@pytest.fixture(scope="module")
def pipeline(load_script):
    return load_script("pipelines/brca_subtype.py")


def name_of(number):
    """Two slides of a patient, six sites."""
    return f"TCGA-A{number // 2 % 6}-{number // 2:04d}-01Z-00-DX{number % 2}"


@pytest.fixture
def clam(tmp_path, rng):
    """48 slides of 24 patients, a third ILC; every other slide is a .pt file."""
    folder = tmp_path / "features"
    for part in ("h5_files", "pt_files"):
        (folder / part).mkdir(parents=True)
    lines = ["case_id,slide_id,label"]
    for number in range(48):
        kind = int(number // 2 % 3 == 0)
        features = rng.normal(size=(6 + number % 7, 8)).astype(np.float32)
        features[:3, 0] += 3.0 * kind
        name = name_of(number)
        if number % 2:
            torch.save(torch.from_numpy(features), folder / "pt_files" / f"{name}.pt")
        else:
            with h5py.File(folder / "h5_files" / f"{name}.h5", "w") as file:
                file["features"] = features
                file["coords"] = np.zeros((len(features), 2), np.int32)
        lines.append(f"p{number // 2},{name},{['IDC', 'ILC'][kind]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(pipeline, where, *more):
    arguments = ["--features", where / "features", "--labels", where / "labels.csv"]
    return pipeline.main([str(a) for a in (*arguments, "--out", where / "run", *more)])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_split_gives_everything(pipeline, clam):
    assert run(pipeline, clam, "--epochs", "20", "--lr", "0.02") == 0

    out = clam / "run"
    metrics = json.loads((out / "metrics.json").read_text())
    parts = read_clam_split(out / "splits_0.csv")
    predictions = rows(out / "predictions.csv")
    assert len(parts) == 48
    assert {row["slide_id"] for row in predictions} == {s for s, p in parts.items() if p == "test"}
    assert {row["model"] for row in predictions} == {"attention", "mean"}
    assert metrics["test_patients"] == len({row["patient"] for row in predictions}) < 12
    for name in ("attention", "mean"):
        scores = metrics[name]["auc"]
        assert 0.5 < scores["value"] <= 1.0
        assert scores["low"] <= scores["value"] <= scores["high"]
        assert {"ece", "brier", "log_loss", "temperature"} <= metrics[name].keys()
    assert metrics["difference"]["delong"]["p"] <= 1
    assert metrics["features"] == {"layout": "clam", "encoder": ""}
    assert metrics["left_out"] == []
    for picture in ("roc.png", "reliability.png"):
        assert (out / picture).stat().st_size > 5000
    model = load_classifier(out / "models" / "attention_0")
    assert model.classes == ("IDC", "ILC")
    assert len(model.metadata["training"]["train_slides"]) == sum(
        part == "train" for part in parts.values()
    )
    named = {row["patient"]: set() for row in predictions}
    for row in predictions:
        named[row["patient"]].add(parts[row["slide_id"]])
    assert all(found == {"test"} for found in named.values())


def test_two_ways_to_hold_out_are_refused(pipeline, clam, capsys):
    assert run(pipeline, clam, "--split", "splits_0.csv", "--folds", "3") == 1

    assert "leave out --folds and --by" in capsys.readouterr().err


def test_the_answers_do_not_depend_on_the_memory(pipeline, clam, monkeypatch):
    files = []
    make = tempfile.TemporaryFile
    monkeypatch.setattr(
        "xpath.mil.memory_map.tempfile.TemporaryFile", lambda **at: files.append(at) or make(**at)
    )
    tables = []
    for limit, kept in (("8", 0), ("0", 1)):
        assert run(pipeline, clam, "--epochs", "2", "--memory-gb", limit) == 0
        assert len(files) == kept
        tables.append((clam / "run" / "predictions.csv").read_bytes())

    assert tables[0] == tables[1]


def test_sites_are_kept_together_and_every_slide_is_predicted(pipeline, clam):
    table = clam / "labels.csv"
    table.write_text(table.read_text().replace("case_id", "somebody"))  # patients from barcodes

    assert run(pipeline, clam, "--folds", "3", "--by", "site", "--calibrate", "--epochs", "2") == 0

    predictions = [r for r in rows(clam / "run/predictions.csv") if r["model"] == "mean"]
    folds = {}
    for row in predictions:
        folds.setdefault(row["slide_id"][5:7], set()).add(row["fold"])
    assert len(predictions) == 48
    assert sorted(folds) == [f"A{n}" for n in range(6)]
    assert all(len(found) == 1 for found in folds.values())
    assert predictions[0]["patient"] == "TCGA-A0-0000"


def test_a_split_of_others_is_followed(pipeline, clam, tmp_path):
    names = [name_of(number) for number in range(48)]
    lines = [",train,val,test"] + [
        f"{n},{names[n]},{names[n + 16] if n < 8 else ''},{names[n + 32]}" for n in range(16)
    ]
    (tmp_path / "splits_0.csv").write_text("\n".join(lines) + "\n")

    assert run(pipeline, clam, "--split", tmp_path / "splits_0.csv", "--epochs", "2") == 0

    found = [row["slide_id"] for row in rows(clam / "run/predictions.csv")]
    assert found == names[32:] * 2


def test_slides_that_fail_are_named_and_the_others_go_on(pipeline, clam, capsys):
    (clam / "features/pt_files" / f"{name_of(1)}.pt").unlink()
    (clam / "features/h5_files" / f"{name_of(2)}.h5").write_bytes(b"half a file")

    assert run(pipeline, clam, "--epochs", "2") == 1

    error = capsys.readouterr().err
    assert f"{name_of(1)}: no feature file" in error
    assert f"{name_of(2)}.h5 is truncated" in error
    left_out = json.loads((clam / "run/metrics.json").read_text())["left_out"]
    assert len(left_out) == 2


def test_trident_files_of_two_encoders_are_not_mixed(pipeline, clam, capsys):
    for number, path in enumerate(sorted((clam / "features/h5_files").glob("*.h5"))):
        with h5py.File(path, "r+") as file:
            file["features"].attrs["encoder"] = "uni" if number else "conch"

    assert run(pipeline, clam, "--epochs", "1") == 1
    assert "several encoders" in capsys.readouterr().err


def test_classifiers_are_trained_on_the_device(pipeline, clam, monkeypatch):
    seen = []

    def out_of_fold(build, *_, **__):
        seen.append(build().classifier.weight.device.type)
        raise DataError("enough")

    monkeypatch.setattr("xpath.mil.cohort_features.out_of_fold", out_of_fold)

    assert run(pipeline, clam, "--device", "meta") == 1
    assert run(pipeline, clam) == 1
    assert seen == ["meta", "cpu"]


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_told_at_once(pipeline, clam, device, capsys):
    assert run(pipeline, clam, "--device", device) == 1
    assert f"device '{device}' cannot be used" in capsys.readouterr().err
    assert not (clam / "run").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_answers_as_the_cpu_does(pipeline, clam):
    found = []
    for device in ("cpu", "cuda"):
        assert run(pipeline, clam, "--epochs", "3", "--device", device) == 0
        found.append([float(row["p ILC"]) for row in rows(clam / "run/predictions.csv")])

    np.testing.assert_allclose(found[1], found[0], atol=1e-3)
    assert load_classifier(clam / "run/models/attention_0").classifier.weight.device.type == "cpu"


@pytest.mark.parametrize(
    ("options", "instead"),
    [
        (("--folds", "3"), "--features"),
        (("--by", "patient"), "--features"),
        (("--split", "splits_0.csv"), "--set split.seed"),
        (("--epochs", "100"), "--set classifier.train.epochs"),  # the default, yet it was asked for
        (("--lr", "0.1"), "--set classifier.train.lr"),
        (("--seed", "0"), "--set split.seed=1 --set classifier.train.seed=1"),
        (("--calibrate",), "a temperature is fitted"),
        (("--memory-gb", "8"), "--set memory_gb"),
    ],
)
def test_options_of_feature_files_are_refused_on_slides(
    pipeline, tmp_path, options, instead, capsys
):
    arguments = [tmp_path, tmp_path / "labels.csv", "--out", tmp_path / "run", *options]

    assert pipeline.main([str(a) for a in arguments]) == 1

    error = capsys.readouterr().err
    assert re.search(f"{options[0]} does nothing on slides; .*({instead})", error)


@pytest.mark.parametrize(
    "options",
    [("--set", "objects.device=cuda"), ("--config", "a.toml"), ("--objects", "x"), ("--mpp", "1")],
)
def test_options_of_slides_are_refused_on_feature_files(pipeline, clam, options, capsys):
    assert run(pipeline, clam, *options) == 1
    assert f"{options[0]} does nothing on feature files; " in capsys.readouterr().err


def test_what_is_missing_is_told(pipeline, clam, capsys):
    assert pipeline.main(["--out", str(clam / "run")]) == 1
    assert "--features DIR" in capsys.readouterr().err
    assert pipeline.main(["--features", str(clam), "--out", str(clam / "run")]) == 1
    assert "--labels" in capsys.readouterr().err
    assert run(pipeline, clam, "--by", "site") == 1
    assert "2 or more" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        pipeline.main(["--help"])
    assert "CLAM (h5_files, pt_files), TRIDENT" in capsys.readouterr().out
