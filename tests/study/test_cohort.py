"""All slides together, on features made by hand: nothing here segments a slide."""

from __future__ import annotations

import csv
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from xpath.batch.done import mark_done, read_key
from xpath.batch.slides import SlideEntry
from xpath.errors import ConfigError, DataError, StoreError
from xpath.geometry import Mpp, PatchGrid, Size
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.train import TrainConfig
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.store.features import SlideFeatures, write_features
from xpath.store.tables import write_table
from xpath.study.chain import to_explain
from xpath.study.cohort import (
    divide,
    load_classifiers,
    tabulate_importance,
    train_classifiers,
)
from xpath.study.config import ClassifierConfig, ObjectsConfig, StudyConfig
from xpath.study.folder import RunFolder
from xpath.study.slides import explain_key
from xpath.study.study import Study

OBJECTS = ("breast-tissue-tumor", "breast-tissue-stroma")
CONFIG = StudyConfig(
    objects=ObjectsConfig(labels=OBJECTS),
    classifier=ClassifierConfig(hidden=4, train=TrainConfig(epochs=2)),
)
NOWHERE = "cuda:99"  # no machine has it


def features_of(slide_id, rng):
    grid = PatchGrid(
        coords=np.array([(x * 128, 0) for x in range(3)], np.int64),
        footprint=128,
        pixels=128,
        mpp=Mpp(0.5),
        overlap=0,
        slide_size=Size(384, 128),
        slide_mpp=0.5,
    )
    return SlideFeatures(
        slide_id=slide_id,
        grid=grid,
        features=rng.normal(size=(3, 5)),
        object_features=rng.normal(size=(3, 3, 5)),
        object_coverage=np.full((3, 3), 0.3),
        objects=(*OBJECTS, "other"),
    )


@pytest.fixture
def give(rng):
    """Gives slides features, as if they had been segmented."""

    def make(study, slides):
        for entry in slides:
            path = study.folder.features(entry.slide_id)
            write_features(path, features_of(entry.slide_id, rng))
            mark_done(path, study.features_key(entry))

    return make


@pytest.fixture
def study(tmp_path, rng, give):
    """Ten patients of two slides each, every other one ILC; no table says whose slide is whose."""
    (tmp_path / "a.svs").write_bytes(b"slide")
    slides = tuple(
        SlideEntry(
            slide_id=f"TCGA-A2-{patient:04d}-01Z-00-DX{number}",
            path=tmp_path / "a.svs",
            label=("IDC", "ILC")[patient % 2],
        )
        for number in (1, 2)
        for patient in range(10)
    )
    made = Study(RunFolder(tmp_path / "run"), CONFIG, slides)
    give(made, slides)
    return made


def of_dcis(tmp_path, count):
    return tuple(
        SlideEntry(slide_id=f"dcis-{n}", path=tmp_path / "a.svs", label="DCIS")
        for n in range(count)
    )


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_slides_of_a_patient_stay_together(study):
    parts = divide(study)

    found = {}
    for slide_id, part in parts.items():
        found.setdefault(slide_id[:12], set()).add(part)
    assert len(found) == 10
    assert all(len(one) == 1 for one in found.values())
    assert set(parts.values()) == {"train", "validation", "test"}


def test_a_misspelt_label_does_not_end_all_holding_out(study, give):
    first, *others = study.slides
    slip = replace(study, slides=(replace(first, label="Idc"), *others))

    with pytest.raises(DataError, match=r"'Idc': 1.*misspelt"):
        divide(slip)


def test_few_patients_of_all_classes_train_together(study, caplog):
    few = replace(study, slides=tuple(s for s in study.slides if s.slide_id[8:12] < "0004"))

    assert set(divide(few).values()) == {"train"}
    assert "nothing can be held out" in caplog.text


def test_intervals_are_over_patients(study, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "xpath.study.cohort.cohort_importance", lambda *_, **given: seen.update(given) or []
    )

    tabulate_importance(study, study.slides)

    assert len(set(seen["patients"].values())) == 10
    assert seen["patients"]["TCGA-A2-0003-01Z-00-DX2"] == "TCGA-A2-0003"


def test_importance_is_of_the_slides_that_are_to_be_explained_now(study, monkeypatch):
    """Explanations of other splits may lie there from before ``explain.parts`` was changed."""
    taken = []
    monkeypatch.setattr(
        "xpath.study.cohort.cohort_importance", lambda slides, *_, **__: taken.extend(slides) or []
    )
    monkeypatch.setattr("xpath.study.cohort.is_done", lambda *_: True)
    monkeypatch.setattr(
        "xpath.study.cohort.read_explanation", lambda path: SimpleNamespace(importance=path)
    )
    for entry in study.slides[:3]:
        study.folder.explanation(entry.slide_id).touch()

    tabulate_importance(study, study.slides[1:])

    assert taken == [study.folder.explanation(entry.slide_id) for entry in study.slides[1:3]]


def test_a_class_whose_slides_failed_is_none(study, tmp_path):
    """In a fresh run as in one that was finished before the slide came."""
    larger = replace(study, slides=(*study.slides, *of_dcis(tmp_path, 1)))
    train_classifiers(larger)

    assert load_classifiers(larger)[1].classes == larger.classes == ("IDC", "ILC")
    assert all(row["auc"] != "nan" for row in rows(larger.folder.table("metrics")))
    trained = study.folder.model("attention") / "config.json"
    before = trained.stat().st_mtime_ns

    train_classifiers(study)
    train_classifiers(larger)

    assert trained.stat().st_mtime_ns == before


def test_before_the_training_the_classes_are_those_of_the_labels(study, tmp_path):
    assert replace(study, slides=(*study.slides, *of_dcis(tmp_path, 1))).classes == (
        "DCIS",
        "IDC",
        "ILC",
    )


def test_a_class_that_gets_slides_is_learnt(study, tmp_path, give):
    train_classifiers(study)
    dcis = of_dcis(tmp_path, 3)
    larger = replace(study, slides=(*study.slides, *dcis))
    give(larger, dcis)
    assert larger.classes == ("IDC", "ILC")  # what is explained is what was trained

    train_classifiers(larger)

    assert larger.classes == ("DCIS", "IDC", "ILC")
    assert "p DCIS" in rows(larger.folder.table("predictions"))[0]


def test_the_key_of_the_classifiers_knows_their_classes(study, monkeypatch):
    train_classifiers(study)
    before = read_key(study.folder.model("attention"))
    labels = study.slides
    swapped = tuple(
        replace(entry, label={"IDC": "ductal", "ILC": "lobular"}[entry.label]) for entry in labels
    )

    train_classifiers(replace(study, slides=swapped))

    assert read_key(study.folder.model("attention")) != before
    assert study.classes == ("ductal", "lobular")


def test_classifiers_of_other_classes_are_refused(study):
    train_classifiers(study)
    AttentionMIL(5, ("IDC", "ILC", "DCIS")).save_pretrained(study.folder.model("attention"))

    with pytest.raises(StoreError, match="cut short; run `xpath train` again"):
        load_classifiers(study)


def on(study, device):
    config = replace(study.config, objects=replace(study.config.objects, device=device))
    return replace(study, config=config)


def test_classifiers_are_trained_on_the_device(study, monkeypatch):
    seen = []

    def train(model, *_, **__):
        seen.append(model.classifier.weight.device.type)
        raise DataError("enough")

    monkeypatch.setattr("xpath.study.cohort.train", train)

    with pytest.raises(DataError, match="enough"):
        train_classifiers(on(study, "meta"))
    assert seen == ["meta"]


def test_a_run_from_a_gpu_goes_on_without_it(study, monkeypatch, caplog):
    """Keys are those of any device, and need no network built."""

    def content():
        return {path: path.read_bytes() for path in study.folder.root.glob("models/*/*")}

    train_classifiers(study)
    trained = content()
    for path in study.folder.root.glob("models/*.done.json"):
        path.unlink()
    moved = on(study, NOWHERE)
    monkeypatch.setattr(SegmentPredictor, "from_pretrained", lambda *_, **__: pytest.fail("built"))

    assert to_explain(moved)
    assert not caplog.records  # nothing that runs, nothing to say
    train_classifiers(moved)

    assert NOWHERE in caplog.text
    assert content() == trained


def test_work_on_slides_is_strict_about_the_device(study):
    with pytest.raises(ConfigError, match=f"device '{NOWHERE}' cannot be used"):
        on(study, NOWHERE).require_tools()
    with pytest.raises(ConfigError, match="device 'gpu'"):
        _ = on(study, "gpu").device


def test_what_is_known_of_a_network_is_what_it_says_itself(study):
    assert study.segmentor == study.predictor.info
    assert study.encoder_info == (study.encoder.name, study.encoder.digest)


def test_an_explanation_does_not_depend_on_the_other_slides(study):
    def key(**change):
        config = replace(study.config, explain=replace(study.config.explain, **change))
        return explain_key(replace(study, config=config), study.slides[0])

    assert key() == key(parts=("test", "validation")) == key(resamples=7)
    changed = [key(), key(seed=1), key(null_draws=3), key(sigma_um=4.0), key(labels=OBJECTS)]
    assert len(set(changed)) == len(changed)


def test_only_the_slides_to_explain_are_looked_at(study, monkeypatch):
    parts = [{"slide_id": e.slide_id, "part": "train"} for e in study.slides]
    for row in parts[:2]:
        row["part"] = "test"
    write_table(study.folder.split, parts)
    looked = []
    monkeypatch.setattr(
        "xpath.study.study.is_done", lambda path, _: looked.append(path.parent.name) or True
    )

    chosen = [entry.slide_id for entry in to_explain(study)]

    assert chosen == looked == [row["slide_id"] for row in parts[:2]]


def test_what_the_weights_never_learnt_is_named(study):
    objects = replace(CONFIG.objects, labels=(*OBJECTS, "breast-tissue-dcis"))

    assert study.untaught == ()
    assert replace(study, config=replace(CONFIG, objects=objects)).untaught == ("dcis (tissue)",)


def test_the_auc_has_an_interval_over_patients(study):
    train_classifiers(study)

    with study.folder.table("metrics").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["part"] for row in rows} == {"train", "validation", "test"}
    for row in rows:
        low, value, high = (float(row[key]) for key in ("auc_low", "auc", "auc_high"))
        assert 0 <= low <= value <= high <= 1
