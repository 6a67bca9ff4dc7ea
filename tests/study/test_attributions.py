"""``xpath explain --method``: other methods on explained slides, in files, tables and on pages."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from xpath.cli.main import main
from xpath.explain.attribution import METHODS
from xpath.explain.explanation import read_explanation
from xpath.explain.methods import attribute
from xpath.mil.classifier import load_classifier
from xpath.store.features import read_features
from xpath.store.tables import read_table
from xpath.study.chain import export_stage
from xpath.study.slides import bags_of
from xpath.study.study import open_study, save_study

pytestmark = pytest.mark.integration
ASKED = ("integrated_gradients", "shapley", "leave_one_out", "activation")


def copied(finished, root):
    """A copy of the run that trains no classifiers for ``tables/evidence.csv``."""
    shutil.copytree(finished, root)
    study = open_study(root)
    explain = replace(study.config.explain, evidence_seeds=0)
    save_study(replace(study, config=replace(study.config, explain=explain)))
    return root


@pytest.fixture(scope="module")
def attributed(finished, tmp_path_factory):
    """A copy of the run, explained by four methods more from the command line, and its pages."""
    root = copied(finished, tmp_path_factory.mktemp("methods") / "run")
    assert main(["explain", "--out", str(root), *(f"--method={name}" for name in ASKED)]) == 0
    export_stage(open_study(root), title="methods")
    return root


def explained(root):
    return sorted(path.parent for path in root.glob("slides/*/explanation.h5"))


def test_every_method_is_in_the_files_as_python_gives_it(attributed, small):
    for folder in explained(attributed):
        features = read_features(folder / "features.h5")
        target = read_explanation(folder / "explanation.h5").target
        model = load_classifier(attributed / "models" / "object_aware").eval()
        _, bag = bags_of(features, None, small.objects.min_coverage, model.objects)
        wanted = attribute(model, bag, "integrated_gradients", target, contrast="runner_up")
        rows = read_table(folder / "attributions" / "patches.csv")
        found = [float(row["object_aware integrated_gradients"]) for row in rows]
        np.testing.assert_allclose(found, wanted.patches, rtol=1e-12)
        assert {f"attention {name}" for name in ASKED} <= rows[0].keys()
        assert len(rows) == len(features.grid)


def test_objects_have_a_fair_share_that_sums_to_the_logit(attributed):
    for folder in explained(attributed):
        explanation = read_explanation(folder / "explanation.h5")
        rows = read_table(folder / "attributions" / "objects.csv", shapley=float, removal=float)
        by_object = explanation.object
        assert tuple(row["object"] for row in rows) == by_object.objects
        total = sum(row["shapley"] for row in rows)
        assert total == pytest.approx(by_object.logit - by_object.bias, abs=1e-5)
        removal = [row["removal"] for row in rows]
        np.testing.assert_allclose(removal, by_object.removal, atol=1e-6)  # an exact leave-out


def test_the_table_is_the_mean_over_slides(attributed):
    rows = read_table(attributed / "tables" / "faithfulness.csv", gain=float, deletion=float)
    assert {(row["model"], row["method"]) for row in rows} == {
        (model, method) for model in ("attention", "object_aware") for method in ASKED
    }
    first = rows[0]
    of_slides = [
        row["gain"]
        for folder in explained(attributed)
        for row in read_table(folder / "attributions" / "faithfulness.csv", gain=float)
        if (row["model"], row["method"]) == (first["model"], first["method"])
    ]
    assert first["gain"] == pytest.approx(np.mean(of_slides))
    assert int(first["slides"]) == len(of_slides)


def test_the_pages_show_them(attributed):
    page = (explained(attributed)[0] / "export" / "report.html").read_text(encoding="utf-8")
    assert "Other explanation methods" in page
    assert "integrated_gradients" in page
    assert "Hidden, and asked again" in page
    index = (attributed / "index.html").read_text(encoding="utf-8")
    assert "tables/faithfulness.csv" in index
    assert (attributed / "figures" / "hidden.pdf").stat().st_size > 1000


def test_without_methods_nothing_is_added(finished):
    assert not list(finished.glob("slides/*/attributions"))
    assert not (finished / "tables" / "faithfulness.csv").exists()


def test_a_second_call_makes_nothing_again(attributed, capsys):
    made = explained(attributed)[0] / "attributions" / "patches.csv"
    before = made.stat().st_mtime_ns
    assert main(["explain", "--out", str(attributed)]) == 0
    assert made.stat().st_mtime_ns == before


def test_hiding_otherwise_is_refused_and_then_replaces(finished, tmp_path, capsys):
    root = copied(finished, tmp_path / "run")
    before = read_explanation(explained(root)[0] / "explanation.h5").importance.imp

    assert main(["explain", "--out", str(root), "--hide", "surround_fill"]) == 1
    assert "--replace" in capsys.readouterr().err
    assert main(["explain", "--out", str(root), "--hide", "surround_fill", "--replace"]) == 0

    after = read_explanation(explained(root)[0] / "explanation.h5").importance.imp
    assert not np.array_equal(before, after)
    export_stage(open_study(root), title="hidden otherwise")
    page = (explained(root)[0] / "export" / "report.html").read_text(encoding="utf-8")
    assert "filled with the mean stain around it" in page


def test_all_stands_for_every_method(finished, tmp_path, capsys):
    root = copied(finished, tmp_path / "run")
    first = explained(root)[0].name
    command = ["explain", "--out", str(root), "--method", "all", "--only", first]
    assert main([*command, "--dry-run"]) == 0
    assert "attributions: 1 of 1 slides" in capsys.readouterr().out
    assert main(command) == 0
    assert open_study(root).config.explain.methods == METHODS
