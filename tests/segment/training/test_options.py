"""Starting points of a training."""

from __future__ import annotations

import pytest

from xpath.errors import CheckpointError, ConfigError
from xpath.segment.checkpoints.checkpoint import DEFAULT_WEIGHTS, SegmentorInfo, save_segmentor
from xpath.segment.model.variants import build_segmentor
from xpath.segment.training.options import PRESETS, architecture, factors, name_of, steps_of


def test_an_epoch_is_a_crop_per_image():
    assert steps_of(1, 64, ((32, 1024),)) == 2
    assert steps_of(20, 33, ((32, 1024),)) == 21  # 660 / 32, rounded up
    assert steps_of(3, 10, ((4, 256), (2, 512))) == 10  # three crops a step on average


@pytest.mark.parametrize(("epochs", "images"), [(0, 10), (2, 0)])
def test_nothing_to_train_on_is_refused(epochs, images):
    with pytest.raises(ConfigError, match="positive"):
        steps_of(epochs, images, ((4, 256),))


def test_factors_are_read():
    assert factors("glas=2,nuinsseg=0.5") == {"glas": 2, "nuinsseg": 0.5}


@pytest.mark.parametrize("text", ["", "glas", "glas=", "glas=two", "glas=0", "glas=1=2"])
def test_what_is_no_factor_is_refused(text):
    with pytest.raises(ConfigError, match="factors"):
        factors(text)


def test_fine_tuned_weights_keep_their_name():
    assert name_of("tiny", None) == "pathsegmentor-tiny"
    assert name_of("init", DEFAULT_WEIGHTS) == "pathsegmentor-mini"


def test_the_large_model_has_the_papers_sizes_and_our_words():
    config, tokenizer = architecture("large", None)

    assert (config.width, config.queries, config.decoder_depth) == (192, 101, 9)
    assert config.vocabulary == tokenizer.vocabulary


def test_a_checkpoint_brings_its_sizes_and_words(tmp_path):
    config, tokenizer = architecture("tiny", None)
    info = SegmentorInfo(
        name="tiny", mpp=0.5, image_size=64, labels=(), licence="", synthetic_only=True
    )
    save_segmentor(
        tmp_path / "tiny", build_segmentor(config), config, tokenizer, info, card="# tiny"
    )

    again, words = architecture("init", tmp_path / "tiny")

    assert again == config
    assert words(["a nucleus"]).ids.tolist() == tokenizer(["a nucleus"]).ids.tolist()


def test_what_cannot_be_started_from_is_named(tmp_path):
    with pytest.raises(ConfigError, match="--init"):
        architecture("init", None)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        architecture("init", tmp_path)
    with pytest.raises(ConfigError, match="huge"):
        architecture("huge", None)


def test_the_preset_is_the_papers():
    paper = PRESETS["paper"]

    assert (paper["epochs"], paper["shapes"], paper["lr"]) == (20, ((32, 1024),), 8e-4)
