import json
import socket

import numpy as np
import pytest

from xpath.cli.main import main
from xpath.review.findings import Findings

FINDING = {"x": 100, "y": 50, "object_class": 0, "verdict": "agree", "reviewer": "Ann"}


def test_findings_are_exported_as_table_and_geojson(service, run_folder, tmp_path, capsys):
    service.remember("two words", FINDING | {"instead": "<b>fibrosis</b>", "comment": "see\nthere"})

    assert main(["review", str(run_folder.root), "--export", str(tmp_path / "out")]) == 0

    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [
        *(f"findings.{suffix}" for suffix in ("csv", "html", "json", "txt")),
        "two words.findings.geojson",
    ]
    assert "findings.csv" in capsys.readouterr().out
    text = {path.suffix: path.read_text() for path in (tmp_path / "out").iterdir()}
    (row,) = json.loads(text[".json"])["findings"]
    assert (row["instead"], row["rings"][0][0]) == ("<b>fibrosis</b>", [60.0, 40.0])
    assert text[".txt"].startswith(
        "two words: tumor (tissue) at 100, 50: agree, rather <b>fibrosis</b> (Ann, "
    )
    assert text[".txt"].endswith("): see there\n")
    assert "&lt;b&gt;fibrosis" in text[".html"]
    assert "<b>fibrosis" not in text[".html"]
    (feature,) = json.loads(text[".geojson"])["features"]
    assert feature["properties"]["metadata"]["instead"] == "<b>fibrosis</b>"
    assert feature["properties"]["name"] == "Ann: agree, rather <b>fibrosis</b>"


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert main(["review", str(tmp_path)]) == 1
    assert "is no run folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--port", "99999"], "cannot listen"), (["--token", "short"], "at least 16 characters")],
)
def test_options_that_cannot_be_are_refused(run_folder, capsys, options, words):
    assert main(["review", str(run_folder.root), *options]) == 1
    assert words in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(run_folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["review", str(run_folder.root), "--port", port]) == 1
    assert "choose another --port" in capsys.readouterr().err


def test_a_finding_has_the_runs_numbers_not_the_pages(service, run_folder):
    service.remember("one", FINDING | {"numbers": {"contribution": 99}, "rings": []})

    (kept,) = Findings(service.findings.path).read("one")
    view = service._view(service._entry("one"))
    assert kept.numbers["contribution"] != 99
    assert kept.numbers["contribution of its class"] == view.explanation.object.bars[0]
    assert len(kept.rings[0]) == 5  # a rectangle, closed
    assert kept.numbers["area um2"] == 50 * 160 * 0.25


def test_contributions_of_the_objects_of_a_class_add_up(service):
    """The two tumours share what tumour adds, by area patch by patch."""
    objects = [service.at("one", x, y, "0")["objects"][0] for x, y in ((70, 50), (310, 15))]

    shares = [one["numbers"]["contribution"] for one in objects]
    explained = service._view(service._entry("one")).explanation.object
    assert sum(shares) == pytest.approx(explained.contribution[0])
    assert explained.bars[0] == objects[0]["numbers"]["contribution of its class"]


def test_the_smallest_object_under_a_point_comes_first(service):
    objects = service.at("one", 104, 64, "")["objects"]

    assert [one["label"] for one in objects] == ["breast-nuclei-lymphocyte", "breast-tissue-tumor"]
    assert service.at("one", 104, 64, "0")["objects"][0]["label"] == "breast-tissue-tumor"
    assert service.at("one", 104, 64, "-")["objects"] == []


def test_numbers_above_0_speak_for_the_class_and_say_what_it_would_be_without(service):
    slide = service.slide("one")
    (one,) = service.at("one", 70, 50, "0")["objects"]
    numbers = one["numbers"]

    assert slide["what_if"]
    with_it = slide["probability"]["object-aware model"][one["explained"]]
    log_odds = np.log(with_it / (1 - with_it))
    for name in ("with it here", "with its class"):
        without = numbers[f"{name}: probability without"]
        change = log_odds - np.log(without / (1 - without))
        assert numbers[f"{name}: log-odds"] == pytest.approx(change)


def test_another_classifier_than_the_explained_one_answers_no_what_if(service, run_folder):
    config = run_folder.study.folder.model("object_aware") / "config.json"
    config.unlink()

    slide = service.slide("one")

    assert not slide["what_if"]
    (one,) = service.at("one", 70, 50, "0")["objects"]
    assert not any("with it" in name for name in one["numbers"])
    assert "contribution" in one["numbers"]
