"""Table 19 of the paper by one command: a planted cohort, folds, seeds, controls, the preset."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from xpath.config import load_config
from xpath.geometry import PatchGrid, Size
from xpath.metrics.classification import classification_metrics
from xpath.metrics.roc import compare_auc
from xpath.mil.classifier import CLASSIFIERS, CONTROLS, ClassifierConfig
from xpath.mil.cohort import CohortConfig, find_slides, read_cohort, split_cohort
from xpath.mil.controls import parameter_count
from xpath.mil.cross_validation import out_of_fold
from xpath.store.features import SlideFeatures, write_features
from xpath.store.tables import read_table
from xpath.study.cohort import cohort_config
from xpath.study.config import StudyConfig

BAGS, PATCHES, WIDTH = 40, 8, 4
OBJECTS = ("breast-tissue-tumor", "breast-tissue-stroma", "breast-tissue-fat")
FOLDS, SEEDS = 3, 2
SETTINGS = (
    "classifier.models=['attention', 'object_aware']",
    f"split.folds={FOLDS}",
    f"classifier.seeds={SEEDS}",
    "split.train=0.6",
    "split.validation=0.3",
    "classifier.train.epochs=12",
    "classifier.train.lr=0.03",
)


@pytest.fixture(scope="module")
def pipeline(load_script):
    return load_script("pipelines/brca_subtype.py")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """40 slides whose class is in the features of their tumour, 20 patients with two each."""
    folder, rng = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    (folder / "features").mkdir()
    lines = ["slide_id,patient,label"]
    corners = np.stack([np.arange(PATCHES) * 256, np.zeros(PATCHES)], axis=1).astype(np.int64)
    grid = PatchGrid(
        coords=corners, footprint=256, pixels=256, mpp=0.5, overlap=0,
        slide_size=Size(256 * PATCHES, 256), slide_mpp=0.5,
    )  # fmt: skip
    for number in range(BAGS):
        label = number // 2 % 2
        coverage = rng.uniform(0.05, 0.1, (PATCHES, len(OBJECTS))).astype(np.float32)
        objects = rng.normal(size=(PATCHES, len(OBJECTS), WIDTH)).astype(np.float32)
        objects[:, 0, :2] += 5.0 * label
        mean = (coverage[..., None] * objects).sum(axis=1) + rng.normal(size=(PATCHES, WIDTH))
        features = SlideFeatures(
            slide_id=f"s{number:02d}", grid=grid, features=mean.astype(np.float32),
            object_features=objects.astype(np.float16), object_coverage=coverage, objects=OBJECTS,
            provenance={"encoder": "drawn"},
        )  # fmt: skip
        write_features(folder / "features" / f"s{number:02d}.h5", features)
        lines.append(f"s{number:02d},p{number // 2},{('IDC', 'ILC')[label]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def call(pipeline, planted, name, *options):
    """The run folder of the pipeline on the planted features."""
    arguments = ["--features", planted / "features", "--labels", planted / "labels.csv"]
    arguments += ["--out", planted / name, *options]
    assert pipeline.main([str(one) for one in arguments]) == 0
    return planted / name


@pytest.fixture(scope="module")
def ran(pipeline, planted):
    return call(pipeline, planted, "run", *(f"--set={one}" for one in SETTINGS))


@pytest.fixture(scope="module")
def table(ran):
    rows = read_table(
        ran / "tables" / "table19.csv",
        **dict.fromkeys(
            ("auc_mean", "auc_std", "acc_mean", "f1_std", "auc_pooled", "auc_pooled_low",
             "auc_difference", "delong_p"),
            float,
        ),
    )  # fmt: skip
    return {row["model"]: row for row in rows}


def test_the_object_aware_model_finds_what_was_planted(table):
    aware = table["object_aware"]
    assert aware["auc_pooled"] >= 0.95
    assert aware["auc_pooled_low"] > table["attention"]["auc_pooled_low"]
    assert aware["auc_difference"] > 0.05
    assert (aware["folds"], aware["seeds"]) == (str(FOLDS), str(SEEDS))


def test_no_slide_is_in_its_own_training(ran):
    seen = []
    for path in ran.glob("models/object_aware_*/config.json"):
        slides = json.loads(path.read_text())["metadata"]["slides"]
        patients = {name: {int(s[1:]) // 2 for s in those} for name, those in slides.items()}
        assert not patients["test"] & (patients["train"] | patients["validation"])
        seen += slides["test"]
    assert sorted(seen) == sorted([f"s{number:02d}" for number in range(BAGS)] * SEEDS)


def test_the_table_is_what_the_functions_give_by_hand(ran, planted, table):
    config = cohort_config(load_config(StudyConfig, None, SETTINGS), "cpu")
    slides, _ = find_slides(planted / "features", planted / "labels.csv")
    cohort = read_cohort(slides, config)
    splits = split_cohort(cohort, config.split)
    held = {}
    for name in ("attention", "object_aware"):
        row, own = CLASSIFIERS[name], config.classifier.settings_of(name)
        held[name] = [
            out_of_fold(
                lambda row=row, own=own: row.build(cohort.sizes, own),
                cohort.bags[row.reads],
                splits,
                replace(config.classifier.train, seed=FOLDS * seed),
            )
            for seed in range(SEEDS)
        ]
        scores = [
            classification_metrics(
                one.predictions.probability[one.fold == fold],
                one.predictions.label[one.fold == fold],
            )
            for one in held[name]
            for fold in range(FOLDS)
        ]
        assert len(scores) == FOLDS * SEEDS
        assert table[name]["auc_mean"] == np.mean([score.auc for score in scores])
        assert table[name]["auc_std"] == np.std([score.auc for score in scores], ddof=1)
        assert table[name]["acc_mean"] == np.mean([s.balanced_accuracy for s in scores])
        assert table[name]["f1_std"] == np.std([score.f1 for score in scores], ddof=1)
        pooled = held[name][0].predictions
        assert table[name]["auc_pooled"] == classification_metrics(*pooled[2:4]).auc
    first, second = (held[name][0].predictions for name in ("object_aware", "attention"))
    compared = compare_auc(
        first.probability[:, 1], second.probability[:, 1], first.label, groups=cohort.patients
    )
    assert table["object_aware"]["delong_p"] == compared.p
    assert np.isnan(table["attention"]["delong_p"])


def test_controls_are_rows_of_every_table(pipeline, planted):
    run = call(pipeline, planted, "controls", "--controls", "--epochs", "1")

    rows = read_table(run / "tables" / "table19.csv")
    assert {"attention", "object_aware", *CONTROLS} < {row["model"] for row in rows}
    pairs = {(row["model"], row["minus"]) for row in read_table(run / "tables/differences.csv")}
    assert {("object_aware", control) for control in CONTROLS} < pairs


def test_a_control_sees_no_names_no_objects_or_has_as_many_weights(planted):
    every = ClassifierConfig().with_controls()
    slides, _ = find_slides(planted / "features", planted / "labels.csv")
    cohort = read_cohort(slides, CohortConfig(classifier=every))
    patches, objects = cohort.bags["patches"][0], cohort.bags["objects"][0]
    unnamed, whole = (cohort.bags_for(n)[0] for n in ("without_names", "without_objects"))

    assert not torch.equal(unnamed.features, objects.features)
    assert torch.equal(unnamed.features.sort(dim=1).values, objects.features.sort(dim=1).values)
    assert torch.equal(unnamed.features, cohort.bags_for("without_names")[0].features)
    assert all(torch.equal(whole.features[:, j], patches.features) for j in range(len(OBJECTS)))
    counts = [
        parameter_count(CLASSIFIERS[name].build(cohort.sizes, every.settings_of(name)))
        for name in ("object_aware", "capacity_matched")
    ]
    assert counts[1] == pytest.approx(counts[0], rel=0.1)


def test_the_preset_is_the_paper(pipeline, planted, monkeypatch):
    seen = []
    monkeypatch.setattr(
        pipeline, "train_on_features", lambda _f, _l, config, *_, **__: seen.append(config) or 1 / 0
    )
    arguments = ["--features", planted / "features", "--labels", planted / "labels.csv"]
    arguments += ["--out", planted / "preset", "--preset", "paper", "--encoder", "conch.bin"]
    with pytest.raises(ZeroDivisionError):
        pipeline.main([str(one) for one in arguments])

    (config,) = seen
    train = config.classifier.train
    assert (train.lr, train.weight_decay, train.bags_per_step) == (2e-4, 1e-5, 1)
    assert (train.class_weight, train.scale) == ("none", False)
    assert (config.grid.patch_px, config.objects.encoder, config.objects.encoder_size) == (
        1024, "conch", 224,
    )  # fmt: skip
    assert config.objects.encoder_weights.endswith("/conch.bin")
    assert config.explain.splits == ("validation", "test")
    assert (config.explain.hide, config.split.train, config.split.validation) == ("blur", 0.7, 0.1)
