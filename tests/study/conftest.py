"""A study of six small drawn slides, run once with the weights that ship."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xpath.batch.slides import find_slides, read_labels, with_labels
from xpath.cli.demo_run import demo_config
from xpath.study.chain import run_chain
from xpath.study.study import new_study
from xpath.testing.cohort import CohortPlan, make_cohort

OBJECTS = (
    "breast-tissue-tumor",
    "breast-tissue-stroma",
    "breast-tissue-necrosis or debris",
    "breast-nuclei-neoplastic=large dark nuclei",
)
"""The last one is asked with words of its own."""


@pytest.fixture(scope="session")
def small():
    """Settings that make a run take seconds."""
    config = demo_config()
    return replace(
        config,
        tissue=replace(config.tissue, min_area_um2=2000.0),  # the slides are 256 microns wide
        objects=replace(config.objects, labels=OBJECTS, batch=4),
        classifier=replace(
            config.classifier, train=replace(config.classifier.train, epochs=4, patience=4)
        ),
        explain=replace(
            config.explain, labels=(OBJECTS[0], OBJECTS[2]), null_draws=1, resamples=100
        ),
    )


@pytest.fixture(scope="session")
def files_of():
    """Everything a run wrote that must not depend on when or how often it ran."""

    def read(root):
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.name != "slides.csv" and not path.name.startswith(".")
        }

    return read


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    make_cohort(folder, CohortPlan(slides=6, side=512, seed=3))
    return folder


@pytest.fixture(scope="session")
def slides(cohort):
    return with_labels(find_slides([cohort / "slides"]), read_labels(cohort / "labels.csv"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, slides, small):
    """The folder of an undisturbed run; tests must not change it."""
    root = tmp_path_factory.mktemp("run") / "run"
    assert run_chain(new_study(root, small, slides), title="six slides")
    return root
