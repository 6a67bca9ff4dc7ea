import math
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from xpath.export.evaluation_figures import (
    TRUTH,
    Answer,
    answers_figure,
    file_name,
    marked,
    prompt_cost_figure,
    score_figure,
    spread_figure,
    trend_figure,
    write_figures,
)
from xpath.labels import Label
from xpath.metrics.boxes import box_cost
from xpath.metrics.shape import shape_traits
from xpath.segment.evaluation.evaluate import Sample
from xpath.segment.evaluation.questions import Question
from xpath.segment.evaluation.tables import dice_by, prompt_cost
from xpath.segment.evaluation.trend_lines import trends


def sample(score, size, name="breast-tissue-tumor"):
    mask = np.zeros((40, 50), bool)
    mask[3 : 3 + size, 3 : 3 + size] = True
    label = Label(*name.split("-", 2))
    question = Question(
        image=SimpleNamespace(name="a.png"), mask=None, source="s", group="a",
        prompt=label.prompt, label=label, nearest=None, trained=True,
    )  # fmt: skip
    return Sample(
        question, size > 0, True, score, score, 0.0, 1.0, 1.0, math.nan,
        shape_traits(mask), box_cost(mask),
    )  # fmt: skip


def picture(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def answer():
    truth, mask = np.zeros((60, 80), bool), np.zeros((60, 80), bool)
    truth[10:40, 10:40] = True
    mask[20:50, 20:70] = True
    return Answer("best", np.full((60, 80, 3), 240, np.uint8), mask, truth)


def test_the_answer_is_tinted_and_the_truth_outlined(answer):
    drawn = marked(answer, (255, 0, 0))

    assert drawn[10, 25].tolist() == drawn[25, 10].tolist() == list(TRUTH)
    assert drawn[30, 60].tolist() == [247, 132, 132]  # 0.55 x 240 + 0.45 x the colour
    assert drawn[15, 25].tolist() == drawn[55, 75].tolist() == [240, 240, 240]
    assert (answer.image == 240).all()  # what was passed in stays as it is


def test_answers_lie_side_by_side(answer, tmp_path):
    answers_figure(tmp_path / "one.png", "breast-tissue-tumor", [answer])
    answers_figure(tmp_path / "two.png", "breast-tissue-tumor", [answer] * 2)

    one, two = picture(tmp_path / "one.png"), picture(tmp_path / "two.png")
    assert two.shape[1] == pytest.approx(2 * one.shape[1], abs=2)
    assert (np.abs(two.astype(int) - TRUTH).sum(axis=2) < 30).any()


def test_all_figures_are_drawn(tmp_path):
    samples = [sample(0.5 + size / 60, size) for size in (7, 9, 12, 20)]

    write_figures(tmp_path, [*samples, sample(0.3, 11, "breast-nuclei-lymphocyte")])

    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 8
    assert {"trends.png", "prompt_cost.png", "spread.png", "dice_by_label.png"} <= names
    assert all(picture(tmp_path / name).std() > 5 for name in names)  # no blank page


def test_equal_samples_give_equal_pictures(tmp_path):
    for name in ("first.png", "again.png"):
        spread_figure(tmp_path / name, [sample(0.5, 7), sample(0.5, 12)])

    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "again.png").read_bytes()


@pytest.mark.parametrize("samples", [[], [sample(0.5, 0)]])
def test_nothing_to_draw_is_no_error(tmp_path, samples):
    """No sample at all, and one whose object is not there."""
    spread_figure(tmp_path / "spread.png", samples)
    trend_figure(tmp_path / "trends.png", trends(samples))
    prompt_cost_figure(tmp_path / "cost.png", prompt_cost(samples))
    score_figure(tmp_path / "label.png", dice_by(samples, "label"), "label")

    assert len(list(tmp_path.iterdir())) == 4


def test_bars_are_as_long_as_scores(tmp_path):
    """The blue bar of 0.8 is twice as long as that of 0.4, and the last row is grey."""
    rows = [
        {"label": name, "n": 3, "dice": score, "ci_low": score, "ci_high": score}
        for name, score in (("a", 0.4), ("b", 0.8), ("overall", 0.6))
    ]
    score_figure(tmp_path / "bars.png", rows, "label")

    drawn = picture(tmp_path / "bars.png").astype(int)
    blue = (np.abs(drawn - (0x21, 0x66, 0xAC)).sum(axis=2) < 20).sum(axis=1)
    lengths = np.unique(blue[blue > 50])
    assert lengths.max() / lengths.min() == pytest.approx(2, rel=0.05)


def test_names_become_file_names():
    assert file_name("breast-tissue-tumor") == "breast-tissue-tumor"
    assert file_name("pink / stuff?") == "pink___stuff_"
    assert len(file_name("x" * 300)) == 100
