"""Training crops: image and masks stay together, rare objects are met."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xpath.labels import load_labels
from xpath.segment.tokenizer import fit_tokenizer
from xpath.testing.crops import CROP, FIELD, Field, crop_batches
from xpath.testing.tissue import LABELS

PRESENT = LABELS[:3]


@pytest.fixture(scope="module")
def tokenizer():
    return fit_tokenizer(label.prompt for label in load_labels())


@pytest.fixture(scope="module")
def field():
    """Stripes: each label is where a colour channel is dark, so that the image tells the truth."""
    y, x = np.mgrid[0:FIELD, 0:FIELD]
    stripes = [(x % 70) < 30, (y % 90) < 20, ((x + 2 * y) % 110) < 40]
    image = np.stack([np.where(stripe, 40, 220) for stripe in stripes], axis=-1)
    return Field(image.astype(np.uint8), dict(zip(PRESENT, stripes, strict=True)))


def row_of(tokenizer, ids):
    """Which label a prompt of tokens asks for."""
    tokens = tokenizer([load_labels()[name].prompt for name in LABELS]).ids
    return [row for row in range(len(LABELS)) if torch.equal(tokens[row], ids)]


def test_masks_are_turned_with_their_image(field, tokenizer, rng):
    batch = next(crop_batches([field], LABELS, tokenizer, (6, 5), rng))

    assert batch[0].shape == (6, 3, CROP, CROP)
    assert batch[3].shape == (6, 5, CROP, CROP)
    for image, ids, masks in zip(batch[0], batch[1], batch[3], strict=True):
        for prompt, mask in zip(ids, masks, strict=True):
            (row,) = row_of(tokenizer, prompt)
            dark = image[row] < 128 if row < 3 else torch.zeros(CROP, CROP, dtype=torch.bool)
            assert torch.equal(mask.bool(), dark)


def test_first_prompt_is_there_and_some_are_not(field, tokenizer, rng):
    batch = next(crop_batches([field], LABELS, tokenizer, (8, 6), rng))

    there = batch[3].flatten(2).any(-1)
    assert there[:, 0].all()
    assert (~there).sum(1).min() >= 2  # a third of six


def test_same_seed_same_crops(field, tokenizer):
    one, two = (
        next(crop_batches([field], LABELS, tokenizer, (2, 4), np.random.default_rng(7)))
        for _ in range(2)
    )

    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
