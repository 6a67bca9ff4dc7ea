"""A run that gets further slides."""

import argparse
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from xpath.batch.slides import SlideEntry
from xpath.cli.main import main
from xpath.cli.stages import add_study_options, beside_known, study_from
from xpath.errors import ConfigError
from xpath.study.config import StudyConfig
from xpath.study.folder import RunFolder
from xpath.study.meanwhile import save_with_added
from xpath.study.study import Study, new_study, open_study
from xpath.testing.slides import write_slide


def entry(name, folder="slides", **known):
    return SlideEntry(slide_id=name, path=Path(folder) / f"{name}.tiff", **known)


def test_a_new_run_has_the_slides_it_is_given(tmp_path):
    assert beside_known(tmp_path / "run", [entry("a")]) == [entry("a")]


def test_a_further_slide_joins_the_others(tmp_path, capsys):
    new_study(tmp_path, StudyConfig(), [entry("a", label="IDC"), entry("b", label="ILC")])

    slides = beside_known(tmp_path, [entry("c")])

    assert [(slide.slide_id, slide.label) for slide in slides] == [
        ("a", "IDC"),
        ("b", "ILC"),
        ("c", ""),
    ]
    assert "keeps its 2 other slides" in capsys.readouterr().err


def test_the_same_file_keeps_its_class_and_another_does_not(tmp_path):
    new_study(tmp_path, StudyConfig(), [entry("a", label="IDC"), entry("b", label="ILC")])

    first, second = beside_known(tmp_path, [entry("a"), entry("b", folder="elsewhere")])

    assert first == replace(entry("a", label="IDC"), path=entry("a").path.resolve())
    assert second == entry("b", folder="elsewhere")


def test_labels_that_cannot_train_leave_the_run_as_it_was(tmp_path, capsys):
    new_study(tmp_path, StudyConfig(), [entry("a", label="IDC"), entry("b", label="ILC")])
    (tmp_path / "labels.csv").write_text("slide_id,label\na,other\nb,other\n")

    assert main(["train", str(tmp_path / "labels.csv"), "--out", str(tmp_path)]) == 1

    assert "two classes" in capsys.readouterr().err
    assert [slide.label for slide in open_study(tmp_path).slides] == ["IDC", "ILC"]


def test_an_export_of_nothing_is_no_success(tmp_path, capsys):
    new_study(tmp_path, StudyConfig(), [entry("a")])

    assert main(["export", "--out", str(tmp_path)]) == 1

    assert "xpath explain" in capsys.readouterr().err


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "c.tiff"
    write_slide(path, np.full((64, 64, 3), 240, np.uint8), mpp=0.5)
    return path


def study_of(slide, out, *options):
    parser = argparse.ArgumentParser()
    parser.add_argument("slides", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    add_study_options(parser)
    return study_from(parser.parse_args([str(slide), "--out", str(out), *options]), keep=True)


def test_labels_meant_by_free_words_are_printed(tmp_path, slide, capsys):
    study_of(slide, tmp_path / "run", "--objects", "breast tissue tumour")

    assert "looking for breast-tissue-tumor\n" in capsys.readouterr().err


def test_a_label_is_asked_with_words_of_its_own(tmp_path, slide, capsys):
    words = 'breast lymphocyte nuclei=plump  "dark" round cells'
    study = study_of(slide, tmp_path / "run", "--objects", f"breast tissue tumour,{words}")

    tumor, lymphocyte = open_study(tmp_path / "run").labels
    assert tumor.prompt == "tissue-level tumor in breast pathology."
    assert lymphocyte.prompt == 'plump "dark" round cells'
    assert lymphocyte.id == "breast-nuclei-lymphocyte"
    assert study.config.explain.labels == ("breast-tissue-tumor", "breast-nuclei-lymphocyte")
    assert 'breast-nuclei-lymphocyte=plump "dark" round cells' in capsys.readouterr().err


def test_other_words_make_other_masks(tmp_path, slide):
    keys = set()
    for name in ("tumor", "tumor=purple sheets", "stroma=purple sheets"):
        study = study_of(slide, tmp_path / name, "--objects", f"breast-tissue-{name}")
        keys.add(study.masks_key(study.slides[0]))

    assert len(keys) == 3


def test_a_further_slide_does_not_change_the_settings(tmp_path, slide):
    out = tmp_path / "run"
    study_of(slide, out, "--objects", "breast-tissue-tumor", "--set", "objects.batch=3")

    found = study_of(slide, out, "--mpp", "0.3")

    assert found.config.objects.labels == ("breast-tissue-tumor",)
    assert (found.config.objects.batch, found.config.default_mpp) == (3, 0.3)
    assert open_study(out).config == found.config


def test_a_slip_of_the_pen_leaves_the_run_as_it_was(tmp_path, slide):
    out = tmp_path / "run"
    study_of(slide, out, "--objects", "breast-tissue-tumor")
    before = (out / "run.json").read_bytes()

    with pytest.raises(ConfigError, match="quda"):
        study_of(slide, out, "--device", "quda")

    assert (out / "run.json").read_bytes() == before


def test_slides_that_another_process_adds_meanwhile_stay(tmp_path, slide, monkeypatch):
    """Weights take seconds to load, between the look at the run and what is written down."""

    def meanwhile(study):
        new_study(study.folder.root, study.config, [entry("a"), entry("b")])

    monkeypatch.setattr("xpath.cli.stages.require_tools", meanwhile)
    study = study_of(slide, tmp_path / "run")

    assert [one.slide_id for one in study.slides] == ["c", "a", "b"]
    assert open_study(tmp_path / "run") == study


def test_slides_that_are_added_during_a_training_stay(tmp_path, monkeypatch, capsys):
    study = new_study(tmp_path, StudyConfig(), [entry("a"), entry("b", label="ILC")])
    (tmp_path / "labels.csv").write_text("slide_id,label\na,IDC\nb,ILC\n")
    study.folder.table("metrics").parent.mkdir()
    study.folder.table("metrics").write_text("model\n")

    def train(*_):
        new_study(tmp_path, study.config, [*study.slides, entry("c", label="IDC")])
        return SimpleNamespace(left_out=())

    monkeypatch.setattr("xpath.study.chain.train_stage", train)
    assert main(["train", str(tmp_path / "labels.csv"), "--out", str(tmp_path)]) == 0

    labels = {one.slide_id: one.label for one in open_study(tmp_path).slides}
    assert labels == {"a": "IDC", "b": "ILC", "c": "IDC"}


def test_of_processes_that_begin_at_once_each_adds_its_slide(tmp_path):
    names, ready = "abcdefgh", threading.Barrier(8)

    def add(name):
        study = Study(RunFolder(tmp_path), StudyConfig(), (entry(name),))
        ready.wait()
        save_with_added(study)

    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

    assert sorted(one.slide_id for one in open_study(tmp_path).slides) == list(names)
