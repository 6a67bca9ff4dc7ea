from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from xpath.errors import ConfigError, DataError, LabelError, ShapeError
from xpath.labels import Label, load_labels
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.segment.predict.presence import biomedparse_pathology
from xpath.segment.predict.recognition import CODE, PAPER, RecognitionRules, recognise, resolve

LABELS = tuple(load_labels())


def slowly_suppressed(masks, scores, rules):
    """Labels that remain of those that lie upon each other."""
    alive = []
    for t in sorted(range(len(masks)), key=lambda t: -scores[t]):
        if not masks[t].any() or scores[t] < rules.min_score:
            continue
        upon = [(masks[t] & masks[k]).sum() / masks[t].sum() for k in alive]
        if rules.overlap is None or not any(share > rules.overlap for share in upon):
            alive.append(t)
    return sorted(alive)


def slowly(logits, size, scores, rules):
    """BiomedParse's rules pixel by pixel, as the paper and its code tell them."""
    large = functional.interpolate(logits[None].double(), scale_factor=4, mode="bilinear")[0]
    chance = large[:, : size[0], : size[1]].sigmoid().numpy()
    alive = slowly_suppressed(chance > 0.5, scores, rules)
    won, own, sums = (dict.fromkeys(alive, 0) for _ in range(3))
    for y, x in np.ndindex(size):
        here = [t for t in alive if chance[t, y, x] > rules.candidate]
        for t in here:
            own[t] += 1
            sums[t] += chance[t, y, x]
        if here:
            won[max(here, key=lambda t: chance[t, y, x])] += 1
    surest = max(alive, key=lambda t: sums[t] / max(own[t], 1), default=None)
    kept = [
        t
        for t in alive
        if own[t] and (won[t] >= rules.share * own[t] or (rules.keep_surest and t == surest))
    ]
    label_map = np.full(size, -1)
    for y, x in np.ndindex(size):
        here = [t for t in kept if chance[t, y, x] > rules.inside]
        if here:
            label_map[y, x] = max(here, key=lambda t: chance[t, y, x])
    return kept, label_map


def scene(rng, count, size):
    """Blobs of different size and height, some nowhere."""
    noise = torch.from_numpy(rng.normal(size=(count, 1, *size))).float()
    smooth = functional.avg_pool2d(noise, 5, stride=1, padding=2)[:, 0] * 8
    return smooth + torch.from_numpy(rng.normal(-0.5, 1.5, (count, 1, 1))).float()


@pytest.mark.parametrize(
    "rules",
    [
        CODE,
        PAPER,
        RecognitionRules(share=0.8, candidate=0.3, inside=0.6, overlap=0.2, min_score=0.6),
        RecognitionRules(candidate=0.7, inside=0.3, keep_surest=False),
        RecognitionRules(share=0.0, overlap=1.0),
    ],
)
@pytest.mark.parametrize("size", [(32, 40), (27, 33)])
def test_as_the_slow_way(rng, rules, size):
    total = 0
    for _ in range(12):
        logits = scene(rng, 5, (8, 10))
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        found = resolve(logits, image, LABELS[:5], rules=rules)
        kept, label_map = slowly(logits, size, found.scores, rules)

        assert found.kept.tolist() == kept
        assert np.array_equal(found.label_map, label_map)
        for index, mask in zip(found.kept, found.masks, strict=True):
            assert np.array_equal(mask, label_map == index)
        total += len(kept)
    assert 0 < total < 12 * 5  # some are dropped, not all


def test_blobs_far_apart_are_found_where_they_are():
    """Only the part of the image where a label may be is enlarged. The edges of it count."""
    logits = torch.full((3, 32, 32), -4.0)
    logits[0, 3, 5], logits[1, 31, 31], logits[2, 0, 30] = 8, 5, 3
    image = np.zeros((128, 128, 3), np.uint8)
    found = resolve(logits, image, LABELS[:3])
    large = functional.interpolate(logits[None], scale_factor=4, mode="bilinear")[0].numpy()

    assert found.kept.tolist() == [0, 1, 2]
    assert np.array_equal(found.masks, large > 0)


def test_scores_and_order_of_the_better_one(rng):
    """Of two on the same pixels the surer survives, wherever it stands."""
    logits = torch.full((2, 8, 8), -5.0)
    logits[0, 2:6, 2:6], logits[1, 2:6, 2:6] = 1, 4
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)

    found = resolve(logits, image, LABELS[:2])
    turned = resolve(logits.flip(0), image, LABELS[:2])

    assert found.kept.tolist() == [1]
    assert turned.kept.tolist() == [0]
    assert found.scores[1] > found.scores[0] > 0.5
    assert found.names == (LABELS[1].id,)
    assert np.array_equal(found.scores, turned.scores[::-1])


def test_another_score_may_be_passed_in(rng):
    logits = torch.full((2, 8, 8), 3.0)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    labels = [
        Label("breast", "nuclei", object_type) for object_type in ("neoplastic", "inflammatory")
    ]
    model = biomedparse_pathology()
    found = resolve(logits, image, labels, score=model.geometric_mean)

    assert (found.scores < 0.5).all()
    strict = resolve(
        logits, image, labels, score=model.product, rules=RecognitionRules(min_score=0.99)
    )
    assert not len(strict.kept)


@pytest.mark.parametrize("rules", [CODE, PAPER])
def test_nothing_there(rules):
    image = np.zeros((30, 31, 3), np.uint8)
    found = resolve(torch.full((4, 8, 8), -1.0), image, LABELS[:4], rules=rules)

    assert found.masks.shape == (0, 30, 31)
    assert (found.label_map == -1).all()
    assert found.scores.tolist() == [0] * 4
    assert found.names == ()
    none = resolve(torch.zeros(0, 8, 8), image, (), rules=rules)
    assert none.masks.shape == (0, 30, 31)


def test_more_labels_than_a_byte_counts():
    logits = torch.full((300, 4, 4), -5.0)
    logits[299] = 2
    labels = [Label("x", "tissue", str(number)) for number in range(300)]
    found = resolve(logits, np.zeros((16, 16, 3), np.uint8), labels)

    assert (found.label_map == 299).all()


def test_an_image_the_model_saw_at_another_size(rng):
    logits = scene(rng, 3, (8, 8))
    image = rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)
    found = resolve(logits, image, LABELS[:3], model_size=(30, 25), rules=PAPER)

    assert found.label_map.shape == (60, 50)
    small = resolve(logits, image[::2, ::2], LABELS[:3], rules=PAPER)
    assert (found.label_map[::2, ::2] == small.label_map).mean() > 0.9


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="reach"):
        resolve(torch.zeros(1, 8, 8), np.zeros((33, 32, 3), np.uint8), LABELS[:1])
    with pytest.raises(ShapeError):
        resolve(torch.zeros(2, 8, 8), np.zeros((32, 32, 3), np.uint8), LABELS[:1])
    with pytest.raises(ConfigError):
        RecognitionRules(candidate=1.0)
    with pytest.raises(ConfigError):
        RecognitionRules(share=-0.1)


def test_a_whole_region_is_asked(predictor, image):
    found = recognise(predictor, image, region="kidney")

    assert found.labels == load_labels().children("kidney")
    assert found.label_map.shape == image.shape[:2]
    same = recognise(predictor, image, labels=load_labels().children("kidney"))
    assert np.array_equal(found.label_map, same.label_map)


def test_the_masks_of_recognition_are_those_of_the_predictor(predictor, image):
    label = load_labels()["breast-tissue-tumor"]
    masks = predictor.masks(predictor.encode(image), [label.prompt]).masks[0, 0]
    found = recognise(predictor, image, labels=[label])

    assert masks.any()
    assert np.array_equal(found.label_map == 0, masks)


def test_a_question_must_be_asked(predictor, image):
    with pytest.raises(DataError, match="region"):
        recognise(predictor, image)
    with pytest.raises(LabelError):
        recognise(predictor, image, region="moon")
    assert recognise(predictor, image, labels=[]).masks.shape == (0, *image.shape[:2])


def test_weights_that_see_squares_recognise_at_the_size_of_the_image(model, tokenizer, info, rng):
    """BiomedParse's see every image in a square; maps and image must still meet."""
    seen = SegmentPredictor(model, tokenizer, replace(info, square=True, image_size=64))
    image = rng.integers(0, 255, (40, 72, 3), dtype=np.uint8)

    found = recognise(seen, image, labels=load_labels().children("breast")[:3])

    assert found.label_map.shape == (40, 72)
