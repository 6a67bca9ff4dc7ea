"""Packed masks are, byte for byte, those of full-size maps: a slow reference of the whole stage."""

from __future__ import annotations

import json
import sys

import pytest
import torch


@pytest.fixture
def benchmark(load_script, monkeypatch):
    script = load_script("benchmarks/segment_slide.py")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with more the plain way sums otherwise
    yield script
    torch.set_num_threads(threads)


@pytest.mark.parametrize("competition", ["exclusive", "independent"])
def test_both_ways_write_the_same(benchmark, monkeypatch, capsys, competition):
    words = ["--patches=3", "--side=640", "--repeats=1", f"--competition={competition}"]
    monkeypatch.setattr(sys, "argv", ["segment_slide.py", *words])

    benchmark.main()

    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["equal"]
    assert facts["patches"] == 3
    assert facts["plain_s"] > 0 < facts["packed_s"]
