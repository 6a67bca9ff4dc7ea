"""Cohorts: the planted object tells the class, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from xpath.batch.slides import find_slides, read_labels, with_labels
from xpath.errors import ConfigError
from xpath.geometry import Size
from xpath.testing.cohort import PLANTABLE, CohortPlan, cohort_recipes, make_cohort
from xpath.testing.tissue import LABELS, paint_tissue

PLAN = CohortPlan(slides=4, side=256, seed=1)
TISSUES = [label for label in LABELS if "-tissue-" in label]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A cohort made without a break, which tests must not change."""
    folder = tmp_path_factory.mktemp("cohort")
    make_cohort(folder, PLAN)
    return folder


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("planted", PLANTABLE)
def test_only_the_second_class_shows_the_planted_object(planted):
    plan = CohortPlan(slides=40, planted=planted)

    for name, recipe in cohort_recipes(plan):
        assert plan.share[0] <= getattr(recipe, PLANTABLE[planted]) <= plan.share[1]
        assert recipe.bare == {"class-A": planted, "class-B": None}[name]


def test_classes_are_balanced():
    names = [name for name, _ in cohort_recipes(CohortPlan(slides=41))]

    assert (names.count("class-A"), names.count("class-B")) == (21, 20)


def test_decoys_do_not_know_the_class():
    """Means of both classes agree within 4 standard errors, for everything a recipe says."""
    recipes = cohort_recipes(CohortPlan(slides=1000))
    positive = np.array([name == "class-B" for name, _ in recipes])
    amounts = (
        "tumour",
        "fat",
        "necrosis",
        "infiltrate",
        "ducts",
        "vessels",
        "lymphocytes",
        "glass",
    )
    columns = [
        (
            *(getattr(recipe, name) for name in amounts),
            recipe.growth == "nests",
            *recipe.stain.haematoxylin,
            *recipe.stain.eosin,
            *recipe.stain.strength,
            *recipe.stain.glass,
            recipe.stain.blur,
            recipe.stain.noise,
        )
        for _, recipe in recipes
    ]
    values = np.array(columns, float)

    gap = values[positive].mean(0) - values[~positive].mean(0)
    assert (values.std(0) > 0).all()
    assert (np.abs(gap) < 4 * values.std(0) * np.sqrt(2 / 500)).all()


def test_another_planted_object_leaves_the_decoys():
    one = cohort_recipes(CohortPlan(slides=6, planted="breast-tissue-necrosis or debris"))
    two = cohort_recipes(CohortPlan(slides=6, planted="breast-tissue-fat"))

    for (_, first), (_, second) in zip(one, two, strict=True):
        same = {key for key, value in asdict(first).items() if asdict(second)[key] == value}
        assert {"tumour", "growth", "infiltrate", "ducts", "vessels", "glass", "stain"} <= same


@pytest.mark.parametrize("planted", PLANTABLE)
def test_painted_decoys_do_not_give_way_to_the_planted_object(planted):
    """A slide of either class would have had the same decoys in the other, pixel by pixel."""
    plan = CohortPlan(slides=2, planted=planted)
    for index, (_, recipe) in enumerate(cohort_recipes(plan)):
        field = [
            paint_tissue(Size(384, 384), replace(recipe, bare=bare), np.random.default_rng(index))
            for bare in (None, planted)
        ]
        assert field[0].masks[planted].any()
        for label in TISSUES:
            if label not in {planted, "breast-tissue-stroma"}:
                np.testing.assert_array_equal(field[0].masks[label], field[1].masks[label])


def test_truth_has_areas_and_cause(made):
    truth = json.loads((made / "truth.json").read_text())

    assert truth["planted"] == PLAN.planted
    assert truth["decides"] == "class-B"
    planted = [areas[PLAN.planted] for areas in truth["areas"].values()]
    assert planted[0::2] == [0, 0]
    assert min(planted[1::2]) > 0.05
    assert all(list(areas) == list(LABELS) for areas in truth["areas"].values())


def test_table_leads_to_the_slides(made):
    slides = with_labels(find_slides([made / "slides"]), read_labels(made / "labels.csv"))

    assert [slide.label for slide in slides] == ["class-A", "class-B"] * 2
    assert all(slide.path.is_file() for slide in slides)
    assert len({slide.patient for slide in slides}) == 4


def test_interrupted_and_resumed_is_the_same(made, tmp_path):
    class PowerCutError(Exception):
        pass

    def stop_after_two(slide_id):
        if slide_id.endswith("001"):
            raise PowerCutError

    with pytest.raises(PowerCutError):
        make_cohort(tmp_path, PLAN, on_slide=stop_after_two)
    assert not (tmp_path / "labels.csv").exists()
    first = tmp_path / "slides" / "synthetic-000.tiff"
    drawn = first.stat().st_mtime_ns
    make_cohort(tmp_path, PLAN)

    assert contents(tmp_path) == contents(made)
    assert first.stat().st_mtime_ns == drawn  # kept, not drawn again


def test_threads_draw_the_same(made, tmp_path):
    order = []
    make_cohort(tmp_path, PLAN, workers=3, on_slide=order.append)

    assert contents(tmp_path) == contents(made)
    assert order == sorted(order)


@pytest.mark.parametrize("damage", ["lost", "cut", "truth"])
def test_damaged_slides_are_drawn_again(made, tmp_path, damage):
    make_cohort(tmp_path, PLAN)
    slide = tmp_path / "slides" / "synthetic-001.tiff"
    if damage == "lost":
        slide.unlink()
    elif damage == "cut":
        slide.write_bytes(slide.read_bytes()[:1000])
    else:
        (tmp_path / "truth" / "synthetic-001.json").write_text("{")

    make_cohort(tmp_path, PLAN)

    assert contents(tmp_path) == contents(made)


@pytest.mark.parametrize("change", [{"seed": 2}, {"planted": "breast-tissue-fat"}, {"mpp": 0.4}])
def test_slides_of_another_plan_are_not_kept(made, tmp_path, change):
    make_cohort(tmp_path, replace(PLAN, **change))
    make_cohort(tmp_path, PLAN)

    assert contents(tmp_path) == contents(made)


@pytest.mark.parametrize(
    "wrong",
    [
        {"planted": "breast-tissue-stroma"},
        {"slides": 1},
        {"side": 128},
        {"share": (0.0, 0.2)},
        {"share": (0.3, 0.2)},
        {"classes": ("same", "same")},
    ],
)
def test_plan_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError):
        CohortPlan(**wrong)
