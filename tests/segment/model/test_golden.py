"""Equality with the published architecture, on numbers computed with its own code."""

import json

import pytest
import torch
from safetensors.torch import load_file

from xpath.segment.checkpoints.biomedparse import config_from_reference, load_biomedparse
from xpath.segment.model.decoder import mask_logits
from xpath.segment.model.segmentor import similarity


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden"
    config = config_from_reference(json.loads((folder / "seem_tiny.json").read_text()))
    model, _ = load_biomedparse(folder / "seem_tiny.weights.safetensors", config=config)
    return model, load_file(folder / "seem_tiny.io.safetensors")


@torch.no_grad()
def test_every_stage_equals_the_reference(golden):
    model, wanted = golden
    close = {"atol": 1e-4, "rtol": 0}

    maps = model.image_encoder(model.normalise(wanted["image"][None]))
    pixels = model.pixel_decoder(maps)
    text = model.encode_text(wanted["input_ids"], wanted["attention_mask"].bool())

    for name, found in zip(("res2", "res3", "res4", "res5"), maps, strict=True):
        torch.testing.assert_close(found, wanted[name], **close)
    for level in range(3):
        torch.testing.assert_close(pixels.scales[level], wanted[f"ms{level}"], **close)
    torch.testing.assert_close(pixels.mask_features, wanted["mask_features"], **close)
    torch.testing.assert_close(text.tokens, wanted["token_emb"], **close)
    torch.testing.assert_close(text.sentence, wanted["class_emb"], **close)


@torch.no_grad()
def test_prompts_decoded_together_equal_the_reference_alone(golden):
    model, wanted = golden
    memory = model.encode_image(wanted["image"][None])
    text = model.encode_text(wanted["input_ids"], wanted["attention_mask"].bool())

    head = model.decoder(memory, text)[-1]
    answer = model.decode(memory, text)

    logits = mask_logits(head.masks, memory.mask_features)
    for p in range(3):
        alone = f"single{p}."
        torch.testing.assert_close(
            logits[0, p], wanted[alone + "all_mask_logits"], atol=1e-3, rtol=0
        )
        torch.testing.assert_close(
            head.classes[0, p], wanted[alone + "query_class_emb"], atol=1e-3, rtol=0
        )
        scores = similarity(head.classes, text.sentence)[0, p]
        assert scores.argmax() == wanted[alone + "selected_query"][0] == answer.query[0, p]
        torch.testing.assert_close(
            answer.logits[0, p], wanted[alone + "selected_mask_logits"][0], atol=1e-3, rtol=0
        )


@torch.no_grad()
def test_coupled_prompts_equal_the_reference_in_one_call(golden):
    model, wanted = golden
    memory = model.encode_image(wanted["image"][None])
    text = model.encode_text(wanted["input_ids"], wanted["attention_mask"].bool())

    head = model.decoder(memory, text, coupled=True)[-1]
    answer = model.decode(memory, text, coupled=True)

    logits = mask_logits(head.masks, memory.mask_features)[0, 0]
    close = {"atol": 1e-3, "rtol": 0}
    torch.testing.assert_close(logits, wanted["joint.all_mask_logits"], **close)
    torch.testing.assert_close(head.classes[0, 0], wanted["joint.query_class_emb"], **close)
    torch.testing.assert_close(answer.logits[0], wanted["joint.selected_mask_logits"], **close)
    assert torch.equal(answer.query[0], wanted["joint.selected_query"])
    scores = answer.similarity[0].T * model.logit_scale.exp()
    torch.testing.assert_close(scores, wanted["joint.similarity"], **close)
