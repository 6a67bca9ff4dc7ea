"""Learning to say "not present"."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from xpath.errors import DataError
from xpath.labels import load_labels
from xpath.pathseg.record import Annotated, LabelMask, SourceImage
from xpath.protocols import Segmentation
from xpath.segment.checkpoints.checkpoint import save_segmentor
from xpath.segment.evaluation.presence_calibration import calibrate, fit_tests
from xpath.segment.predict.calibration import PRESENCE, load_presence, mask_facts
from xpath.segment.predict.known_prompts import taught_labels
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.segment.predict.presence import (
    MaskStatistics,
    PresenceModel,
    biomedparse_pathology,
    mask_statistics,
)

GLAND, NECROSIS = "colon-tissue-gland", "breast-tissue-necrosis or debris"


class Unsure:
    """Finds the dark half whatever it is asked, and is sure of it only where it is a gland."""

    def encode(self, image):
        return image

    def masks(self, image, prompts):
        dark = image[..., 0] < 128
        masks = np.stack([dark] * len(prompts))[None]
        sure = np.array([[0.95 if "gland" in prompt else 0.55 for prompt in prompts]], np.float32)
        return Segmentation(masks, sure, sure, masks.any(axis=(2, 3)))


def images(count, absent=(NECROSIS,)):
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(150, 255, (24, 24, 3), dtype=np.uint8)
        image[:, :12] = 30
        gland = image[..., 0] == 30
        yield SourceImage(
            source="glas",
            name=str(number),
            group=str(number),
            split="train",
            mpp=0.5,
            region="colon",
            path=Path(f"{number}.png"),
            read=lambda image=image, gland=gland: Annotated(
                image, (LabelMask(GLAND, gland),), None, absent
            ),
        )


def test_masks_that_are_not_sure_are_taken_as_absent():
    learnt = calibrate(Unsure(), images(20))
    masks = np.ones((1, 2, 24, 24), bool)
    sure = np.array([[0.95, 0.55]])

    chance = learnt(mask_facts(masks, sure, sure), (GLAND, NECROSIS))

    assert chance[0, 0] > 0.9
    assert chance[0, 1] < 0.1
    assert (learnt.precision, learnt.recall) == (1.0, 1.0)


def test_without_absent_labels_nothing_can_be_learnt():
    with pytest.raises(DataError, match="present and absent"):
        calibrate(Unsure(), images(3, absent=()))
    with pytest.raises(DataError, match="no image"):
        calibrate(Unsure(), [])


def test_a_predictor_reads_what_lies_beside_its_weights(predictor, config, image, tmp_path):
    saved_tiny = tmp_path / "tiny"
    kept = (predictor.model, config, predictor.tokenizer, predictor.info)
    save_segmentor(saved_tiny, *kept, card="# tiny")
    prompts = ["tissue-level gland in colon pathology."]
    plain = SegmentPredictor.from_pretrained(saved_tiny)
    found = plain.masks(plain.encode(image), prompts)
    assert found.present.tolist() == [[bool(found.masks.any())]]
    calibrate(Unsure(), images(20)).save(saved_tiny / PRESENCE)

    strict = SegmentPredictor.from_pretrained(saved_tiny)
    again = strict.masks(strict.encode(image), prompts)

    assert strict.calibration.knows(GLAND)
    assert np.array_equal(again.masks, found.masks)
    facts = mask_facts(again.masks, again.presence, again.peak)
    chance = strict.calibration(facts, taught_labels(prompts, strict.info.labels))
    assert again.present.tolist() == (chance >= 0.5).tolist()


def test_the_area_and_mean_are_those_of_the_mask():
    masks = np.zeros((2, 4, 4), bool)
    masks[1, :2, :2] = True

    facts = mask_facts(masks, np.array([0, 0.75]), np.array([0.2, 0.9]))

    assert facts.area.tolist() == [0, 4]
    assert facts.probability.tolist() == [0, 0.75 * 255 / 256]
    assert facts.peak.tolist() == [0.2, 0.9]


class Certain:
    """Finds the dark half, with a probability for each label."""

    info = SimpleNamespace(name="certain", labels=())

    def encode(self, image):
        return image

    def masks(self, image, prompts, *, probability=False):
        chance = np.where(image[..., 0] < 128, 0.9, 0.0).astype(np.float32)
        planes = np.stack([chance] * len(prompts))[None]
        sure = planes.max(axis=(2, 3))
        return Segmentation(planes > 0.5, sure, sure, sure > 0, planes if probability else None)


def test_the_four_tests_know_what_they_were_fitted_to(tmp_path):
    tests = fit_tests(Certain(), images(12), threshold=0.02)
    tests.save(tmp_path / "presence.json")
    loaded = load_presence(tmp_path / "presence.json")

    assert isinstance(loaded, PresenceModel)
    assert (loaded, loaded.threshold) == (tests, 0.02)
    assert "certain" in loaded.source
    like, unlike = (
        MaskStatistics(
            np.array([0.9 * 255 / 256]),
            np.full((1, 3), level / 256),
            np.array([0.9]),
            np.array([9]),
        )
        for level in (30, 250)
    )
    assert loaded(like, [GLAND])[0] > 0.02 > loaded(unlike, [GLAND])[0]


def test_a_predictor_asks_the_tests_of_its_weights(tmp_path, model, config, tokenizer, info, rng):
    """Its score is what the tests give for the same probabilities and colours, by hand."""
    save_segmentor(tmp_path / "w", model, config, tokenizer, info, card="#", half=False)
    biomedparse_pathology().save(tmp_path / "w" / PRESENCE)
    predictor = SegmentPredictor.from_pretrained(tmp_path / "w")
    image = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    labels = ["breast-nuclei-neoplastic", "colon-nuclei-inflammatory"]
    prompts = [load_labels().parse(label).prompt for label in labels]

    answer = predictor.masks(predictor.encode(image), prompts, probability=True)

    statistics = mask_statistics(answer.probability, image[None])
    names = taught_labels(prompts, predictor.info.labels)
    wanted = biomedparse_pathology()(statistics, names)
    np.testing.assert_allclose(answer.score, wanted, atol=1e-12)
    np.testing.assert_array_equal(
        answer.present, answer.masks.any(axis=(2, 3)) & (answer.score >= 0.01)
    )
