"""Maps for other viewers: the scores survive, in the right place and at the right size."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile

from xpath.explain.explanation import read_explanation
from xpath.explain.maps import patch_map
from xpath.geometry import Size
from xpath.store.masks import open_masks
from xpath.study.chain import pyramids_stage
from xpath.study.study import open_study


@pytest.fixture(scope="module")
def written(finished, tmp_path_factory):
    """A copy of the run with pyramids, and the id of a slide that has them."""
    root = tmp_path_factory.mktemp("pyramids") / "run"
    shutil.copytree(finished, root)
    report = pyramids_stage(open_study(root))
    assert not report.failed
    return root, report.done[0]


def test_scores_are_exact_and_know_their_size(written):
    root, slide_id = written
    study = open_study(root)
    found = read_explanation(study.folder.explanation(slide_id))
    grid = open_masks(study.folder.masks(slide_id)).grid
    with tifffile.TiffFile(root / "slides" / slide_id / "pyramids" / "patch_map.ome.tif") as file:
        scores, about = file.asarray(), file.ome_metadata

    size = Size(scores.shape[1], scores.shape[0])
    wanted = patch_map(found.patch.scores, grid, size).astype(np.float32)
    assert np.array_equal(scores, wanted, equal_nan=True)
    um = grid.slide_mpp * grid.slide_size.width / size.width
    assert f'PhysicalSizeX="{um}' in about


def test_colours_lie_over_the_slide(written):
    root, slide_id = written
    folder = root / "slides" / slide_id / "pyramids"

    for name in ("patch_map", "object_map"):
        assert tifffile.imread(folder / f"{name}_colour.ome.tif").shape[2] == 3


def test_what_is_there_is_not_made_again(written):
    root, slide_id = written
    made = root / "slides" / slide_id / "pyramids" / "patch_map.ome.tif"
    before = made.stat().st_mtime_ns

    assert slide_id in pyramids_stage(open_study(root)).done
    assert made.stat().st_mtime_ns == before
