"""``xpath pathseg`` from the outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import xpath.pathseg.sources as registry
from xpath.cli.main import main
from xpath.errors import DataError
from xpath.pathseg.biomedparse_data import read_biomedparse
from xpath.pathseg.record import Annotated, LabelMask, SourceImage, SourceInfo

TUMOR = "breast-tissue-tumor"


class Fake:
    """Images in memory, listed if the folder is there. Image ``i3`` is broken."""

    def __init__(self, name, count):
        self.count = count
        self.info = SourceInfo(
            name=name,
            magnification=40,
            mpp=0.5,
            licence=f"licence of {name}",
            citation="c",
            url=f"http://{name}.example",
            layout="images/*.png",
            regions=("breast",),
            labels=(TUMOR,),
            images=count,
            masks=count,
            train_masks=count,
            test_masks=0,
        )

    def images(self, root):
        for number in range(self.count if root.is_dir() else 0):
            yield SourceImage(
                source=self.info.name,
                name=f"i{number}",
                group=f"i{number}",
                split=None,
                mpp=0.25,
                region="breast",
                path=Path(f"i{number}.png"),
                read=lambda number=number: read(number),
            )

    def missing(self, root):
        return [] if root.is_dir() else [f"{root.name}/images"]


def read(number):
    if number == 3:
        raise DataError("i3.png is truncated; download it again")
    image = np.full((40, 30, 3), 20 * number, np.uint8)
    return Annotated(image, (LabelMask(TUMOR, np.ones((40, 30), bool)),), None)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with GoodSet and BadSet, not with GoneSet."""
    sources = {one.info.name: one for one in (Fake("Good", 3), Fake("Bad", 5), Fake("Gone", 9))}
    monkeypatch.setattr(registry, "SOURCES", sources)
    monkeypatch.setattr(registry, "load_source", lambda name: sources[name])
    for name in ("Good", "Bad"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path / "data"


def test_status_lists_what_is_there_and_where_to_get_the_rest(root, capsys):
    assert main(["pathseg", "status", str(root)]) == 0
    out = capsys.readouterr().out

    lines = [line.split() for line in out.splitlines()]
    assert lines[1][:4] == ["Good", "present", "3", "-"]
    assert lines[3][:3] == ["Gone", "missing", "0"]
    assert "missing: Gone/images" in out
    assert "http://Gone.example  (licence of Gone)" in out
    assert "http://Good.example" not in out


def test_status_counts_on_request_and_names_what_is_broken(root, capsys):
    assert main(["pathseg", "status", str(root), "--tables", "--quiet"]) == 1
    out = capsys.readouterr().out

    assert "broken:  i3.png is truncated" in out
    assert "by label (paper, Table 5)" in out
    assert main(["pathseg", "status", str(root), "--count", "--quiet", "--sources", "Good"]) == 0
    assert "by label" not in capsys.readouterr().out


def test_build_converts_what_is_there_and_fails_if_an_image_did(root, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["pathseg", "build", str(root), "--out", str(out), "--size", "32", "--quiet"]

    assert main([*command, "--sources", "Good"]) == 0
    assert main(command) == 1
    printed = capsys.readouterr()

    assert "Good: 0 files converted, 3 kept, 0 failed" in printed.out
    counts = "Bad: 4 files converted, 0 kept, 1 failed; 4 images and 4 masks (published 5"
    assert counts in printed.out
    assert "i3.png is truncated" in printed.err
    assert str(out / "Bad" / "failed.csv") in printed.err
    assert not (out / "Gone").exists()
    items = read_biomedparse(out / "Bad", "train") + read_biomedparse(out / "Bad", "test")
    assert {item.label for item in items} == {TUMOR}
    assert len(items) == 4

    assert main(["pathseg", "status", str(root), "--built", str(out)]) == 0
    bad = capsys.readouterr().out.splitlines()[2].split()
    assert bad[:7] == ["Bad", "present", "5", "4", "5", "4", "5"]


def test_a_source_asked_for_must_be_there(root, tmp_path, capsys):
    command = ["pathseg", "build", str(root), "--out", str(tmp_path / "out"), "--quiet"]

    assert main([*command, "--sources", "Gone,Good"]) == 1
    assert "Gone is missing: Gone/images" in capsys.readouterr().err
    assert (tmp_path / "out" / "Good" / "test.json").exists()


def test_one_source_that_cannot_be_built_does_not_stop_the_next(root, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["pathseg", "build", str(root), "--out", str(out), "--quiet"]
    assert main([*command, "--sources", "Good", "--size", "32"]) == 0

    assert main([*command, "--size", "64"]) == 1
    printed = capsys.readouterr()

    assert "Good: " in printed.err
    assert "size 32 -> 64" in printed.err
    assert "Bad: 4 files converted" in printed.out


def test_no_source_is_an_error(root, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    arguments = [str(tmp_path / "empty"), "--out", str(tmp_path / "out")]

    assert main(["pathseg", "build", *arguments]) == 1
    assert "no source in" in capsys.readouterr().err
    assert main(["pathseg", "status", str(tmp_path / "nowhere")]) == 1
    assert "is no folder" in capsys.readouterr().err


def test_help_teaches(capsys):
    for arguments, wanted in (
        (["pathseg", "--help"], "ROOT/GlaS"),
        (["pathseg", "status", "--help"], "--built pathseg --tables"),
        (["pathseg", "build", "--help"], "--size native"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        assert wanted in capsys.readouterr().out
    assert main(["pathseg"]) == 2
    with pytest.raises(SystemExit):
        main(["pathseg", "build", "x", "--out", "y", "--size", "huge"])


def test_an_unknown_source_ends_with_a_suggestion(tmp_path, capsys):
    assert main(["pathseg", "status", str(tmp_path), "--sources", "Pannuk"]) == 1
    assert "did you mean PanNuke?" in capsys.readouterr().err


def test_status_of_an_empty_folder_lists_all_17_with_their_address(tmp_path, capsys):
    assert main(["pathseg", "status", str(tmp_path)]) == 0
    out = capsys.readouterr().out

    assert sum(line.endswith(": missing") for line in out.splitlines()) == 17
    assert out.count("get it:  http") == 17
    total = next(line for line in out.splitlines() if line.startswith("total")).split()
    assert "274,853" in total  # every mask of the paper
