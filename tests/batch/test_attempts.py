"""Work that ended its process is known at the next start."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from xpath.batch.attempts import attempt, attempts_path, ended_from_outside
from xpath.errors import SlideError

KILLED = """
import os, signal, sys
from pathlib import Path
from xpath.batch.attempts import attempt
with attempt(Path(sys.argv[1]), sys.argv[2]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def output(tmp_path):
    return tmp_path / "slides" / "case" / "masks.zarr"


def kill(output, key):
    """A process that the system ends in the middle of the work."""
    command = [sys.executable, "-c", KILLED, str(output), key]
    assert subprocess.run(command, check=False).returncode == -9


def test_work_that_ends_leaves_no_trace(output):
    with attempt(output, "key"):
        assert attempts_path(output).exists()
    with pytest.raises(ValueError, match="no tissue"), attempt(output, "key"):
        raise ValueError("no tissue")
    with pytest.raises(KeyboardInterrupt), attempt(output, "key"):
        raise KeyboardInterrupt

    assert list(output.parent.iterdir()) == []


def test_after_one_death_it_is_tried_again_and_said(output, caplog):
    kill(output, "key")

    with caplog.at_level(logging.WARNING, "xpath"), attempt(output, "key"):
        pass

    assert "the process ended while masks.zarr was made; it is tried once more" in caplog.text
    assert not attempts_path(output).exists(), "it went well: the death is forgotten"


def test_after_two_deaths_it_is_set_aside_until_somebody_wants_it(output):
    kill(output, "key")
    kill(output, "key")

    for _ in range(2):
        with (
            pytest.raises(
                SlideError, match=r"set aside.* 2 times.*process \d+ at 20.*--retry-failed"
            ),
            attempt(output, "key"),
        ):
            pytest.fail("it must not be tried")
    attempts_path(output).unlink()
    with attempt(output, "key"):
        pass


def test_a_straggler_leaves_the_line_of_its_successor(output):
    with attempt(output, "key"):
        first = attempts_path(output).read_text()
        attempts_path(output).write_text(f"{first}key process 7 at 2024\n")
    assert "process 7" in attempts_path(output).read_text()


def test_an_end_from_outside_is_not_held_against_the_slide_but_earlier_ones_are(output):
    kill(output, "key")
    kill(output, "other")
    died = attempts_path(output).read_text()
    assert len(died.splitlines()) == 1, "that of other settings counts no more"

    attempts_path(output).write_text(died + "other process 12 at noon\n")
    with ended_from_outside(output.parent):
        pass
    assert attempts_path(output).read_text() == died

    with ended_from_outside(output.parent):
        attempts_path(output).write_text("other process 13 at one\n")  # it was taken over
    assert attempts_path(output).read_text() == "other process 13 at one\n"

    with ended_from_outside(output.parent):
        pass
    assert not attempts_path(output).exists()


def test_other_settings_are_another_chance(output):
    kill(output, "key")
    kill(output, "key")

    with attempt(output, "smaller batch"):
        pass


def test_a_marker_that_somebody_broke_counts_as_none(output):
    output.parent.mkdir(parents=True)
    attempts_path(output).write_bytes(os.urandom(100))

    with attempt(output, "key"):
        pass
