"""``--preset paper`` against what the paper says, number by number."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from xpath.errors import ConfigError
from xpath.labels import load_labels
from xpath.pathseg.collection import collect
from xpath.pathseg.dataset import PromptedCrops, whole_view
from xpath.pathseg.packed import cut, pack
from xpath.pathseg.record import Annotated, LabelMask
from xpath.segment.checkpoints.checkpoint import (
    DEFAULT_WEIGHTS,
    SegmentorInfo,
    load_segmentor,
    save_segmentor,
)
from xpath.segment.model.variants import build_segmentor, tiny_config
from xpath.segment.training import options
from xpath.segment.training.command import training_arguments
from xpath.segment.training.losses import SegmentLoss
from xpath.segment.training.trainer import TrainConfig

GLAND, NECROSIS = "colon-tissue-gland", "colon-nuclei-dead"


@pytest.fixture(scope="module")
def pipeline(load_script):
    return load_script("pipelines/train_segmentor.py")


@pytest.fixture
def parsed():
    words = "--preset paper --init W --data D --out O"
    return training_arguments(None, Path("splits"), words.split())


@pytest.fixture
def image(rng):
    """A gland, dead nuclei that are absent, and a label of each."""
    gland = np.zeros((96, 64), bool)
    gland[10:50, 20:60] = True
    pixels = rng.integers(0, 256, (96, 64, 3), dtype=np.uint8)
    return Annotated(pixels, (LabelMask(GLAND, gland),), None, (NECROSIS,))


def test_its_numbers_are_those_of_section_4_4(parsed):
    assert parsed.shapes == ((32, 1024),)  # "1024 x 1024", "a batch size of 32"
    assert parsed.epochs == 20  # "trained for 20 epochs"
    assert parsed.lr == 8e-4  # "a base learning rate of 8e-4"
    assert parsed.encoder_lr == 1  # "all its parameters are trained", at one rate
    assert parsed.model == "init"  # "initialized using BiomedParse's model weights"
    assert TrainConfig().weight_decay == 5e-2  # "a weight decay of 5e-2"
    assert (parsed.contrast, parsed.ema) == (0, 0)  # nothing of ours on top


def test_its_loss_weighs_cross_entropy_and_dice_alike():
    """Equation 8 with both weights 1."""
    bce, dice, other = torch.tensor(0.25), torch.tensor(0.5), torch.tensor(0.0)

    assert SegmentLoss(bce, dice, other, other).total == 0.75


def test_a_thousand_draws_are_all_as_in_the_paper(image):
    """Sizes of 0.9 to 1.1, the template sentence, nothing that is absent, no other change."""
    views = options.views_of("paper", prompts=4, emphasis={})
    crops = PromptedCrops({"a": [pack(image, 0.25)]}, views, total=1000, seed=0)
    known = {label.prompt for label in load_labels()}
    small = 0
    for number in range(1000):
        crop = crops[number, 64]
        assert set(crop.prompts) <= known
        assert set(crop.labels) == {GLAND}
        assert (crop.target == 1).any(axis=(1, 2)).all()
        small += bool((crop.image[-1] == 128).all())  # padded below: shown smaller than the crop
    assert 400 < small < 600

    rng = np.random.default_rng(0)
    drawn = [whole_view((96, 64), 64, views.whole, rng) for _ in range(1000)]
    factors = np.array([96 / (64 * view.scale) for view in drawn])
    assert 0.9 <= factors.min() < 0.905
    assert 1.095 < factors.max() <= 1.1
    assert {(view.angle, view.mirror) for view in drawn} == {(0.0, False)}


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1])
def test_a_whole_image_is_padded_or_cut_to_the_crop(image, factor):
    rng = np.random.default_rng(1)
    square = image._replace(
        image=image.image[:64], masks=(LabelMask(GLAND, image.masks[0].mask[:64]),)
    )

    view = whole_view((64, 64), 64, (factor, factor), rng)
    pixels, target = cut(pack(square, 0.25), view, 64, (GLAND,))

    if factor == 1.0:
        np.testing.assert_array_equal(pixels, square.image)
        np.testing.assert_array_equal(target[0], square.masks[0].mask)
    elif factor < 1:
        assert (pixels[59:] == 128).all()
        assert (pixels[:, 59:] == 128).all()
        assert not target[0, 58:].any()
        assert target[0].sum() == pytest.approx(square.masks[0].mask.sum() * 0.81, rel=0.06)
    else:
        assert not (pixels == 128).all(axis=2).any()
        assert target[0].sum() > square.masks[0].mask.sum()


def test_it_starts_from_biomedparse_and_pubmedbert_or_not_at_all(tmp_path):
    for model, init in (("init", None), ("large", DEFAULT_WEIGHTS)):
        with pytest.raises(ConfigError, match="starts from BiomedParse"):
            options.check_preset("paper", model, init)
    with pytest.raises(ConfigError, match="PubMedBERT"):
        options.check_preset("paper", "init", DEFAULT_WEIGHTS)
    options.check_preset("own", "mini", None)


def test_it_trains_from_a_checkpoint_to_a_checkpoint(pipeline, image, tmp_path, monkeypatch, rng):
    """A tiny BERT and one step: what comes out is shown squares and keeps every word id."""
    from xpath.pathseg.biomedparse_writer import PromptedImage, write_biomedparse

    for split in ("train", "test"):
        items = [PromptedImage("a", "colon", image, 0.0625)]
        write_biomedparse(tmp_path / "data" / "GlaS", split, items)
    _, tokenizer = options.architecture("tiny", None)
    config = replace(tiny_config(tokenizer.vocabulary), text_encoder="bert", context=64)
    info = SegmentorInfo(
        name="start", mpp=0.25, image_size=64, labels=(), licence="", synthetic_only=False
    )
    model = build_segmentor(config)
    save_segmentor(tmp_path / "start", model, config, tokenizer, info, card="", half=False)
    words = f"train --preset paper --init {tmp_path / 'start'} --data {tmp_path / 'data'}"
    words += f" --out {tmp_path / 'run'} --shapes 2x64 --steps 1 --device cpu --precision fp32"
    words += " --workers 0 --lr 0"
    monkeypatch.setattr(sys, "argv", words.split())

    pipeline.main()

    trained, again, about = load_segmentor(tmp_path / "run" / "weights")
    assert (about.square, about.image_size, about.labels) == (True, 64, (GLAND,))
    assert again.to_json() == tokenizer.to_json()
    before, after = model.state_dict(), trained.state_dict()
    assert all(torch.allclose(before[name].float(), after[name], atol=2e-3) for name in before)
    assert collect(tmp_path / "data").held_out[0].mpp == 0.0625
