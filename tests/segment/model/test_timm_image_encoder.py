"""Encoders of timm: what they give, and what their batch norms must not do."""

import pytest
import torch

from xpath.errors import ConfigError
from xpath.segment.model.timm_image_encoder import TimmImageEncoder, _for_inference

NAME = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return TimmImageEncoder(NAME)


def images(count, seed=0, size=(64, 96)):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_maps_lie_at_the_four_strides(encoder):
    maps = encoder(images(2))

    assert encoder.channels == (24, 40, 112, 320)
    assert [tuple(x.shape) for x in maps] == [
        (2, 24, 16, 24),
        (2, 40, 8, 12),
        (2, 112, 4, 6),
        (2, 320, 2, 3),
    ]


@torch.no_grad()
def test_another_network_that_fits():
    encoder = TimmImageEncoder("resnet18")  # its first map has stride 2 and is left out

    assert encoder.channels == (64, 128, 256, 512)
    assert encoder(images(1))[0].shape == (1, 64, 16, 24)


@torch.no_grad()
def test_the_batch_changes_nothing_in_training_either(encoder):
    batch = images(3)

    together = encoder.train()(batch)
    alone = encoder(batch[:1])

    for whole, single in zip(together, alone, strict=True):
        torch.testing.assert_close(whole[:1], single, atol=1e-5, rtol=1e-5)


def test_scales_and_shifts_are_learnt_all_the_same(encoder):
    sum(x.square().sum() for x in encoder.train()(images(1))).backward()

    assert encoder.trunk.bn1.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_statistics_are_the_mean_over_batches(encoder):
    batches = [images(4, seed=1), 3 * images(4, seed=2)]

    encoder.measure(iter(batches))

    seen = [encoder.trunk.conv_stem(batch) for batch in batches]
    mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen]).mean(dim=0)
    variance = torch.stack([x.var(dim=(0, 2, 3)) for x in seen]).mean(dim=0)
    torch.testing.assert_close(encoder.trunk.bn1.running_mean, mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder.trunk.bn1.running_var, variance, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_measured_statistics_stay_in_training(encoder):
    encoder.measure([images(2)])
    before = encoder.trunk.bn1.running_mean.clone()

    encoder.train()(images(2, seed=5) + 10)

    assert torch.equal(encoder.trunk.bn1.running_mean, before)


@pytest.mark.parametrize("name", ["no_such_model", "vit_tiny_patch16_224"])
def test_what_is_no_encoder_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name}.* cannot be an image encoder"):
        TimmImageEncoder(name)


@pytest.mark.parametrize("name", [NAME, "resnet18", "mobilenetv2_100"])
@torch.no_grad()
def test_a_reader_gives_the_same_maps_of_fewer_layers(name):
    torch.manual_seed(0)
    encoder = TimmImageEncoder(name)
    encoder.measure([images(4, seed) for seed in range(3)])  # batch norms that do something
    encoder.eval()
    batch = images(2, seed=9, size=(128, 96))

    fine, coarse = encoder.reader((8, 16))(batch)

    wanted = encoder(batch)
    torch.testing.assert_close(fine, wanted[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(coarse, wanted[2], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_reader_folds_batch_norms_and_leaves_the_encoder_as_it_is():
    encoder = TimmImageEncoder(NAME)
    norms = sum(isinstance(part, torch.nn.BatchNorm2d) for part in encoder.modules())

    trunk = _for_inference(encoder.trunk, last=encoder._stages[2])

    assert norms == sum(isinstance(part, torch.nn.BatchNorm2d) for part in encoder.modules()) > 40
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in trunk.modules())
    assert len(trunk.blocks) == 5 < len(encoder.trunk.blocks)


@torch.no_grad()
def test_where_folding_would_give_another_map_it_is_left(encoder, monkeypatch):
    """As of a network whose norm takes another input than the convolution listed before it."""

    def wrong(conv, norm):
        return conv

    monkeypatch.setattr("xpath.segment.model.timm_image_encoder.fuse_conv_bn_eval", wrong)
    fresh = TimmImageEncoder(NAME)
    fresh.measure([images(4)])
    fresh.eval()

    (coarse,) = fresh.reader((16,))(images(1))

    torch.testing.assert_close(coarse, fresh(images(1))[2], atol=1e-4, rtol=1e-4)
