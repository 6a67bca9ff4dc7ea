"""Labels compete: against a slow reference, and for nuclei drawn by hand."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import torch

from xpath.labels import Label
from xpath.objects.rule import ObjectConfig
from xpath.objects.separate import separated_ids
from xpath.segment.predict.competition import (
    Siblings,
    compete,
    siblings,
    slide_presence,
)

SURE, UNSURE, OUT = 3.0, 1.0, -5.0


def label(structure, name, region="breast"):
    return Label(region, structure, name)


def drawn(*masks, levels):
    """Logits of masks: ``levels`` inside, far below 0 outside."""
    return torch.stack([
        torch.where(torch.from_numpy(mask), level, OUT)
        for mask, level in zip(masks, levels, strict=True)
    ])


def disc(x, y, radius, shape=(64, 64)):
    canvas = np.zeros(shape, np.uint8)
    cv2.circle(canvas, (x, y), radius, 1, -1)
    return canvas.astype(bool)


def reference(logits, groups, presence):
    """Pixel by pixel, label by label."""
    masks = np.zeros(logits.shape, bool)
    chances = 1 / (1 + np.exp(-logits))
    grouped = {index for group in groups for index in group.indices}
    for index, y, x in itertools.product(*map(range, logits.shape)):
        alone = logits[index, y, x] > 0 and presence[index] > 0
        masks[index, y, x] = alone and index not in grouped
    for group in groups:
        for y, x in itertools.product(*map(range, logits.shape[1:])):
            asked = [i for i in group.indices if logits[i, y, x] > 0 and presence[i] > 0]
            if asked:
                best = max(asked, key=lambda i: (presence[i] * chances[i, y, x], -i))
                masks[best, y, x] = True
    return masks


def test_siblings_share_region_and_structure_and_a_structure_contains_its_kinds():
    labels = [
        label("tissue", "tumor"),
        label("nuclei", "neoplastic"),
        label("tissue", "fat"),
        label("tissue", "fat", "colon"),
        label("nuclei", "nuclei"),
        label("nuclei", "lymphocyte"),
    ]
    assert siblings(labels) == (Siblings((0, 2), whole=False), Siblings((1, 5), whole=True))


def test_a_label_of_an_unspecified_region_is_a_sibling_in_every_region():
    labels = [
        label("nuclei", "neoplastic"),
        label("tissue", "tumor"),
        label("nuclei", "epithelial", "unspecified"),
        label("nuclei", "connective", "colon"),
        label("nuclei", "nuclei", "unspecified"),
        label("tissue", "tumor", "colon"),
    ]
    assert siblings(labels) == (Siblings((0, 2, 3), whole=True),)


def test_tissue_is_decided_as_by_the_slow_reference(rng):
    logits = rng.normal(0, 2, (5, 9, 11)).astype(np.float32)
    groups, presence = (Siblings((0, 2, 3), whole=False),), np.array([0.9, 0.5, 0.6, 0.0, 0.7])
    masks = compete(torch.from_numpy(logits), groups, presence, mpp=0.5).numpy()

    np.testing.assert_array_equal(masks, reference(logits, groups, presence))
    assert masks[[0, 2, 3]].sum(axis=0).max() == 1
    np.testing.assert_array_equal(masks[4], logits[4] > 0)  # has no sibling
    np.testing.assert_array_equal(masks[[0, 2]].any(axis=0), (logits[[0, 2]] > 0).any(axis=0))


@pytest.mark.parametrize(("presence", "kept"), [((0.9, 0.2), 0), ((0.2, 0.9), 1)])
def test_a_nested_tissue_goes_to_the_label_with_the_higher_claim(presence, kept):
    outer, inner = disc(32, 32, 20), disc(32, 32, 8)
    logits = drawn(outer, inner, levels=(SURE, SURE))
    masks = compete(logits, (Siblings((0, 1), whole=False),), np.array(presence), mpp=0.5).numpy()

    np.testing.assert_array_equal(masks[0], outer & ~inner if kept else outer)
    np.testing.assert_array_equal(masks[1], inner if kept else np.zeros_like(inner))


@pytest.mark.parametrize("whole", [False, True])
def test_of_equal_claims_the_label_asked_first_has_all(whole):
    mask = disc(20, 20, 9)
    group = (Siblings((0, 1), whole=whole),)
    masks = compete(drawn(mask, mask, levels=(SURE, SURE)), group, np.ones(2), mpp=0.5).numpy()

    np.testing.assert_array_equal(masks[0], mask)
    assert not masks[1].any()


@pytest.mark.parametrize("whole", [False, True])
def test_nothing_stays_nothing_and_what_is_not_there_claims_nothing(whole):
    group, mask = (Siblings((0, 1), whole=whole),), disc(20, 20, 9)
    empty = torch.full((2, 64, 64), OUT)
    absent = compete(drawn(mask, mask, levels=(UNSURE, SURE)), group, np.array([0.6, 0]), mpp=0.5)

    assert not compete(empty, group, np.ones(2), mpp=0.5).any()
    np.testing.assert_array_equal(absent[0].numpy(), mask)
    assert not absent[1].any()


def test_a_nucleus_goes_to_one_label_whole():
    """Two touching nuclei; of each, one label has most of the claim and the other a part."""
    left, right = disc(22, 32, 10), disc(40, 32, 10)
    first = left | (right & (np.arange(64) < 36)[None])  # reaches into the right nucleus
    second = right | (left & (np.arange(64) > 28)[None])  # and this one into the left
    masks = compete(
        drawn(first, second, levels=(SURE, SURE)),
        (Siblings((0, 1), whole=True),),
        np.ones(2),
        mpp=0.5,
    ).numpy()

    assert not (masks[0] & masks[1]).any()
    np.testing.assert_array_equal(masks[0] | masks[1], left | right)
    waist = (np.arange(64) < 31)[None] & left, (np.arange(64) > 32)[None] & right
    assert masks[0][waist[0]].all()
    assert masks[1][waist[1]].all()


def test_nuclei_are_decided_as_if_every_one_had_been_separated(rng):
    for _ in range(4):
        noise = rng.normal(0, 1, (3, 96, 96)).astype(np.float32)
        blobs = sum(disc(*rng.integers(8, 88, 2).tolist(), 8, (96, 96)) for _ in range(14)) > 0
        logits = np.where(blobs, cv2.GaussianBlur(np.moveaxis(noise, 0, -1), (0, 0), 5)
                          .transpose(2, 0, 1) * 12 + 0.5, OUT).astype(np.float32)  # fmt: skip
        presence = rng.uniform(0.4, 1, 3).astype(np.float32)
        asked = logits > 0
        got = compete(torch.from_numpy(logits), (Siblings((0, 1, 2), whole=True),), presence,
                      mpp=0.5).numpy()  # fmt: skip

        claims = presence[:, None, None] / (1 + np.exp(-logits))
        ids = separated_ids(asked.any(axis=0), 0.5, ObjectConfig(min_area_um2=0.0))
        assert ids.max() > 3
        for number in range(1, ids.max() + 1):
            nucleus = ids == number
            touching = [k for k in range(3) if (asked[k] & nucleus).any()]
            best = max(touching, key=lambda k: claims[k][nucleus].mean())
            assert got[best][nucleus].all()
            assert got[:, nucleus].sum() == nucleus.sum()


def test_nuclei_of_one_label_alone_are_left_as_they_are(rng):
    apart = rng.random((64, 64)) > 0.6
    logits = drawn(apart & disc(15, 15, 12), apart & disc(48, 48, 12), levels=(SURE, UNSURE))
    masks = compete(logits, (Siblings((0, 1), whole=True),), np.ones(2), mpp=0.5)

    assert torch.equal(masks, logits > 0)


def test_nuclei_stay_in_their_tissue():
    tissue, nucleus = disc(32, 32, 25), disc(32, 32, 6)
    labels = [label("tissue", "tumor"), label("nuclei", "neoplastic")]
    logits = drawn(tissue, nucleus, levels=(SURE, UNSURE))

    assert torch.equal(compete(logits, siblings(labels), np.ones(2), mpp=0.5), logits > 0)


def test_presence_on_a_slide_is_weighted_by_area_and_does_not_rise_with_patches():
    chances = np.array([[0.9, 0.2, 0.0], [0.1, 0.2, 0.0]])
    areas = np.array([[300, 5, 0], [100, 5, 0]])
    presence = slide_presence(chances, areas)

    np.testing.assert_allclose(presence, [(0.9 * 300 + 0.1 * 100) / 400, 0.2, 0])
    np.testing.assert_allclose(
        slide_presence(np.tile(chances, (50, 1)), np.tile(areas, (50, 1))), presence
    )
