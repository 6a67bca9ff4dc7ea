"""Two-class cohorts with a planted cause: one object decides, all others are decoys."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.batch.done import key_of
from xpath.errors import ConfigError
from xpath.geometry import Size
from xpath.store.schema import atomic, sha256_of
from xpath.store.tables import write_table
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

PAINTERS = 2
"""Counted up when slides are drawn differently, so that those of before are drawn again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CohortPlan:
    """A cohort to be drawn."""

    slides: int = 32
    planted: str = "breast-tissue-necrosis or debris"
    """The object that decides: only slides of the second class have it."""
    classes: tuple[str, str] = ("class-A", "class-B")
    share: tuple[float, float] = (0.12, 0.3)
    """Range of the planted object's share of the tissue, before the others take theirs.
    ``truth.json`` has the final shares."""
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
        if not 0 < self.share[0] <= self.share[1] <= 1:
            raise ConfigError(f"share is a range within 0 to 1, above 0, got {self.share}")
        if self.classes[0] == self.classes[1]:
            raise ConfigError(f"the two classes need two names, got {self.classes}")


def cohort_recipes(plan: CohortPlan) -> list[tuple[str, TissueRecipe]]:
    """Class and recipe of every slide. Classes alternate, decoys do not depend on them.

    Every recipe is drawn before its class is looked at, and both classes lay the planted object
    out: without it, stroma lies there instead. So stain, growth and all other objects, their areas
    too, are independent of the class by construction; only stroma has to give way, and nuclei go
    with their tissue.
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
        positive = index % 2 == 1
        change: dict[str, Any] = {planted: float(rng.uniform(*plan.share))}
        recipe = replace(recipe, **change, bare=None if positive else plan.planted)
        recipes.append((plan.classes[int(positive)], recipe))
    return recipes


def make_cohort(
    folder: Path,
    plan: CohortPlan,
    *,
    workers: int = 1,
    on_slide: Callable[[str], None] | None = None,
) -> None:
    """Draws a cohort: ``slides/*.tiff``, ``labels.csv`` and ``truth.json``.

    Slides that this plan has drawn already, and that are still whole, are kept, so an interrupted
    call goes on where it stopped. Those of another plan are drawn over; those beyond the end of a
    shorter plan stay, without a label.

    Args:
        folder: Where to put it.
        plan: What to draw; the same plan gives the same pixels.
        workers: Threads that draw.
        on_slide: Called with each slide's name when it is there.
    """
    names, recipes = zip(*cohort_recipes(plan), strict=True)
    slide_ids = [_slide_id(index) for index in range(plan.slides)]
    areas = {}
    pool = ThreadPoolExecutor(workers)
    try:
        drawn = pool.map(partial(_drawn, folder, plan), range(plan.slides), recipes)
        for slide_id, shares in zip(slide_ids, drawn, strict=True):
            areas[slide_id] = shares
            if on_slide:
                on_slide(slide_id)
    finally:  # whoever stops early does not wait for slides that are not begun
        pool.shutdown(cancel_futures=True)
    write_table(
        folder / "labels.csv",
        [
            {
                "slide_id": slide_id,
                "label": name,
                "patient": f"patient-{index:03d}",
                "path": f"slides/{slide_id}.tiff",
            }
            for index, (slide_id, name) in enumerate(zip(slide_ids, names, strict=True))
        ],
    )
    content = {"planted": plan.planted, "decides": plan.classes[1], "areas": areas}
    with atomic(folder / "truth.json") as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n")


def _drawn(folder: Path, plan: CohortPlan, index: int, recipe: TissueRecipe) -> dict[str, float]:
    """Each label's share of a slide, which is drawn unless it is there and is what we want."""
    slide_id = _slide_id(index)
    slide, truth = folder / "slides" / f"{slide_id}.tiff", folder / "truth" / f"{slide_id}.json"
    key = key_of(PAINTERS, asdict(recipe), plan.side, plan.mpp, plan.seed, index)
    known = _known(truth)
    if known.get("key") == key and slide.is_file() and known.get("sha256") == sha256_of(slide):
        return dict(known["areas"])
    areas = _draw(slide, recipe, plan, index)
    with atomic(truth) as draft:
        draft.write_text(json.dumps({"key": key, "sha256": sha256_of(slide), "areas": areas}))
    return areas


def _slide_id(index: int) -> str:
    return f"synthetic-{index:03d}"


def _known(truth: Path) -> dict[str, Any]:
    """Facts written about a slide, none if they cannot be read."""
    try:
        content = json.loads(truth.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and "areas" in content else {}


def _draw(path: Path, recipe: TissueRecipe, plan: CohortPlan, index: int) -> dict[str, float]:
    """Paints and writes one slide. Returns each label's share of the slide."""
    rng = np.random.default_rng([plan.seed, index, 1])
    tissue = paint_tissue(Size(plan.side, plan.side), recipe, rng, mpp=plan.mpp)
    write_slide(path, tissue.image, mpp=plan.mpp)
    return {label: round(float(mask.mean()), 5) for label, mask in tissue.masks.items()}
