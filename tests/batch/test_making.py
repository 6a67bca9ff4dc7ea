"""An output is made once, and again when anything about it changed."""

from __future__ import annotations

import pytest

from xpath.batch.claim import claim
from xpath.batch.making import make_once
from xpath.batch.record import read_key
from xpath.batch.runner import Busy


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.txt"


def test_made_once_and_again_for_other_settings_or_damage(output):
    made = []

    def produce():
        made.append(1)
        output.write_text("whole")

    assert make_once(output, "key", produce)
    assert not make_once(output, "key", produce)
    assert make_once(output, "other", produce)
    output.write_text("who")
    assert make_once(output, "other", produce)
    assert len(made) == 3


def test_a_failure_is_not_done_and_frees_the_output(output):
    def fails():
        output.write_text("half")
        raise RuntimeError

    make_once(output, "old", lambda: output.write_text("whole"))
    with pytest.raises(RuntimeError):
        make_once(output, "key", fails)
    assert read_key(output) == "", "not even of the old settings"
    assert make_once(output, "key", lambda: output.write_text("whole"))


def test_what_another_makes_is_left_to_it(output):
    with claim(output), pytest.raises(Busy, match=r"out\.txt is being made by process"):
        make_once(output, "key", lambda: output.write_text("mine"))
    assert not output.exists()


def test_what_another_made_meanwhile_is_not_made_again(output, monkeypatch):
    """Not done when we look, but done once the claim is ours."""
    answers = iter([False, True])
    monkeypatch.setattr("xpath.batch.making.is_done", lambda *_: next(answers))

    assert not make_once(output, "key", lambda: output.write_text("again"))
    assert not output.exists()
