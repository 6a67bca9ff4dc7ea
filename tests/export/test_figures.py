import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from xpath.errors import DataError
from xpath.export import figures
from xpath.export.figures import activation_figure, importance_figure, leading
from xpath.export.overlay import Panels, _bars, explain_figure, objects_rgba

OBJECTS = ("breast-tissue-tumor", "breast-tissue-fat")


@pytest.fixture
def panels():
    overview = np.full((60, 80, 3), 240, np.uint8)
    values = np.full((60, 80), np.nan)
    values[20:40] = -1.0
    return Panels(
        title="s, labelled A, predicted A",
        overview=overview,
        um_per_pixel=2.0,
        objects=OBJECTS,
        shares=np.zeros((2, 60, 80), np.float32),
        patch_map=values,
        object_map=values,
        contribution=np.array([0.5, -0.5, 1.5]),
        contribution_names=(*OBJECTS, "other"),
        class_name="A",
    )


def rows():
    base = {"class_name": "A", "imp": 2.0, "excess": 0.5, "excess_low": 0.1, "excess_high": 0.9}
    unknown = {"excess_low": math.nan, "excess_high": math.nan}
    return [
        {**base, "object": OBJECTS[0]},
        {**base, "object": OBJECTS[1], "imp": 0.5, "excess": -0.5, **unknown},
        {**base, "object": OBJECTS[1], "class_name": "B", "imp": 1.0, "excess": 0.0},
    ]


def test_only_what_speaks_for_the_class_leads(panels):
    assert leading(panels) == [("other", 1.5), ("breast-tissue-tumor", 0.5)]


def test_an_object_whose_absence_speaks_is_not_named_as_if_it_were_there(panels):
    with_tumor = replace(panels, shares=np.ones_like(panels.shares))
    without = replace(panels, shares=np.zeros_like(panels.shares))

    assert with_tumor.bar_name("breast-tissue-tumor") == "tumor (tissue)"
    assert without.bar_name("breast-tissue-tumor") == "no tumor (tissue)"
    assert without.bar_name("other") == "other"


def test_an_object_that_no_slide_has_gets_no_bar(panels):
    axis = Figure().subplots()

    _bars(axis, replace(panels, contribution=np.array([0.5, 0.0, -1.5])))

    assert [label.get_text() for label in axis.get_yticklabels()] == ["no tumor (tissue)", "other"]
    assert [bar.get_width() for bar in axis.patches] == [0.5, -1.5]


def test_activation_maps_in_print_quality_and_without_false_red(tmp_path, panels):
    pdf, png = activation_figure(tmp_path / "figures" / "activation", [panels])

    assert pdf.read_bytes().startswith(b"%PDF")
    image = np.asarray(Image.open(png).convert("RGB"), int)
    assert image.shape[1] == pytest.approx(300 * (3 * 2.15 + 1.75), abs=1)
    red = (image[..., 0] > image[..., 2] + 60) & (image[..., 0] > 150)
    rows_with_red = np.flatnonzero(red.sum(axis=1) > 300)
    # all that is red is in the colour bars: no row of the maps, which fill the upper half
    assert rows_with_red.size == 0 or rows_with_red.min() > 0.6 * image.shape[0]


def test_equal_runs_give_equal_figures(tmp_path):
    once = importance_figure(tmp_path / "a", rows(), ("A", "B"))
    again = importance_figure(tmp_path / "b", rows(), ("A", "B"))

    assert [path.suffix for path in once] == [".pdf", ".png"]
    assert [p.read_bytes() for p in once] == [p.read_bytes() for p in again]


@pytest.mark.parametrize("values", [(1e8, 0.4), (1.02, 0.98), (7.0, 0.5)])
def test_bars_on_both_sides_of_1_are_seen_between_several_ticks(tmp_path, monkeypatch, values):
    drawn = []
    monkeypatch.setattr(figures, "save_for_print", lambda figure, stem: drawn.append(figure))
    shown = [row | {"imp": imp} for row, imp in zip(rows(), values, strict=False)]

    importance_figure(tmp_path / "a", shown, ("A", "B"))

    axis = drawn[0].axes[0]
    low, high = axis.get_xlim()
    assert low < min(values) < max(values) < high
    ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
    assert 2 <= len(ticks) <= 6


def test_nothing_to_show_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least one explained slide"):
        activation_figure(tmp_path / "a", [])
    with pytest.raises(DataError, match="explained slides with labels"):
        importance_figure(tmp_path / "a", [], ("A",))


def test_the_legend_names_all_that_is_painted_and_nothing_else(tmp_path, panels, monkeypatch):
    """Twelve classes side by side, one under another, one too thin to be painted."""
    objects = tuple(f"breast-tissue-class {number:02}" for number in range(14))
    shares = np.zeros((14, 60, 80), np.float32)
    for number in range(12):
        shares[number, :, 6 * number : 6 * number + 6 - number % 2] = 1.0
    shares[12] = 0.3  # nowhere above a third of a pixel, yet the largest in all
    shares[13, 10, 10:12] = 0.9
    shares[11, 20:30, 0:3] = 1.0  # over the first, which is still seen beside it
    legends = []
    monkeypatch.setattr(Axes, "legend", lambda _, handles, **__: legends.extend(handles))

    explain_figure(tmp_path / "a.png", replace(panels, objects=objects, shares=shares))

    colours = {tuple(it) for it in objects_rgba(shares, objects)[..., :3].reshape(-1, 3).tolist()}
    named = {it.get_label(): it.get_facecolor() for it in legends}
    assert set(named) == {f"class {number:02} (tissue)" for number in (*range(12), 13)}
    assert {tuple(round(255 * c) for c in it[:3]) for it in named.values()} == colours - {(0, 0, 0)}


def test_a_legend_of_21_classes_has_room_below_the_picture(tmp_path, panels):
    objects = tuple(f"breast-tissue-class {number:02}" for number in range(21))
    shares = np.zeros((21, 60, 80), np.float32)
    sizes = []
    for count in (8, 21):
        for number in range(count):
            shares[number, :, 3 * number : 3 * number + 3] = 1.0
        explain_figure(tmp_path / "a.png", replace(panels, objects=objects, shares=shares))
        with Image.open(tmp_path / "a.png") as picture:
            sizes.append(picture.height)

    assert sizes[1] - sizes[0] == pytest.approx(110 * (0.35 + 0.17 * 11 - 1.05), abs=1)
