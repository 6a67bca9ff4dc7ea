"""One number for one thing, whichever page, table or file shows it."""

import json

import pytest

from xpath.explain.explanation import read_explanation
from xpath.export.overlay import short_name
from xpath.store.tables import read_table
from xpath.study.exports import slide_report
from xpath.study.study import open_study


def test_the_area_of_an_object_is_the_same_everywhere(finished):
    """Features leave out the rims of masks, so their coverage is no area of an object."""
    study, compared = open_study(finished), 0
    for entry in study.slides_to_explain():
        explanation = read_explanation(study.folder.explanation(entry.slide_id))
        report = slide_report(study, entry, "test", explanation, b"")
        shown = {row.name: row.area for row in report.rows}
        findings = json.loads(
            (study.folder.exports(entry.slide_id) / "findings.json").read_text(encoding="utf-8")
        )
        found = {fact["name"]: fact["area_fraction"] for fact in findings["facts"]}
        measured = read_table(study.folder.morphometry(entry.slide_id), area_fraction=float)
        counted = {short_name(row["label"]): row["area_fraction"] for row in measured}
        hidden = dict(
            zip(
                map(short_name, explanation.importance.objects),
                explanation.importance.area.tolist(),
                strict=True,
            )
        )
        for name, area in shown.items():
            others = [table[name] for table in (found, counted, hidden) if name in table]
            assert others == pytest.approx([area] * len(others))
            compared += len(others)
    assert compared > 8


def test_rows_and_what_is_not_there_add_up_to_the_log_odds(finished):
    study, without = open_study(finished), 0
    for entry in study.slides_to_explain():
        explanation = read_explanation(study.folder.explanation(entry.slide_id))
        report = slide_report(study, entry, "test", explanation, b"")
        by_object = explanation.object
        total = sum(row.value for row in report.rows) + report.absence
        assert total == pytest.approx(by_object.logit - by_object.baseline_logit, abs=1e-5)
        page = study.folder.exports(entry.slide_id) / "report.html"
        said = "not found adds" in page.read_text(encoding="utf-8")
        assert said == (round(report.absence, 3) != 0)
        without += said
    assert without


def test_qupath_shows_the_bars_of_the_page_too(finished):
    study, compared = open_study(finished), 0
    for entry in study.slides_to_explain():
        explanation = read_explanation(study.folder.explanation(entry.slide_id))
        report = slide_report(study, entry, "test", explanation, b"")
        bars = {row.name: row.value for row in report.rows}
        path = study.folder.exports(entry.slide_id) / "objects.geojson"
        for feature in json.loads(path.read_text(encoding="utf-8"))["features"]:
            properties = feature["properties"]
            if properties["objectType"] == "detection":
                name = short_name(properties["classification"]["name"])
                bar = f"label's contribution beyond the average slide: {report.explained}"
                assert properties["measurements"][bar] == pytest.approx(bars[name])
                compared += 1
        page = (path.parent / "report.html").read_text(encoding="utf-8")
        assert "what it adds beyond the average training slide, as bars" in page
    assert compared
