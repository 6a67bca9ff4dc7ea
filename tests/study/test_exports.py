"""What the page of a cohort says first."""

import os
from types import SimpleNamespace
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from xpath.batch.claim import claim
from xpath.batch.slides import SlideEntry
from xpath.study.config import StudyConfig
from xpath.study.index_page import _headline, _printed, _slide_row
from xpath.study.study import new_study


def row(**changes):
    return {
        "class_name": "ILC",
        "name": "fat (tissue)",
        "effect_low": 0.2,
        "effect_high": 0.9,
        "excess_low": 0.1,
        "excess_high": 0.6,
        "need_low": 0.1,
        "need_high": 0.6,
        "q": 0.01,
        "least_q": 0.0005,
    } | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "For ILC the standard model needs fat (tissue) most."),
        (
            {"q": 0.06},
            "For ILC the standard model needs fat (tissue) most"
            " (suggestive, not proven: q 0.06 that it goes with the class).",
        ),
        (
            {"q": 0.1, "least_q": 0.1},
            "For ILC the standard model needs fat (tissue) most"
            " (suggestive: so few patients cannot prove it).",
        ),
        (
            {"q": float("nan"), "least_q": float("nan")},
            "For ILC the standard model needs fat (tissue) most"
            " (suggestive: without test slides of two classes nothing proves it).",
        ),
        ({"effect_low": -0.1}, "No object stands out for ILC."),
        ({"need_low": -0.1}, "No object stands out for ILC."),
        ({"excess_low": float("nan")}, "No object stands out for ILC."),
    ],
)
def test_only_what_is_proven_is_said_to_be(changes, words):
    assert _headline(SimpleNamespace(classes=("IDC", "ILC")), [row(**changes)], []) == words


def test_a_score_comes_with_its_interval():
    metrics = [
        {"split": "train", "model": "attention", "auc": 1.0},
        {
            "split": "test",
            "model": "object_aware",
            "slides": "9",
            "auc": 0.8,
            "auc_low": 0.55,
            "auc_high": 0.96,
        },
    ]

    said = _headline(SimpleNamespace(classes=()), [], metrics)

    assert said == "The object-aware model has AUC 0.80 [0.55, 0.96] on 9 test slides."
    one = metrics[1] | dict.fromkeys(("auc", "auc_low", "auc_high"), float("nan")) | {"slides": "1"}
    assert _headline(SimpleNamespace(classes=()), [], [one]) == (
        "The object-aware model has no AUC: a class is not among the 1 test slide."
    )


def test_no_probability_is_rounded_to_certainty():
    assert [_printed(p) for p in (0.5, 0.9971, 0.99996, 1.0)] == [
        "0.500",
        "0.997",
        "0.999",
        "1.000",
    ]


def test_the_index_says_who_is_at_work_on_a_slide(tmp_path):
    entry = SlideEntry(slide_id="a", path=tmp_path / "a.svs")
    study = new_study(tmp_path / "run", StudyConfig(), [entry])
    with claim(study.folder.masks("a")):
        busy = _slide_row(study, entry, {}, {})["status"]

    assert busy.startswith(f"busy: process {os.getpid()} on ")
    assert _slide_row(study, entry, {}, {})["status"] == "done"


def test_links_of_odd_names_lead_to_the_page_of_the_slide(tmp_path):
    """As a browser reads them: ``#``, ``?`` and ``%41`` would end or change a link."""
    name = "100%41_#1+(2)"
    entry = SlideEntry(slide_id=name, path=tmp_path / "a.svs")
    study = new_study(tmp_path / "run", StudyConfig(), [entry])
    page = study.folder.exports(name) / "report.html"
    page.parent.mkdir(parents=True)
    page.touch()

    link = urlsplit(urljoin("file:///run/index.html", _slide_row(study, entry, {}, {})["link"]))

    assert (link.query, link.fragment) == ("", "")
    assert unquote(link.path) == f"/run/slides/{name}/export/report.html"
