"""Slides on several workers: the same files as in one process, whatever happens to a worker."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from xpath.batch.ledger import Ledger
from xpath.batch.processes import usable_cores
from xpath.batch.ray_cluster import RayCluster
from xpath.batch.runner import InProcess, run_stage
from xpath.batch.slides import SlideEntry
from xpath.batch.slurm import SlurmArray
from xpath.batch.workers import LocalProcesses, _done
from xpath.store.process import is_dead, this_process
from xpath.store.tables import read_table

# Work that other processes can import, as they can the stages of a study.
WORK = """
import os, random, signal, time
import torch
from dataclasses import dataclass
from pathlib import Path
from xpath.batch.attempts import attempt
from xpath.batch.done import make_once

if os.environ.get("HELD_IMPORTS"):
    home = Path(os.environ["HELD_IMPORTS"])
    (home / "importing").touch()
    while not (home / "go").exists():
        time.sleep(0.01)

@dataclass(frozen=True)
class Draw:
    folder: Path
    deadly: str = ""
    once: str = ""
    held: bool = False

    def __call__(self, slide):
        output = self.folder / "slides" / slide.slide_id / "numbers.bin"
        return make_once(output, "key", lambda: self.draw(slide.slide_id, output))

    def draw(self, name, output):
        with (self.folder / "begun.txt").open("a") as file:
            gpu = os.environ.get("CUDA_VISIBLE_DEVICES") or "-"
            file.write(f"{name} {os.getpid()} {gpu} {torch.get_num_threads()}\\n")
        if name == "bad":
            raise ValueError("no slide")
        first = name == self.once and not (self.folder / "killed").exists()
        if first or name == self.deadly:
            (self.folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with attempt(output, "key"):
            while self.held and not (self.folder / "go").exists():
                time.sleep(0.01)
            output.write_bytes(random.Random(name).randbytes(1000))
"""
NAMES = [f"s{number}" for number in range(8)]
FIRST = """
import os, sys
from pathlib import Path
from work_of_a_test import Draw
from xpath.batch.ledger import Ledger
from xpath.batch.ray_cluster import RayCluster
from xpath.batch.runner import run_stage
from xpath.batch.slides import SlideEntry
from xpath.batch.workers import LocalProcesses
folder, executor = Path(sys.argv[1]), sys.argv[2]
os.environ["HELD_IMPORTS"] = "".join(sys.argv[3:])
executor = {"local": LocalProcesses, "ray": RayCluster}[executor](count=2)
slides = [SlideEntry(slide_id=name, path=Path(name)) for name in "ab"]
ledger = Ledger(folder / "slides.csv", folder / "logs")
try:
    run_stage("draw", slides, Draw(folder, held=True), ledger, executor=executor, progress=False)
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(130)
"""
"""A process that has others work for it."""


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """The class of the work."""
    home = tmp_path / "code"
    home.mkdir()
    (home / "work_of_a_test.py").write_text(WORK)
    monkeypatch.syspath_prepend(home)
    path = os.pathsep.join((str(home), os.environ.get("PYTHONPATH", ""), str(Path.cwd())))
    monkeypatch.setenv("PYTHONPATH", path)
    yield importlib.import_module("work_of_a_test").Draw
    monkeypatch.delitem(importlib.sys.modules, "work_of_a_test")


def run(folder, executor, work, names=NAMES):
    folder.mkdir(exist_ok=True)
    slides = [SlideEntry(slide_id=name, path=Path(f"{name}.svs")) for name in names]
    ledger = Ledger(folder / "slides.csv", folder / "logs")
    return run_stage("draw", slides, work, ledger, executor=executor, progress=False)


def numbers(folder):
    return {path.parent.name: path.read_bytes() for path in folder.rglob("numbers.bin")}


def begun(folder):
    return Counter(line.split()[0] for line in (folder / "begun.txt").read_text().splitlines())


def pids(folder):
    return {line.split()[1] for line in (folder / "begun.txt").read_text().splitlines()}


def attempts(folder):
    rows = read_table(folder / "slides.csv")
    return {row["slide_id"]: int(row["attempts"]) for row in rows}


def is_gone(pid):
    return is_dead(this_process()._replace(pid=int(pid), started=""))


@pytest.fixture
def first(tmp_path, draw):
    """Starts a process whose workers are held in the middle of a slide each."""
    folder = tmp_path / "run"
    folder.mkdir()
    processes = []

    def first(*arguments):
        command = [sys.executable, "-c", FIRST, str(folder), *map(str, arguments)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a terminal sends Ctrl-C to all processes of a command
        )
        processes.append(process)
        return process

    yield first
    (folder / "go").touch()
    for process in processes:
        process.kill()
        process.communicate()


def at_work(folder):
    return (folder / "begun.txt").exists() and len(pids(folder)) == 2


def executors(tmp_path):
    yield "local", LocalProcesses(2)
    yield "ray", RayCluster(count=2)
    yield "slurm", SlurmArray(2, tmp_path / "jobs", cluster="local", poll_seconds=0.2)


@pytest.fixture(params=["local", "ray", "slurm"])
def executor(request, tmp_path):
    pytest.importorskip({"ray": "ray", "slurm": "submitit"}.get(request.param, "os"))
    return dict(executors(tmp_path))[request.param]


def test_the_same_files_as_in_this_process(tmp_path, draw, executor):
    here, there = tmp_path / "here", tmp_path / "there"
    names = [*NAMES, "bad"]
    expected = run(here, InProcess(), draw(here), names)
    report = run(there, executor, draw(there), names)

    assert (
        (report.done, report.failed) == (expected.done, expected.failed) == (tuple(NAMES), ("bad",))
    )
    assert numbers(there) == numbers(here)
    assert set(begun(there).values()) == {1}
    assert len(pids(there)) == 2
    assert str(os.getpid()) not in pids(there)
    assert "no slide" in Ledger(there / "slides.csv", there / "logs").entry("bad", "draw").reason


@pytest.mark.parametrize("executor", ["local", "ray"], indirect=True)
def test_a_killed_worker_loses_nothing(tmp_path, draw, executor):
    folder = tmp_path / "run"
    report = run(folder, executor, draw(folder, once="s3"))

    assert report.done == tuple(NAMES)
    assert len(numbers(folder)) == len(NAMES)
    assert begun(folder) == {**dict.fromkeys(NAMES, 1), "s3": 2}, "one slide is begun anew"


@pytest.mark.parametrize(
    "executor", ["local", pytest.param("slurm", marks=pytest.mark.slow)], indirect=True
)
def test_a_slide_that_ends_every_worker_is_given_up(tmp_path, draw, executor):
    folder = tmp_path / "run"
    names = ["a", "deadly", "b"]
    report = run(folder, executor, draw(folder, deadly="deadly"), names)

    assert report.failed == ("deadly",)
    assert report.done == ("a", "b")
    entry = Ledger(folder / "slides.csv", folder / "logs").entry("deadly", "draw")
    assert entry.status == "failed"
    assert "end" in entry.reason or "job" in entry.reason


def test_processes_wait_for_the_next_stage_and_share_the_cores(tmp_path, draw):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    executor = LocalProcesses(2)
    run(first, executor, draw(first))
    run(second, executor, draw(second))
    for pid in pids(second):
        os.kill(int(pid), signal.SIGKILL)  # while they wait
    report = run(third, executor, draw(third))

    assert pids(second) <= pids(first)
    assert report.done == tuple(NAMES)
    assert set(begun(third).values()) == {1}
    assert not pids(third) & pids(second)
    threads = {line.split()[3] for line in (first / "begun.txt").read_text().splitlines()}
    assert threads == {str(max(1, usable_cores() // 2))}


def test_processes_have_ended_when_their_executor_is_gone(tmp_path, draw):
    before = set(threading.enumerate())
    executor = LocalProcesses(2)
    run(tmp_path / "run", executor, draw(tmp_path / "run"))
    del executor

    left = [thread for thread in threading.enumerate() if thread not in before]
    assert all(thread.daemon for thread in left), "Python's end would race with theirs"
    for pid in pids(tmp_path / "run"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_processes_end_after_their_slide_when_the_first_was_killed(tmp_path, first, until):
    folder, process = tmp_path / "run", first("local")
    until(lambda: at_work(folder))
    process.kill()
    process.wait()
    time.sleep(0.2)
    assert not any(map(is_gone, pids(folder))), "they are in the middle of a slide"

    (folder / "go").touch()
    until(lambda: all(map(is_gone, pids(folder))))
    assert numbers(folder).keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("executor", "everyone"), [("local", False), ("local", True), ("ray", False)]
)
def test_ctrl_c_ends_the_work_and_is_held_against_no_slide(
    tmp_path, first, executor, everyone, until
):
    pytest.importorskip({"ray": "ray"}.get(executor, "os"))
    folder, process = tmp_path / "run", first(executor)
    until(lambda: at_work(folder) and len(list(folder.rglob(".*.attempts"))) == 2)
    (os.killpg if everyone else os.kill)(process.pid, signal.SIGINT)
    printed, errors = process.communicate(timeout=120)

    assert (process.returncode, printed) == (130, "interrupted\n")
    assert "Traceback" not in errors
    assert numbers(folder) == {}
    assert not list(folder.rglob(".*.attempts"))
    until(lambda: all(map(is_gone, pids(folder))))


def test_a_worker_that_is_told_to_end_leaves_its_slide_and_another_takes_it(tmp_path, first, until):
    folder, process = tmp_path / "run", first("local")
    until(lambda: at_work(folder) and len(list(folder.rglob(".*.attempts"))) == 2)
    before = pids(folder)
    os.kill(int(min(before)), signal.SIGTERM)
    until(lambda: len(pids(folder)) == 3)
    until(lambda: len(list(folder.rglob(".*.attempts"))) == 2)
    for marker in folder.rglob(".*.attempts"):
        assert len(marker.read_text().splitlines()) == 1, "the one before was no fault of the slide"
    (folder / "go").touch()

    process.communicate(timeout=120)
    assert process.returncode == 0
    assert numbers(folder).keys() == {"a", "b"}
    assert set(attempts(folder).values()) == {1}


def test_ctrl_c_while_processes_begin_prints_no_traceback(tmp_path, first, until):
    folder = tmp_path / "run"
    process = first("local", folder)
    until((folder / "importing").exists)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.2)  # the server hears it in the middle of its imports
    (folder / "go").touch()

    assert process.communicate(timeout=120) == ("interrupted\n", "")
    assert process.returncode == 130


def test_work_that_is_being_left_is_not_left_again(tmp_path):
    """An impatient second Ctrl-C would cut short how drafts and locks are removed."""
    removed = []

    def job(slide):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            removed.append(slide)

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as ended:
        _done(job, "a")

    assert ended.value.code == 130
    assert removed == ["a"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_who_leaves_an_array_hears_that_its_jobs_go_on(tmp_path, monkeypatch, caplog):
    submitit = pytest.importorskip("submitit")
    jobs = [
        SimpleNamespace(job_id=f"77_{number}", exception=lambda: None, result=lambda: ["entry"])
        for number in range(3)
    ]
    executor = SimpleNamespace(map_array=lambda *_: jobs)
    monkeypatch.setattr(submitit, "AutoExecutor", lambda **_: executor)
    array = SlurmArray(3, tmp_path / "jobs", cluster="local")
    slides = [SlideEntry(slide_id=name, path=Path(f"{name}.svs")) for name in NAMES]
    monkeypatch.setattr(submitit.helpers, "as_completed", lambda jobs, **_: iter(jobs))
    assert list(array.run(None, slides, lambda _: None)) == ["entry"] * 3
    assert caplog.text == ""

    def interrupted(jobs, **_):
        yield jobs[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(submitit.helpers, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(array.run(None, slides, lambda _: None))
    assert "2 jobs go on without this process; scancel 77" in caplog.text


def test_gpus_are_dealt_out(tmp_path, draw):
    folder = tmp_path / "run"
    run(folder, LocalProcesses(2, gpus=("0", "1")), draw(folder))

    seen = {line.split()[2] for line in (folder / "begun.txt").read_text().splitlines()}
    assert seen == {"0", "1"}
