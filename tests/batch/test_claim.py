"""One of many processes gets the slide, and a dead one does not keep it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

from xpath.batch.claim import claim, claimant, lock_of
from xpath.store.process import this_process


@pytest.fixture
def output(tmp_path):
    return tmp_path / "slide" / "masks.zarr"


def test_the_second_waits_outside_and_the_lock_goes(output):
    with claim(output) as mine:
        assert mine
        content = json.loads(lock_of(output).read_text())
        assert content["pid"] == os.getpid()
        assert {"host", "time"} <= set(content)
        with claim(output) as again:
            assert not again
        assert lock_of(output).exists(), "a refused claim must not remove the lock"
        assert f"process {os.getpid()}" in claimant(output)

    assert not lock_of(output).exists()
    assert claimant(output) == ""


def test_an_error_frees_the_slide(output):
    with pytest.raises(ZeroDivisionError), claim(output):
        raise ZeroDivisionError

    with claim(output) as mine:
        assert mine


def test_a_killed_process_is_succeeded(output, python):
    code = """
from pathlib import Path
from xpath.batch.claim import claim
with claim(Path(sys.argv[1])) as mine:
    assert mine
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert python(code, output).returncode == -signal.SIGKILL
    assert lock_of(output).exists()

    with claim(output) as mine:
        assert mine
        assert f"process {os.getpid()}" in claimant(output)
    assert not lock_of(output).exists()


def _lock(output, **changes):
    output.parent.mkdir(parents=True)
    content = this_process()._asdict() | {"time": "2024-01-01T00:00:00+00:00"} | changes
    lock_of(output).write_text(json.dumps(content))


def test_other_machines_are_believed_and_named(output):
    _lock(output, host="node-7", pid=1)

    with claim(output) as mine:
        assert not mine
    assert "process 1 on node-7 since 2024" in claimant(output)
    assert f"remove {lock_of(output)}" in claimant(output)


def test_a_reused_pid_is_not_the_old_process(output):
    if not this_process().started:
        pytest.skip("this system does not tell when a process started")
    _lock(output, started="another-boot:1")

    with claim(output) as mine:
        assert mine


def test_an_empty_lock_is_believed_for_a_minute(output):
    output.parent.mkdir(parents=True)
    lock_of(output).write_text("")
    with claim(output) as mine:
        assert not mine
    assert "another process" in claimant(output)

    past = time.time() - 61
    os.utime(lock_of(output), (past, past))
    with claim(output) as mine:
        assert mine


def test_of_many_threads_one_succeeds_a_dead_process(output):
    """All see the same stale lock at once. Were it removed and made anew, several could win."""
    for _ in range(20):
        _lock(output, started="another-boot:1")
        start, finish = threading.Barrier(4), threading.Barrier(4)
        won = []

        def compete(won=won, start=start, finish=finish):
            start.wait()
            with claim(output) as mine:
                won.append(mine)
                finish.wait()

        threads = [threading.Thread(target=compete) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert sorted(won) == [False, False, False, True]
        assert not lock_of(output).exists()
        output.parent.rmdir()


RACE = """
import time
from pathlib import Path
from xpath.batch.claim import claim
folder, number = Path(sys.argv[1]), sys.argv[2]
(folder / f"ready-{number}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.001)
for slide in range(60):
    with claim(folder / f"slide-{slide}") as mine:
        if mine and not (folder / f"slide-{slide}").exists():
            time.sleep(0.001)
            with (folder / f"slide-{slide}").open("a") as file:
                file.write(number)
"""


def test_two_processes_share_the_slides(tmp_path, start):
    workers = [start(RACE, tmp_path, number) for number in "12"]
    outputs = [worker.communicate(timeout=60) for worker in workers]

    assert [worker.returncode for worker in workers] == [0, 0], outputs
    made = [(tmp_path / f"slide-{slide}").read_text() for slide in range(60)]
    assert set(made) <= {"1", "2"}, "a slide was made twice"
    assert not list(tmp_path.glob(".*lock"))
