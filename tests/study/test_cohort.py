"""All slides together, on features made by hand: nothing here segments a slide."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from xpath.batch.claim import claimant
from xpath.batch.done import forget, mark_done, read_key
from xpath.batch.ledger import StageReport
from xpath.batch.ray_cluster import RayCluster
from xpath.batch.runner import InProcess
from xpath.batch.slides import SlideEntry
from xpath.batch.slurm import SlurmArray
from xpath.batch.workers import LocalProcesses
from xpath.cli.main import main
from xpath.device import REFUSED
from xpath.errors import ConfigError, DataError, StoreError
from xpath.geometry import Mpp, PatchGrid, Size
from xpath.mil.attention_mil import AttentionMIL, AttentionMILSettings
from xpath.mil.classifier import CLASSIFIERS, ClassifierConfig
from xpath.mil.object_aware import ObjectAwareMILSettings
from xpath.mil.splits import SplitConfig
from xpath.mil.training import TrainConfig
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.store.features import SlideFeatures, write_features
from xpath.store.tables import write_table
from xpath.study.chain import to_explain
from xpath.study.cohort import load_explained, train_classifiers, train_on_features
from xpath.study.config import ObjectsConfig, StudyConfig
from xpath.study.evidence import _explained, tabulate_importance
from xpath.study.folder import RunFolder, slide_splits
from xpath.study.slides import explain_key
from xpath.study.study import Study, save_study

OBJECTS = ("breast-tissue-tumor", "breast-tissue-stroma")
CONFIG = StudyConfig(
    objects=ObjectsConfig(labels=OBJECTS),
    classifier=ClassifierConfig(
        attention=AttentionMILSettings(hidden=4),
        object_aware=ObjectAwareMILSettings(hidden=4),
        train=TrainConfig(epochs=2),
    ),
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
    train_classifiers(study)

    splits = slide_splits(study.folder)
    patients = {}
    for slide_id, split in splits.items():
        patients.setdefault(slide_id[:12], set()).add(split)
    assert len(patients) == 10
    assert all(len(one) == 1 for one in patients.values())
    assert set(splits.values()) == {"train", "validation", "test"}


def test_a_misspelt_label_does_not_end_all_holding_out(study, give):
    first, *others = study.slides
    slip = replace(study, slides=(replace(first, label="Idc"), *others))

    with pytest.raises(DataError, match=r"'Idc': 1.*misspelt"):
        train_classifiers(slip)


def test_few_patients_of_all_classes_train_together(study, caplog):
    few = replace(study, slides=tuple(s for s in study.slides if s.slide_id[8:12] < "0004"))

    train_classifiers(few)

    assert set(slide_splits(few.folder).values()) == {"train"}
    assert "nothing can be held out" in caplog.text
    assert {row["split"] for row in rows(few.folder.table("metrics"))} == {"train"}
    assert rows(few.folder.table("differences")) == []


def test_intervals_are_over_patients(study, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "xpath.study.evidence.cohort_importance", lambda *_, **given: seen.update(given) or []
    )

    tabulate_importance(study)

    assert len(set(seen["patients"].values())) == 10
    assert seen["patients"]["TCGA-A2-0003-01Z-00-DX2"] == "TCGA-A2-0003"


def test_tables_are_of_the_slides_that_are_to_be_explained_now(study, monkeypatch):
    """Explanations of other splits may lie there from before ``explain.splits`` was changed."""
    monkeypatch.setattr("xpath.study.evidence.is_done", lambda *_: True)
    monkeypatch.setattr("xpath.study.evidence.read_explanation", lambda path: path)
    write_table(
        study.folder.split,
        [
            {"slide_id": entry.slide_id, "split": "test" if place else "train", "fold": 0}
            for place, entry in enumerate(study.slides)
        ],
    )
    for entry in study.slides[:3]:
        study.folder.explanation(entry.slide_id).touch()

    assert [one.entry for one in _explained(study)] == list(study.slides[1:3])


def test_a_class_whose_slides_failed_is_none(study, tmp_path):
    """In a fresh run as in one that was finished before the slide came."""
    larger = replace(study, slides=(*study.slides, *of_dcis(tmp_path, 1)))
    train_classifiers(larger)

    assert load_explained(larger)[0].object_aware.classes == larger.classes == ("IDC", "ILC")
    assert all(row["auc"] for row in rows(larger.folder.table("metrics")))
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
        load_explained(study)


def on(study, device):
    objects = replace(study.config.objects, device=device, precision="fp32")  # as on the CPU
    config = replace(study.config, objects=objects)
    return replace(study, config=config)


def test_classifiers_are_trained_on_the_device(study, monkeypatch):
    monkeypatch.delitem(REFUSED, "meta")  # the one other device there is everywhere
    seen = []

    def fit(model, *_, **__):
        seen.append(model.classifier.weight.device.type)
        raise DataError("enough")

    fails = CLASSIFIERS["attention"]._replace(fit=fit)
    monkeypatch.setitem(CLASSIFIERS, "attention", fails)

    with pytest.raises(DataError, match="enough"):
        train_classifiers(on(study, "meta"))
    assert seen == ["meta"]


def test_a_run_from_a_gpu_goes_on_without_it(study, monkeypatch, caplog):
    """Keys are those of any device, and need no network built."""

    def content():
        return {path: path.read_bytes() for path in study.folder.root.glob("models/*/*")}

    train_classifiers(study)
    caplog.clear()
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

    assert key() == key(splits=("test", "validation")) == key(resamples=7)
    changed = [key(), key(seed=1), key(null_draws=3), key(sigma_um=4.0), key(labels=OBJECTS)]
    assert len(set(changed)) == len(changed)


def test_only_the_slides_to_explain_are_looked_at(study, monkeypatch):
    table = [{"slide_id": e.slide_id, "split": "train"} for e in study.slides]
    for row in table[:2]:
        row["split"] = "test"
    study.folder.split.parent.mkdir(parents=True)
    write_table(study.folder.split, table)
    looked = []
    monkeypatch.setattr(
        "xpath.study.study.is_done", lambda path, _: looked.append(path.parent.name) or True
    )

    chosen = [entry.slide_id for entry in to_explain(study)]

    assert chosen == looked == [row["slide_id"] for row in table[:2]]


def test_what_the_weights_never_learnt_is_named(study):
    """Vessels were learnt from drawn tissue only, DCIS not at all."""

    def guesses(*labels, drawn):
        objects = replace(CONFIG.objects, labels=(*OBJECTS, *labels))
        return replace(
            study, config=replace(CONFIG, objects=objects, drawn=drawn)
        ).asked.guess_names

    vessel, dcis = "breast-tissue-blood vessel", "breast-tissue-dcis"
    assert guesses(drawn=False) == ()
    assert guesses(vessel, drawn=False) == ("blood vessel (tissue)",)
    assert guesses(vessel, drawn=True) == ()
    assert guesses(vessel, dcis, drawn=True) == ("dcis (tissue)",)


def test_the_auc_has_an_interval_over_patients(study):
    train_classifiers(study)

    with study.folder.table("metrics").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    for row in rows:
        low, value, high = (float(row[key]) for key in ("auc_low", "auc", "auc_high"))
        assert 0 <= low <= value <= high <= 1


def content(root):
    """Everything that a training writes, seals left out: they know where features came from."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for folder in ("models", "tables", "figures")
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and not path.name.endswith(".done.json")
    }


def label_table(study, path):
    lines = [f"{entry.slide_id},{entry.label}" for entry in reversed(study.slides)]
    path.write_text("\n".join(["slide_id,label", *lines]) + "\n")
    return path


@pytest.mark.parametrize("options", [(), ("--folds", "3", "--calibrate")])
def test_a_run_and_its_feature_files_give_the_same_bit_for_bit(
    study, tmp_path, load_script, options
):
    """All four classifiers, out of fold or on one split; the order of the table does not matter."""
    split = SplitConfig(folds=3) if options else SplitConfig()
    classifier = replace(study.config.classifier, calibrate=bool(options))
    config = replace(study.config, split=split, classifier=classifier)
    train_classifiers(replace(study, config=config))
    labels = label_table(study, tmp_path / "labels.csv")
    arguments = ["--features", study.folder.root, "--labels", labels, "--out", tmp_path / "other"]
    settings = ("classifier.attention.hidden=4", "classifier.object_aware.hidden=4")
    arguments += [*options, "--epochs", "2", *(a for s in settings for a in ("--set", s))]

    assert load_script("pipelines/brca_subtype.py").main([str(a) for a in arguments]) == 0

    one, other = content(study.folder.root), content(tmp_path / "other")
    assert one == other
    names = ("attention", "object_aware", "mean", "object_fractions")
    table = rows(study.folder.table("predictions"))
    for name in names:
        slides = [row["slide_id"] for row in table if row["model"] == name]
        assert sorted(slides) == sorted(entry.slide_id for entry in study.slides)
    assert "figures/reliability.png" in one
    assert ("figures/roc.png" in one) == bool(options)  # one test patient of a class is too few
    pairs = [(row["model"], row["minus"]) for row in rows(study.folder.table("differences"))]
    assert pairs == list(combinations(names, 2))
    folds = 3 if options else 1
    assert sum(path.endswith("model.safetensors") for path in one) == 4 * folds
    assert sum("tables/splits_" in path for path in one) == folds


def test_of_two_on_one_folder_one_trains_at_a_time(study, tmp_path, monkeypatch):
    seen, folder = [], RunFolder(tmp_path / "other")
    monkeypatch.setattr(
        "xpath.study.cohort.train_on_slides", lambda *_, **__: seen.append(claimant(folder.split))
    )
    labels = label_table(study, tmp_path / "labels.csv")
    train_on_features(study.folder.root, labels, study.config, folder)

    assert len(seen) == 1
    assert seen[0].startswith(f"process {os.getpid()} ")
    assert claimant(folder.split) == ""


def test_with_folds_a_slide_is_explained_by_the_model_that_never_saw_it(study):
    folded = replace(study, config=replace(study.config, split=SplitConfig(folds=3)))
    train_classifiers(folded)

    models = load_explained(folded)

    assert len(models) == 3
    assert [entry.slide_id for entry in to_explain(folded)] == [s.slide_id for s in study.slides]
    assert {folded.fold_of(entry) for entry in study.slides} == {0, 1, 2}
    for entry in study.slides:
        for model in models[folded.fold_of(entry)]:
            slides = model.metadata["slides"]
            assert entry.slide_id in slides["test"]
            assert entry.slide_id not in slides["train"] + slides["validation"]
    before = explain_key(folded, study.slides[0])
    fold = folded.fold_of(study.slides[0])
    changed = next(e for e in study.slides if folded.fold_of(e) != fold)
    other_model = folded.model_folder("attention", folded.fold_of(changed))
    forget(other_model)
    assert explain_key(folded, study.slides[0]) == before
    assert explain_key(folded, changed) != before


def test_what_is_not_trained_cannot_explain(study):
    classifier = replace(study.config.classifier, models=("mean", "object_fractions"))
    plain = replace(study, config=replace(study.config, classifier=classifier))
    train_classifiers(plain)

    assert plain.classes == ("IDC", "ILC")
    with pytest.raises(StoreError, match=r"attention and object_aware.*lacks one"):
        load_explained(plain)


def test_names_of_classifiers_are_checked():
    with pytest.raises(ConfigError, match=r"of attention, .*got \['atention'\]"):
        ClassifierConfig(models=("atention",))
    with pytest.raises(ConfigError, match="once"):
        ClassifierConfig(models=("mean", "mean"))
    with pytest.raises(ConfigError, match="one at least"):
        ClassifierConfig(models=())


class Unlucky(InProcess):
    """Loses every worker."""

    def run(self, job, slides, on_start):
        for slide in slides:
            yield job.lost(slide, "a worker ended")


@pytest.mark.parametrize("place", ["local", "ray", "slurm", "lost"])
def test_models_trained_elsewhere_are_the_same_bytes(study, tmp_path, monkeypatch, caplog, place):
    pytest.importorskip({"ray": "ray", "slurm": "submitit"}.get(place, "os"))
    executor = {
        "local": LocalProcesses(2),
        "ray": RayCluster(count=2),
        "slurm": SlurmArray(2, tmp_path / "jobs", cluster="local", poll_seconds=0.2),
        "lost": Unlucky(),
    }[place]
    folded = replace(study, config=replace(study.config, split=SplitConfig(folds=2)))
    train_classifiers(folded)
    expected = {path: path.read_bytes() for path in trained_files(folded)}
    assert len(expected) > 16
    for path in expected:
        path.unlink()
    if place != "lost":  # then nothing may be trained here
        monkeypatch.setattr("xpath.mil.cohort_training.seeded_build", None)

    train_classifiers(folded, executor)

    assert {path: path.read_bytes() for path in trained_files(folded)} == expected
    assert ("a worker ended" in caplog.text) == (place == "lost")


def trained_files(study):
    folders = (study.folder.models, study.folder.root / "tables")
    return [path for folder in folders for path in folder.rglob("[!.]*") if path.is_file()]


def test_slides_that_cannot_be_explained_are_named_and_it_is_no_success(study, monkeypatch, capsys):
    """As when their drive is not mounted."""
    train_classifiers(study)
    save_study(study)
    monkeypatch.setattr("xpath.study.chain.load_explained", lambda _: ())
    monkeypatch.setattr(
        "xpath.study.chain.explain_stage",
        lambda study, batch: StageReport(stage="explain", done=(), failed=()),
    )
    command = ["explain", "--out", str(study.folder.root)]
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().err == ""

    first, second, *others = study.slides_to_explain()
    assert len(others) == 2, "two of ten patients are held out"
    forget(study.folder.features(second.slide_id))
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "1 of 4 slides were not explained, for they are not there or have no finished" in told
    assert second.slide_id in told
    assert main([*command, "--only", first.slide_id]) == 0

    first.path.rename(first.path.with_name("elsewhere.svs"))
    assert main(command) == 1
    assert "4 of 4 slides were not explained" in capsys.readouterr().err
