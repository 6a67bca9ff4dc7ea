"""CLAM's coordinates, computed with CLAM, order included."""

import json

import pytest

from xpath.errors import ConfigError
from xpath.wsi.clam import CLAM_PRESETS, clam_grid, grid_from_preset
from xpath.wsi.slide import Slide


@pytest.mark.parametrize("case", [0, 1])
def test_coordinates_equal_clams(shared, case):
    wanted = json.loads((shared / "golden" / "clam_coords.json").read_text())[case]
    with Slide.open(shared / "data" / "slides" / wanted["slide"]) as slide:
        grid = clam_grid(
            slide,
            CLAM_PRESETS[wanted["preset"]],
            patch_size=wanted["patch_size"],
            step_size=wanted["step_size"],
        )

    assert grid.coords.tolist() == wanted["coords"]
    assert grid.footprint == wanted["patch_size"]


def test_an_unknown_preset_names_the_known(shared):
    with (
        Slide.open(shared / "data" / "slides" / "cmu-1-small-region.svs") as slide,
        pytest.raises(ConfigError, match="clam:bwh_biopsy"),
    ):
        grid_from_preset(slide, "clam:nobody")
