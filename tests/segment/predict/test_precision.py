"""Precision of the segmentor on a real slide, and how it is recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from xpath.labels import load_labels
from xpath.segment.predict.predictor import PredictorConfig, SegmentPredictor
from xpath.segment.predict.whole_slide import segment_slide
from xpath.store.masks import open_masks
from xpath.wsi.grid import cut_grid
from xpath.wsi.slide import Slide
from xpath.wsi.tissue import find_tissue

ASKED = ("tissue-tumor", "tissue-stroma", "tissue-necrosis or debris", "nuclei-neoplastic",
         "nuclei-connective", "nuclei-lymphocyte")  # fmt: skip


@pytest.fixture(scope="module")
def two_patches(shared):
    """A slide and two neighbouring patches in its middle."""
    with Slide.open(shared / "data" / "slides" / "cmu-1-small-region.svs") as slide:
        grid = cut_grid(slide, find_tissue(slide))
        yield slide, replace(grid, coords=grid.coords[21:23])


def masks_at(precision, two_patches, path):
    slide, grid = two_patches
    labels = [load_labels().parse(f"breast-{name}") for name in ASKED]
    predictor = SegmentPredictor.from_pretrained(
        config=PredictorConfig(precision=precision), drawn=True
    )
    segment_slide(slide, grid, predictor, labels, path)
    return open_masks(path)


def test_half_precision_changes_under_one_pixel_in_a_hundred(two_patches, tmp_path):
    exact = masks_at("fp32", two_patches, tmp_path / "exact.zarr")
    half = masks_at("bf16", two_patches, tmp_path / "half.zarr")

    wanted, found = exact.read(slice(None)), half.read(slice(None))
    assert wanted.any(axis=(0, 2, 3)).sum() >= 4  # labels that are there
    assert 0 < (found != wanted).mean() < 0.01
    assert (found != wanted).mean(axis=(0, 2, 3)).max() < 0.02
    np.testing.assert_allclose(half.presence, exact.presence, atol=0.1)
    assert half.provenance["precision"] == "bf16"
    assert "precision" not in exact.provenance  # as in the files of earlier versions


def test_a_cpu_knows_no_tf32(two_patches, tmp_path):
    exact = masks_at("fp32", two_patches, tmp_path / "exact.zarr")
    rounded = masks_at("tf32", two_patches, tmp_path / "rounded.zarr")

    np.testing.assert_array_equal(rounded.read(slice(None)), exact.read(slice(None)))
    assert rounded.provenance["precision"] == "tf32"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("tf32", 0.005), ("bf16", 0.01)])
def test_a_gpu_finds_what_the_cpu_finds(two_patches, tmp_path, precision, most):
    """Without one synchronisation from the first batch on, or torch raises."""
    slide, grid = two_patches
    labels = [load_labels().parse(f"breast-{name}") for name in ASKED]
    exact = masks_at("fp32", two_patches, tmp_path / "exact.zarr").read(slice(None))
    config = PredictorConfig(precision=precision)
    predictor = SegmentPredictor.from_pretrained(device="cuda", config=config)
    path = tmp_path / "cuda.zarr"
    segment_slide(slide, grid, predictor, labels, path)  # kernels and prompts are made ready
    torch.cuda.set_sync_debug_mode("error")
    try:
        segment_slide(slide, grid, predictor, labels, path)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert (open_masks(path).read(slice(None)) != exact).mean() < most
