"""Whole conversions: resumed, with failures in the middle, and in several processes."""

from __future__ import annotations

import csv
import importlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from xpath.batch.claim import claim
from xpath.errors import StoreError
from xpath.pathseg.biomedparse_data import read_binary_mask, read_biomedparse
from xpath.pathseg.build import BuildConfig, build_source, read_ledger
from xpath.pathseg.image_files import write_png
from xpath.pathseg.reading import read_image
from xpath.pathseg.splits import read_splits
from xpath.pathseg.standardisation import StandardConfig
from xpath.pathseg.workers import each_image

MODULE = """
from functools import partial
import os
import time
import numpy as np
from xpath.errors import DataError
from xpath.pathseg.reading import read_image
from xpath.pathseg.record import Annotated, LabelMask, SourceImage, SourceInfo

TUMOR, FAT = "breast-tissue-tumor", "breast-tissue-fat"
INFO = SourceInfo(
    name="Fake", magnification=20, mpp=0.5, licence="CC0", citation="c",
    url="http://fake", layout="*.png",
    regions=("breast",), labels=(TUMOR, FAT), images=9, masks=9, train_masks=7, test_masks=2,
)

class Fake:
    info = INFO
    def images(self, root):
        for path in sorted(root.glob("*.png")):
            yield SourceImage(source="Fake", name=path.stem, group=path.stem, split=None, mpp=0.5,
                              region="breast", path=path, read=lambda path=path: read(path))
    def missing(self, root):
        return [] if any(root.glob("*.png")) else ["*.png"]

def read(path):
    image = read_image(path)
    if image[0, 0, 0] == 66:
        os._exit(1)
    if image[0, 0, 0] == 99:
        raise RuntimeError("nobody thought of this")
    mask = image[..., 0] > 127
    ignore = np.zeros(mask.shape, bool)
    ignore[-1] = True
    return Annotated(image, (LabelMask(TUMOR, mask),) if mask.any() else (), ignore, (FAT,))

def slow(image):
    (image.path.parent / f"{os.getpid()}.pid").touch()
    time.sleep(60)
"""
"""In a module of its own, for worker processes import it; images hold what cannot be pickled."""

QUIET = BuildConfig(standard=StandardConfig(size=64), progress=False)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A source of ten images in ``tmp_path/data/Fake``."""
    folder = tmp_path / "code"
    folder.mkdir()
    name = f"fake_source_{tmp_path.name}"
    (folder / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    data = tmp_path / "data" / "Fake"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(10):
        write_png(data / f"i{number}.png", rng.integers(100, 256, (24, 32, 3), dtype=np.uint8))
    return importlib.import_module(name).Fake()


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_source_becomes_a_trainable_folder(fake, tmp_path):
    report = build_source(fake, tmp_path / "data", tmp_path / "out", QUIET)

    assert (report.converted, report.kept, report.failed) == (10, 0, {})
    assert (report.tally.images, report.tally.masks) == (10, 10)
    assert dict(report.tally.by_split) == {"train": 8, "test": 2}
    out = tmp_path / "out" / "Fake"
    train, test = read_biomedparse(out, "train"), read_biomedparse(out, "test")
    assert (len(train), len(test)) == (8, 2)
    split = {row.image: row.split for row in read_splits(tmp_path / "out" / "splits.csv")}
    assert {one.image.stem.split("_")[0] for one in test} == {
        image for image in split if split[image] == "test"
    }
    one = train[0]
    assert one.label == "breast-tissue-tumor"
    assert one.absent == ("breast-tissue-fat",)
    assert read_image(one.image).shape == (64, 64, 3)
    # 24 x 32 px, to 48 x 64 and then to 64 x 64, each time the pixel below the centre
    source = read_image(tmp_path / "data" / "Fake" / f"{one.image.stem.split('_')[0]}.png")
    rows = (2 * ((2 * np.arange(64) + 1) * 48 // 128) + 1) * 24 // 96
    wanted = source[rows][:, np.arange(64) // 2, 0] > 127
    assert np.array_equal(read_binary_mask(one.mask), wanted)
    assert read_binary_mask(one.ignore)[-1].all()
    # 24 x 32 px at 0.5 um are 64 x 64 in the end
    assert one.mpp == pytest.approx(0.5 * (24 * 32) ** 0.5 / 64, abs=1e-6)
    info = json.loads((out / "train.json").read_text())["info"]
    assert info == {"source": "Fake", "licence": "CC0", "citation": "c", "url": "http://fake"}


def test_a_second_run_changes_nothing_and_makes_only_what_is_damaged(fake, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    build_source(fake, data, out, QUIET)
    before = files(out)
    again = build_source(fake, data, out, QUIET)
    assert (again.converted, again.kept) == (0, 10)
    assert files(out) == before

    lost, *others = sorted((out / "Fake" / "train_mask").iterdir())
    lost.unlink()
    others[0].write_bytes(b"")  # a power cut
    third = build_source(fake, data, out, QUIET)

    assert (third.converted, third.kept) == (2, 8)
    assert {k: v for k, v in files(out).items() if "build" not in k} == {
        k: v for k, v in before.items() if "build" not in k
    }


def test_a_killed_run_goes_on(fake, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    build_source(fake, data, out, QUIET)
    whole = files(out)
    ledger = out / "Fake" / "build.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:4]) + lines[4][:30])  # cut short in the fourth image
    for split in ("train", "test"):
        (out / "Fake" / f"{split}.json").unlink()

    report = build_source(fake, data, out, QUIET)

    assert (report.converted, report.kept) == (7, 3)
    assert len(list(read_ledger(out / "Fake"))) == 10
    assert {k: v for k, v in files(out).items() if "build" not in k} == {
        k: v for k, v in whole.items() if "build" not in k
    }


def test_failures_are_isolated_named_and_tried_again(fake, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    broken, odd = data / "Fake" / "i3.png", data / "Fake" / "i5.png"
    good = broken.read_bytes(), odd.read_bytes()
    broken.write_bytes(good[0][:-30])
    write_png(odd, np.full((24, 32, 3), 99, np.uint8))

    report = build_source(fake, data, out, QUIET)

    assert set(report.failed) == {"i3", "i5"}
    assert "i3.png" in report.failed["i3"]
    assert "RuntimeError: nobody thought of this" in report.failed["i5"]
    assert report.tally.images == 8
    with (out / "Fake" / "failed.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["path"]) for row in rows] == [("i3", str(broken)), ("i5", str(odd))]

    broken.write_bytes(good[0])
    odd.write_bytes(good[1])
    repaired = build_source(fake, data, out, QUIET)
    assert (repaired.converted, repaired.kept, repaired.failed) == (2, 8, {})
    assert not (out / "Fake" / "failed.csv").exists()


def test_an_image_without_masks_is_left_out_and_not_made_again(fake, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write_png(data / "Fake" / "i0.png", np.zeros((24, 32, 3), np.uint8))

    assert build_source(fake, data, out, QUIET).tally.images == 9
    assert build_source(fake, data, out, QUIET).converted == 0


def test_new_images_do_not_move_the_others(fake, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    build_source(fake, data, out, QUIET)
    before = read_splits(out / "splits.csv")
    (data / "Fake" / "i1.png").unlink()
    for number in range(10, 20):
        write_png(data / "Fake" / f"i{number}.png", np.full((24, 32, 3), 200, np.uint8))

    report = build_source(fake, data, out, QUIET)

    after = read_splits(out / "splits.csv")
    assert after[:10] == before  # the one that has gone keeps its row
    assert len(after) == 20
    assert report.tally.images == 19
    assert sum(row.split == "test" for row in after) == 4


def test_several_processes_write_the_same(fake, tmp_path):
    data = tmp_path / "data"
    write_png(data / "Fake" / "i5.png", np.full((24, 32, 3), 99, np.uint8))
    two = BuildConfig(standard=StandardConfig(size=64), workers=2, progress=False)

    one = build_source(fake, data, tmp_path / "one", QUIET)
    both = build_source(fake, data, tmp_path / "two", two)

    assert both.failed.keys() == one.failed.keys() == {"i5"}
    assert both.tally == one.tally
    pictures = {k: v for k, v in files(tmp_path / "one").items() if "build" not in k}
    assert pictures == {k: v for k, v in files(tmp_path / "two").items() if "build" not in k}


CTRL_C = """
import importlib, sys
from pathlib import Path
from xpath.pathseg.workers import each_image
sys.path.insert(0, sys.argv[1])
fake = importlib.import_module(sys.argv[2])
names = [f"i{number}" for number in range(10)]
try:
    list(each_image(fake.Fake(), Path(sys.argv[3]), names, fake.slow, workers=2))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_ends_workers_without_a_word(fake, tmp_path):
    data = tmp_path / "data" / "Fake"
    arguments = map(str, (tmp_path / "code", type(fake).__module__, data))
    with subprocess.Popen(
        [sys.executable, "-c", CTRL_C, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal sends Ctrl-C to all processes of a command
    ) as process:
        end = time.monotonic() + 120
        while len(list(data.glob("*.pid"))) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=120)[1] == ""

    assert process.returncode == 130


def test_a_worker_that_dies_is_told_apart_from_a_broken_image(fake, tmp_path):
    write_png(tmp_path / "data" / "Fake" / "i5.png", np.full((24, 32, 3), 66, np.uint8))
    two = BuildConfig(standard=StandardConfig(size=64), workers=2, progress=False)

    with pytest.raises(StoreError, match="fewer workers"):
        build_source(fake, tmp_path / "data", tmp_path / "out", two)


def test_other_settings_and_other_folders_are_refused(fake, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    build_source(fake, data, out, QUIET)
    larger = BuildConfig(standard=StandardConfig(size=128), progress=False)

    with pytest.raises(StoreError, match=r"other settings \(size 64 -> 128\)"):
        build_source(fake, data, out, larger)
    (out / "Fake" / "build.jsonl").write_text("something else\n")
    with pytest.raises(StoreError, match="not written by xpath"):
        build_source(fake, data, out, QUIET)


def test_two_runs_do_not_write_into_each_other(fake, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    (out / "Fake").mkdir(parents=True)

    with (
        claim(out / "Fake" / "build.jsonl"),
        pytest.raises(StoreError, match="is being written by process"),
    ):
        build_source(fake, data, out, QUIET)


def test_a_full_disk_ends_the_run(fake, tmp_path):
    def full(image):
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="full"):
        list(each_image(fake, tmp_path / "data" / "Fake", ["i0", "i1"], full))


def test_only_one_image_is_decoded_at_a_time(fake, tmp_path):
    seen = []

    def look(image):
        seen.append(image.name)
        return {}

    outcomes = each_image(fake, tmp_path / "data" / "Fake", [f"i{n}" for n in range(10)], look)

    assert next(outcomes).image == "i0"
    assert seen == ["i0"]
