"""A run that is called again: exactly what depends on the change is made again, stage by stage."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace

import pytest

from xpath.config import load_config
from xpath.store.tables import read_table
from xpath.study.chain import run_chain
from xpath.study.config import StudyConfig
from xpath.study.study import new_study

pytestmark = pytest.mark.integration

STAGES = ("segment", "features", "explain", "export")


@pytest.fixture
def again(finished, tmp_path, small, slides):
    """Calls a copy of the finished run with settings, and returns the stages that worked."""
    root = tmp_path / "run"
    shutil.copytree(finished, root)

    def call(*settings, slides=slides):
        config = load_config(StudyConfig, None, list(settings), base=small)
        assert run_chain(new_study(root, config, slides), title="six slides")
        return Counter(
            row["stage"]
            for row in read_table(root / "slides.csv", attempts=int)
            for _ in range(row["attempts"])
        )

    call.root = root
    return call


@pytest.fixture(scope="module")
def once(finished):
    """Slides that each stage of the finished run has worked on."""
    return Counter(row["stage"] for row in read_table(finished / "slides.csv"))


def models(root):
    return {path.name: path.read_bytes() for path in sorted(root.glob("models/*.done.json"))}


@pytest.mark.parametrize(
    ("setting", "from_stage"),
    [
        ("default_mpp=0.25", None),  # all slides store their own
        ("drawn=false", "segment"),
        ("explain.seed=7", "explain"),
        pytest.param("classifier.train.epochs=3", "explain", marks=pytest.mark.slow),
        ("objects.rim_um=3", "features"),
    ],
)
def test_what_depends_on_a_setting_is_made_again(again, once, finished, setting, from_stage):
    made = again(setting, "memory_gb=1")  # the latter decides nothing

    later = STAGES[STAGES.index(from_stage) :] if from_stage else ()
    assert made == {stage: (1 + (stage in later)) * once[stage] for stage in STAGES}
    trained_again = setting.startswith("classifier.") or from_stage in ("segment", "features")
    assert (models(again.root) != models(finished)) == trained_again


def test_a_further_slide_trains_again_and_leaves_masks_and_features(again, once, slides):
    further = replace(slides[0], slide_id="further")

    made = again(slides=[*slides, further])

    assert made["segment"] == once["segment"] + 1
    assert made["features"] == once["features"] + 1
