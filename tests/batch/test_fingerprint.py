"""Another slide of the same name and size is another slide."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from xpath.batch.fingerprint import BLOCK, SAMPLES, fingerprint

SIZE = 3 * SAMPLES * BLOCK + 7


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "a.svs"
    path.write_bytes(np.random.default_rng(0).bytes(SIZE))
    return path


def test_the_same_bytes_elsewhere_are_the_same_slide(slide, tmp_path):
    copy = tmp_path / "b.svs"
    copy.write_bytes(slide.read_bytes())
    os.utime(copy, (0, 0))

    assert fingerprint(copy) == fingerprint(slide)


@pytest.mark.parametrize("position", [0, SIZE - 1, (SIZE - BLOCK) // (SAMPLES - 1)])
def test_one_byte_of_a_sample_tells(slide, position):
    before = fingerprint(slide)
    content = bytearray(slide.read_bytes())
    content[position] ^= 1
    slide.write_bytes(content)
    os.utime(slide, (0, 0))

    assert fingerprint(slide) != before


def test_a_cut_file_and_another_slide_are_told_apart(slide):
    first = fingerprint(slide)
    slide.write_bytes(np.random.default_rng(1).bytes(SIZE))
    os.utime(slide, (0, 0))
    second = fingerprint(slide)
    slide.write_bytes(b"")

    assert len({first, second, fingerprint(slide)}) == 3


def test_the_data_of_a_mirax_slide_count(tmp_path):
    (tmp_path / "a.mrxs").write_bytes(b"a small picture")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"one")
    before = fingerprint(tmp_path / "a.mrxs")
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"two")
    os.utime(tmp_path / "a" / "Data0000.dat", (0, 0))

    assert fingerprint(tmp_path / "a.mrxs") != before


def test_a_large_slide_costs_no_more_than_a_small_one(slide):
    with slide.open("r+b") as file:
        file.truncate(50_000_000_000)  # sparse; to read it all takes half a minute
    started = time.monotonic()
    fingerprint(slide)

    assert time.monotonic() - started < 10


def test_a_pipe_is_not_read(tmp_path):
    """It might never answer; the probe, which has a time limit, is the one to find out."""
    os.mkfifo(tmp_path / "c.svs")

    assert fingerprint(tmp_path / "c.svs")
