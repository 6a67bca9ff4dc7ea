"""How far a run is, whether it is in order, and the options that choose slides."""

from __future__ import annotations

import argparse
import json
import os
import time

import numpy as np
import pytest

from xpath.batch.attempts import attempts_path
from xpath.batch.claim import LEASE_SECONDS, claim, lock_of
from xpath.batch.done import mark_done
from xpath.batch.ledger import StageReport
from xpath.batch.ray_cluster import RayCluster
from xpath.batch.runner import InProcess
from xpath.batch.selection import Selection, Shard
from xpath.batch.slides import SlideEntry
from xpath.batch.workers import LocalProcesses
from xpath.cli.batch_options import add_batch_options, batch_from
from xpath.cli.main import main
from xpath.cli.stages import print_end
from xpath.errors import ConfigError, DataError
from xpath.store.process import this_process
from xpath.study.chain import run_chain
from xpath.study.checkup import remove_leftovers
from xpath.study.config import StudyConfig
from xpath.study.progress import progress_of
from xpath.study.study import new_study
from xpath.testing.slides import write_slide


@pytest.fixture
def study(tmp_path):
    slides = []
    for name in "abcdef":
        path = tmp_path / f"{name}.tiff"
        write_slide(path, np.full((64, 64, 3), 240, np.uint8), mpp=0.5)
        slides.append(SlideEntry(slide_id=name, path=path))
    return new_study(tmp_path / "run", StudyConfig(), slides)


@pytest.fixture
def run(study):
    return study.folder.root


def test_status_counts_and_names(study, run, capsys):
    for name, seconds in (("a", 7200), ("b", 3600), ("c", 0)):
        study.ledger.note(name, "segment", seconds=1)
        written = run / "slides" / name / ".segment.json"
        os.utime(written, (time.time() - seconds, time.time() - seconds))
    study.ledger.note("d", "segment", failure="no tissue", seconds=1)

    with claim(study.folder.masks("e")):
        segment = progress_of(study)[0]
        code = main(["status", str(run)])

    assert (segment.total, segment.done, segment.left) == (6, 3, 2)
    assert segment.failed == {"d": "no tissue"}
    assert f"process {os.getpid()}" in segment.running["e"]
    assert segment.per_hour == pytest.approx(1, rel=0.01)
    assert segment.seconds_left == pytest.approx(7200, rel=0.01)
    printed = capsys.readouterr().out
    assert code == 1
    assert "1 slides an hour, 2 h 00 min left" in printed
    assert "segment: failed   d: no tissue" in printed


def test_a_lock_of_a_lost_machine_is_no_work(study, run):
    lock = lock_of(study.folder.masks("a"))
    lock.parent.mkdir(parents=True)
    content = this_process()._replace(machine="elsewhere")._asdict()
    lock.write_text(json.dumps(content | {"time": "now", "token": "x"}))
    assert progress_of(study)[0].running

    past = time.time() - LEASE_SECONDS - 5
    os.utime(lock, (past, past))
    assert not progress_of(study)[0].running


def test_doctor_finds_nothing_wrong_with_a_new_run(run, capsys):
    assert main(["doctor", str(run)]) == 0
    assert "6 slides, no troubles" in capsys.readouterr().out


def test_doctor_names_what_is_wrong_and_repairs_what_it_can(study, run, tmp_path, capsys):
    features = study.folder.features("a")
    features.parent.mkdir(parents=True)
    features.write_bytes(b"whole")
    mark_done(features, "key")
    features.write_bytes(b"wrong")
    (study.folder.slide("a") / "explanation.h5").write_bytes(b"unsealed")
    (tmp_path / "b.tiff").unlink()
    study.ledger.note("c", "features", failure="no masks", seconds=1)
    (run / "slides" / "stranger").mkdir()
    lock = lock_of(study.folder.masks("a"))
    lock.write_text("")
    draft = lock.with_name(".masks.zarr.0123abcd.77.89abcdef.part")
    draft.mkdir()
    (draft / "half").touch()
    past = time.time() - LEASE_SECONDS - 5
    os.utime(lock, (past, past))

    assert main(["doctor", str(run)]) == 1
    printed = capsys.readouterr().out
    for words in (
        "features.h5: not as it was written",
        "`xpath features` makes it again",
        "explanation.h5: never finished",
        "b.tiff is gone",
        "c: failed in features 1 times, no masks",
        "stranger: no slide of run.json",
        f"{lock}: left behind",
        f"{draft}: left behind",
        "7 troubles",
    ):
        assert words in printed

    assert main(["doctor", str(run), "--repair"]) == 1
    printed = capsys.readouterr().out
    assert "removed 2 locks and drafts" in printed
    assert "left behind" not in printed.partition("\n")[2]
    assert not lock.exists()
    assert not draft.exists()


def test_the_draft_of_a_living_process_is_left_alone(study, run, capsys):
    with claim(study.folder.masks("a")):
        draft = study.folder.slide("a") / ".masks.zarr.0123abcd.77.89abcdef.part"
        draft.touch()
        os.utime(draft, (0, 0))
        assert main(["doctor", str(run), "--repair"]) == 0
        assert draft.exists()


def test_what_a_process_has_taken_over_since_it_was_looked_at_is_left_alone(study, monkeypatch):
    """A large run is looked at for seconds, and only then what is left behind is removed."""
    masks = study.folder.masks("a")
    masks.parent.mkdir(parents=True)
    lock, draft = lock_of(masks), masks.with_name(".masks.zarr.0123abcd.77.89abcdef.part")
    monkeypatch.setattr("xpath.study.checkup._leftovers", lambda _: [draft, lock])
    draft.touch()
    with claim(masks) as mine:
        assert mine
        assert remove_leftovers(study) == 0
        assert lock.exists()
        assert draft.exists()

    assert remove_leftovers(study) == 2
    assert list(masks.parent.iterdir()) == []


def test_the_end_of_a_run_names_failures_of_its_own_slides(study, capsys):
    study.ledger.note("a", "segment", failure="no tissue", seconds=1)
    study.ledger.note("taken out", "segment", failure="no slide", seconds=1)
    study.ledger.merge("segment", ["a", "taken out"])
    print_end(study)

    assert "a failed in segment: no tissue" in (told := capsys.readouterr().err)
    assert "taken out" not in told


def test_selections(study):
    def chosen(**choice):
        selection = Selection(**choice)
        assert selection.is_part == bool(choice)
        return "".join(s.slide_id for s in selection.of(study.slides, "segment", study.ledger))

    study.ledger.note("b", "segment", failure="no", seconds=1)
    study.ledger.note("c", "segment", seconds=1)

    assert chosen() == "abcdef"
    assert chosen(shard=Shard(0, 4)) + chosen(shard=Shard(1, 4)) == "aebf"
    assert chosen(shard=Shard(3, 4)) == "d"
    assert chosen(only=("f", "[ab]")) == "abf"
    assert chosen(failed=True) == "b"
    with pytest.raises(DataError, match="named 'x'"):
        chosen(only=("x",))


def batch_of(study, *options):
    parser = argparse.ArgumentParser()
    add_batch_options(parser)
    return batch_from(parser.parse_args(options), study)


def test_options_choose_the_executor(study):
    assert isinstance(batch_of(study).executor, InProcess)
    assert batch_of(study, "--workers=3").executor == LocalProcesses(3)
    ray = batch_of(study, "--executor=ray", "--address=auto", "--workers=3").executor
    assert ray == RayCluster("auto", 3, 0.0)
    slurm = batch_of(study, "--executor=slurm", "--workers=5", "--slurm=gres=gpu:1").executor
    assert (slurm.count, slurm.options) == (5, {"gres": "gpu:1"})
    with pytest.raises(ConfigError, match="--executor ray"):
        batch_of(study, "--address=auto")
    with pytest.raises(ConfigError, match="--executor slurm"):
        batch_of(study, "--slurm=partition=gpu")


@pytest.mark.parametrize("shard", ["2/2", "a/b", "1"])
def test_shards_that_cannot_be_are_refused(study, shard, capsys):
    with pytest.raises(SystemExit):
        batch_of(study, f"--shard={shard}")
    assert "such as 0/4" in capsys.readouterr().err


def test_every_gpu_of_the_machine_has_a_worker(study, monkeypatch):
    on_gpu = new_study(
        study.folder.root, StudyConfig(objects=type(study.config.objects)(device="cuda")), []
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")

    assert batch_of(on_gpu).executor == LocalProcesses(2, ("2", "5"))
    assert batch_of(on_gpu, "--workers=4").executor == LocalProcesses(4, ("2", "5"))
    assert batch_of(on_gpu, "--executor=ray").executor == RayCluster("", 0, 1.0)


def test_a_dry_run_says_what_would_be_done(study, run, tmp_path, capsys):
    mark = study.folder.masks("a")
    mark.mkdir(parents=True)
    (mark / "zarr.json").touch()
    mark_done(mark, study.masks_key(study.slides[0]))
    before = sorted(run.rglob("*"))

    assert main(["segment", str(tmp_path / "b.tiff"), "--out", str(run), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "stays    a" in printed
    assert "is made  b" in printed
    assert "5 of 6 slides would be worked on" in printed
    assert [path for path in sorted(run.rglob("*")) if path.suffix != ".checked"] == before


def test_retry_failed_gives_a_slide_that_was_set_aside_a_new_chance(study, run, capsys):
    marker = attempts_path(study.folder.masks("a"))
    marker.parent.mkdir(parents=True)
    key = study.masks_key(study.slides[0])
    marker.write_text(f"{key} process 1\n{key} process 2\n")
    study.ledger.note("a", "segment", failure="set aside", seconds=1)
    slide = str(study.slides[0].path)

    main(["segment", slide, "--out", str(run), "--only=a"])
    assert "set aside" in study.ledger.entry("a", "segment").reason
    main(["segment", slide, "--out", str(run), "--retry-failed"])
    assert "set aside" not in study.ledger.entry("a", "segment").reason
    assert not marker.exists()


def test_retry_failed_takes_what_was_killed_before_anything_was_written_down(study, run):
    """Killed twice from outside, a sound slide has no entry, but it would be set aside."""
    marker = attempts_path(study.folder.masks("a"))
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text("key process 1\nkey process 2\n")

    batch = batch_of(study, "--retry-failed")

    assert [slide.slide_id for slide in batch.chosen("segment", study, study.slides)] == ["a"]
    assert not marker.exists()


def test_a_whole_run_retries_what_failed_in_features_alone(study, monkeypatch):
    study.ledger.note("a", "features", failure="no room", seconds=1)
    study.ledger.note("b", "segment", failure="no room", seconds=1)
    worked_on = []

    def run_stage(stage, slides, *_, **__):
        names = tuple(slide.slide_id for slide in slides)
        worked_on.append((stage, names))
        return StageReport(stage=stage, done=names, failed=())

    monkeypatch.setattr("xpath.study.chain.run_stage", run_stage)
    monkeypatch.setattr(type(study), "require_tools", lambda *_, **__: None)
    monkeypatch.setattr("xpath.study.chain.tabulate_labels", lambda _: None)
    run_chain(study, title="-", batch=batch_of(study, "--retry-failed"))

    assert worked_on == [("segment", ("b",)), ("features", ("a", "b"))]
