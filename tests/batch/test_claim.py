"""One of many processes gets the slide, and a dead one does not keep it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

from xpath.batch.claim import (
    LEASE_SECONDS,
    Busy,
    _Heart,
    claim,
    claim_in_turn,
    claimant,
    is_orphan,
    lock_of,
)
from xpath.batch.done import is_done, make_once
from xpath.store.process import this_process
from xpath.store.schema import atomic


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


def _age(output, seconds):
    past = time.time() - seconds
    os.utime(lock_of(output), (past, past))


def _lock(output, **changes):
    output.parent.mkdir(parents=True, exist_ok=True)
    content = {"time": "2024-01-01T00:00:00+00:00", "token": "x", **this_process()._asdict()}
    lock_of(output).write_text(json.dumps(content | changes))


def test_other_machines_are_believed_and_named(output):
    _lock(output, host="node-7", machine="node-7:boot:pid", pid=1)

    with claim(output) as mine:
        assert not mine
    assert "process 1 on node-7 since 2024" in claimant(output)


def test_a_reused_pid_is_not_the_old_process(output):
    if not this_process().started:
        pytest.skip("this system does not tell when a process started")
    _lock(output, started="1")

    with claim(output) as mine:
        assert mine


def test_a_lost_machine_is_succeeded_when_its_lease_is_over(output):
    _lock(output, machine="node-7:boot:pid")
    _age(output, LEASE_SECONDS - 5)
    with claim(output) as mine:
        assert not mine
    assert not is_orphan(lock_of(output))

    _age(output, LEASE_SECONDS + 5)
    assert is_orphan(lock_of(output))
    with claim(output) as mine:
        assert mine
        assert f"process {os.getpid()}" in claimant(output)


def test_a_claimant_keeps_its_lease(output, monkeypatch, until):
    monkeypatch.setattr("xpath.batch.claim.BEAT_SECONDS", 0.02)
    monkeypatch.setattr("xpath.batch.claim._heart", _Heart())
    with claim(output):
        _age(output, 3 * LEASE_SECONDS)
        until(lambda: not is_orphan(lock_of(output)))


def test_of_threads_that_claim_first_at_once_each_keeps_its_lease(tmp_path, monkeypatch):
    outputs, begun = [tmp_path / name for name in "abcd"], []
    monkeypatch.setattr("xpath.batch.claim._heart", heart := _Heart())
    make, pid = threading.Thread, os.getpid()
    monkeypatch.setattr(
        "xpath.batch.claim.threading.Thread", lambda **what: begun.append(what) or make(**what)
    )
    # slow, so that the others come before the first is through
    monkeypatch.setattr("xpath.batch.claim.os.getpid", lambda: time.sleep(0.05) or pid)
    through = threading.Barrier(5)

    def work(output):
        with claim(output):
            through.wait()
            through.wait()

    threads = [make(target=work, args=(output,), daemon=True) for output in outputs]
    [thread.start() for thread in threads]
    through.wait()
    touched = set(heart._locks)
    through.wait()
    [thread.join() for thread in threads]

    assert len(begun) == 1
    assert touched == set(map(lock_of, outputs))


def test_a_lock_that_was_taken_over_is_not_removed(output):
    with claim(output):
        lock_of(output).unlink()
        _lock(output)
    assert lock_of(output).exists()


@pytest.mark.parametrize("folder", [False, True])
def test_who_lost_its_lease_does_not_write_over_the_successor(output, folder):
    """As after a machine slept for minutes in the middle of a slide."""

    def produce(text):
        with atomic(output) as draft:
            if folder:
                draft.mkdir()
            (draft / "a" if folder else draft).write_text(text)

    def slow():
        _lock(output)  # another process took over, and is through
        if folder:
            output.mkdir()
        (output / "a" if folder else output).write_text("successor")
        produce("straggler")

    with pytest.raises(Busy, match=f"was taken over by process {os.getpid()}"):
        make_once(output, "key", slow)

    assert (output / "a" if folder else output).read_text() == "successor"
    assert lock_of(output).exists(), "the lock is the successor's"
    assert not list(output.parent.glob(".*.part"))
    assert not is_done(output, "key"), "it seals what it made itself"


def test_an_output_without_claim_has_no_fence(output):
    with atomic(output) as draft:
        draft.write_text("a")
    with claim(output):
        lock_of(output).unlink()
        with pytest.raises(Busy, match="another process"), atomic(output) as draft:
            draft.write_text("b")
    with atomic(output) as draft:
        draft.write_text("c")
    assert output.read_text() == "c"


def test_in_turn_waits_for_the_other(output, caplog, until):
    order = []

    def second():
        with claim_in_turn(output):
            order.append("second")

    thread = threading.Thread(target=second)
    with claim(output):
        thread.start()
        until(lambda: f"waiting for process {os.getpid()}" in caplog.text)
        order.append("first")
    thread.join(timeout=120)
    assert order == ["first", "second"]


def test_an_empty_lock_is_believed_for_a_lease(output):
    output.parent.mkdir(parents=True)
    lock_of(output).write_text("")
    with claim(output) as mine:
        assert not mine
    assert "another process" in claimant(output)

    _age(output, LEASE_SECONDS + 5)
    with claim(output) as mine:
        assert mine


def test_of_many_threads_one_succeeds_a_dead_process(output):
    """All see the same stale lock at once. Were it removed and made anew, several could win."""
    for _ in range(20):
        _lock(output, started="1")
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
    outputs = [worker.communicate(timeout=300) for worker in workers]

    assert [worker.returncode for worker in workers] == [0, 0], outputs
    made = [(tmp_path / f"slide-{slide}").read_text() for slide in range(60)]
    assert set(made) <= {"1", "2"}, "a slide was made twice"
    assert not list(tmp_path.glob(".*lock"))
