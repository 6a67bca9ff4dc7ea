import io
import math
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError, StoreError
from xpath.explain.verdict import Evidence
from xpath.export.colour import object_colour
from xpath.export.overlay import png_bytes
from xpath.export.report import pages as report_module
from xpath.export.report.pages import write_index, write_report
from xpath.export.report.pictures import jpeg_bytes, object_layer, patch_strips
from xpath.export.report.records import (
    CohortNeed,
    CohortReport,
    FileTable,
    Layer,
    ObjectRow,
    PatchPicture,
    PatchStrip,
    SlideReport,
)
from xpath.export.report.tables import (
    cohort_needs,
    morphometry_table,
    temperatures,
    training_sentences,
)
from xpath.export.report.words import (
    baseline_in_words,
    baseline_of,
    evidence_in_words,
    hiding_in_words,
    in_words,
    need,
    need_in_words,
    percent,
    scale_bar,
    signed,
    summary,
)
from xpath.geometry import PatchGrid, Size
from xpath.objects.measure import LabelMorphometry
from xpath.store.tables import write_table

PIXEL = np.zeros((2, 2, 3), np.uint8)
SOURCES = ("slides/s/explanation.h5", "slides/s/objects.h5", "slides/s/morphometry.csv", "tables/")


class Reader(HTMLParser):
    """Cells with their titles, everything that would be fetched, and the text."""

    def __init__(self):
        super().__init__()
        self.fetched, self.cells, self.text, self._cell = [], [], "", None

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.fetched += [given[k] for k in ("src", "href") if k in given]
        if tag == "td" and "number" in (given.get("class") or ""):
            self._cell = [given.get("title", ""), ""]
            self.cells.append(self._cell)

    def handle_endtag(self, tag):
        self._cell = None if tag == "td" else self._cell

    def handle_data(self, data):
        self.text += data
        if self._cell:
            self._cell[1] += data


def row(**change):
    values = {"name": "tumor (tissue)", "colour": "#cc3311", "area": 0.25, "contribution": 0.5}
    return ObjectRow(**(values | change))


@pytest.fixture
def report():
    picture = PatchPicture(jpeg=jpeg_bytes(PIXEL), value=-0.25, position="patch 3 at 0, 128")
    png = png_bytes(PIXEL)
    return SlideReport(
        slide_id="s",
        label="A",
        split="test",
        predicted="B",
        explained="B",
        measured="A",
        probability={"object-aware": {"A": 0.25, "B": 0.75}},
        figure=png,
        overview=jpeg_bytes(PIXEL),
        layers=(
            Layer(name="object-aware map", png=png, limit=2.0, source="slides/s/explanation.h5"),
            Layer(name="tumor (tissue)", png=png, shown=True, colour="#cc3311", value=0.5),
        ),
        rows=(
            row(effect=1.5, null=0.25, imp=4.2, cohort=CohortNeed(0.9, 2.1, 0.5, 1.5, 0.5, 1.5)),
            row(name="fat (tissue)", contribution=-0.125),
        ),
        facts={"segmentor SHA-256": "abc"},
        strips=(PatchStrip(name="tumor (tissue)", colour="#cc3311", top=(), bottom=(picture,)),),
        training=("Trained on 20 slides (10 A, 10 B).",),
        morphometry=FileTable(
            columns=("object", "area"), rows=(("tumor", "3"),), source="slides/s/morphometry.csv"
        ),
        um_per_pixel=0.5,
        width=1000,
    )


def read(path):
    reader = Reader()
    reader.feed(path.read_text())
    return reader


def test_every_number_names_the_file_it_comes_from(tmp_path, report):
    write_report(tmp_path / "report.html", report)

    cells = [(title, text) for title, text in read(tmp_path / "report.html").cells if text.strip()]
    assert len(cells) >= 12
    assert all(any(source in title for source in SOURCES) for title, _ in cells)


def test_the_page_asks_nobody(tmp_path, report):
    write_report(tmp_path / "report.html", report)

    fetched = read(tmp_path / "report.html").fetched
    assert [one for one in fetched if not one.startswith("data:image/")] == [
        "../../../index.html",
        "findings.html",
    ]
    assert "http" not in (tmp_path / "report.html").read_text()


def test_the_page_says_what_a_pathologist_asks(tmp_path, report):
    write_report(tmp_path / "report.html", report)

    text = " ".join(read(tmp_path / "report.html").text.split())
    for words in (
        "Predicted B (75.0 %); labelled A (test slide, not used for training)",
        "For B speak most: tumor (tissue) (+0.500).",
        "no colour is zero",
        "Not calibrated",
        "Trained on 20 slides (10 A, 10 B).",
        "For research only",
        "The model sees only the tissue patches",
        "\N{MINUS SIGN}0.250",
        "100 \N{GREEK SMALL LETTER MU}m",
        "slides/s/morphometry.csv",
        "not asked",
    ):
        assert words in text


def test_the_index_names_the_files_of_its_tables_and_asks_nobody(tmp_path, report):
    row = {"class_name": "B", "rank": 1, "name": "tumor", "colour": "#000000", "excess": 0.9}
    row |= {"excess_low": 0.5, "excess_high": 1.2, "q": 0.01, "effect": 1.0, "null": 0.1}
    row |= {"imp": 2.0, "slides": 4, "area": 0.1, "cover": 0.6, "least_q": 0.001}
    row |= {"effect_low": 0.6, "effect_high": 1.4, "need_low": 0.5, "need_high": 1.2}
    row |= {"answers_for": "dcis"}
    slide = {"slide_id": "s", "label": "A", "split": "test", "predicted": "B", "status": "done"}
    slide |= {"probability": "0.90", "doubt": "0.20"}
    metrics = {"model": "m", "split": "test", "slides": 4, "auc": 1.0, "f1": 1.0}
    metrics |= {"auc_low": 0.5, "auc_high": 1.0}
    cohort = CohortReport(
        title="t",
        headline="h",
        classes=("B",),
        metrics=(metrics | {"balanced_accuracy": 1.0},),
        importance=(row,),
        examples=(report,),
        slides=(slide | {"link": "slides/s/export/report.html"},),
    )
    write_index(tmp_path / "index.html", cohort)

    page = read(tmp_path / "index.html")
    assert "answers for dcis" in page.text
    for table in ("importance", "metrics", "predictions"):
        assert f"tables/{table}.csv" in page.text
    fetched = [one for one in page.fetched if not one.startswith("data:image/")]
    assert fetched == ["slides/s/export/report.html"]


def test_a_calibrated_probability_says_how(tmp_path, report):
    write_report(tmp_path / "r.html", replace(report, calibration="temperature 1.7"))

    assert "Calibrated: temperature 1.7" in (tmp_path / "r.html").read_text()


def test_a_page_too_large_to_mail_is_refused(tmp_path, report, monkeypatch):
    monkeypatch.setattr(report_module, "MOST_BYTES", 5000)

    with pytest.raises(DataError, match="wanted at most 0"):
        write_report(tmp_path / "report.html", report)
    assert not (tmp_path / "report.html").exists()


def test_nothing_positive_is_said_to_be_so(tmp_path, report):
    rows = tuple(replace(one, contribution=-abs(one.contribution)) for one in report.rows)
    layers = tuple(replace(one, value=-0.5 if one.colour else None) for one in report.layers)
    write_report(tmp_path / "r.html", replace(report, rows=rows, layers=layers))

    text = (tmp_path / "r.html").read_text()
    assert "No object speaks for B." in text
    assert "speaks for B" not in text.replace("No object speaks for B.", "")
    assert "background:var(--for)" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.25, "+1.250"), (-0.5, "\N{MINUS SIGN}0.500"), (-0.0004, "0.000"), (math.nan, "not known")],
)
def test_numbers_keep_their_sign(value, text):
    assert signed(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.5, "50.0 %"), (1.0, "100.0 %"), (0.99995, "> 99.9 %"), (1e-5, "< 0.1 %"), (0.0, "0.0 %")],
)
def test_what_is_not_certain_is_not_printed_as_certain(share, text):
    assert percent(share) == text


def test_scale_bars_are_round_and_at_most_a_third():
    assert scale_bar(0.5, 1000) == (
        "100 \N{GREEK SMALL LETTER MU}m",
        0.2,
    )  # 166 um would be a third
    assert scale_bar(10.0, 1000) == ("2 mm", 0.2)
    assert scale_bar(0.25, 60) == ("10 \N{GREEK SMALL LETTER MU}m", 40 / 60)
    assert scale_bar(0.25, 30) is None  # 7.5 microns wide: no bar of 10 is as short as that
    assert scale_bar(None, 1000) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"contribution": 0.1}, "speaks for B"),
        ({"contribution": -0.1}, "speaks against B"),
        ({"contribution": 0.0}, "adds nothing"),
        ({"contribution": 4e-4}, "adds nothing"),  # +0.000 would speak for nothing
        ({"contribution": 0.0, "area": 0.0}, "not found, so it adds nothing"),
        ({"contribution": 0.0, "enough": False}, "too little to be read, so it adds nothing"),
        ({"contribution": -0.1, "enough": False}, "too little to be read; that speaks against B"),
    ],
)
def test_contributions_in_words(report, change, words):
    assert in_words(row(**change), report) == words


@pytest.mark.parametrize(
    ("effect", "null", "cohort", "words"),
    [
        (None, None, None, "not asked"),
        (
            1.0,
            0.2,
            (0.2, 2.0, 0.1, 2.0),
            "for A more than hiding as much of the rest of its patches; over patients: supports A",
        ),
        (0.1, 0.2, (-1.0, 1.0, -2.0, -0.1), "over patients: not needed for A"),
        (0.1, 0.2, None, "hiding it lowers the score for A less than hiding as much"),
        (-0.1, -0.5, None, "hiding it raises the score for A less than hiding as much"),
        (-0.5, -0.1, None, "hiding it raises the score for A more than hiding as much"),
        (-0.5, 0.1, None, "hiding it raises the score for A, and hiding as much"),
        (-0.5, 0.1, None, "the rest of its patches lowers it;"),
        (0.5, -0.1, None, "the rest of its patches raises it;"),
        (0.5, 0.0, None, "the rest of its patches does not change it;"),
        (2e-4, 0.1, None, "hiding it does not change the score for A, and hiding"),
        (math.nan, math.nan, None, "hidden, it leaves nothing of the slide to ask about;"),
        (1.0, 0.2, (0.5, 1.0, -0.1, 2.0), "over patients: not distinguishable"),
        (1.0, 0.2, (math.nan,) * 4, "one patient: no interval"),
        (0.2, 0.2, None, "does what hiding as much of the rest of its patches does; not measured"),
    ],
)
def test_hiding_in_words_speaks_of_the_class_it_was_measured_for(
    report, effect, null, cohort, words
):
    cohort = cohort and CohortNeed(*cohort, *cohort[2:])
    assert words in hiding_in_words(row(effect=effect, null=null, cohort=cohort), report)


def test_an_object_that_covers_its_patches_and_a_slide_by_itself_are_said(report):
    large = hiding_in_words(
        row(effect=1.0, null=0.2, cover=0.8, p=0.04, random_masks=24, cohort=None), report
    )

    assert "covers 80.0 % of its patches" in large
    assert "p 0.04, of 24 random masks" in large
    absent = hiding_in_words(row(effect=0.0, null=0.0, area=0.0, cover=math.nan), report)
    assert absent.startswith("not on this slide, so nothing was hidden; ")
    few = hiding_in_words(row(effect=1.0, null=0.2, cover=0.4, p=1 / 3, random_masks=2), report)
    assert " p " not in few


@pytest.mark.parametrize(
    ("effect", "excess", "wanted"),
    [
        ((0.1, 0.9), (0.1, 0.5), "supports"),
        ((-0.9, -0.1), (-0.5, -0.1), "speaks against"),
        ((-0.1, 0.1), (-0.5, -0.1), "not needed"),  # neutral, beside a decisive neighbour
        ((0.1, 0.4), (-0.9, -0.3), "needed less"),  # helps the class, its neighbour more
        ((-0.1, 0.4), (0.1, 0.3), "not distinguishable"),
        ((0.1, 0.4), (-0.1, 0.3), "not distinguishable"),
        ((-0.4, -0.1), (-0.1, 0.3), "not distinguishable"),
        ((math.nan, math.nan), (math.nan, math.nan), "unknown"),
    ],
)
def test_evidence_needs_both_intervals(effect, excess, wanted):
    assert need(CohortNeed(*effect, *excess, *excess)) == wanted


def test_an_excess_that_its_neighbour_makes_is_no_support():
    """Hiding the rest raises the class by more than hiding the object lowers it."""
    assert need(CohortNeed(2.5, 5.0, 12.3, 24.5, -3.9, -1.2)) == "needed less"
    assert need(CohortNeed(-0.5, 0.5, 12.3, 24.5, -0.3, 0.2)) == "not distinguishable"


def test_a_need_is_proven_suggestive_or_out_of_reach():
    row = dict(zip(CohortNeed._fields, (0.1, 0.9, 0.1, 0.5, 0.1, 0.5), strict=True))
    row |= {"class_name": "B", "q": 0.01, "least_q": 0.001, "cover": 0.2}

    assert need_in_words(row) == "supports B"
    assert need_in_words(row | {"q": 0.2}) == "supports B: suggestive, not proven"
    assert "so few patients" in need_in_words(row | {"q": 0.1, "least_q": 0.1})
    untested = need_in_words(row | {"q": math.nan, "least_q": math.nan})
    assert untested.endswith("suggestive, without test slides of two classes nothing proves it")
    assert "covers 70.0 % of its patches" in need_in_words(row | {"cover": 0.7})


def test_the_summary_names_both_sides(report):
    assert summary(report) == (
        "For B speak most: tumor (tissue) (+0.500). Against it: fat (tissue) (\N{MINUS SIGN}0.125)."
    )


def test_what_has_no_number_is_not_known(tmp_path, report):
    gone = row(effect=math.nan, null=math.nan, imp=math.nan, p=math.nan, cover=1.0)

    write_report(tmp_path / "report.html", replace(report, rows=(gone,)))

    texts = [text for _, text in read(tmp_path / "report.html").cells]
    assert texts.count("not known") == 4  # removal, hidden, rest and IMP
    assert not any("nan" in text for text in texts)


def test_the_summary_counts_what_is_not_there(report):
    said = summary(replace(report, absence=0.75))

    assert said.endswith(" What was looked for and not found adds +0.750.")
    assert summary(replace(report, absence=1e-5)) == summary(report)


def test_a_nucleus_does_not_vanish_on_the_overview():
    """A share of 4 % has an opacity of at least its root, 20 %, an absent object has none."""
    share = np.array([[0.0, 0.01, 0.04, 1.0]], np.float32)

    picture = np.asarray(Image.open(io.BytesIO(object_layer(share, (1, 2, 3)))).convert("RGBA"))[0]

    assert picture[:, 3].tolist()[:2] == [0, 0]
    assert 51 <= picture[2, 3] < picture[3, 3] == 255
    assert picture[3, :3].tolist() == [1, 2, 3]


@pytest.fixture
def four_patches():
    """A grey slide of four patches, a square of one object in each."""
    grid = PatchGrid(
        coords=np.array([[0, 0], [64, 0], [128, 0], [192, 0]], np.int64), footprint=64,
        pixels=64, mpp=0.5, overlap=0, slide_size=Size(256, 64), slide_mpp=0.5,
    )  # fmt: skip
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 16:48, 16:48] = True
    masks = SimpleNamespace(
        grid=grid, labels=("breast-tissue-tumor",), size=64, read=lambda patch: mask,
        area=np.full((4, 1), 32 * 32),
    )  # fmt: skip
    slide = SimpleNamespace(
        read=lambda box, size: np.full((size.height, size.width, 3), 128, np.uint8)
    )
    return slide, masks


def test_top_and_bottom_patches_are_signed_sorted_and_outlined(four_patches):
    slide, masks = four_patches
    values = np.array([[0.1, 0], [-0.4, 0], [0.3, 0], [-0.2, 0]])
    by_object = SimpleNamespace(bars=values.sum(axis=0), patch_contribution=values)

    (strip,) = patch_strips(slide, masks, SimpleNamespace(object=by_object), each=3)

    assert [picture.value for picture in strip.top] == [0.3, 0.1]
    assert [picture.value for picture in strip.bottom] == [-0.4, -0.2]
    assert strip.top[0].position == "patch 2 at 128, 0"
    image = np.asarray(Image.open(io.BytesIO(strip.top[0].jpeg)), int)
    border = image[84, 42]  # a quarter from the left
    assert np.abs(border - object_colour("breast-tissue-tumor")).max() < 60
    assert np.abs(image[84, 84] - 128).max() < 6  # the middle is the slide


def test_an_object_that_only_speaks_against_has_no_top_patch(four_patches):
    values = np.full((4, 2), -0.1)
    by_object = SimpleNamespace(bars=values.sum(axis=0), patch_contribution=values)

    (strip,) = patch_strips(*four_patches, SimpleNamespace(object=by_object))

    assert strip.top == ()
    assert len(strip.bottom) == 3


def test_morphometry_is_shown_rounded_with_units(tmp_path):
    path = tmp_path / "slides" / "morphometry.csv"
    values = dict.fromkeys(LabelMorphometry.__dataclass_fields__, math.nan) | {
        "slide_id": "s", "label": "breast-tissue-tumor", "area_um2": 236616.04, "count": 1079,
        "area_fraction": 0.058929, "density_mm2": 14611.6, "area_median_um2": 36050.2,
        "length_um": 38.07, "width_um": 13.34, "rule": "by edges",
    }  # fmt: skip
    write_table(path, [LabelMorphometry(**values)] * 50, LabelMorphometry)

    table = morphometry_table(path, tmp_path, most=2)

    name, *numbers = table.rows[0]
    assert name == "tumor (tissue)"
    assert numbers[:5] == ["1,079", "0.237", "5.9", "14,612", "36,050"]
    assert numbers[5].split(" \N{MULTIPLICATION SIGN} ") == ["38.1", "13.3"]
    assert numbers[6:] == 3 * ["\N{EN DASH}"]
    assert len(table.rows) == 2
    assert len(table.columns) == len(table.rows[0])
    assert (table.source, table.cut, table.rule) == ("slides/morphometry.csv", 48, "by edges")
    assert morphometry_table(tmp_path / "none.csv", tmp_path) is None


def test_temperatures_are_read_and_nonsense_is_refused(tmp_path):
    path = tmp_path / "calibration.csv"
    assert temperatures(path) == {}
    path.write_text("model,fold,temperature\nobject_aware,0,1.5\nobject_aware,1,2\n")
    assert temperatures(path) == {"object_aware": 1.5}
    assert temperatures(path, 1) == {"object_aware": 2.0}
    for wrong in ("model,fold,t\na,0,1\n", "{0}\na,0,hot\n", "{0}\na,0,0\n"):
        path.write_text(wrong.format("model,fold,temperature"))
        with pytest.raises(StoreError):
            temperatures(path)


def test_intervals_are_those_of_the_measured_class(tmp_path):
    path = tmp_path / "importance.csv"
    path.write_text(
        "class_name,object,effect_low,effect_high,excess_low,excess_high,need_low,need_high\n"
        "A,tumor,0,1,0.1,0.5,0.1,0.4\nB,tumor,0,1,-1,1,-1,1\nA,fat,,,,,,\n"
    )

    needs = cohort_needs(path, "A")

    assert needs["tumor"] == (0.0, 1.0, 0.1, 0.5, 0.1, 0.4)
    assert math.isnan(needs["fat"].excess_low)


def test_training_data_in_sentences(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"metadata": {"slides": {"train": ["a", "b", "c"], "test": ["b"]}, "patch_um": 128.0,'
        ' "mpp": 0.5, "encoder": "uni"}}'
    )
    (tmp_path / "split.csv").write_text("slide_id,label,part\na,A,train\nb,B,train\nc,A,train\n")

    sentences = training_sentences(tmp_path, tmp_path / "split.csv")

    assert sentences[:2] == ("Trained on 3 slides (2 A, 1 B).", "Judged on 1 slide (1 B).")
    assert "128" in sentences[2] and "uni" in sentences[2]
    assert training_sentences(tmp_path / "none", tmp_path / "split.csv") == ()


def test_evidence_and_groups_are_on_the_index(tmp_path):
    row = Evidence(
        object="breast-tissue-necrosis or debris",
        verdict="supported",
        speaking="hiding, left out, seeds",
        hiding_q=0.012,
        loss_without=0.5,
        loss_low=0.25,
        loss_high=0.75,
        area_auc=1.0,
        area_low=0.73,
        area_high=1.0,
        seeds_held=5,
        seeds=5,
    )
    cohort = CohortReport(
        title="t",
        headline="h",
        classes=("B",),
        metrics=(),
        importance=(),
        examples=(),
        slides=(),
        evidence=(row, replace(row, verdict="not distinguishable", speaking="", hiding_q=math.nan)),
        groups=(("fat", "vessel", "necrosis"),),
    )

    write_index(tmp_path / "index.html", cohort)

    text = (tmp_path / "index.html").read_text()
    assert "supported (for it: hiding, left out, seeds). hiding q 0.012; without it" in text
    assert "its area alone predicts the class (AUC 1.00 [0.73, 1.00])" in text
    unsure = evidence_in_words(replace(row, area_auc=0.93, area_low=0.41))
    assert "its area alone is not shown to predict the class (AUC 0.93 [0.41, 1.00])" in unsure
    unknown = evidence_in_words(replace(row, area_auc=math.nan, area_low=math.nan))
    assert "is not shown to predict the class (AUC not defined)" in unknown
    assert "none of the four checks" in text
    assert "fat, vessel and necrosis go together" in text


def test_a_bar_is_beyond_the_average_slide_and_absence_speaks_too(report):
    absent = row(area=0.0, contribution=0.0, centred=-0.5)

    assert in_words(absent, report) == "not found; its absence speaks against B"
    assert row(contribution=2.0, centred=-0.25).value == -0.25
    assert row(contribution=2.0).value == 2.0  # a classifier that keeps no baseline
    assert "no baseline" in baseline_in_words("B", math.nan)
    assert "log-odds for B are +0.250" in baseline_in_words("B", 0.25)
    parts = SimpleNamespace(target=1, baseline_logit=0.25, share=np.array([0.0, 1.0, -1.0]))
    assert baseline_of(parts, ("A", "B", "C")).startswith(
        "Contributions are to the log-odds of B against C, the runner-up. Contributions are"
    )
    assert baseline_of(parts, ("A", "B")) == baseline_in_words("B", 0.25)
    said = summary(replace(report, rows=(absent, row(name="fat", centred=0.5))))
    assert (
        said
        == "For B speak most: fat (+0.500). Against it: no tumor (tissue) (\N{MINUS SIGN}0.500)."
    )
