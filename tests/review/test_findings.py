import csv
import io
import json
import sqlite3
import threading
import time
import uuid
from contextlib import closing
from dataclasses import replace

import pytest

from xpath.errors import StoreError
from xpath.review.findings import TO_WRITE, Finding, Findings
from xpath.review.findings_files import findings_csv, findings_geojson
from xpath.review.refusal import Refused

RING = ((10.0, 20.0), (30.0, 20.0), (30.0, 40.004), (10.0, 20.0))


@pytest.fixture
def finding():
    return Finding(
        slide_id="s", object="breast-tissue-tumor/10,20", label="breast-tissue-tumor",
        reviewer="Ann", verdict="disagree", comment="=1+1", x=12.0, y=21.0,
        origin_x=10, origin_y=20, rings=(RING,), numbers={"contribution": -0.5},
    )  # fmt: skip


@pytest.fixture
def findings(tmp_path):
    return Findings(tmp_path / "review" / "findings.sqlite")


def test_what_is_saved_is_read(findings, finding):
    saved = findings.save(finding)

    assert saved.changed.endswith("+00:00")
    assert replace(saved, changed="") == finding
    assert Findings(findings.path).read("s") == [saved]
    assert findings.read("other") == []


def test_a_reviewer_has_one_finding_per_object_and_others_have_theirs(findings, finding):
    findings.save(finding)
    findings.save(replace(finding, verdict="agree"))
    findings.save(replace(finding, reviewer="Bob"))

    found = {f.reviewer: f.verdict for f in findings.read()}
    assert found == {"Ann": "agree", "Bob": "disagree"}
    assert findings.count() == {"s": 2}


def test_readers_do_not_wait_for_a_writer(findings, finding):
    """Write-ahead logging: a reader sees what was, a second writer waits its turn."""
    findings.save(finding)
    base = sqlite3.connect(findings.path, isolation_level=None)
    base.execute("BEGIN IMMEDIATE")
    base.execute("UPDATE findings SET comment = 'half done'")
    second = threading.Thread(target=findings.save, args=(replace(finding, reviewer="Bob"),))
    second.start()

    assert base.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert [f.comment for f in findings.read()] == ["=1+1"]

    base.execute("COMMIT")
    base.close()
    second.join(timeout=120)
    assert {f.reviewer: f.comment for f in findings.read()} == {"Ann": "half done", "Bob": "=1+1"}


@pytest.mark.parametrize(
    "change", [{"verdict": ""}, {"reviewer": " "}, {"reviewer": "x" * 81}, {"comment": "x" * 4001}]
)
def test_nonsense_is_refused(findings, finding, change):
    with pytest.raises(Refused):
        findings.save(replace(finding, **change))
    assert findings.read() == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "review").write_text("a file where the folder should be")

    with pytest.raises(StoreError, match="cannot be used"):
        Findings(tmp_path / "review" / "findings.sqlite")


def test_files_of_strangers_and_of_other_versions_are_refused(tmp_path, findings):
    (tmp_path / "text.sqlite").write_text("no database, but long enough to be one" * 10)
    with pytest.raises(StoreError, match="cannot be used"):
        Findings(tmp_path / "text.sqlite")
    base = sqlite3.connect(findings.path)
    base.execute("PRAGMA user_version=7")
    base.close()
    with pytest.raises(StoreError, match="version 7, wanted 2"):
        Findings(findings.path)


def test_findings_of_version_1_are_kept(findings, finding):
    saved = findings.save(finding)
    base = sqlite3.connect(findings.path)
    base.execute("ALTER TABLE findings DROP COLUMN instead")
    base.execute("PRAGMA user_version=1")
    base.close()

    assert Findings(findings.path).read() == [saved]
    assert Findings(findings.path).save(replace(finding, instead="fat")).instead == "fat"


@pytest.mark.parametrize("version", [0, 1])
def test_of_servers_that_start_at_once_all_can_use_the_file(tmp_path, version):
    for number in range(10):
        path = tmp_path / str(number) / "findings.sqlite"
        if version == 1:
            Findings(path)
            with closing(sqlite3.connect(path)) as base:
                base.execute("ALTER TABLE findings DROP COLUMN instead")
                base.execute("PRAGMA user_version=1")
        start, ready = threading.Barrier(4), []

        def begin(path=path, start=start, ready=ready):
            start.wait()
            ready.append(Findings(path).read())

        threads = [threading.Thread(target=begin) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert ready == [[]] * 4


def test_a_server_that_was_killed_amid_the_change_of_version_changes_nothing(findings, finding):
    """Earlier versions could leave the new column under the old number."""
    saved = findings.save(finding)
    with closing(sqlite3.connect(findings.path)) as base:
        base.execute("PRAGMA user_version=1")

    assert Findings(findings.path).read() == [saved]


def test_a_file_that_another_program_holds_is_said_and_not_waited_for(findings, finding):
    findings.save(finding)
    base = sqlite3.connect(findings.path, isolation_level=None)
    base.execute("PRAGMA locking_mode=EXCLUSIVE")
    base.execute("BEGIN EXCLUSIVE")
    base.execute("UPDATE findings SET comment = ''")

    started = time.monotonic()
    with pytest.raises(Refused, match="nothing is lost") as refused:
        findings.read()
    assert refused.value.status == 503
    assert time.monotonic() - started < TO_WRITE
    base.close()
    assert len(findings.read()) == 1


def test_the_table_has_every_number_and_no_formula(finding):
    other = replace(finding, slide_id="t", comment='fine, "really"\nyes', numbers={"area um2": 3.5})

    rows = list(csv.DictReader(io.StringIO(findings_csv([finding, other]))))

    assert [row["comment"] for row in rows] == ["'=1+1", 'fine, "really"\nyes']
    assert [row["contribution"] for row in rows] == ["-0.5", ""]
    assert [row["area um2"] for row in rows] == ["", "3.5"]
    assert rows[0]["x"] == "12.0"


def test_geojson_is_what_qupath_reads(finding):
    (feature,) = json.loads(findings_geojson([finding]))["features"]

    inside = feature["properties"]
    assert uuid.UUID(feature["id"]).version == 5
    assert feature["geometry"]["coordinates"] == [[[0, 0], [20, 0], [20, 20], [0, 0]]]  # shifted
    assert inside["objectType"] == "annotation"
    assert inside["classification"]["names"] == ["breast-tissue-tumor", "disagree"]
    assert len(inside["classification"]["color"]) == 3
    assert inside["measurements"] == {"contribution": -0.5}
    assert all(isinstance(value, str) for value in inside["metadata"].values())
    assert "type" not in inside


def test_ids_are_the_same_in_every_export(finding):
    assert replace(finding, verdict="agree", comment="").id == finding.id
    assert replace(finding, reviewer="Bob").id != finding.id
    assert replace(finding, slide_id="t").id != finding.id
