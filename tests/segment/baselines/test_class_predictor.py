"""A specialised model behind the segmentor's face, and its folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from xpath.errors import CheckpointError
from xpath.segment.baselines.class_models import (
    ClassConfig,
    ClassOutput,
    LossWeights,
    build_class_model,
)
from xpath.segment.baselines.class_predictor import (
    ClassPredictor,
    class_of,
    read_class_config,
    save_class_model,
)
from xpath.segment.evaluation.evaluate import ask

RED, GREEN = "breast-nuclei-lymphocyte", "breast-tissue-tumor"
CONFIG = ClassConfig(
    model="unet", source="s", labels=(RED, GREEN), mpp_range=(0.25, 0.5),
    options={"encoder": "resnet18"},
)  # fmt: skip
PROMPTS = [
    "tissue-level tumor in breast pathology.",
    "nuclei-level lymphocyte in breast pathology.",
]


class Colours(nn.Module):
    """Its labels are red and green; it remembers what it saw."""

    loss = LossWeights()
    seen = ()

    def forward(self, images):
        self.seen = tuple(images.shape)
        return ClassOutput(images[:, :2] / 16 - 8)  # above 0 where a colour is above 128


@pytest.fixture
def model():
    return Colours()


@pytest.fixture
def image():
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[5:15, 5:25, 0] = 255
    pixels[20:30, 20:40, 1] = 255
    return pixels


def test_prompts_are_answered_by_the_output_of_their_label(model, image):
    predictor = ClassPredictor(model, CONFIG)

    answers = ask(predictor, image[None], PROMPTS)

    assert (answers.masks[0, 0] == (image[..., 1] > 128)).all()
    assert (answers.masks[0, 1] == (image[..., 0] > 128)).all()
    assert model.seen == (1, 3, 64, 64)  # padded to multiples of 32
    assert answers.present.all()
    assert answers.presence[0, 0] == pytest.approx(1 / (1 + np.exp(8 - 255 / 16)), abs=1e-4)


def test_logits_are_means_over_positions(model, image):
    predictor = ClassPredictor(model, CONFIG)

    logits = predictor.logits(predictor.encode(image), PROMPTS)

    assert logits.shape == (1, 2, 10, 13)
    assert float(logits[0, 1, 2, 2]) == pytest.approx(255 / 16 - 8)  # rows 8 to 11, all red
    assert float(logits[0, 1, 9, 0]) == pytest.approx(-8)


@pytest.mark.parametrize(
    ("mpp", "seen"), [(None, (64, 64)), (0.3, (64, 64)), (0.125, (32, 32)), (1.0, (96, 128))]
)
def test_images_are_shown_within_the_range_of_training(model, image, mpp, seen):
    """At 0.125 microns half as large, 20 x 25 pixels; at 1.0 twice, 80 x 100."""
    predictor = ClassPredictor(model, CONFIG)

    answer = predictor.masks(predictor.encode(image[None], mpp=mpp), PROMPTS)

    assert model.seen[2:] == seen
    assert answer.masks.shape == (1, 2, 40, 50)


def test_a_label_never_taught_is_answered_by_its_object_type_or_not_at_all(model, image):
    """As the paper scores specialised models on external data (Table 16)."""
    predictor = ClassPredictor(model, CONFIG)
    prompts = [
        "nuclei-level lymphocyte in colon pathology.",
        "tissue-level fat in breast pathology.",
        "whatever",
    ]

    answer = predictor.masks(predictor.encode(image), prompts)

    assert (answer.masks[0, 0] == (image[..., 0] > 128)).all()
    assert not answer.masks[0, 1:].any()
    assert answer.present[0].tolist() == [True, False, False]
    assert class_of(GREEN, (RED, GREEN)) == 1
    assert class_of("colon-tissue-mucosa", (RED, GREEN)) is None


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_class_model(tmp_path / "weights", build_class_model(CONFIG), CONFIG, card="# A card\n")
    return tmp_path / "weights"


def test_a_folder_answers_as_the_model_it_was_made_of(folder, image):
    torch.manual_seed(0)
    direct = ClassPredictor(build_class_model(CONFIG), CONFIG)

    read = ClassPredictor.from_pretrained(folder)

    assert read_class_config(folder) == CONFIG
    assert torch.equal(read.encode(image).logits, direct.encode(image).logits)
    assert len(read.info.digest) == 64
    assert read.info.labels == (RED, GREEN)


def test_weights_of_another_model_are_named(folder):
    state = load_file(folder / "model.safetensors")
    name = "network.segmentation_head.0.bias"
    state[name] = torch.zeros(7)
    state.pop("network.encoder.conv1.weight")
    save_file(state, folder / "model.safetensors")

    with pytest.raises(CheckpointError) as error:
        ClassPredictor.from_pretrained(folder)

    assert "network.encoder.conv1.weight is missing, wanted (64, 3, 7, 7)" in str(error.value)
    assert f"{name} is (7,), wanted (2,)" in str(error.value)
    assert "(2 differences)" in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"schema": "xpath.segmentor/1"}, "xpath.segmentor/1"), ({"more": 1}, "more")],
)
def test_another_config_is_named(folder, change, said):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(CheckpointError, match=said):
        read_class_config(folder)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_class_config(folder)
