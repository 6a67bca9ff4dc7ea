"""Classifiers behind the evidence on each object are trained once, and again when they change."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from xpath.explain.contributions import class_contrasts
from xpath.explain.explanation import read_explanation
from xpath.explain.grouping import redundant_groups
from xpath.mil import cohort_training
from xpath.store.tables import read_table, write_table
from xpath.study import evidence
from xpath.study.evidence import tabulate_contributions, tabulate_evidence, tabulate_importance
from xpath.study.study import Study, open_study


@pytest.fixture
def study(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return open_study(tmp_path / "run")


def with_seeds(study, seeds):
    return replace(
        study,
        config=replace(study.config, explain=replace(study.config.explain, evidence_seeds=seeds)),
    )


def test_classifiers_are_not_trained_again_unless_something_changed(study, monkeypatch):
    trained, fit = [], cohort_training.fresh_classifier
    monkeypatch.setattr(
        cohort_training,
        "fresh_classifier",
        lambda *args, **options: trained.append(options["seed"]) or fit(*args, **options),
    )
    rows = tabulate_importance(study)

    first = tabulate_evidence(study, rows)
    assert trained == []
    assert {row["seeds"] for row in first} == {5}

    shutil.rmtree(study.folder.model("object_aware_seed_2"))
    again = tabulate_evidence(study, rows)
    assert trained == [2]
    np.testing.assert_equal(again, first)

    assert {row["seeds"] for row in tabulate_evidence(with_seeds(study, 2), rows)} == {2}
    assert tabulate_evidence(with_seeds(study, 0), rows) == []
    assert trained == [2]


def with_splits(study, **splits):
    """The study with slides said to be of other splits."""
    rows = read_table(study.folder.split)
    for row in rows:
        row["split"] = splits.get(row["slide_id"], row["split"])
    write_table(study.folder.split, rows)
    return [row["slide_id"] for row in rows]


def test_needs_on_slides_that_were_learnt_from_are_not_tested(study, monkeypatch):
    """A model's needs go with the classes it was taught, whatever they are."""
    explained = [entry.slide_id for entry in study.slides_to_explain()]
    assert np.isfinite([row["q"] for row in tabulate_importance(study)]).all()
    assert np.isfinite([row["q"] for row in tabulate_contributions(study)]).all()

    with_splits(study, **dict.fromkeys(explained, "train"))
    monkeypatch.setattr(
        Study,
        "slides_to_explain",
        lambda self: [entry for entry in self.slides if entry.slide_id in explained],
    )
    needs, contributions = tabulate_importance(study), tabulate_contributions(study)

    assert needs
    assert contributions
    for row in (*needs, *contributions):
        assert np.isnan([row["p"], row["q"], row["least_q"]]).all()
    assert np.isfinite([row["effect"] for row in needs]).all()


def test_a_slide_of_which_hiding_leaves_nothing_does_not_stop_the_table(study, monkeypatch):
    whole = tabulate_importance(study)
    first = study.slides_to_explain()[0].slide_id

    def hidden_whole(path):
        explanation = read_explanation(path)
        importance = explanation.importance
        if importance.slide_id == first:
            importance.effects[:, 0] = np.nan
            importance.random[:, 0] = np.nan
        return explanation

    monkeypatch.setattr(evidence, "read_explanation", hidden_whole)
    rows = tabulate_importance(study)

    assert len(rows) == len(whole) - 1  # no other slide of its class holds the object


def test_a_label_that_is_no_class_is_not_taken_for_the_predicted_one(study, monkeypatch):
    first = study.slides_to_explain()[0]
    others = [entry for entry in study.slides if entry.slide_id != first.slide_id]
    renamed = replace(study, slides=(*others, replace(first, label="another")))
    monkeypatch.setattr(evidence, "is_done", lambda *_: True)

    rows = tabulate_importance(renamed)

    assert {row["class_name"] for row in rows} == set(study.classes) - {first.label}


def test_objects_that_go_together_for_one_class_of_three_are_no_group():
    rng = np.random.default_rng(0)
    values = np.zeros((8, 3, 2))
    values[:, 0] = rng.normal(size=(8, 2))  # another for each object, and against the second class
    values[:, 1] = -values[:, 0]
    values[:, 2] = rng.normal(size=(8, 1))  # the same for both

    def groups_of(towards):
        return redundant_groups(np.diag([9, 9]), towards, ("fat", "duct"))

    assert groups_of(class_contrasts(values)[:, 2]) == [("fat", "duct")]
    assert groups_of(evidence._towards(values)) == [("fat",), ("duct",)]
    assert groups_of(evidence._towards(values[:4])) == [("fat",), ("duct",)]
    alike = np.repeat(values[:, :, :1], 2, axis=2)
    assert groups_of(evidence._towards(alike)) == [("fat", "duct")]
    two = class_contrasts(values[:, :2])
    np.testing.assert_array_equal(evidence._towards(values[:, :2]), two[:, 1])
