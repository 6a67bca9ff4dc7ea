"""Weights of an image classifier become those of the image encoder."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from xpath.errors import CheckpointError, ConfigError
from xpath.segment.checkpoints.pretrained import load_encoder, pretrain
from xpath.segment.model.timm_image_encoder import TimmImageEncoder
from xpath.segment.model.variants import pathsegmentor_mini, pathsegmentor_tiny

NAME = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def classifier():
    """As it is published: with a head that the encoder has no use for."""
    torch.manual_seed(1)
    model = timm.create_model(NAME).eval()
    model.bn1.running_mean.normal_()
    return model.state_dict()


def assert_taken_over(encoder, classifier):
    for name, value in encoder.trunk.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(value, classifier[name]), name


def test_names_of_timm(classifier, tmp_path):
    save_file(classifier, tmp_path / "model.safetensors")
    encoder = TimmImageEncoder(NAME)

    load_encoder(encoder, tmp_path / "model.safetensors")

    assert_taken_over(encoder, classifier)


def test_names_of_another_library_in_the_same_order(classifier, tmp_path):
    theirs = {
        f"_{i}" + (".num_batches_tracked" if "num_batches" in name else ""): value
        for i, (name, value) in enumerate(classifier.items())
    }
    torch.save(theirs, tmp_path / "model.pth")
    encoder = TimmImageEncoder(NAME)

    load_encoder(encoder, tmp_path / "model.pth")

    assert_taken_over(encoder, classifier)


def test_another_network_is_named(tmp_path):
    torch.save(timm.create_model("tf_efficientnet_lite2").state_dict(), tmp_path / "model.pth")

    with pytest.raises(CheckpointError, match=r"of another network, \d+ of \d+ tensors differ"):
        load_encoder(TimmImageEncoder(NAME), tmp_path / "model.pth")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "model.pth").write_bytes(b"PK nothing")

    with pytest.raises(CheckpointError, match=r"model\.pth cannot be read"):
        load_encoder(TimmImageEncoder(NAME), tmp_path / "model.pth")


def test_the_whole_model_is_prepared(classifier, tmp_path):
    save_file(classifier, tmp_path / "model.safetensors")
    model = pathsegmentor_mini(300)
    photos = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)

    pretrain(model, tmp_path / "model.safetensors", [photos])

    trunk = model.image_encoder.trunk
    assert torch.equal(trunk.conv_stem.weight, classifier["conv_stem.weight"])
    seen = trunk.conv_stem(model.normalise(photos)).mean(dim=(0, 2, 3))
    torch.testing.assert_close(trunk.bn1.running_mean, seen.detach(), atol=1e-5, rtol=1e-4)


def test_focalnet_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="FocalNet"):
        pretrain(pathsegmentor_tiny(300), tmp_path / "model.safetensors", [])
