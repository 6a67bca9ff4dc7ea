"""Classifiers behind the evidence on each object are trained once, and again when they change."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from xpath.mil import cohort_training
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
