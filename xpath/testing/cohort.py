"""Two-class cohorts with a planted cause: one object decides, all others are decoys."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ConfigError
from xpath.geometry import Size
from xpath.store.schema import atomic
from xpath.testing.slides import write_slide
from xpath.testing.stain import random_stain
from xpath.testing.tissue import TissueRecipe, paint_tissue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["PLANTABLE", "CohortPlan", "cohort_recipes", "make_cohort"]

PLANTABLE = {
    "breast-tissue-necrosis or debris": "necrosis",
    "breast-tissue-lymphocytic infiltrate": "infiltrate",
    "breast-tissue-tumor": "tumour",
    "breast-tissue-fat": "fat",
}
"""Objects that can decide the class, and the recipe's name for how much of them there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CohortPlan:
    """A cohort to be drawn."""

    slides: int = 32
    planted: str = "breast-tissue-necrosis or debris"
    """The object that decides: only slides of the second class have it."""
    classes: tuple[str, str] = ("class-A", "class-B")
    share: tuple[float, float] = (0.12, 0.3)
    """Range of the planted object's share of the tissue."""
    side: int = 1792
    """Side of a slide in pixels."""
    mpp: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn."""
        if self.planted not in PLANTABLE:
            raise ConfigError(f"can plant one of {list(PLANTABLE)}, got {self.planted!r}")
        if self.slides < 2 or self.side < 256:
            raise ConfigError(f"a cohort needs 2 slides of 256 px at least, got {self}")


def cohort_recipes(plan: CohortPlan) -> list[tuple[str, TissueRecipe]]:
    """Class and recipe of every slide; classes alternate, decoys do not know of them.

    Every recipe is drawn before its class is looked at, so stain, growth and all other objects are
    independent of the class by construction.
    """
    planted = PLANTABLE[plan.planted]
    recipes = []
    for index in range(plan.slides):
        rng = np.random.default_rng([plan.seed, index])
        recipe = TissueRecipe(
            tumour=float(rng.uniform(0.1, 0.35)),
            growth="nests" if rng.random() < 0.5 else "single_file",
            fat=float(rng.uniform(0.02, 0.25)),
            necrosis=float(rng.uniform(0.02, 0.2)),
            infiltrate=float(rng.uniform(0.02, 0.2)),
            ducts=float(rng.uniform(0.5, 5)),
            vessels=float(rng.uniform(1, 6)),
            lymphocytes=float(rng.uniform(10, 120)),
            glass=float(rng.uniform(0.3, 0.5)),
            stain=random_stain(rng),
        )
        amount = float(rng.uniform(*plan.share))
        positive = index % 2 == 1
        recipe = replace(recipe, **{planted: amount if positive else 0.0})
        recipes.append((plan.classes[int(positive)], recipe))
    return recipes


def make_cohort(
    folder: Path, plan: CohortPlan, *, on_slide: Callable[[str], None] | None = None
) -> None:
    """Draws a cohort: ``slides/*.tiff``, ``labels.csv`` and ``truth.json``.

    Slides that are there already are kept, so an interrupted call goes on where it stopped.

    Args:
        folder: Where to put it.
        plan: What to draw; the same plan gives the same pixels.
        on_slide: Called with each slide's name when it is there.
    """
    rows, areas = [], {}
    for index, (name, recipe) in enumerate(cohort_recipes(plan)):
        slide_id = f"synthetic-{index:03d}"
        truth = folder / "truth" / f"{slide_id}.json"
        if not truth.exists():
            areas[slide_id] = _draw(folder / "slides" / f"{slide_id}.tiff", recipe, plan, index)
            with atomic(truth) as draft:
                draft.write_text(json.dumps(areas[slide_id]))
        areas[slide_id] = json.loads(truth.read_text())
        rows.append({"slide_id": slide_id, "label": name, "patient": f"patient-{index:03d}"})
        if on_slide:
            on_slide(slide_id)
    with atomic(folder / "labels.csv") as draft, draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    content = {"planted": plan.planted, "decides": plan.classes[1], "areas": areas}
    with atomic(folder / "truth.json") as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n")


def _draw(path: Path, recipe: TissueRecipe, plan: CohortPlan, index: int) -> dict[str, float]:
    """Paints and writes one slide; returns each label's share of the slide."""
    rng = np.random.default_rng([plan.seed, index, 1])
    tissue = paint_tissue(Size(plan.side, plan.side), recipe, rng, mpp=plan.mpp)
    write_slide(path, tissue.image, mpp=plan.mpp)
    return {label: round(float(mask.mean()), 5) for label, mask in tissue.masks.items()}
