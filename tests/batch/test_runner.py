"""A slide's failure is its own. It is written down and tried again."""

from __future__ import annotations

import pickle
import signal
from dataclasses import dataclass

import pytest
from tqdm import tqdm

from xpath.batch.claim import Busy, claim, claimant
from xpath.batch.ledger import Ledger, LedgerEntry
from xpath.batch.runner import InProcess, run_stage
from xpath.batch.slides import SlideEntry
from xpath.batch.slurm import SlurmArray
from xpath.errors import DataError, SlideError, StoreError
from xpath.store.tables import read_table


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "slides.csv", tmp_path / "logs")


def table(ledger):
    return {(row["slide_id"], row["stage"]): row for row in read_table(ledger.path)}


def test_a_failure_is_recorded_and_the_others_go_on(slides, ledger, caplog):
    worked_on = []

    def work(slide):
        worked_on.append(slide.slide_id)
        if slide.slide_id == "b":
            raise SlideError("b.svs cannot be read;\n  copy it again")

    report = run_stage("segment", slides, work, ledger, progress=False)

    assert worked_on == ["a", "b", "c"]
    assert (report.done, report.failed) == (("a", "c"), ("b",))
    assert not report.ok
    row = table(ledger)["b", "segment"]
    assert row["status"] == "failed"
    assert row["reason"] == "SlideError: b.svs cannot be read; copy it again"
    assert row["attempts"] == "1"
    assert float(row["seconds"]) >= 0
    log = (ledger.logs / "b.segment.log").read_text()
    assert "Traceback" in log
    assert "in work" in log
    assert "b failed in segment" in caplog.text
    assert [path.name for path in ledger.logs.iterdir()] == ["b.segment.log"]


@pytest.mark.parametrize(
    "error", [MemoryError(), ValueError(), AssertionError("x"), OSError(5, "x")]
)
def test_any_exception_is_one_slides_matter(slides, ledger, error):
    def work(slide):
        if slide.slide_id == "a":
            raise error

    report = run_stage("segment", slides, work, ledger, progress=False)

    assert (report.done, report.failed) == (("b", "c"), ("a",))
    assert type(error).__name__ in table(ledger)["a", "segment"]["reason"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_ends_the_stage(slides, ledger, error):
    def work(slide):
        if slide.slide_id == "b":
            raise error

    with pytest.raises(error):
        run_stage("segment", slides, work, ledger, progress=False)
    assert list(table(ledger)) == [("a", "segment")], "what was done before is kept"


def test_failures_are_tried_again_and_counted(slides, ledger):
    def fails(slide):
        raise RuntimeError("no")

    for _ in range(2):
        run_stage("segment", slides[:1], fails, ledger, progress=False)
    again = Ledger(ledger.path, ledger.logs)
    assert again.entry("a", "segment").attempts == 2

    report = run_stage("segment", slides[:1], lambda _: True, again, progress=False)
    assert report.ok
    row = table(again)["a", "segment"]
    assert (row["status"], row["attempts"], row["reason"]) == ("done", "3", "")
    assert not list(ledger.logs.iterdir()), "the traceback of a slide that is done misleads"


def test_what_was_there_already_is_done_but_no_attempt(slides, ledger):
    run_stage("segment", slides, lambda _: True, ledger, progress=False)
    report = run_stage("segment", slides, lambda _: False, ledger, progress=False)

    assert report.done == ("a", "b", "c")
    assert {row["attempts"] for row in table(ledger).values()} == {"1"}


@pytest.fixture
def claimed_work(tmp_path):
    """Work that leaves a slide to whoever claimed it."""

    def work(slide):
        with claim(tmp_path / slide.slide_id) as mine:
            if not mine:
                raise Busy(claimant(tmp_path / slide.slide_id))

    return work


def test_a_stage_waits_for_slides_of_others(slides, ledger, tmp_path, claimed_work, monkeypatch):
    monkeypatch.setattr("xpath.batch.runner.POLL_SECONDS", 0.01)
    asked = []

    def work(slide):
        asked.append(slide.slide_id)
        if len(asked) == 6:
            other.__exit__(None, None, None)  # the other process is through
        claimed_work(slide)

    other = claim(tmp_path / "b")
    assert other.__enter__()
    report = run_stage("segment", slides, work, ledger, progress=False)

    assert asked == ["a", "b", "c", "b", "b", "b"], "the others are not asked again"
    assert (report.done, report.failed) == (("a", "b", "c"), ())
    assert {row["status"] for row in table(ledger).values()} == {"done"}


def test_what_fails_elsewhere_meanwhile_is_not_tried_again(slides, ledger, monkeypatch):
    monkeypatch.setattr("xpath.batch.runner.POLL_SECONDS", 0.0)
    ledger.note("b", "segment", failure="of before", seconds=1)
    asked = []

    def work(slide):
        asked.append(slide.slide_id)
        if slide.slide_id != "b":
            return
        if len(asked) == 5:
            Ledger(ledger.path, ledger.logs).note("b", "segment", failure="there", seconds=1)
        raise Busy("another process")

    report = run_stage("segment", slides, work, ledger, progress=False)

    assert asked == ["a", "b", "c", "b", "b"]
    assert (report.done, report.failed) == (("a", "c"), ("b",))
    assert table(ledger)["b", "segment"]["reason"] == "there"


def test_stages_have_entries_of_their_own(slides, ledger):
    run_stage("segment", slides, lambda _: True, ledger, progress=False)
    run_stage("features", slides, lambda _: 1 / 0, ledger, progress=False)

    statuses = {key: row["status"] for key, row in table(ledger).items()}
    assert statuses["a", "segment"] == "done"
    assert statuses["a", "features"] == "failed"
    assert len(statuses) == 6


def test_two_ledgers_do_not_forget_each_others_entries(slides, ledger):
    other = Ledger(ledger.path, ledger.logs)
    run_stage("segment", slides[:1], lambda _: True, ledger, progress=False)
    run_stage("segment", slides[1:], lambda _: True, other, progress=False)
    run_stage("segment", slides[:1], lambda _: False, ledger, progress=False)

    assert list(table(ledger)) == [(name, "segment") for name in "abc"]
    assert ledger.entry("c", "segment").status == "done"


def test_what_a_killed_stage_did_is_merged_by_the_next(slides, ledger):
    ledger.note("a", "segment", seconds=1)
    assert not ledger.path.exists()

    run_stage("segment", slides, lambda _: False, ledger, progress=False)
    assert table(ledger)["a", "segment"]["attempts"] == "1"


def test_who_finds_a_slide_done_leaves_the_attempts_of_who_made_it(ledger):
    """The maker seals the output first and writes down second; others may look in between."""
    other = Ledger(ledger.path, ledger.logs)
    assert other.note("a", "segment").attempts == 0
    ledger.note("a", "segment", seconds=2)
    entry = other.note("a", "segment")

    assert (entry.status, entry.attempts, entry.seconds) == ("done", 1, 2)


def test_a_ledger_goes_to_another_process_as_its_paths(slides, ledger):
    run_stage("segment", slides, lambda _: True, ledger, progress=False)
    again = pickle.loads(pickle.dumps(ledger))  # noqa: S301 - our own

    assert again.entry("a", "segment") == ledger.entry("a", "segment")
    assert len(pickle.dumps(ledger)) < 1000


def test_a_table_of_an_older_version_is_kept(slides, ledger):
    ledger.path.write_text("slide_id,stage,status,attempts\nz,segment,done,2\na,segment,failed,3\n")
    again = Ledger(ledger.path, ledger.logs)
    entry = LedgerEntry(slide_id="z", stage="segment", status="done", attempts=2)
    assert again.entry("z", "segment") == entry

    run_stage("segment", slides, lambda _: True, again, progress=False)
    rows = table(again)
    assert [key[0] for key in rows] == ["z", "a", "b", "c"]
    assert rows["a", "segment"]["attempts"] == "4"


def test_a_column_of_a_newer_version_is_named(slides, ledger, caplog):
    ledger.path.write_text("slide_id,stage,status,gpu_hours\nz,segment,done,7\n")

    assert Ledger(ledger.path, ledger.logs).entry("z", "segment").status == "done"
    assert "slides.csv has gpu_hours of a newer version" in caplog.text


def test_a_new_column_leaves_a_finished_table_as_it_is(slides, ledger, monkeypatch):
    @dataclass(kw_only=True, slots=True)
    class Wider(LedgerEntry):
        host: str = "here"

    run_stage("segment", slides, lambda _: True, ledger, progress=False)
    before = ledger.path.read_bytes()
    monkeypatch.setattr("xpath.batch.ledger.LedgerEntry", Wider)
    again = Ledger(ledger.path, ledger.logs)
    run_stage("segment", slides, lambda _: False, again, progress=False)
    assert ledger.path.read_bytes() == before

    again.note("d", "segment", seconds=1)
    again.merge("segment", ["d"])
    assert [row["host"] for row in table(again).values()] == ["here"] * 4


def test_a_broken_table_is_put_aside(slides, ledger, caplog):
    ledger.path.write_text("slide_id,stage,attempts\na,segment,many\n")
    again = Ledger(ledger.path, ledger.logs)
    run_stage("segment", slides, lambda _: True, again, progress=False)

    assert len(table(again)) == 3
    assert ledger.path.with_name("slides.csv.damaged").exists()
    assert "attempts must be int, got 'many'; it is kept as slides.csv.damaged" in caplog.text


def test_slides_of_one_name_are_refused(slides, ledger):
    twice = [*slides, SlideEntry(slide_id="a", path=slides[1].path)]

    with pytest.raises(DataError, match=r"\['a'\]"):
        run_stage("segment", twice, lambda _: True, ledger, progress=False)


def test_the_bar_goes_to_stderr(slides, ledger, capsys):
    run_stage("segment", slides, lambda _: True, ledger)
    printed = capsys.readouterr()

    assert printed.out == ""
    assert "segment" in printed.err
    assert "3/3" in printed.err
    assert run_stage("segment", [], lambda _: True, ledger).ok
    assert capsys.readouterr().err == ""


def test_a_queue_is_not_filled_by_asking_for_slides_of_others(slides, ledger, monkeypatch):
    waited, busy = [], ["b", "b", "b"]
    monkeypatch.setattr("xpath.batch.runner.time.sleep", waited.append)

    def work(slide):
        if slide.slide_id in busy:
            busy.pop()
            raise Busy("another process is at it")

    class Queue(InProcess):
        busy_seconds = SlurmArray.busy_seconds

    assert run_stage("s", slides, work, ledger, executor=Queue(), progress=False).ok
    assert waited == [60.0] * 3


def test_a_damaged_table_that_another_process_puts_aside_first_is_no_error(ledger, monkeypatch):
    def damaged(path, _):
        path.unlink()
        raise StoreError("damaged")

    ledger.path.parent.mkdir(parents=True, exist_ok=True)
    ledger.path.touch()
    monkeypatch.setattr("xpath.batch.ledger.read_rows", damaged)
    assert ledger.entry("a", "segment").attempts == 0


def test_the_bar_shows_the_slide_and_its_patches(slides, ledger, capsys, monkeypatch, until):
    monkeypatch.setattr("xpath.batch.runner.WATCH_SECONDS", 0.01)
    monkeypatch.setattr("xpath.batch.ledger.COUNT_SECONDS", 10.0)
    far, shown, show = [], [], tqdm.set_postfix_str

    def see(bar, text):
        show(bar, text)
        shown.append(text)

    monkeypatch.setattr(tqdm, "set_postfix_str", see)

    def work(slide):
        count = ledger.counter(slide.slide_id, "segment", 40)
        count(8)
        count(8)  # too soon to be written down
        far.append(ledger.under_way(slide.slide_id))
        until(lambda: f"{slide.slide_id} segment 8/40 patches" in shown)

    run_stage("segment", slides, work, ledger)

    assert far == ["segment 8/40 patches"] * 3
    printed = capsys.readouterr().err
    for slide in slides:
        assert f"{slide.slide_id} segment 8/40 patches" in printed
        assert ledger.under_way(slide.slide_id) == ""


KILLED = """
import sys
from pathlib import Path
from xpath.batch.claim import claim
from xpath.batch.done import is_done, key_of, mark_done
from xpath.batch.ledger import Ledger, LedgerEntry
from xpath.batch.claim import Busy
from xpath.batch.runner import run_stage
from xpath.batch.slides import SlideEntry
from xpath.store.schema import atomic
folder, victim = Path(sys.argv[1]), sys.argv[2]
def work(slide):
    output, key = folder / slide.slide_id, key_of("v1")
    if is_done(output, key):
        return False
    with claim(output) as mine:
        if not mine:
            raise Busy
        with atomic(output) as draft:
            draft.write_text("half")
            if slide.slide_id == victim:
                os.kill(os.getpid(), signal.SIGKILL)
            draft.write_text("whole")
        mark_done(output, key)
    return True
slides = [SlideEntry(slide_id=name, path=Path(name)) for name in "abc"]
ledger = Ledger(folder / "slides.csv", folder / "logs")
report = run_stage("s", slides, work, ledger, progress=False)
print(*report.done)
"""


def test_a_killed_run_is_taken_up_where_it_was(tmp_path, python, start):
    folder = tmp_path / "run"
    assert python(KILLED, folder, "b").returncode == -signal.SIGKILL
    assert (folder / "a").read_text() == "whole"
    assert not (folder / "b").exists()

    with start(KILLED, folder, "nobody") as process:
        out, err = process.communicate(timeout=300)

    assert out.split() == ["a", "b", "c"], err
    attempts = {
        key[0]: row["attempts"] for key, row in table(Ledger(folder / "slides.csv", folder)).items()
    }
    assert attempts == {"a": "1", "b": "1", "c": "1"}
    names = {path.name for path in folder.iterdir()}
    assert names == {"slides.csv", "slides", *"abc", *(f"{name}.done.json" for name in "abc")}
