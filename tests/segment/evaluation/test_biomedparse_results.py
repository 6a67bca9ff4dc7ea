"""BiomedParse's other results: boxes, refusal, recognition, improvement, text embeddings."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from xpath.errors import ConfigError
from xpath.export.biomedparse_figures import box_figure, refusal_figure, write_recognition
from xpath.export.comparison_figures import sizes_figure
from xpath.export.example_figures import draw_panels, samples_over
from xpath.labels import Label, load_labels
from xpath.metrics.boxes import box_cost
from xpath.metrics.shape import shape_traits
from xpath.pathseg.biomedparse_data import PromptedMask
from xpath.segment.evaluation.compared import (
    Compared,
    improvement_rows,
    named_sizes,
    size_rows,
)
from xpath.segment.evaluation.evaluate import Sample
from xpath.segment.evaluation.questions import EvaluationConfig, Question, questions_of
from xpath.segment.evaluation.recognised import RecognisedImage, recognition_table
from xpath.segment.evaluation.refusal import refusal_curve
from xpath.segment.evaluation.tables import dice_by, spread_table
from xpath.segment.evaluation.text_map import TextMap, silhouettes
from xpath.segment.evaluation.trend_lines import TRAITS

TUMOR = "breast-tissue-tumor"


def sample(dice=0.5, *, present=True, score=math.nan, presence=0.9, assd=1.0, count=1, image="a"):
    mask = np.zeros((60, 60), bool)
    for number in range(count if present else 0):
        mask[2:9, 10 * number : 10 * number + 7] = True
    label = load_labels().parse(TUMOR)
    question = Question(
        image=Path(f"{image}.png"), mask=Path("m.png"), source="s", group=image,
        prompt=label.prompt, label=label, nearest=None, trained=True,
    )  # fmt: skip
    return Sample(
        question, present, True, dice, dice, 0.0, 1.0, presence, math.nan, shape_traits(mask),
        box_cost(mask), assd, score,
    )  # fmt: skip


def test_medians_quartiles_and_assd_by_hand():
    samples = [sample(d, assd=a) for d, a in ((0.0, math.inf), (0.4, 4.0), (0.8, 2.0))]
    (row, overall) = dice_by(samples, "label")
    assert (row["median"], row["q1"], row["q3"]) == pytest.approx((0.4, 0.2, 0.6))
    assert row["median_assd"] == 4.0
    assert overall["median"] == row["median"]


def test_counts_and_dispersions_are_averaged_by_label():
    (row,) = spread_table([sample(count=n) for n in (1, 3)])
    assert (row["label"], row["n"], row["count_mean"], row["count_std"]) == (TUMOR, 2, 2.0, 1.0)
    assert row["dispersion_mean"] == pytest.approx(10.0)  # 0 and 20


def test_refusal_over_the_cutoff_by_hand():
    valid = [sample(score=s) for s in (0.4, 0.6, 0.8, 0.9)]
    invalid = [sample(present=False, score=s) for s in (0.1, 0.5)]
    rows = {row["cutoff"]: row for row in refusal_curve([*valid, *invalid])}

    assert rows[0.1]["refused"] == 0
    assert math.isnan(rows[0.1]["precision"])
    at = rows[0.6]  # below lie 0.1 and 0.5 of the invalid, 0.4 of the valid
    assert (at["precision"], at["recall"], at["kept"]) == pytest.approx((2 / 3, 1.0, 0.75))
    assert refusal_curve(valid) == []


def test_without_a_score_presence_is_what_refuses():
    rows = refusal_curve([sample(presence=0.9), sample(present=False, presence=0.5)])
    assert {row["cutoff"] for row in rows} >= {0.5, 0.9}


def test_invalid_prompts_are_of_types_the_region_does_not_have():
    label = load_labels().parse(TUMOR)
    item = PromptedMask(
        image=Path("a.png"), mask=Path("m.png"), prompts=(label.prompt,), label=label.id, name="m"
    )
    config = EvaluationConfig(invalid=7)
    (asked,) = questions_of([item], config).values()
    native = {one.object_type for one in load_labels().children("breast")}
    foreign = [q for q in asked if q.mask is None]

    assert len(foreign) == 7
    assert not native & {question.label.object_type for question in foreign}
    again = questions_of([item], config)[Path("a.png")]
    assert [q.name for q in again] == [q.name for q in asked]
    with pytest.raises(ConfigError):
        EvaluationConfig(invalid=-1)


def test_recognition_by_the_number_of_objects_by_hand():
    images = [
        RecognisedImage(Path("a"), "a", ("x",), ("x", "y"), 0.8),  # precision 1/2, recall 1
        RecognisedImage(Path("b"), "b", ("x", "y"), ("y",), 0.3),  # precision 1, recall 1/2
        RecognisedImage(Path("c"), "c", ("x", "y"), (), 0.0),
    ]
    one, two, overall = recognition_table(images)

    assert (one["objects"], one["precision"], one["recall"]) == (1, 0.5, 1.0)
    assert one["f1"] == pytest.approx(2 / 3)
    assert (two["objects"], two["images"], two["precision"]) == (2, 2, 1.0)  # nothing kept: no say
    assert two["recall"] == 0.25
    assert two["f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert overall["dice"] == pytest.approx((0.8 + 0.3 + 0.0) / 3)
    assert overall["f1_median"] == pytest.approx(2 / 3)


def compared(dice, labels):
    keys = tuple(("s", f"{i}.png", label) for i, label in enumerate(labels))
    traits = {trait.name: np.linspace(0.1, 0.9, len(labels)) for trait in TRAITS}
    groups = tuple(key[1] for key in keys)
    return Compared(("ours", "weak", "strong"), keys, groups, np.array(dice), traits)


def test_the_gain_is_over_the_best_other_model_by_object_type():
    labels = (TUMOR, TUMOR, "breast-tissue-fat")
    rows = improvement_rows(compared([[0.9, 0, 0.5], [0.7, 0, 0.4], [0.2, 0, 0.6]], labels))

    by_type = {row["object_type"]: row for row in rows}
    assert by_type["tumor"]["against"] == "strong"
    assert by_type["tumor"]["difference"] == pytest.approx(0.35)
    assert by_type["fat"]["difference"] == pytest.approx(-0.4)
    assert by_type["tumor"]["box_ratio"] == pytest.approx(0.3)


def test_sizes_stand_beside_dice_and_labels_per_model(tmp_path):
    found = compared([[0.9, np.nan, 0.5], [0.7, 0.2, 0.4]], (TUMOR, "breast-tissue-fat"))
    rows = size_rows(found, named_sizes(["ours=450", "strong=1800,16"]))

    assert rows[1] == {
        "model": "strong", "models": 16, "parameters_millions": 1800.0, "labels": 2,
        "labels_per_model": 0.125, "dice": pytest.approx(0.45),
    }  # fmt: skip
    sizes_figure(tmp_path / "sizes.png", rows)
    assert (tmp_path / "sizes.png").stat().st_size > 5000
    with pytest.raises(ConfigError, match="no model is called other"):
        size_rows(found, named_sizes(["other=1"]))


@pytest.mark.parametrize("wrong", ["ours", "ours=x", "=3", "ours=3,0", "ours=-1"])
def test_sizes_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="NAME=MILLIONS"):
        named_sizes([wrong])


def test_silhouettes_of_groups_that_lie_apart():
    labels = [Label(r, "nuclei", t) for r in ("breast", "colon") for t in ("epithelial", "dead")]
    angle = np.array([0.0, 1.5, 0.05, 1.55])  # by object type
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = TextMap(tuple(labels), features, features, "t-SNE")

    rows = {row["level"]: row for row in silhouettes(found)}
    assert rows["object_type"]["silhouette"] > 0.99
    assert rows["region"]["silhouette"] < 0
    assert math.isnan(rows["structure"]["silhouette"])  # one group


def test_pictures_are_drawn_also_of_next_to_nothing(tmp_path):
    box_figure(tmp_path / "boxes.png", {"a": {"m": [0.1, math.nan, 0.9]}, "b": {"m": []}})
    assert not refusal_figure(tmp_path / "none.png", [sample()])
    assert refusal_figure(tmp_path / "some.png", [sample(), sample(present=False, presence=0.5)])
    images = [RecognisedImage(Path("a"), "a", ("x",), ("x",), 0.8)]
    write_recognition(tmp_path, images)
    for name in ("boxes.png", "some.png", "figures/recognition.png", "recognition.csv"):
        assert (tmp_path / name).stat().st_size > 50


def test_examples_go_from_one_end_of_a_trait_to_the_other(tmp_path):
    samples = [sample(0.5, count=n, image=f"i{n}") for n in (5, 1, 3, 2, 4)]
    chosen = samples_over(samples, "instance_count")
    assert [one.traits.instance_count for one in chosen] == [1, 2, 4, 5]
    assert samples_over([sample(present=False)], "instance_count") == []

    image = tmp_path / "i1.png"
    Image.fromarray(np.full((60, 60, 3), 200, np.uint8)).save(image)
    Image.fromarray(np.full((60, 60), 255, np.uint8)).save(tmp_path / "mask.png")
    first = samples[1]
    question = SimpleNamespace(
        image=image, mask=tmp_path / "mask.png", ignore=None, unknown=None, name=TUMOR
    )
    asked = []

    def model(question, pixels):
        asked.append(question.name)
        return np.ones(pixels.shape[:2], bool)

    draw_panels(tmp_path, [first._replace(question=question)], {"Ours": model, "Other": model})
    assert len(asked) == 2 * 4  # the label, and three traits
    assert (tmp_path / "panels_breast-tissue-tumor.png").stat().st_size > 2000
