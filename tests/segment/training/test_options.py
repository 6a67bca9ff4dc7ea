"""Starting points of a training."""

from __future__ import annotations

import pytest

from xpath.errors import CheckpointError, ConfigError
from xpath.pathseg.dataset import CropConfig
from xpath.segment.checkpoints.checkpoint import DEFAULT_WEIGHTS, SegmentorInfo, save_segmentor
from xpath.segment.model.variants import build_segmentor
from xpath.segment.training.options import (
    PRESETS,
    architecture,
    describe,
    factors,
    name_of,
    settings,
    steps_of,
)


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


def test_settings_are_read():
    assert settings("pixel_dim=64,fine=separable") == {"pixel_dim": 64, "fine": "separable"}
    with pytest.raises(ConfigError, match="settings"):
        settings("pixel_dim")


def test_sizes_are_changed_or_refused():
    config, _ = architecture("init", DEFAULT_WEIGHTS, {"detail": 32, "mask_dim": 32})

    assert (config.detail, config.mask_dim, config.dim) == (32, 32, 128)
    with pytest.raises(ConfigError, match="no such setting"):
        architecture("tiny", None, {"depth": 3})


def test_what_ships_sees_little_drawn_tissue_and_enough_of_the_rest():
    shares = PRESETS["shipped"]["shares"]

    assert shares["drawn"] <= 0.1
    more = sum(shares[name] for name in ("gtex_fat", "sbu_necrosis", "bcss_pseudo"))
    assert 0.1 <= more <= 0.15


def test_labels_of_drawn_tissue_are_not_taught():
    views = CropConfig()
    info = describe("w", {"a-tissue-b": 3, "a-tissue-c": 0}, views, image_size=64)

    assert (info.labels, info.drawn) == (("a-tissue-b",), ("a-tissue-c",))
    assert info.taught == {"a-tissue-b": 3}
    assert info.mpp_range == (0.2, 1.0)
