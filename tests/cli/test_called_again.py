"""A run keeps its promises when it is called again: what is made again is counted."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest

from xpath.cli.main import main
from xpath.study.study import open_study
from xpath.testing.slides import write_slide

OBJECTS = ("--objects", "breast-tissue-tumor")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of ``a`` and ``b``, and of ``c``, which stores no resolution and so has failed."""
    folder = tmp_path_factory.mktemp("again")
    pixels = np.random.default_rng(0).integers(60, 200, (128, 128, 3), np.uint8)
    pixels[..., 1] //= 2
    (folder / "slides").mkdir()
    for name, mpp in (("a", 0.5), ("b", 0.5), ("c", None)):
        write_slide(folder / "slides" / f"{name}.tiff", pixels, mpp=mpp, levels=1)
    settings = ("--set", "grid.patch_um=32", "--set", "tissue.min_area_um2=100")
    out = ("--out", str(folder / "run"))
    assert main(["segment", str(folder / "slides"), *out, *OBJECTS, *settings]) == 1
    return folder


@pytest.fixture
def run(first, tmp_path):
    """A copy of the first call, and a function that calls it again."""
    shutil.copytree(first, tmp_path / "copy")
    home = tmp_path / "copy"
    text = (home / "run" / "run.json").read_text().replace(str(first), str(home))
    (home / "run" / "run.json").write_text(text)

    def call(*options):
        return main(["segment", str(home / "slides"), "--out", str(home / "run"), *options])

    call.home = home
    return call


def attempts(run):
    """How often each slide was segmented."""
    with (run.home / "run" / "slides.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == "segment"]
    return {row["slide_id"]: int(row["attempts"]) for row in rows}


def masks(run, name):
    return run.home / "run" / "slides" / name / "masks.zarr.done.json"


def test_with_nothing_changed_only_what_failed_is_tried(run):
    before = masks(run, "a").read_bytes()

    assert run() == 1

    assert attempts(run) == {"a": 1, "b": 1, "c": 2}
    assert masks(run, "a").read_bytes() == before


def test_mpp_segments_only_slides_that_store_none(run):
    assert run("--mpp", "0.5") == 0

    assert attempts(run) == {"a": 1, "b": 1, "c": 2}


def test_a_further_slide_is_the_only_one(run):
    shutil.copy(run.home / "slides" / "a.tiff", run.home / "slides" / "d.tiff")

    run()

    assert attempts(run) == {"a": 1, "b": 1, "c": 2, "d": 1}


def test_objects_left_out_are_those_of_the_run(run):
    run()

    assert open_study(run.home / "run").config.objects.labels == ("breast-tissue-tumor",)


def test_other_settings_need_a_word_of_consent(run, capsys):
    settings = (run.home / "run" / "run.json").read_bytes()
    change = ("--objects", "breast-tissue-stroma")

    assert run(*change) == 1

    error = capsys.readouterr().err
    assert "objects.labels was ('breast-tissue-tumor',), now ('breast-tissue-stroma',)" in error
    assert "--replace" in error
    assert (run.home / "run" / "run.json").read_bytes() == settings
    assert attempts(run) == {"a": 1, "b": 1, "c": 1}

    assert run(*change, "--replace") == 1
    assert attempts(run) == {"a": 2, "b": 2, "c": 2}


def test_a_setting_of_another_stage_makes_no_masks_again(run):
    assert run("--set", "explain.seed=7", "--replace", "--mpp", "0.5") == 0

    assert attempts(run) == {"a": 1, "b": 1, "c": 2}


@pytest.mark.parametrize("setting", ["objects.batch=2", "memory_gb=1"])
def test_settings_that_decide_nothing_need_no_word(run, setting):
    run("--set", setting)

    assert attempts(run)["a"] == 1


def test_an_encoder_that_is_none_is_refused_before_any_work(run, capsys):
    assert run("--set", "objects.encoder=resnet5000", "--replace") == 1

    assert "no model 'resnet5000'; similar: resnet" in capsys.readouterr().err
    assert attempts(run) == {"a": 1, "b": 1, "c": 1}


def test_microns_are_written_with_a_comma_too(run):
    assert run("--mpp", "0,5") == 0

    assert open_study(run.home / "run").config.default_mpp == 0.5


@pytest.mark.parametrize("text", ["abc", "-0.25", "inf", "nan", "0_25", "0.25um", ""])
@pytest.mark.parametrize("command", ["segment", "grid", "ask", "recognise"])
def test_what_is_no_length_is_refused_alike_by_every_command(capsys, command, text):
    with pytest.raises(SystemExit):
        main([command, "a.svs", "--out", "x", f"--mpp={text}"])

    error = capsys.readouterr().err
    assert f"--mpp: must be microns per pixel, often 0.25 (40x) or 0.5 (20x), got {text!r}" in error


def test_objects_of_an_empty_variable_of_the_shell_are_none_of_the_defaults(run, capsys):
    assert run("--objects", "") == 1

    assert "no label ''" in capsys.readouterr().err
    assert attempts(run) == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("text", ["{", "", "[1]", "null", "\xff", "[" * 100_000])
def test_damaged_settings_are_called_so_and_moved_away_they_cost_nothing(run, capsys, text):
    settings = run.home / "run" / "run.json"
    settings.write_bytes(text.encode("latin-1"))

    assert run() == 1

    assert "run.json is damaged" in capsys.readouterr().err
    assert settings.read_bytes() == text.encode("latin-1")
    settings.unlink()
    same = ("--set", "grid.patch_um=32", "--set", "tissue.min_area_um2=100")
    run(*OBJECTS, *same)
    assert attempts(run) == {"a": 1, "b": 1, "c": 2}


@pytest.mark.parametrize("dry", [True, False])
def test_all_that_is_wrong_with_slides_is_told_before_any_work(run, capsys, monkeypatch, dry):
    """With the resolution that is missing; not when their turn comes."""
    (run.home / "slides" / "d.tiff").write_bytes(b"II*\0")
    monkeypatch.setattr("xpath.cli.stages.finish", lambda *_: 0)
    monkeypatch.setattr("xpath.study.chain.segment_stage", lambda *_, **__: None)

    assert run(*["--dry-run"] * dry) == 0

    error = capsys.readouterr().err
    assert "xpath: c: c.tiff stores no resolution; pass mpp=" in error
    assert "xpath: d: " in error and "is no slide" in error
    assert "xpath: a: " not in error
    run("--dry-run", "--mpp", "0.5")
    assert "stores no resolution" not in capsys.readouterr().err


def test_all_that_a_run_lacks_is_told_at_once(run, capsys, monkeypatch):
    usage = type(shutil.disk_usage("."))(10**6, 10**6, 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr("os.access", lambda *_: False)

    run("--dry-run", "--set", "objects.encoder=resnet5000", "--device", "cuda:99", "--replace")

    error = capsys.readouterr().err
    assert "cuda:99" in error
    assert "no model 'resnet5000'" in error
    assert "cannot be written to" in error
    assert "stores no resolution" in error
    assert "GB are needed for masks and features, 0.0 GB are free" in error


def test_room_is_asked_for_what_is_still_to_be_made(run, capsys, monkeypatch):
    usage = type(shutil.disk_usage("."))(10**6, 10**6, 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    run("--dry-run", "--only", "a")
    assert "GB are needed" not in capsys.readouterr().err
    run("--dry-run", "--only", "c")
    assert "GB are needed" in capsys.readouterr().err
