"""Pictures of a data set: areas that fill the box, and files for every panel of Fig. 1."""

from __future__ import annotations

from itertools import combinations

import pytest
from PIL import Image

from xpath.cli.main import main
from xpath.export.data_figures import squarified, write_data_figures


def test_rectangles_have_the_areas_asked_for_and_fill_the_box_without_overlap():
    sizes = [6, 6, 4, 3, 2, 2, 1]
    boxes = squarified(sizes, (0, 0, 6, 4))

    assert [w * h for _, _, w, h in boxes] == pytest.approx(sizes)  # 24 in a box of 24
    for (ax, ay, aw, ah), (bx, by, bw, bh) in combinations(boxes, 2):
        across = min(ax + aw, bx + bw) - max(ax, bx)
        down = min(ay + ah, by + bh) - max(ay, by)
        assert across < 1e-9 or down < 1e-9
    assert all(x >= 0 and y >= 0 and x + w < 6.001 and y + h < 4.001 for x, y, w, h in boxes)


def test_the_example_of_the_paper_on_squarified_treemaps():
    """Bruls et al., Fig. 5: the first column holds two of 6, each 3 wide and 2 high."""
    boxes = squarified([6, 6, 4, 3, 2, 2, 1], (0, 0, 6, 4))
    assert boxes[0][2:] == pytest.approx((3, 2))
    assert boxes[1] == pytest.approx((0, 2, 3, 2))
    assert boxes[2][2:] == pytest.approx((12 / 7, 7 / 3))


def test_nothing_gives_no_rectangles():
    assert squarified([], (0, 0, 1, 1)) == []
    assert squarified([0.0], (0, 0, 1, 1)) == []


def test_every_panel_is_drawn_also_of_next_to_nothing(tmp_path):
    write_data_figures(tmp_path, {"GlaS": 3, "CRAG": 0}, {"colon-tissue-gland": 3}, counted=True)
    for name in ("treemap", "bars", "sankey", "pies"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 300


def test_the_command_draws_published_numbers_where_nothing_is_here(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    code = main(["pathseg", "status", str(tmp_path / "data"), "--figures", str(tmp_path / "F")])
    assert code == 0
    assert {path.name for path in (tmp_path / "F").iterdir()} == {
        "treemap.png", "bars.png", "sankey.png", "pies.png",
    }  # fmt: skip
    assert "treemap.png" in capsys.readouterr().out
