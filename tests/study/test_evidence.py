"""The evidence on each object is gathered once, and again when what it rests on has changed."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from xpath.mil.object_aware import ObjectAwareMIL
from xpath.study import evidence
from xpath.study.evidence import tabulate_evidence, tabulate_importance
from xpath.study.study import open_study


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
    trained, fit = [], evidence._trained_again
    monkeypatch.setattr(
        evidence, "_trained_again", lambda *args: trained.append(args[-1]) or fit(*args)
    )
    rows = tabulate_importance(study)

    first = tabulate_evidence(study, rows)
    assert trained == []
    assert {row["seeds"] for row in first} == {5}

    tabulate_evidence(with_seeds(study, 3), rows)
    assert trained == [1, 2]

    rows = [row | {"q": 0.5} for row in rows]
    tabulate_evidence(with_seeds(study, 3), rows)
    tabulate_evidence(with_seeds(study, 3), rows)
    assert trained == [1, 2, 1, 2]

    assert tabulate_evidence(with_seeds(study, 0), rows) == []


def test_the_first_seed_is_the_classifier_of_the_run(study):
    """Trained again from the seed of the settings it would have the same weights."""
    config = evidence.cohort_config(study.config, "cpu")
    cohort = evidence.read_cohort(evidence.labelled_slides(study), config)
    split = evidence.split_cohort(cohort, config.split)[0]

    again = evidence._trained_again(cohort, split, config, 0).state_dict()

    kept = ObjectAwareMIL.from_pretrained(study.model_folder("object_aware")).state_dict()
    assert all(np.array_equal(again[name], value) for name, value in kept.items())
