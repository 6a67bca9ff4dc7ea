from types import SimpleNamespace

import numpy as np
import pytest

from xpath.errors import DataError
from xpath.pathseg.record import Annotated, LabelMask
from xpath.segment.evaluation.card import (
    compare,
    comparison_table,
    differences,
    label_table,
    object_class_of,
    presence_answers,
    presence_table,
    score_table,
)
from xpath.segment.evaluation.validation import Sample, mean_by_label, read_samples, write_samples
from xpath.segment.predict.calibration import PresenceCalibration
from xpath.segment.predict.known_prompts import UNTAUGHT


def sample(image, label, dice, *, present=True, found=10, group=None):
    return Sample("glas", image, group or image, label, present, dice, 0.8, found, found > 0)


SAMPLES = [
    sample("a", "colon-tissue-gland", 0.9),
    sample("b", "colon-tissue-gland", 0.7),
    sample("a", "colon-nuclei-dead", 0.5),
    sample("b", "colon-nuclei-dead", 1.0, present=False, found=0),
    sample("c", "liver-nuclei-dead", 0.0, present=False, found=4),
]


def test_organs_are_pooled_and_absent_objects_do_not_count():
    assert mean_by_label(SAMPLES) == {
        "nuclei-dead": (1, 0.5),
        "tissue-gland": (2, pytest.approx(0.8)),
    }
    assert "| tissue-gland | 2 | 0.800 | 0.700 to 0.900 |" in score_table(SAMPLES, object_class_of)


def test_refusals_are_counted_for_classes_that_were_asked_in_vain():
    """Dead nuclei: one of one found, one of two refused, and that refusal was right."""
    table = presence_table(SAMPLES)

    assert "| nuclei-dead | 1 | 2 | 1.00 | 0.50 | 1.00 |" in table
    assert "gland" not in table


def test_models_are_compared_on_shared_questions_only():
    others = [sample("a", "colon-tissue-gland", 0.6), sample("z", "colon-tissue-gland", 0.1)]

    (row,) = compare(SAMPLES, others)

    assert (row.object_class, row.n, row.ours, row.other) == ("tissue-gland", 1, 0.9, 0.6)
    assert row.difference.mean == pytest.approx(0.3)
    assert "| otsu | tissue-gland | 1 | 0.900 | 0.600 |" in comparison_table({"otsu": [row]})


def test_one_image_has_no_interval():
    """Its draws are all alike, which is no certainty: the interval was 0.500 to 0.500."""
    assert "| nuclei-dead | 1 | 0.500 | one patient: none |" in score_table(
        SAMPLES, object_class_of
    )
    rows = compare(SAMPLES, [sample("a", "colon-nuclei-dead", 0.25)])

    assert differences(rows)["nuclei-dead"]["difference"] == [0.25, None, None]
    assert comparison_table({"otsu": rows}).endswith("| +0.250 (one patient: none) |  |")


def test_what_was_never_refused_has_no_share_of_right_refusals():
    asked = [sample("a", "colon-nuclei-dead", 0.0, present=False, found=4)]

    assert "| nuclei-dead | 0 | 1 |  | 0.00 |  |" in presence_table(asked)


def test_nothing_shared_is_refused():
    with pytest.raises(DataError, match="share no image"):
        compare(SAMPLES, [sample("z", "colon-tissue-gland", 0.1)])


def test_samples_survive_the_disk(tmp_path):
    write_samples(tmp_path / "samples.csv", SAMPLES)

    assert read_samples(tmp_path / "samples.csv") == SAMPLES


class Shown:
    """An image with masks of some labels, and some that are known to be absent."""

    def __init__(self, *labels, absent=()):
        blank = np.zeros((8, 8, 3), np.uint8)
        mask = np.ones((8, 8), bool)
        masks = tuple(LabelMask(label, mask) for label in labels)
        self.read = lambda: Annotated(blank, masks, None, absent)


def test_labels_are_listed_with_the_images_that_taught_them():
    info = SimpleNamespace(
        labels=("a-b-c", "a-b-d"),
        drawn=("a-b-e", "a-b-f"),
        taught={"a-b-c": 1, "a-b-d": 2, "a-b-f": 7},
    )

    table = label_table(info)

    assert table.splitlines()[2:] == [
        "| a-b-c | 1 | yes |",
        "| a-b-d | 2 | yes |",
        "| a-b-e | 0 | a guess |",
        "| a-b-f | 7 | a guess |",
    ]


class Answering:
    """Finds only gland, of everything that is asked."""

    info = SimpleNamespace(labels=("colon-tissue-gland", "colon-nuclei-epithelial"), name="a")
    calibration = PresenceCalibration(
        coefficients=(0.0, 1.0, 0.0, 0.0), intercept=0.0, threshold=0.5, precision=1.0,
        recall=1.0, similarity=False, offsets={"colon-tissue-gland": 0, UNTAUGHT: -9.0},
    )  # fmt: skip

    def encode(self, image):
        return image

    def masks(self, embedding, prompts):
        there = np.array(["gland" in prompt for prompt in prompts])
        masks = np.broadcast_to(there[:, None, None], (len(prompts), *embedding.shape[:2]))
        chances = np.where(there, 0.9, 0.0)
        return SimpleNamespace(masks=masks[None], presence=chances[None], peak=chances[None])


def test_what_is_called_present_in_a_sentence():
    absent = ("colon-nuclei-epithelial",)
    images = [Shown("colon-tissue-gland", absent=absent), Shown("colon-nuclei-epithelial")]

    words = presence_answers(Answering(), images)

    assert "called present 0 times in 8 " in words
    assert "of taught ones 1 of 2 are found where they are and 1 of 1 refused" in words
    assert presence_answers(Answering(), []) == ""
