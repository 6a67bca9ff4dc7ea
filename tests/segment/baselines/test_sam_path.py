"""SAM-Path: what is frozen, what is joined, and that it begins as Segment Anything."""

from __future__ import annotations

import copy
import json

import pytest
import timm
import torch

from xpath.errors import CheckpointError, ConfigError
from xpath.segment.baselines.class_models import ClassConfig, build_class_model
from xpath.segment.baselines.class_training import ClassObjective
from xpath.segment.baselines.sam_path import SamPath, load_pathology, start_sam_path
from xpath.segment.baselines.sam_weights import add_adapters
from xpath.segment.training.trainer import TrainConfig

VIT = "test_vit"
"""A vision transformer of timm with patches of 16 pixels, 64 features and a prefix token."""


@pytest.fixture
def model(sam):
    torch.manual_seed(0)
    joined = timm.create_model(VIT, num_classes=0, dynamic_img_size=True)
    return SamPath(copy.deepcopy(sam), 3, joined)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8, generator=generator)


def test_with_segment_anything_s_own_neck_it_is_segment_anything(sam, images):
    """Three classes are its three masks, if neck and prompts are taken over as well."""
    square = images[..., :64, :]
    mine = SamPath(copy.deepcopy(sam), 3).eval()
    mine.neck.load_state_dict(sam.vision_encoder.neck.state_dict())
    mine.decoder.load_state_dict(sam.mask_decoder.state_dict())

    with torch.inference_mode():
        logits, iou = mine(square)
        mean, deviation = (torch.tensor(v)[:, None, None] for v in (
            (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))  # fmt: skip
        maps = sam.get_image_embeddings((square - mean) / deviation)
        dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        masks, guess = sam.mask_decoder(
            image_embeddings=maps,
            image_positional_embeddings=sam.get_image_wide_positional_embeddings().expand(
                2, -1, -1, -1
            ),
            sparse_prompt_embeddings=None,
            dense_prompt_embeddings=dense.expand_as(maps),
            multimask_output=True,
        )

    wanted = torch.nn.functional.interpolate(masks[:, 0], (64, 64), mode="bilinear")
    assert torch.allclose(logits, wanted, atol=1e-5)
    assert torch.allclose(iou, guess[:, 0], atol=1e-6)


def test_encoders_are_frozen_and_the_rest_learns(model, images):
    objective = ClassObjective(model, TrainConfig())
    target = torch.zeros(2, 3, 96, 64, dtype=torch.uint8)
    target[..., 20:60, 20:60] = 1

    objective(images, torch.arange(3).expand(2, 3), target).total.backward()

    learning = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert not any(name.startswith(("encoder.", "pathology.")) for name in learning)
    assert {name.split(".")[0] for name in learning} == {"neck", "decoder", "no_mask"}
    assert "decoder.mask_tokens.weight" in learning


def test_tokens_of_both_encoders_are_joined(model, images):
    """8 features of Segment Anything before its neck, then 64 without the prefix token."""
    square = images[..., :64, :].float()

    tokens = model._tokens(square)

    assert tokens.shape == (2, 4, 4, 72)
    joined = model.pathology.forward_features(square / 127.5 - 1)
    assert torch.allclose(tokens[:, 1, 2, 8:], joined[:, 1 + 4 + 2], atol=1e-6)
    assert model.neck.conv1.in_channels == 72


def test_every_hypernetwork_starts_as_the_first_one(model, sam):
    first = sam.mask_decoder.output_hypernetworks_mlps[0].state_dict()

    assert len(model.decoder.output_hypernetworks_mlps) == 4
    for network in model.decoder.output_hypernetworks_mlps:
        assert all(torch.equal(v, first[k]) for k, v in network.state_dict().items())
    assert model.decoder.iou_prediction_head.proj_out.out_features == 4


def test_a_checkpoint_builds_it_again(sam, images, tmp_path):
    """Sizes go through JSON, pathology weights are a DINO teacher's."""
    sam.save_pretrained(tmp_path / "sam")
    torch.manual_seed(1)
    teacher = timm.create_model(VIT, num_classes=0, dynamic_img_size=True).state_dict()
    named = {f"module.backbone.{k}": v for k, v in teacher.items()} | {"head.last": torch.ones(1)}
    torch.save({"teacher": named}, tmp_path / "dino.pth")

    model, options = start_sam_path(3, tmp_path / "sam", tmp_path / "dino.pth", encoder=VIT)

    options = json.loads(json.dumps(options))
    labels = ("breast-tissue-tumor", "breast-tissue-fat", "breast-nuclei-lymphocyte")
    again = build_class_model(
        ClassConfig(model="sam-path", source="s", labels=labels, options=options)
    )
    again.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert torch.equal(again.eval()(images).logits, model.eval()(images).logits)
    assert torch.equal(model.pathology.state_dict()["pos_embed"], teacher["pos_embed"])


def test_other_weights_are_named(sam, published_names, tmp_path):
    adapted = copy.deepcopy(sam)
    add_adapters(adapted)
    torch.save(published_names(adapted), tmp_path / "med2d.pth")
    with pytest.raises(ConfigError, match="SAM-Med2D"):
        start_sam_path(3, tmp_path / "med2d.pth")
    torch.save({"cls_token": torch.zeros(1, 1, 3)}, tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match=r"vit.pth is no test_vit: .*missing"):
        load_pathology(VIT, tmp_path / "vit.pth")
