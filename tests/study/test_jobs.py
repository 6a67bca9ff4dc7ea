"""Work that goes to another process, which keeps it."""

from __future__ import annotations

import copy

from xpath.study.jobs import StudyJob
from xpath.study.study import new_study


def test_a_process_keeps_its_job_until_classifiers_or_settings_are_others(tmp_path, small, slides):
    study = new_study(tmp_path / "run", small, slides[:1])
    job = StudyJob("explain", study)
    first = copy.copy(job)  # as pickle does, by the same two facts

    assert copy.copy(job) is first
    (study.folder.models / "attention").mkdir(parents=True)
    trained = copy.copy(job)
    assert trained is not first, "it has loaded other classifiers"
    assert trained.study is first.study, "and keeps its networks"
    new_study(tmp_path / "run", small, slides[:2])
    assert len(copy.copy(job).study.slides) == 2
