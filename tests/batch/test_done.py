"""Only whole outputs of the right settings count as done."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from xpath.batch import done
from xpath.batch.claim import Busy, claim
from xpath.batch.done import (
    content_of,
    forget,
    is_done,
    is_intact,
    key_of,
    make_once,
    mark_done,
    read_key,
)
from xpath.errors import StoreError
from xpath.store.features import SlideFeatures, write_features
from xpath.testing.masks import grid_at, write_masks

KEY = key_of("segment", {"batch": 8})


GRID = grid_at(np.zeros((3, 2)), 16)


def write_h5(path):
    rng = np.random.default_rng(0)
    write_features(
        path,
        SlideFeatures(
            slide_id="a",
            grid=GRID,
            features=rng.normal(size=(3, 4)),
            object_features=rng.normal(size=(3, 2, 4)),
            object_coverage=rng.random((3, 2)),
            objects=("x", "y"),
        ),
    )


def write_zarr(path):
    write_masks(path, GRID, np.random.default_rng(0).random((3, 2, 16, 16)) > 0.5, "xy")


@pytest.fixture(params=[write_h5, write_zarr], ids=["features.h5", "masks.zarr"])
def output(tmp_path, request):
    path = tmp_path / "output"
    request.param(path)
    mark_done(path, KEY)
    return path


def files(output):
    return sorted(p for p in output.rglob("*") if p.is_file()) if output.is_dir() else [output]


def test_done_until_forgotten(output):
    assert is_done(output, KEY)
    assert read_key(output) == KEY
    assert (output.parent / "output.done.json").exists()

    forget(output)
    assert not is_done(output, KEY)
    assert read_key(output) == ""
    forget(output)


def test_other_settings_are_not_done(output):
    assert not is_done(output, key_of("segment", {"batch": 16}))
    assert not is_done(output.with_name("other"), KEY)


def test_truncation_anywhere_is_not_done(output):
    for file in files(output):
        whole = file.read_bytes()
        for size in sorted({0, 1, *range(0, len(whole), max(1, len(whole) // 20)), len(whole) - 1}):
            file.write_bytes(whole[:size])
            assert not is_done(output, KEY), (file, size)
        file.write_bytes(whole)
        assert is_done(output, KEY)


def test_a_change_that_keeps_the_size_is_not_done(output):
    for file in files(output):
        whole = file.read_bytes()
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 1
        file.write_bytes(changed)
        assert not is_done(output, KEY), file
        file.write_bytes(whole)
    assert is_done(output, KEY)


@pytest.fixture
def settled(output):
    """An output long enough ago for its files' times to tell of every change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xpath.batch.done.FRESH", -(10**12))
        assert is_done(output, KEY)
        yield output


@pytest.mark.parametrize("process", ["this", "the next"])
def test_bytes_that_were_compared_are_not_read_again(settled, monkeypatch, process):
    monkeypatch.setattr("xpath.batch.done.sha256_of", lambda _: pytest.fail("read again"))
    if process == "the next":
        monkeypatch.setattr("xpath.batch.done._verified", {})

    assert is_done(settled, KEY)
    assert not is_done(settled, key_of("other"))


def test_a_full_check_reads_all_bytes(settled, monkeypatch):
    assert is_intact(settled)
    read = []
    sha256_of = done.sha256_of
    monkeypatch.setattr("xpath.batch.done.sha256_of", lambda p: read.append(p) or sha256_of(p))

    assert is_intact(settled)
    assert sorted(read) == files(settled)
    read[-1].write_bytes(read[-1].read_bytes()[:-1] + b"?")
    assert not is_intact(settled)
    assert not is_intact(settled.with_name("other"))


def test_a_copy_is_read_once_more(settled, tmp_path):
    """Its files have other positions and times, so what was written down of the first is void."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in settled.parent.iterdir():
        if path.name != "copy":
            (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
    copy = folder / settled.name
    file = files(copy)[0]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    assert not is_done(copy, KEY)
    file.write_bytes(whole)
    assert is_done(copy, KEY)


def test_a_change_after_the_comparison_is_not_done(settled):
    for file in files(settled):
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert not is_done(settled, KEY), file
        file.write_bytes(whole)
        assert is_done(settled, KEY)


def test_another_seal_is_compared_anew(settled):
    seal = settled.parent / "output.done.json"
    content = json.loads(seal.read_text())
    name = next(iter(content["files"]))
    content["files"][name][1] = "0" * 64
    seal.write_text(json.dumps(content))

    assert not is_done(settled, KEY)


def test_missing_and_extra_files_are_not_done(tmp_path):
    path = tmp_path / "masks.zarr"
    write_zarr(path)
    mark_done(path, KEY)
    for file in files(path):
        whole = file.read_bytes()
        file.unlink()
        assert not is_done(path, KEY), file
        file.write_bytes(whole)
    (path / "extra").touch()
    assert not is_done(path, KEY)
    (path / "extra").unlink()
    assert is_done(path, KEY)
    shutil.rmtree(path)
    assert not is_done(path, KEY)
    path.mkdir()
    assert not is_done(path, KEY)


def test_a_damaged_seal_is_no_seal(output):
    seal = output.parent / "output.done.json"
    whole = seal.read_text()

    for size in range(0, len(whole) - 2, 7):
        seal.write_text(whole[:size])
        assert not is_done(output, KEY), size
    for changes in [{"schema": "xpath.done/2"}, {"files": {}}, {"files": []}, {"files": {"a": 3}}]:
        seal.write_text(json.dumps(json.loads(whole) | changes))
        assert not is_done(output, KEY), changes
    seal.write_text("[]")
    assert not is_done(output, KEY)


def test_nothing_cannot_be_sealed(tmp_path):
    with pytest.raises(StoreError, match="not there or empty"):
        mark_done(tmp_path / "nothing", KEY)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="not there or empty"):
        mark_done(tmp_path / "empty", KEY)


def test_keys_follow_what_they_are_made_of():
    assert key_of("a", {"x": 1, "y": 2}) == key_of("a", {"y": 2, "x": 1})
    different = [key_of("a", 1), key_of("a", "1"), key_of("a"), key_of("a1"), key_of(["a", 1])]
    assert len(set(different)) == 5
    with pytest.raises(TypeError):
        key_of(object())


def test_the_content_of_an_input_is_the_same_when_it_is_made_again(output, tmp_path):
    first = content_of(output)
    mark_done(output, key_of("other"))
    assert content_of(output) == first

    (output if output.is_file() else output / "zarr.json").write_text("changed")
    mark_done(output, KEY)
    assert content_of(output) != first
    with pytest.raises(StoreError, match="never completed"):
        content_of(tmp_path / "nothing")


@pytest.fixture
def text(tmp_path):
    return tmp_path / "out.txt"


def test_made_once_and_again_for_other_settings_or_damage(text):
    made = []

    def produce():
        made.append(1)
        text.write_text("whole")

    assert make_once(text, "key", produce)
    assert not make_once(text, "key", produce)
    assert make_once(text, "other", produce)
    text.write_text("who")
    assert make_once(text, "other", produce)
    assert len(made) == 3


def test_a_failure_is_not_done_and_frees_the_output(text):
    def fails():
        text.write_text("half")
        raise RuntimeError

    make_once(text, "old", lambda: text.write_text("whole"))
    with pytest.raises(RuntimeError):
        make_once(text, "key", fails)
    assert read_key(text) == "", "not even of the old settings"
    assert make_once(text, "key", lambda: text.write_text("whole"))


def test_what_another_makes_is_left_to_it(text):
    with claim(text), pytest.raises(Busy, match=r"out\.txt is being made by process"):
        make_once(text, "key", lambda: text.write_text("mine"))
    assert not text.exists()


def test_what_another_made_meanwhile_is_not_made_again(text, monkeypatch):
    """Not done when we look, but done once the claim is ours."""
    answers = iter([False, True])
    monkeypatch.setattr("xpath.batch.done.is_done", lambda *_: next(answers))

    assert not make_once(text, "key", lambda: text.write_text("again"))
    assert not text.exists()
