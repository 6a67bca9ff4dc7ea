"""A segmentor of one's own, written against the contract alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from xpath.errors import ConfigError
from xpath.geometry import PatchGrid, Size
from xpath.labels import load_labels
from xpath.pathseg.biomedparse_data import PromptedMask
from xpath.protocols import Segmentation
from xpath.segment.evaluation.evaluate import evaluate_segmentor
from xpath.segment.evaluation.questions import EvaluationConfig, questions_of
from xpath.segment.predict.whole_slide import SegmentConfig, segment_slide
from xpath.store.masks import open_masks
from xpath.testing.slides import write_slide
from xpath.wsi.slide import Slide

TUMOR = load_labels()["breast-tissue-tumor"]
STROMA = load_labels()["breast-tissue-stroma"]
SIDE, PATCH = 128, 64


class Facts(NamedTuple):
    """All that the contract asks of the weights."""

    name: str = "darkness"
    digest: str = "cd" * 32
    mpp: float = 0.5
    mpp_range: tuple[float, float] | None = (0.4, 0.6)


@dataclass
class Darkness:
    """Takes what is dark for tumour, and what is bright for everything else."""

    stride: int = 4
    info: Facts = field(default_factory=Facts)

    def encode(self, images, *, mpp=None):
        return torch.from_numpy(np.atleast_3d(images)[..., 1].astype(np.float32)).reshape(
            -1, *images.shape[-3:-1]
        )

    def masks(self, green, prompts):
        chance = torch.stack(
            [torch.where((green < 128) == (p == TUMOR.prompt), 0.9, 0.1) for p in prompts], dim=1
        ).numpy()
        masks = chance > 0.5
        peak, present = chance.max(axis=(2, 3)), masks.any(axis=(2, 3))
        return Segmentation(masks, np.where(present, peak, 0), peak, present)

    def logits(self, green, prompts):
        bright = functional.avg_pool2d(green[:, None], self.stride) / 25.6 - 5
        return torch.cat([-bright if p == TUMOR.prompt else bright for p in prompts], dim=1)


@pytest.fixture
def picture():
    """The left half is dark, in whole blocks of 4 by 4 pixels."""
    pixels = np.full((SIDE, SIDE, 3), 245, np.uint8)
    pixels[:, : SIDE // 2 + 8] = 40
    return pixels


@pytest.fixture
def slide(picture, tmp_path):
    path = tmp_path / "half.tiff"
    write_slide(path, picture, mpp=0.5, lossless=True)
    with Slide.open(path) as opened:
        yield opened


def grid(mpp=0.5):
    coords = np.array([[x, y] for y in (0, PATCH) for x in (0, PATCH)], np.int64)
    return PatchGrid(
        coords=coords,
        footprint=PATCH,
        pixels=PATCH,
        mpp=mpp,
        overlap=0,
        slide_size=Size(SIDE, SIDE),
        slide_mpp=mpp,
    )


@pytest.mark.parametrize("overlap", [0, 16])
def test_a_slide_is_segmented_by_it(slide, picture, tmp_path, overlap):
    path = tmp_path / "masks.zarr"

    segment_slide(
        slide, grid(), Darkness(), [TUMOR, STROMA], path, config=SegmentConfig(overlap=overlap)
    )

    masks = open_masks(path)
    read = masks.read(slice(None))
    tumor = np.block([[read[0, 0], read[1, 0]], [read[2, 0], read[3, 0]]])
    inside = np.s_[4:-4, 4:-4]  # beyond the slide all is bright
    assert (tumor == (picture[..., 1] < 128))[inside].all()
    assert (read[:, 1] != read[:, 0]).all()
    assert masks.provenance["segmentor"] == "darkness"
    assert masks.provenance["segmentor_sha256"] == "cd" * 32


def test_another_stride_is_refused_before_anything_is_read(slide, tmp_path):
    with pytest.raises(ConfigError, match="4 pixels per position, but those of darkness have 8"):
        segment_slide(slide, grid(), Darkness(stride=8), [TUMOR], tmp_path / "masks.zarr")
    assert not (tmp_path / "masks.zarr").exists()


def test_a_resolution_outside_its_range_is_warned_of(slide, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        segment_slide(slide, grid(mpp=1.0), Darkness(), [TUMOR], tmp_path / "masks.zarr")
    assert "darkness was trained at 0.4 to 0.6" in caplog.text


def test_it_is_evaluated(picture, tmp_path):
    folder = tmp_path / "test"
    folder.mkdir()
    Image.fromarray(picture).save(folder / "a.png")
    Image.fromarray((picture[..., 1] < 128).astype(np.uint8) * 255).save(folder / "a_mask.png")
    item = PromptedMask(
        image=folder / "a.png",
        mask=folder / "a_mask.png",
        prompts=(TUMOR.prompt,),
        label=TUMOR.id,
        name="a_mask",
        absent=(STROMA.id,),
    )
    config = EvaluationConfig(trained=(TUMOR.id, STROMA.id), mpp=0.5)

    scores = evaluate_segmentor(Darkness(), questions_of([item], config), config)

    assert not scores.problems
    dice = {sample.question.name: sample.dice for sample in scores.samples}
    assert dice == {TUMOR.id: 1.0, STROMA.id: 0.0}
    assert {s.question.name: s.found for s in scores.samples} == {TUMOR.id: True, STROMA.id: True}
