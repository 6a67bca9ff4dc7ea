"""Several processes on one run folder share the slides, and one that is killed loses nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from xpath.batch.attempts import forget_attempts
from xpath.batch.ray_cluster import RayCluster
from xpath.store.tables import read_table
from xpath.study.chain import Batch, features_stage, run_chain, segment_stage
from xpath.study.checkup import check_run, remove_leftovers
from xpath.study.study import new_study, open_study

pytestmark = pytest.mark.integration

RUN = """
import sys
from pathlib import Path
from xpath.batch.selection import Selection, Shard
from xpath.study.chain import Batch, features_stage, run_chain
from xpath.study.study import open_study
study, shard = open_study(Path(sys.argv[1])), [*map(int, sys.argv[2:])]
batch = Batch(selection=Selection(shard=Shard(*shard))) if shard else Batch()
sys.exit(not run_chain(study, title="six slides", batch=batch))
"""


@pytest.fixture
def begun(tmp_path, small, slides):
    """A run folder in which nothing was made yet."""
    return new_study(tmp_path / "run", small, slides).folder.root


def start(root, *shard):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(root), *map(str, shard)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def finish(*processes):
    for process in processes:
        _, printed = process.communicate(timeout=300)
        assert process.returncode == 0, printed


def attempts(root):
    """How often slides were worked on, over all stages."""
    return Counter(int(row["attempts"]) for row in read_table(root / "slides.csv"))


@pytest.mark.slow
def test_two_processes_share_a_run(begun, finished, files_of):
    finish(start(begun), start(begun))

    assert files_of(begun) == files_of(finished)
    assert set(attempts(begun)) == {1}, "nothing is made twice"
    assert not [path for path in begun.rglob(".*") if path.suffix in {".lock", ".part"}]


def test_shards_share_the_slides_and_one_run_goes_on(begun, finished, files_of, slides):
    finish(start(begun, 0, 2), start(begun, 1, 2))

    rows = read_table(begun / "slides.csv")
    assert {row["stage"] for row in rows} == {"segment", "features"}
    assert len(rows) == 2 * len(slides)
    assert not (begun / "models").exists(), "a part of the slides cannot train"
    assert run_chain(open_study(begun), title="six slides")
    assert files_of(begun) == files_of(finished)
    assert set(attempts(begun)) == {1}


def test_one_of_two_is_killed_and_the_other_goes_on(begun, finished, files_of):
    first, second = start(begun), start(begun)
    until(lambda: both_in_the_middle(begun, first))
    kill(first)
    finish(second)

    assert files_of(begun) == files_of(finished)
    assert set(attempts(begun)) == {1}


@pytest.mark.parametrize("options", [[], ["--workers=2"]], ids=["one process", "two workers"])
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(begun, slides, finished, files_of, options):
    code = "import sys; from xpath.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = ["segment", str(slides[0].path.parent), "--out", str(begun), *options]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal sends Ctrl-C to all processes of the command
    )
    until(lambda: list(begun.glob("slides/*/objects.h5.done.json")))
    until(lambda: list(begun.glob("slides/*/.masks.zarr.*.part")))
    os.killpg(process.pid, signal.SIGINT)
    printed = "".join(process.communicate(timeout=300))

    assert process.returncode == 130
    assert "Traceback" not in printed
    said = [line for line in printed.replace("\r", "\n").splitlines() if "interrupted" in line]
    assert len(said) == 1
    assert "are kept, run the same command again to go on" in said[0]
    kept = {path: path.stat() for path in begun.glob("slides/*/masks.zarr/zarr.json")}
    assert kept
    assert segment_stage(open_study(begun)).ok
    assert {path: path.stat() for path in kept} == kept
    assert not [path for path in begun.rglob(".*") if path.suffix in {".lock", ".part"}]
    made = files_of(begun / "slides")
    assert made == {name: files_of(finished / "slides")[name] for name in made}


def both_in_the_middle(root, process):
    """Whether each of two processes is at a slide. If so, one stands still from now on."""
    os.kill(process.pid, signal.SIGSTOP)
    if len(list(root.glob("slides/*/.masks.zarr.lock"))) == 2:
        return True
    os.kill(process.pid, signal.SIGCONT)
    return False


def until(condition):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_at_any_moment_ends_as_an_undisturbed_one(
    begun, finished, files_of, rounds
):
    rng = random.Random(rounds)
    for _ in range(rounds):
        process = start(begun)
        time.sleep(rng.uniform(3, 8))
        kill(process)
        for folder in begun.glob("slides/*"):
            forget_attempts(folder)  # the kills were no fault of the slides

    finish(start(begun))
    assert files_of(begun) == files_of(finished)
    study = open_study(begun)
    remove_leftovers(study)
    assert check_run(study) == []


def test_a_ray_cluster_gives_the_same_bytes(begun, finished, files_of, slides):
    pytest.importorskip("ray")
    study = open_study(begun)
    batch = Batch(executor=RayCluster(count=2))

    assert segment_stage(study, batch=batch, features=True).ok
    assert features_stage(study, batch=batch).ok

    made, expected = files_of(begun / "slides"), files_of(finished / "slides")
    assert {name.partition("/")[0] for name in made} == {entry.slide_id for entry in slides}
    assert made == {name: expected[name] for name in made}
    assert set(attempts(begun)) == {1}
