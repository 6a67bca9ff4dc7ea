import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from xpath.export.colour import AGAINST, FOR, signed_rgba
from xpath.export.overlay import png_bytes, stacked
from xpath.export.report.pages import write_index, write_report
from xpath.export.report.records import CohortReport, Layer, ObjectRow, SlideReport


def test_no_positive_evidence_shows_no_red():
    values = np.array([[-2.0, -0.1, 0.0, np.nan]])

    colour = signed_rgba(values, 2.0)

    visible = colour[..., 3] > 0
    assert visible.tolist() == [[True, True, False, False]]
    assert (colour[visible][:, :3] == AGAINST).all()
    assert signed_rgba(-values, 2.0)[0, 0, :3].tolist() == list(FOR)


def test_a_layer_at_full_opacity_hides_the_slide():
    slide = np.full((1, 2, 3), 200, np.uint8)
    layer = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)

    assert stacked(slide, layer).tolist() == [[[10, 20, 30], [200, 200, 200]]]


class Pages(HTMLParser):
    """Collects what a page would fetch, and its text."""

    def __init__(self):
        super().__init__()
        self.fetched, self.text = [], []

    def handle_starttag(self, tag, attributes):
        self.fetched += [v for k, v in attributes if k == "src" or (tag == "link" and k == "href")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def report():
    png = png_bytes(np.zeros((2, 2, 3), np.uint8))
    row = ObjectRow(name="tumor (tissue)", colour="#cc3311", area=0.25, contribution=-0.5)
    return SlideReport(
        slide_id="<b>bold</b>",
        label="A",
        split="test",
        predicted="B",
        explained="B",
        probability={"standard": {"A": 0.25, "B": 0.75}},
        figure=png,
        overview=png,
        layers=(Layer(name="objects", png=png, shown=True),),
        rows=(row,),
    )


def test_a_slides_page_is_whole_safe_and_signed(tmp_path, report):
    write_report(tmp_path / "report.html", report)

    page = Pages()
    page.feed((tmp_path / "report.html").read_text())
    text = " ".join(page.text)
    assert "<b>bold</b>" in text  # escaped, so that it is text
    assert "speaks against B" in text
    assert "\N{MINUS SIGN}0.500" in text
    assert page.fetched
    assert all(source.startswith("data:image/png;base64,") for source in page.fetched)


def test_what_was_never_learnt_is_said_to_be_a_guess(tmp_path, report):
    write_report(tmp_path / "report.html", report)
    assert "never learnt" not in (tmp_path / "report.html").read_text()

    write_report(tmp_path / "report.html", replace(report, untaught=("dcis (tissue)", "fat")))
    assert "never learnt dcis (tissue), fat" in (tmp_path / "report.html").read_text()


def test_the_index_says_which_intervals_leave_out_zero(tmp_path, report):
    base = {"class_name": "B", "colour": "#000000", "q": 0.01, "effect": 1.0, "null": 0.1}
    base |= {"imp": 2.0, "slides": 4, "area": 0.1, "cover": 0.2, "least_q": 0.001}
    base |= {"effect_low": 0.2, "effect_high": 1.5, "answers_for": ""}
    unknown = {"excess_low": math.nan, "excess_high": math.nan}
    rows = [
        {**base, "rank": 1, "name": "one", "excess": 0.9, "excess_low": 0.5, "excess_high": 1.2},
        {**base, "rank": 2, "name": "two", "excess": 0.2, "excess_low": -0.1, "excess_high": 0.4},
        {**base, "rank": 3, "name": "few", "excess": 0.1, **unknown},
        {**base, "rank": 4, "name": "or", "excess": 0.2, "excess_low": 0.1, "excess_high": 0.3}
        | {"q": 0.06},
    ]
    for one in rows:
        one |= {"need_low": one["excess_low"], "need_high": one["excess_high"]}
    cohort = CohortReport(
        title="t",
        headline="h",
        classes=("A", "B"),
        metrics=(),
        importance=tuple(rows),
        examples=(report,),
        slides=(),
    )

    write_index(tmp_path / "index.html", cohort)

    text = (tmp_path / "index.html").read_text()
    assert text.count("supports B<") == 1
    assert text.count("supports B: suggestive, not proven") == 1
    assert text.count("not distinguishable") == 1
    assert text.count("one patient: no interval") == 1
    assert "No object was hidden on a slide of this class" in text  # class A has no row
