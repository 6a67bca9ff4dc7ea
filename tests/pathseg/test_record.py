from __future__ import annotations

import dataclasses
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from xpath.pathseg.record import Annotated, LabelMask, SourceImage


def decode(value):
    image = np.full((2, 3, 3), value, np.uint8)
    return Annotated(image, (LabelMask("colon-tissue-gland", image[..., 0] > 0),), None)


def an_image():
    return SourceImage(
        source="GlaS",
        name="train_1",
        group="patient1",
        split="train",
        mpp=0.62,
        region="colon",
        path=Path("train_1.bmp"),
        read=partial(decode, 7),
    )


def test_a_record_is_read_only_when_asked_and_cannot_be_changed():
    image = an_image()

    assert image.read().masks[0].mask.shape == (2, 3)
    assert image.read().absent == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        image.name = "other"


def test_a_record_travels_to_another_process():
    """Loaders start workers by pickling what they read."""
    copy = pickle.loads(pickle.dumps(an_image()))  # noqa: S301 - our own, just made

    assert copy.name == "train_1"
    assert copy.read().image.max() == 7
