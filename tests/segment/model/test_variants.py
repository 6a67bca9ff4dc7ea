from dataclasses import replace

import pytest
import torch

from xpath.errors import ConfigError
from xpath.segment.model.variants import (
    SegmentorConfig,
    build_segmentor,
    large_config,
    mini_config,
    pathsegmentor_large,
    pathsegmentor_mini,
    pathsegmentor_tiny,
    tiny_config,
)

IMAGE, PIXEL = 205_746_936, 32_193_536
"""Parameters of image encoder and pixel decoder, counted on the published code."""
JOINT = 38_992_384
"""Of the joint decoder, without what only point and memory prompts need (820,224)."""
CLIP = 63_428_097
"""Of the causal text encoder with its projection and the temperature."""
BERT = 109_482_240 - 590_592 + 768 * 512 + 1
"""BERT base without its pooler, a projection of 768 x 512, the temperature."""


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("text", "wanted"), [("clip", CLIP), ("pubmedbert", BERT)])
def test_the_large_model_has_the_published_number_of_parameters(text, wanted):
    with torch.device("meta"):
        model = pathsegmentor_large(text=text)

    assert parameters(model.image_encoder) == IMAGE
    assert parameters(model.pixel_decoder) == PIXEL
    assert parameters(model.decoder) == JOINT
    assert parameters(model.text_encoder) + 1 == wanted
    assert parameters(model) == {"clip": 340_360_953, "pubmedbert": 386_217_721}[text]


def test_the_papers_size_counts_what_the_published_class_builds():
    """0.45 B: both text encoders, BERT's pooler, point and memory prompts."""
    assert IMAGE + PIXEL + JOINT + CLIP + 820_224 + 109_482_240 == 450_663_417


def test_the_small_ones_are_small():
    assert 5e6 < parameters(pathsegmentor_mini(1200)) < 25e6
    assert parameters(pathsegmentor_tiny(300)) < 1e6


def test_the_numbers_of_mini_stay():
    """A changed number makes every mini checkpoint unreadable."""
    assert mini_config(1200) == SegmentorConfig(
        encoder="tf_efficientnet_lite0",
        pixel_mean=(127.5, 127.5, 127.5),
        pixel_std=(127.5, 127.5, 127.5),
        dim=128,
        heads=4,
        hidden=512,
        pixel_depth=2,
        queries=16,
        decoder_depth=3,
        vocabulary=1200,
        context=48,
        text_width=128,
        text_depth=2,
        text_heads=4,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (2, 2, 2)}, "depths must have 4 numbers"),
        ({"focal_levels": (2, 2)}, "focal_levels must have 4 numbers"),
        ({"pixel_mean": (0.5,)}, "pixel_mean must have 3 numbers"),
        ({"pixel_dim": 40}, "multiple of 32"),
        ({"text_encoder": "gpt"}, "text_encoder must be one of"),
        ({"width": 0}, "focalnet needs width"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(tiny_config(300), **change)


def test_a_timm_encoder_needs_no_focal_numbers():
    assert mini_config(1200).depths == ()

    with pytest.raises(ConfigError, match="cannot be an image encoder"):
        build_segmentor(replace(mini_config(1200), encoder="no_such_model"))


def test_heads_must_divide_the_features():
    with pytest.raises(ConfigError, match="multiple of heads"):
        build_segmentor(replace(tiny_config(300), heads=5))


def test_an_unknown_text_encoder_is_refused():
    with pytest.raises(ConfigError, match="pubmedbert"):
        large_config(text="t5")


def detailed(**sizes):
    torch.manual_seed(0)
    config = replace(mini_config(300), mask_dim=32, detail=32, **sizes)
    return build_segmentor(config).eval()


@pytest.mark.parametrize("fine", ["full", "separable"])
def test_masks_may_be_drawn_at_stride_2(fine):
    model = detailed(fine=fine)
    image = torch.randint(0, 256, (1, 3, 60, 90))
    ids, mask = torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.bool)

    with torch.no_grad():
        memory = model.encode_image(image)
        decoded = model(image, ids, mask)

    assert memory.mask_features.shape == (1, 32, 32, 48)
    assert [tuple(low.shape[-2:]) for low in memory.low_features] == [(2, 3), (4, 6), (8, 12)]
    assert decoded.logits.shape == (1, 2, 32, 48)


def test_a_map_at_stride_2_leaves_the_names_of_all_others():
    """So that weights without it are taken over."""
    plain, more = build_segmentor(mini_config(300)).state_dict(), detailed().state_dict()
    changed = {name for name, value in plain.items() if more[name].shape != value.shape}

    assert changed == {
        "pixel_decoder.mask_features.weight",
        "pixel_decoder.mask_features.bias",
        "decoder.mask_projector.4.weight",
        "decoder.mask_projector.4.bias",
    }


@pytest.mark.parametrize("sizes", [{"detail": 20}, {"fine": "coarse"}])
def test_impossible_details_are_refused(sizes):
    with pytest.raises(ConfigError, match=next(iter(sizes))):
        replace(mini_config(300), **sizes)


def test_a_map_at_stride_2_needs_an_encoder_that_has_it():
    with pytest.raises(ConfigError, match="timm"):
        replace(tiny_config(300), detail=32)
