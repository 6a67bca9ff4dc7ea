"""Painted fields as training images: every label is known, there or absent."""

from __future__ import annotations

import numpy as np
import pytest

from xpath.testing.crops import FIELD, MPP, drawn_images
from xpath.testing.tissue import LABELS


@pytest.fixture(scope="module")
def drawn():
    return drawn_images([3, 4])


def test_fields_are_images_of_their_own_groups(drawn):
    assert [image.source for image in drawn] == ["drawn", "drawn"]
    assert drawn[0].group != drawn[1].group
    assert {image.mpp for image in drawn} == {MPP}


def test_every_label_is_either_there_or_absent(drawn):
    for image in drawn:
        annotated = image.read()
        there = [mask.label for mask in annotated.masks]

        assert sorted([*there, *annotated.absent]) == sorted(LABELS)
        assert all(
            mask.mask.any() and mask.mask.shape == (FIELD, FIELD) for mask in annotated.masks
        )
        assert annotated.image.shape == (FIELD, FIELD, 3)


def test_seed_decides_the_field(drawn):
    again = drawn_images([3])[0].read()

    assert np.array_equal(again.image, drawn[0].read().image)
    assert not np.array_equal(again.image, drawn[1].read().image)


def test_no_seeds_no_images():
    assert drawn_images([]) == []
