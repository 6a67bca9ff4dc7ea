"""Damaged files of every sort: only named errors, no crash, no hang, no memory beyond 2 GiB."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("fuzz_child.py")
TARGETS = [
    "slides",
    "hdf5",
    "zarr",
    "safetensors",
    "geojson",
    "tables",
    "run.json",
    "pictures",
    "dicom",
]
MEMORY = 2 * 2**30

logger = logging.getLogger(__name__)


def fuzz(target, count, folder, seed=20260):
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(CHILD),
        target,
        str(seed),
        str(count),
        str(folder),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, f"{target} ended with {done.returncode}: {done.stderr[-3000:]}"
    outcome = json.loads(done.stdout.splitlines()[-1])
    logger.info("%s: %s", target, outcome)
    assert outcome["raw"] == []
    for word in ("read", "refused"):
        assert outcome.get(word, 0) > count // 20, f"hardly anything was {word}"
    assert outcome["memory"] < MEMORY


@pytest.mark.parametrize("target", TARGETS)
def test_a_few_damaged_files(target, tmp_path):
    fuzz(target, 60, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("target", TARGETS)
def test_two_thousand_damaged_files(target, seed, tmp_path):
    fuzz(target, 500, tmp_path, seed=seed)  # in four parts, each with figures of its own
