import json
import os
import runpy
from pathlib import Path

import pytest

SHARED = os.environ.get("XPATH_SHARED")


@pytest.fixture(scope="module")
def benchmark(repository):
    return runpy.run_path(str(repository / "benchmarks/null_bias.py"))


def test_meaningless_masks_in_drawn_tissue_have_no_excess(benchmark, capsys):
    small = ["--slides", "6", "--patches", "6", "--shares", "0.3", "0.8"]

    result = benchmark["main"](small)

    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result
    assert result["excess_about_0"] >= result["rows"] - 1  # intervals of 95 %
    assert result["largest_excess_over_effect"] < 0.1


@pytest.mark.slow
@pytest.mark.skipif(not SHARED, reason="real slides are in the folder XPATH_SHARED")
def test_meaningless_masks_in_real_tissue_have_no_excess(benchmark):
    """Objects of 10 to 90 % of the tissue, compact and scattered, two classifiers."""
    slide = Path(SHARED) / "data/slides/cmu-1-small-region.svs"

    result = benchmark["main"](["--slide", str(slide)])
    shifted = benchmark["main"](["--slide", str(slide), "--null", "shifted", "--shares", "0.5"])

    assert result["rows"] == 20
    assert result["excess_about_0"] >= 18
    assert result["largest_excess_over_effect"] < 0.05
    assert shifted["excess_about_0"] <= 1  # it falls on glass and lumina too
