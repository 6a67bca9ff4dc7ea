"""Specialised models: the loss by hand, training that learns and resumes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from xpath.errors import ConfigError
from xpath.pathseg.dataset import CropConfig, PromptedCrops
from xpath.pathseg.packed import Stored
from xpath.pathseg.record import Annotated, LabelMask, SourceImage
from xpath.segment.baselines.class_models import (
    ClassConfig,
    ClassOutput,
    LossWeights,
    build_class_model,
)
from xpath.segment.baselines.class_training import (
    ClassBatch,
    ClassBatches,
    ClassStart,
    class_loss,
    exhaustive,
    start_training,
)
from xpath.segment.training.batches import BatchConfig

RED, GREEN = "breast-nuclei-lymphocyte", "breast-tissue-tumor"
CONFIG = ClassConfig(model="unet", source="s", labels=(RED, GREEN), options={"encoder": "resnet18"})
START = ClassStart(steps=8, encoder="resnet18", lr=1e-2)


def stored(name, label, colour):
    """An image of one label: a bright square of its colour."""

    def read():
        image = np.full((64, 64, 3), 60, np.uint8)
        mask = np.zeros((64, 64), bool)
        mask[16:48, 16:48] = True
        image[mask, colour] = 250
        return Annotated(image, (LabelMask(label, mask),), None)

    source = SourceImage(
        source="s", name=name, group=name, split="train", mpp=0.25, region="breast",
        path=Path(name), read=read,
    )  # fmt: skip
    return Stored(source, (64, 64), (label,))


@pytest.fixture
def images():
    return [stored("a", RED, 0), stored("b", GREEN, 1)]


@pytest.fixture
def batches(images):
    known, labels = exhaustive(images)
    views = CropConfig(prompts=2, absent=1.0, blank=0, augment=None, whole=(1.0, 1.0))
    crops = PromptedCrops({"s": known}, views, total=32, seed=0)
    return ClassBatches(crops, labels, BatchConfig(shapes=((4, 64),)))


def test_every_label_without_a_mask_is_absent(images):
    known, labels = exhaustive(images)

    assert labels == (RED, GREEN)
    assert known[0].load().absent == (GREEN,)
    assert known[1].load().absent == (RED,)


def test_a_batch_has_the_masks_of_all_labels(batches):
    batch = batches[3]

    assert batch.images.shape == (4, 3, 64, 64)
    for image, outputs, target in zip(*batch, strict=True):
        assert sorted(outputs.tolist()) == [0, 1]
        bright = image > 200  # the colour is the label
        for output, mask in zip(outputs, target, strict=True):
            assert ((mask == 1) == bright[output]).float().mean() > 0.95


def test_loss_by_hand():
    """Two pixels known of four, one of them the object, and logits of 0: p is 1/2 everywhere."""
    target = torch.tensor([[[[1, 0], [255, 255]]]], dtype=torch.uint8)
    answer = ClassOutput(torch.zeros(1, 3, 2, 2), torch.tensor([[0.0, 0.0, 0.25]]))
    weights = LossWeights(pixel=0.25, dice=0.75, iou=0.0625, focus=2)

    loss = class_loss(answer, torch.tensor([[2]]), target, weights)

    assert float(loss.pixel) == pytest.approx(0.25 * math.log(2) * 0.25)
    assert float(loss.dice) == pytest.approx(0.75 * (1 - (2 * 0.5 + 1) / (1 + 1 + 1)))
    assert float(loss.iou) == pytest.approx(0.0625 * 0.25**2)  # no pixel above 0: IoU 0
    assert float(loss.total) == pytest.approx(float(sum(loss)))
    plain = class_loss(answer._replace(iou=None), torch.tensor([[0]]), target, LossWeights())
    assert float(plain.pixel) == pytest.approx(math.log(2))
    assert float(plain.iou) == 0


def test_it_learns(batches):
    _, trainer = start_training(CONFIG, START)
    losses = [float(trainer(batches[n]).loss.total) for n in range(8)]

    assert losses[-1] < 0.8 * losses[0]


def test_a_resumed_training_is_the_same(batches, tmp_path):
    _, straight = start_training(CONFIG, START)
    for number in range(3):
        straight(batches[number])

    _, begun = start_training(CONFIG, START)
    begun(batches[0])
    torch.save(begun.state(), tmp_path / "state.pt")
    _, resumed = start_training(CONFIG, START)
    resumed.resume(torch.load(tmp_path / "state.pt", weights_only=True))
    for number in (1, 2):
        resumed(batches[number])

    theirs = resumed.model.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in straight.model.state_dict().items())


def test_batches_are_cut_evenly(batches):
    parts = list(batches[0].parts(2))

    assert [part.images.shape[0] for part in parts] == [2, 2]
    assert torch.equal(torch.cat([part.target for part in parts]), batches[0].target)
    assert isinstance(parts[0], ClassBatch)


@pytest.mark.parametrize("model", ["unet", "deeplabv3plus"])
def test_models_answer_every_pixel_for_every_label(model):
    config = ClassConfig(
        model=model, source="s", labels=(RED, GREEN), options={"encoder": "resnet18"}
    )
    built = build_class_model(config).eval()

    with torch.inference_mode():
        answer = built(torch.zeros(1, 3, 32, 64, dtype=torch.uint8))

    assert answer.logits.shape == (1, 2, 32, 64)


def test_the_paper_s_deeplab_is_as_large_as_published():
    """ResNet-101 at an output stride of 16: 45.7 M parameters."""
    model = build_class_model(ClassConfig(model="deeplabv3plus", source="s", labels=(RED,) * 3))

    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(45.7, abs=0.05)


def test_what_cannot_be_built_is_named():
    with pytest.raises(ConfigError, match="one of"):
        build_class_model(ClassConfig(model="vnet", source="s", labels=(RED,)))
    with pytest.raises(ConfigError, match="resnet0"):
        build_class_model(
            ClassConfig(model="unet", source="s", labels=(RED,), options={"encoder": "resnet0"})
        )
    with pytest.raises(ConfigError, match="--sam"):
        start_training(ClassConfig(model="sam-path", source="s", labels=(RED,)), START)
