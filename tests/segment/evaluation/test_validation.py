from pathlib import Path

import numpy as np
import pytest

from xpath.errors import DataError
from xpath.pathseg.record import Annotated, LabelMask, SourceImage
from xpath.protocols import Segmentation
from xpath.segment.evaluation.validation import mean_by_label, prompt_of, validate


class Oracle:
    """Finds what is dark, whatever it is asked for, but necrosis."""

    def __init__(self):
        self.asked, self.seen = [], []

    def encode(self, image):
        self.seen.append(image.shape[:2])
        return image

    def masks(self, image, prompts):
        self.asked += prompts
        dark = image[..., 0] < 128
        masks = np.stack([dark & ("necrosis" not in prompt) for prompt in prompts])[None]
        there = masks.any(axis=(2, 3))
        return Segmentation(masks, there.astype(np.float32), there.astype(np.float32), there)


@pytest.fixture
def item():
    """The left half is a gland. A quarter of the image, half of it gland, is unknown."""
    image = np.full((40, 40, 3), 220, np.uint8)
    image[:, :20] = 30
    gland = np.zeros((40, 40), bool)
    gland[:, :20] = True
    unknown = np.zeros((40, 40), bool)
    unknown[:10] = True
    masks = (LabelMask("colon-tissue-gland", gland),)
    return SourceImage(
        source="glas",
        name="a",
        group="p1",
        split="test",
        mpp=0.5,
        region="colon",
        path=Path("a.png"),
        read=lambda: Annotated(image, masks, unknown, ("colon-tissue-necrosis",)),
    )


def test_known_pixels_are_scored_and_absent_labels_asked(item):
    oracle = Oracle()

    gland, necrosis = validate(oracle, [item])

    assert (gland.dice, gland.present, gland.found) == (1.0, True, 30 * 20)
    assert (necrosis.dice, necrosis.present, necrosis.found) == (1.0, False, 0)
    assert oracle.asked[0] == "tissue-level gland in colon pathology."
    assert mean_by_label([gland, necrosis]) == {"tissue-gland": (1, 1.0)}


def test_another_resolution_is_shown_and_scored_at_the_first(item):
    oracle = Oracle()

    (gland, _) = validate(oracle, [item], mpp=0.25)

    assert oracle.seen == [(80, 80)]
    assert gland.found == 30 * 20
    assert gland.dice == 1.0


def test_any_label_has_a_sentence():
    assert prompt_of("bile duct-nuclei-dead") == "nuclei-level dead in bile duct pathology."


def test_nothing_to_average_is_told():
    with pytest.raises(DataError, match="nothing to average"):
        mean_by_label([])
