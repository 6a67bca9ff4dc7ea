"""The pipeline on feature files: tiny files as CLAM and TRIDENT write them, and those of a run."""

import csv
import json
import shutil
import tempfile

import h5py
import numpy as np
import pytest
import torch
import zarr

from xpath.device import REFUSED
from xpath.errors import DataError
from xpath.mil.classifier import CLASSIFIERS, load_classifier
from xpath.store.clam_tables import read_clam_split
from xpath.testing.cohort import CohortPlan, make_cohort


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
        features[:, 0] += 3.0 * kind
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
    tables = out / "tables"
    metrics = json.loads((tables / "metrics.json").read_text())
    splits = read_clam_split(tables / "splits_0.csv")
    predictions = rows(tables / "predictions.csv")
    assert len(splits) == 48
    assert {row["slide_id"]: row["split"] for row in rows(tables / "split.csv")} == splits
    assert {row["slide_id"]: row["split"] for row in predictions} == splits
    assert {row["model"] for row in predictions} == {"attention", "mean"}
    test = [row for row in metrics["metrics"] if row["split"] == "test"]
    assert [row["model"] for row in test] == ["attention", "mean"]
    for row in test:
        assert row["patients"] == len({r["patient"] for r in predictions if r["split"] == "test"})
        assert 0.5 < row["auc"] <= 1.0
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
        assert {"ece", "brier", "log_loss"} <= row.keys()
    (difference,) = metrics["differences"]
    assert difference["auc"] == pytest.approx(test[0]["auc"] - test[1]["auc"])
    assert difference["delong_p"] <= 1
    assert metrics["features"] == {"layout": "clam", "encoder": ""}
    assert metrics["left_out"] == []
    for picture in ("roc.png", "reliability.png"):
        assert (out / "figures" / picture).stat().st_size > 5000
    model = load_classifier(out / "models" / "attention")
    assert model.classes == ("IDC", "ILC")
    assert len(model.metadata["training"]["train_slides"]) == sum(
        split == "train" for split in splits.values()
    )
    named = {row["patient"]: set() for row in predictions}
    for row in predictions:
        named[row["patient"]].add(splits[row["slide_id"]])
    assert all(len(where) == 1 for where in named.values())


def test_two_ways_to_hold_out_are_refused(pipeline, clam, capsys):
    assert run(pipeline, clam, "--split", "splits_0.csv", "--folds", "3") == 1

    assert "leave out folds and sites" in capsys.readouterr().err


def test_the_answers_do_not_depend_on_the_memory(pipeline, clam, monkeypatch):
    files = []
    make = tempfile.TemporaryFile
    monkeypatch.setattr(
        "xpath.mil.feature_cache.tempfile.TemporaryFile",
        lambda **at: files.append(at) or make(**at),
    )
    tables = []
    for limit, kept in (("8", 0), ("0", 1)):
        assert run(pipeline, clam, "--epochs", "2", "--memory-gb", limit) == 0
        assert len(files) == kept
        tables.append((clam / "run/tables/predictions.csv").read_bytes())

    assert tables[0] == tables[1]


def test_sites_are_kept_together_and_every_slide_is_predicted(pipeline, clam):
    table = clam / "labels.csv"
    table.write_text(table.read_text().replace("case_id", "somebody"))  # patients from barcodes

    assert run(pipeline, clam, "--folds", "3", "--by", "site", "--calibrate", "--epochs", "2") == 0

    predictions = [r for r in rows(clam / "run/tables/predictions.csv") if r["model"] == "mean"]
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

    table = rows(clam / "run/tables/predictions.csv")
    tested = [row["slide_id"] for row in table if row["split"] == "test"]
    assert tested == sorted(names[32:]) * 2
    assert {row["slide_id"] for row in table} == {*names[:24], *names[32:]}


def test_slides_that_fail_are_named_and_the_others_go_on(pipeline, clam, caplog):
    (clam / "features/pt_files" / f"{name_of(1)}.pt").unlink()
    (clam / "features/h5_files" / f"{name_of(2)}.h5").write_bytes(b"half a file")

    assert run(pipeline, clam, "--epochs", "2") == 1

    assert f"{name_of(1)}: no feature file" in caplog.text
    assert f"{name_of(2)}.h5 is truncated" in caplog.text
    left_out = json.loads((clam / "run/tables/metrics.json").read_text())["left_out"]
    assert len(left_out) == 2


def test_trident_files_of_two_encoders_are_not_mixed(pipeline, clam, capsys):
    for number, path in enumerate(sorted((clam / "features/h5_files").glob("*.h5"))):
        with h5py.File(path, "r+") as file:
            file["features"].attrs["encoder"] = "uni" if number else "conch"

    assert run(pipeline, clam, "--epochs", "1") == 1
    assert "several encoders" in capsys.readouterr().err


def test_classifiers_are_trained_on_the_device(pipeline, clam, monkeypatch):
    monkeypatch.delitem(REFUSED, "meta")  # the one other device there is everywhere
    seen = []

    def fit(model, *_, **__):
        seen.append(model.classifier.weight.device.type)
        raise DataError("enough")

    monkeypatch.setitem(CLASSIFIERS, "attention", CLASSIFIERS["attention"]._replace(fit=fit))

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
        found.append([float(row["p ILC"]) for row in rows(clam / "run/tables/predictions.csv")])

    np.testing.assert_allclose(found[1], found[0], atol=1e-3)
    assert load_classifier(clam / "run/models/attention").classifier.weight.device.type == "cpu"


@pytest.mark.parametrize("options", [("--objects", "x"), ("--mpp", "1")])
def test_what_only_slides_have_is_refused_on_feature_files(pipeline, clam, options, capsys):
    assert run(pipeline, clam, *options) == 1
    assert "decided when the features were made" in capsys.readouterr().err


def test_options_are_settings_in_both_modes(pipeline, clam, monkeypatch):
    """The same options give the same settings; a setting of one's own wins over an option."""
    seen = []
    monkeypatch.setattr(pipeline, "run_chain", lambda study, **_: seen.append(study.config) or True)
    monkeypatch.setattr("xpath.study.study.Study.require_tools", lambda *_, **__: None)
    monkeypatch.setattr(
        pipeline,
        "train_on_features",
        lambda _files, _labels, config, _folder, **_: seen.append(config) or pytest.skip(),
    )
    (clam / "slides").mkdir()
    for number in range(48):
        (clam / "slides" / f"{name_of(number)}.svs").write_bytes(b"slide")
    options = ["--folds", "4", "--by", "site", "--calibrate", "--epochs", "7", "--lr", "0.5"]
    options += ["--memory-gb", "2", "--seed", "3", "--set", "split.seed=9", "--device", "cpu"]
    arguments = [clam / "slides", clam / "labels.csv", "--out", clam / "run", *options]

    assert pipeline.main([str(a) for a in arguments]) == 0
    with pytest.raises(pytest.skip.Exception):
        run(pipeline, clam, *options)

    one, other = seen
    assert one == other
    assert (one.split.folds, one.split.by, one.split.seed) == (4, "site", 9)
    assert (one.classifier.calibrate, one.memory_gb, one.explain.seed) == (True, 2, 3)
    training = one.classifier.train
    assert (training.epochs, training.lr, training.seed) == (7, 0.5, 3)


def test_classifiers_of_objects_are_left_out_where_there_are_none(pipeline, clam, caplog, capsys):
    assert run(pipeline, clam, "--epochs", "1") == 0
    assert "hold no objects: object_aware, object_fractions" in caplog.text

    only = "classifier.models=['object_aware']"
    assert run(pipeline, clam, "--set", only) == 1
    assert "hold no objects, which object_aware learn" in capsys.readouterr().err


def test_labels_and_splits_of_what_is_not_there_are_named_and_exit_with_1(pipeline, clam, caplog):
    table = clam / "labels.csv"
    table.write_text(table.read_text() + "p,gone,IDC\np,unlabelled,NA\n")

    assert run(pipeline, clam, "--epochs", "1") == 1

    assert "left out: gone: no feature file" in caplog.text
    assert "1 of 50 slides have no label (NA 1 times)" in caplog.text


def test_what_is_trained_stays_until_something_changes(pipeline, clam):
    seal = clam / "run/models/attention.done.json"

    def key(*options):
        assert run(pipeline, clam, "--epochs", "1", *options) == 0
        return json.loads(seal.read_text())["key"], seal.stat().st_mtime_ns

    first = key()
    assert key("--set", "classifier.models=['attention']") == first  # the others play no part
    assert key("--set", "classifier.attention.hidden=9")[0] != first[0]
    assert key()[0] == first[0]
    with h5py.File(clam / "features/h5_files" / f"{name_of(0)}.h5", "r+") as file:
        file["features"][0, 0] += 1
    assert key()[0] != first[0]


def test_what_is_missing_is_told(pipeline, clam, capsys):
    assert pipeline.main(["--out", str(clam / "run")]) == 1
    assert "--features DIR" in capsys.readouterr().err
    assert pipeline.main(["--features", str(clam), "--out", str(clam / "run")]) == 1
    assert "--labels" in capsys.readouterr().err
    assert run(pipeline, clam, "--by", "site") == 1
    assert "2 or more" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        pipeline.main(["--help"])
    assert "TRIDENT (features_<encoder>), STAMP" in capsys.readouterr().out


def test_a_table_of_lazyslides_stores_is_chosen_on_the_command_line(pipeline, clam, caplog, rng):
    """Two encoders a store: without a choice every slide is left out, and told how to choose."""
    folder = clam / "lazy"
    for number in range(48):
        root = zarr.create_group(folder / f"{name_of(number)}.zarr")
        for name in ("uni_tiles", "resnet50_tiles"):
            group = root.create_group(f"tables/{name}")
            group.attrs["region"] = "tiles"
            values = rng.normal(size=(5, 8)).astype(np.float32) + 3 * int(number // 2 % 3 == 0)
            group.create_array("X", data=values)
    shutil.rmtree(clam / "features")
    folder.rename(clam / "features")

    assert run(pipeline, clam, "--epochs", "1") == 1
    assert run(pipeline, clam, "--epochs", "1", "--table", "uni_tiles") == 0

    about = json.loads((clam / "run/models/attention/config.json").read_text())
    assert "uni" in json.dumps(about) and "resnet50" not in json.dumps(about)


@pytest.mark.slow
@pytest.mark.integration
def test_slides_and_their_features_give_the_same_five_folds(pipeline, tmp_path):
    """From drawn slides to pages in five folds; then from the run's feature files, bit for bit."""
    make_cohort(tmp_path / "cohort", CohortPlan(slides=10, side=512, seed=3))
    labels = tmp_path / "cohort/labels.csv"
    options = ["--folds", "5", "--epochs", "4", "--lr", "0.002", "--set", "explain.resamples=100"]
    on_slides = ["--objects", "breast-tissue-tumor,breast-tissue-stroma,breast-nuclei-neoplastic"]
    for setting in ("tissue.min_area_um2=2000.0", "explain.null_draws=1"):
        on_slides += ["--set", setting]
    out, again = tmp_path / "run", tmp_path / "again"

    slides = [tmp_path / "cohort/slides", labels, "--out", out, *options, *on_slides]
    assert pipeline.main([str(argument) for argument in slides]) == 0
    files = ["--features", out, "--labels", labels, "--out", again, *options]
    assert pipeline.main([str(argument) for argument in files]) == 0

    for name in ("split", "predictions", "metrics", "differences", "calibration"):
        table = f"tables/{name}.csv"
        assert (again / table).read_bytes() == (out / table).read_bytes()
    predictions = rows(out / "tables/predictions.csv")
    names = {"attention", "object_aware", "mean", "object_fractions"}
    assert {row["model"] for row in predictions} == names
    assert len(predictions) == 4 * 10
    assert {row["split"] for row in predictions} == {"test"}
    for path in again.glob("models/*/model.safetensors"):
        assert (out / path.relative_to(again)).read_bytes() == path.read_bytes()
    assert len(list(again.glob("models/*/model.safetensors"))) == 4 * 5
    assert len(list(out.glob("slides/*/export/report.html"))) == 10
