"""Telling the living from the dead."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from xpath.store.process import is_dead, this_machine, this_process


def test_we_live_and_have_a_start():
    me = this_process()

    assert me.pid == os.getpid()
    assert not is_dead(me)


def test_a_process_that_ended_is_dead():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()

    assert is_dead(this_process()._replace(pid=child.pid))


def test_a_process_that_ended_unasked_is_dead():
    """Killed, and its parent has not asked how it ended: the system still lists it."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        process = this_process()._replace(pid=child.pid, started="")
        assert not is_dead(process)
        child.kill()
        end = time.monotonic() + 60
        while not is_dead(process) and time.monotonic() < end:
            time.sleep(0.01)
        assert child.returncode is None, "nobody asked"
        assert is_dead(process)


def test_a_reused_pid_is_another_process():
    me = this_process()
    if not me.started:
        pytest.skip("this system does not tell when a process started")

    assert is_dead(me._replace(started="1"))
    assert not is_dead(me._replace(started=""))


def test_other_machines_are_believed():
    gone = this_process()._replace(pid=2**22 + 1)

    assert is_dead(gone)
    assert not is_dead(gone._replace(machine="another-machine"))


def test_pid_namespaces_of_one_host_name_are_other_machines():
    """Two containers of one name: each has a process 7, and neither sees the other's."""
    name, boot, namespace = this_machine().split(":", 2)
    if not namespace:
        pytest.skip("this system has no pid namespaces")
    gone = this_process()._replace(pid=2**22 + 1)

    assert namespace.startswith("pid:[")
    assert not is_dead(gone._replace(machine=f"{name}:{boot}:pid:[1]"))
    assert not is_dead(gone._replace(machine=f"{name}:another-boot:{namespace}"))
