import math

import numpy as np
import pytest
import torch
from PIL import Image

from xpath.grounded.evaluate import Graded, evaluate_grounded, questions_of, score_table, text_table
from xpath.grounded.prompts import DISEASE, REGION
from xpath.grounded.tasks import TASKS, Annotation


@pytest.fixture
def halves(tmp_path, image):
    """The left and the right half, under one phrase."""
    Image.fromarray(image).save(tmp_path / "a.png")
    for name, columns in (("left", slice(70)), ("right", slice(70, None))):
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[:, columns] = 1
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    return [
        Annotation(
            tmp_path / "a.png", tmp_path / f"{name}.png", ("Tumor.",), "liver", "dark", "half"
        )
        for name in ("left", "right")
    ]


def speak(interpreter, monkeypatch, text):
    """Lets the model generate a given text."""
    ids = interpreter.tokenizer.ids(text + "<|end|>")
    monkeypatch.setattr(interpreter._run, "generated", lambda *_: torch.tensor(ids))


def test_annotations_with_the_same_words_are_one_question(halves):
    asked = [(task, it) for task in TASKS for it in halves]

    [questions] = questions_of(asked).values()

    assert [it.task for it in questions] == list(TASKS)
    assert all(len(it.annotations) == 2 for it in questions)
    truths = {it.task: it.truth for it in questions}
    assert truths["report"] == "tumor. dark"
    assert truths["region-report"] == "half"
    assert truths["disease"] == truths["segment"] == "tumor"


def test_answers_are_judged(interpreter, halves, monkeypatch):
    speak(interpreter, monkeypatch, "It is [SEG]. tumor.")
    asked = [("disease", halves[0]), ("region", halves[0]), ("segment", halves[0])]

    graded, problems = evaluate_grounded(interpreter, questions_of(asked))

    disease, region, segment = graded
    assert not problems
    assert (disease.question, disease.generated, disease.right) == (DISEASE, "It is. tumor.", 1.0)
    assert 0 <= disease.dice <= 1
    assert (region.question, region.right) == (REGION, 0.0)
    assert math.isnan(region.dice)
    assert (segment.question, segment.generated) == ("Please segment tumor.", "")
    assert math.isnan(segment.right)
    embedding = interpreter.encode(np.asarray(Image.open(halves[0].image)))
    mask = interpreter.masks(embedding, ["tumor"]).masks[0, 0]
    left = np.arange(140) < 70
    wanted = 2 * (mask & left).sum() / (mask.sum() + 70 * 100)
    assert segment.dice == pytest.approx(wanted)


def test_what_is_broken_is_named_and_the_rest_goes_on(interpreter, halves, tmp_path):
    empty = tmp_path / "empty.png"
    Image.new("L", (140, 100)).save(empty)
    gone = halves[0]._replace(image=tmp_path / "gone.png")
    asked = [
        ("segment", gone),
        ("region", halves[0]._replace(mask=empty)),
        ("segment", halves[0]),
    ]
    seen = []

    graded, problems = evaluate_grounded(
        interpreter, questions_of(asked), on_image=lambda: seen.append(1)
    )

    assert [it.task for it in graded] == ["segment"]
    assert "gone.png" in problems[0]
    assert "empty.png is empty" in problems[1]
    assert len(seen) == 2


def test_an_empty_truth_has_no_dice(interpreter, halves, monkeypatch):
    speak(interpreter, monkeypatch, "<p> no findings. </p> [SEG].")
    nothing = halves[0]._replace(mask=None, phrases=("no findings",))

    [graded], _ = evaluate_grounded(interpreter, questions_of([("anatomy", nothing)]))

    assert graded.right == 1.0
    assert math.isnan(graded.dice)


def test_scores_are_means_of_what_is_known():
    def row(task, image, truth, right, dice):
        return Graded(task, image, "?", truth, "", right, dice)

    rows = [
        row("segment", "a", "tumor", math.nan, 0.0),
        row("segment", "b", "tumor", math.nan, 1.0),
        row("segment", "c", "gland", math.nan, 0.7),
        row("disease", "a", "tumor", 1.0, math.nan),
        row("disease", "b", "tumor", 0.0, 0.4),
    ]

    table = {(it.task, it.measure): it for it in score_table(rows)}

    assert table["segment", "dice"].mean == pytest.approx(0.6)
    assert table["segment", "dice"].n == 2
    assert table["disease", "right"].mean == pytest.approx(0.5)
    assert (table["disease", "dice"].n, table["disease", "dice"].mean) == (1, pytest.approx(0.4))
    assert len(table) == 3


def test_texts_are_held_against_their_references():
    def row(task, generated, truth):
        return Graded(task, "a", "?", truth, generated, math.nan, math.nan)

    rows = [
        row("report", "Breast tumor with necrosis.", "Breast tumor with necrosis."),
        row("report", "Breast: tumor, necrosis.", "Breast: tumor. No necrosis."),
        row("region-report", "stroma in the breast", "fat in the breast"),
        row("disease", "tumor", "tumor"),
    ]

    report, region = text_table(rows)

    assert (report.task, report.n, region.task, region.n) == ("report", 2, "region-report", 1)
    # tumor, necrosis; tumor, and a necrosis that is denied
    assert (report.fact_precision, report.fact_recall, report.contradicted) == (0.75, 1.0, 1)
    # 4 of 4 and 3 of 3 words, which all are in 4 and 4: brevity exp(1 - 8 / 7)
    assert report.bleu_1 == pytest.approx(math.exp(1 - 8 / 7))
    assert (region.fact_precision, region.fact_recall) == (0.0, 0.0)
    assert region.bleu_1 == pytest.approx(0.75)
    # the longest common subsequence is 3 of 4 words on both sides
    assert region.rouge_l == pytest.approx(0.75)
    assert text_table(rows[-1:]) == []
