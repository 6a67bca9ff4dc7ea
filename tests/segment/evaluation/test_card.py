import pytest

from xpath.errors import DataError
from xpath.segment.evaluation.card import (
    compare,
    comparison_table,
    object_class_of,
    presence_table,
    score_table,
)
from xpath.segment.evaluation.validation import Sample, mean_by_label, read_samples, write_samples


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


def test_nothing_shared_is_refused():
    with pytest.raises(DataError, match="share no image"):
        compare(SAMPLES, [sample("z", "colon-tissue-gland", 0.1)])


def test_samples_survive_the_disk(tmp_path):
    write_samples(tmp_path / "samples.csv", SAMPLES)

    assert read_samples(tmp_path / "samples.csv") == SAMPLES
