"""The GPU suite runs to its end at tiny sizes, and tells what failed."""

from __future__ import annotations

import argparse
import json
import sys

import pytest

ROWS = {
    "stages": ["size", "prompts", "encode_s", "decode_s", "finalise_s", "ours_s", "naive_s"],
    "slide": ["pixels", "fp32_exclusive_s_per_patch", "bf16_independent_s_per_patch"],
}


@pytest.fixture
def suite(load_script, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # it puts the checkout first
    return load_script("benchmarks/gpu/suite.py")


def test_every_section_has_an_answer_on_paper(suite, tmp_path, monkeypatch, capsys):
    words = f"suite.py --device=cpu --quick --commit=abc123 --out={tmp_path}"
    monkeypatch.setattr(sys, "argv", words.split())

    suite.main()

    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = json.loads((tmp_path / "cpu.json").read_text())
    assert last == found
    assert (found["commit"], found["device"]) == ("abc123", "cpu")
    assert not [name for name in suite.SECTIONS if "error" in found[name]]
    assert found["correct"]["tiny"]["fp32"]["different_pixels"] == 0
    assert found["kernel"]["corner_1"]["different_pixels"] == 0
    assert min(found["ceilings"].values()) > 0
    for section, names in ROWS.items():
        assert all(row[name] > 0 for row in found[section] for name in names)
    (whole,) = found["slide"]
    assert whole["fp32_different_pixels"] == 0
    assert whole["bf16_within_tolerance"]
    assert found["importance"]["finite"]
    assert found["importance"]["pairs"] > 0
    paper = (tmp_path / "cpu.md").read_text()
    assert "abc123" in paper
    assert all(f"## {name.capitalize()}\n" in paper for name in suite.SECTIONS)
    assert "| size | prompts |" in paper


def test_a_section_that_fails_leaves_its_error(suite):
    def broken(args):
        raise RuntimeError("out | of\nmemory")

    answer = suite.attempted(broken, argparse.Namespace())

    assert answer["error"] == "RuntimeError: out | of\nmemory"
    assert "| error | RuntimeError: out \\| of memory |" in suite.table(answer)
