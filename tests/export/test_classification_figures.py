import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError
from xpath.export.classification_figures import reliability_figure, roc_figure
from xpath.metrics.calibration import reliability


@pytest.fixture
def answers(rng):
    label = np.arange(40) % 2
    chance = 1 / (1 + np.exp(-rng.normal(size=40) - 2 * label + 1))
    return np.stack([1 - chance, chance], axis=1), label


def test_both_pictures_are_drawn(tmp_path, answers):
    probability, label = answers

    roc_figure(tmp_path / "roc.png", {"one": probability[:, 1]}, label, positive="ILC")
    reliability_figure(
        tmp_path / "reliability.png", {"one": reliability(probability, label, bins=5)}
    )

    for name in ("roc", "reliability"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        blue = (np.abs(pixels.astype(int) - [0, 114, 178]).sum(axis=1) < 30).sum()
        assert blue > 200  # the model's line
    assert not list(tmp_path.glob(".*"))


def test_nothing_to_draw_is_told(tmp_path, answers):
    with pytest.raises(DataError, match="no model"):
        roc_figure(tmp_path / "roc.png", {}, answers[1], positive="ILC")
    with pytest.raises(DataError, match="no model"):
        reliability_figure(tmp_path / "r.png", {})
    with pytest.raises(DataError, match="two patients"):
        roc_figure(tmp_path / "roc.png", {"a": np.ones(3)}, np.array([0, 0, 1]), positive="ILC")
    assert not list(tmp_path.iterdir())
