import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from xpath.cli.command import Command
from xpath.cli.main import main
from xpath.cli.sample import Sample, fetch
from xpath.errors import SlideError
from xpath.store.grids import read_grid


def test_without_a_command_it_teaches(capsys):
    assert main([]) == 2
    assert "xpath demo" in capsys.readouterr().out


def test_a_reader_who_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m xpath.cli.main labels | head -n 1"
    done = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True)

    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


UNREAD = """
import sys
import xpath.cli.main as command_line
from xpath.cli.command import Command
length, code, lists = map(int, sys.argv[1:])
def work(_):
    print("x" * length)
    return code
command_line.COMMANDS = [Command(name="work", help="-", run=work, lists=bool(lists))]
sys.exit(command_line.main(["work"]))
"""


@pytest.mark.parametrize(
    ("length", "code", "lists", "expected"),
    [
        (10, 0, False, 0),
        (10, 1, False, 1),  # all was done, only not well
        (100_000, 0, False, 141),  # cut short, so it may not say that all went well
        (100_000, 0, True, 0),
    ],
)
def test_the_code_is_that_of_the_work_though_nobody_reads(length, code, lists, expected):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = map(str, (length, code, int(lists)))
    done = subprocess.run(
        [sys.executable, "-c", UNREAD, *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (expected, "")


def test_a_cluster_that_ends_a_command_is_heard_as_ctrl_c(monkeypatch, capsys):
    cleared = []

    def work(_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            cleared.append("drafts, locks and attempts")

    monkeypatch.setattr("xpath.cli.main.COMMANDS", [Command(name="work", help="-", run=work)])

    assert main(["work"]) == 130
    assert cleared
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_labels_finds_by_any_spelling(capsys):
    assert main(["labels", "--find", "breast tissue TUMOUR"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["breast-tissue-tumor", "tissue-level tumor in breast pathology."]


def test_labels_lists_the_papers_objects(capsys):
    assert main(["labels", "--brca", "maps"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "21 labels"


def test_an_unknown_label_ends_with_a_suggestion(capsys):
    assert main(["labels", "--find", "breast-tissue-tumro"]) == 1
    assert "did you mean" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs"])
def test_grid_gives_clams_coordinates(shared, tmp_path, name):
    golden = json.loads((shared / "golden" / "clam_coords.json").read_text())
    wanted = next(entry for entry in golden if entry["slide"] == name)
    slide, out = shared / "data" / "slides" / name, tmp_path / "grid.h5"

    code = main([
        "grid",
        str(slide),
        "--preset",
        "clam:bwh_biopsy",
        "--patch-size",
        "256",
        "--out",
        str(out),
    ])

    assert code == 0
    assert read_grid(out).coords.tolist() == wanted["coords"]


def test_grid_without_resolution_is_refused_with_the_way_out(shared, tmp_path, capsys):
    slide = shared / "data" / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    out, picture = tmp_path / "grid.h5", tmp_path / "grid.png"

    assert main(["grid", str(slide), "--out", str(out)]) == 1
    assert "--mpp" in capsys.readouterr().err
    assert not out.exists()

    arguments = ["--mpp", "0.25", "--picture", str(picture)]
    assert main(["grid", str(slide), "--out", str(out), *arguments]) == 0
    assert read_grid(out).footprint == 512  # 128 microns at 0.25
    assert picture.stat().st_size > 1000


def test_a_broken_slide_is_named(shared, tmp_path, capsys):
    slide = shared / "data" / "slides" / "broken.svs"

    assert main(["grid", str(slide), "--out", str(tmp_path / "grid.h5")]) == 1
    assert "broken.svs" in capsys.readouterr().err


def test_a_sample_of_other_content_is_refused(tmp_path):
    (tmp_path / "there").write_bytes(b"changed on the way")
    sample = Sample((tmp_path / "there").as_uri(), "0" * 64, "CC0")

    with pytest.raises(SlideError, match="SHA-256"):
        fetch(sample, tmp_path / "here")

    assert not (tmp_path / "here").exists()


def test_help_of_every_command_works():
    for name in ("doctor", "labels", "sample", "grid", "segment", "features", "train", "demo"):
        with pytest.raises(SystemExit) as stopped:
            main([name, "--help"])
        assert stopped.value.code == 0


def test_doctor_finds_everything_here(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "openslide-python" in out
    assert "FAIL" not in out


def test_the_command_is_installed():
    done = subprocess.run(
        [sys.executable, "-m", "xpath.cli.main", "labels", "--brca", "importance"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "12 labels"
    assert np.all([line.startswith("breast-") for line in done.stdout.splitlines()[:-1]])
