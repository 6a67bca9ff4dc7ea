"""Does importance find a cause that was planted, and only that?

    python benchmarks/planted_paintings.py --seeds 5 --permutations 20

Small slides are painted so that one object decides the class and all others know nothing of it
(``xpath.testing.cohort``). A classifier learns half of them; on the other half every object is
hidden by the importance code that studies run. Two things are asked:

* Is the planted object the first of its class, by effect and by excess, and does the 95 % interval
  of its excess lie above 0, that is above hiding as much of anything?
* Is anything else called? "Called" is ``class_benefit`` with q <= 0.05. Decoys are the objects that
  do not depend on the class; stroma, which gives way to the planted object, is told apart. Under
  permuted labels a classifier is trained on nonsense, and whatever is called is called falsely; by
  Benjamini-Hochberg that happens in at most 5 % of the permutations.

Objects are taken out of the features (``removal``). With ``--hiding blur`` random masks of the same
area mostly hit the planted object too, which fills its patches; so its excess is small, and the
interval leaves out 0 in fewer cohorts.

``expected_at_most`` is that share of the permutations, ``allowed`` the 95 % quantile of a count
with it. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binom

from xpath.explain.cohort import BenefitRow, ImportanceRow, class_benefit, cohort_importance
from xpath.explain.hiding import SegmentedSlide
from xpath.explain.importance import ObjectImportance, object_importance
from xpath.explain.perturbation import Blur, Fill, PerturbationConfig, Removal
from xpath.geometry import Box, PatchGrid, Size
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.cross_validation import seeded_build
from xpath.mil.prediction import evaluate
from xpath.mil.training import TrainConfig, train
from xpath.testing.cohort import CohortPlan, cohort_recipes
from xpath.testing.stain import Stain
from xpath.testing.tissue import paint_tissue

SIDE, PATCH, MPP = 256, 64, 1.0
PLANTED = "breast-tissue-necrosis or debris"
GIVES_WAY = "breast-tissue-stroma"
OBJECTS = (
    PLANTED,
    GIVES_WAY,
    "breast-tissue-tumor",
    "breast-tissue-fat",
    "breast-tissue-lymphocytic infiltrate",
    "breast-nuclei-neoplastic",
)
DECOYS = tuple(name for name in OBJECTS if name not in (PLANTED, GIVES_WAY))
LEVEL = 0.05
HIDING = {"blur": Blur(6.0), "fill": Fill(), "removal": Removal()}


class Painting:
    """A slide in memory."""

    path = Path("painting")

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.size = Size(image.shape[1], image.shape[0])

    def read(self, box: Box, size: Size) -> np.ndarray:
        """Pixels of a box that is read as it is."""
        if size != box.size:
            raise ValueError(f"paintings are not resampled: {box} as {size}")
        return self.image[box.y : box.y + box.height, box.x : box.x + box.width]


class Masks:
    """The members of ``SlideMasks`` that importance uses, in memory."""

    def __init__(self, grid: PatchGrid, masks: dict[str, np.ndarray]) -> None:
        self.grid, self.labels, self.size = grid, OBJECTS, PATCH
        whole = np.stack([masks[name] for name in OBJECTS])
        self._masks = np.stack([whole[:, y : y + PATCH, x : x + PATCH] for x, y in grid.coords])
        self.area = self._masks.sum(axis=(2, 3), dtype=np.int64)

    def read(self, patches: int) -> np.ndarray:
        """Masks of a patch."""
        return self._masks[patches]


class Filters:
    """Random filters at two scales with their rectified answers: a cheap, blind encoder."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.fine = torch.randn(16, 3, 4, 4, generator=generator) / 7
        self.coarse = torch.randn(16, 3, 8, 8, generator=generator) / 14

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Maps ``(B, 35, H / 8, W / 8)``."""
        pixels = 1 - images.float() / 255  # glass is nothing
        convolve, pool = torch.nn.functional.conv2d, torch.nn.functional.avg_pool2d
        fine = pool(convolve(pixels, self.fine, stride=4).relu(), 2)
        return torch.cat((pool(pixels, 8), fine, convolve(pixels, self.coarse, stride=8).relu()), 1)


@dataclass(frozen=True)
class Cohort:
    """Slides and their classes, even ones of each class to learn from, odd ones to explain."""

    slides: list[SegmentedSlide]
    labels: np.ndarray
    encoder: Filters

    @property
    def held_out(self) -> np.ndarray:
        """True for slides the classifier does not see."""
        return np.arange(len(self.slides)) // 2 % 2 == 1


@dataclass(frozen=True)
class Found:
    """Verdict of one classifier's importances."""

    accuracy: float
    rows: list[ImportanceRow]
    benefit: list[BenefitRow]


def main(arguments: list[str] | None = None) -> dict[str, object]:
    """From arguments to one JSON line, which is also returned."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="cohorts")
    parser.add_argument(
        "--permutations", type=int, default=20, help="classifiers of permuted labels"
    )
    parser.add_argument("--slides", type=int, default=160, help="slides of a cohort")
    parser.add_argument(
        "--hiding", choices=HIDING, default="removal", help="how objects are hidden"
    )
    args = parser.parse_args(arguments)
    started = time.perf_counter()

    found, nonsense = [], []
    for seed in range(args.seeds):
        cohort = painted(seed, args.slides)
        found.append(explained(cohort, cohort.labels, args.hiding))
        print_cohort(seed, found[-1])
        for number in range(seed, args.permutations, args.seeds):
            shuffled = np.random.default_rng([7, number]).permutation(cohort.labels)
            nonsense.append(explained(cohort, shuffled, args.hiding))
            called = [row.object for row in nonsense[-1].benefit if row.q <= LEVEL]
            print(f"  permutation {number}: called {called}", flush=True)
    result = summary(found, nonsense)
    result |= {"hiding": args.hiding, "seconds": round(time.perf_counter() - started, 1)}
    print(json.dumps(result))
    return result


def painted(seed: int, slides: int) -> Cohort:
    """Paints the slides of a cohort and encodes them."""
    encoder, segmented, labels = Filters(), [], []
    plan = CohortPlan(slides=slides, planted=PLANTED, side=SIDE, mpp=MPP, seed=seed)
    starts = np.arange(0, SIDE, PATCH)
    coords = np.stack(np.meshgrid(starts, starts), axis=-1).reshape(-1, 2)
    for index, (name, recipe) in enumerate(cohort_recipes(plan)):
        rng = np.random.default_rng([seed, index, 1])
        recipe = replace(recipe, stain=Stain())  # one laboratory: a blind encoder sees stain first
        tissue = paint_tissue(Size(SIDE, SIDE), recipe, rng, mpp=MPP)
        grid = PatchGrid(coords=coords, footprint=PATCH, pixels=PATCH, mpp=MPP, overlap=0,
                         slide_size=Size(SIDE, SIDE), slide_mpp=MPP)  # fmt: skip
        patches = np.stack([tissue.image[y : y + PATCH, x : x + PATCH] for x, y in coords])
        features = encoder.maps(torch.from_numpy(patches).permute(0, 3, 1, 2)).mean(dim=(2, 3))
        labels.append(plan.classes.index(name))
        segmented.append(
            SegmentedSlide(
                slide_id=f"{seed}-{index}",
                slide=Painting(tissue.image),
                masks=Masks(grid, tissue.masks),
                features=features.numpy(),
            )
        )
    return Cohort(segmented, np.array(labels), encoder)


def explained(cohort: Cohort, labels: np.ndarray, hiding: str) -> Found:
    """Trains on one half, hides objects in the other."""
    bags = [
        Bag(torch.from_numpy(slide.features), None, int(label), slide.slide_id)
        for slide, label in zip(cohort.slides, labels, strict=True)
    ]
    model = seeded_build(lambda: AttentionMIL(bags[0].features.shape[1], 2, hidden=32), 0)
    learnt = [bag for bag, held in zip(bags, cohort.held_out, strict=True) if not held]
    train(model, learnt, [], TrainConfig(lr=3e-3, epochs=60, weight_decay=1e-3))

    def predict(features: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model(pack([Bag(features)])).logits[0]

    asked = np.flatnonzero(cohort.held_out)
    slides: list[ObjectImportance] = [
        object_importance(
            predict,
            cohort.encoder,
            cohort.slides[i],
            objects=OBJECTS,
            target=int(labels[i]),
            perturbation=HIDING[hiding],
            config=PerturbationConfig(feather_um=2.0, null_draws=3, batch=64),
        )
        for i in asked
    ]
    truth = {cohort.slides[i].slide_id: int(labels[i]) for i in asked}
    return Found(
        evaluate(model, [bags[i] for i in asked]).accuracy,
        cohort_importance(slides, ["class-A", "class-B"]),
        class_benefit(slides, truth),
    )


def summary(found: list[Found], nonsense: list[Found]) -> dict[str, object]:
    """The numbers of the last line."""
    firsts = [[row for row in one.rows if row.class_name == "class-B"] for one in found]
    planted = [next((r for r in rows if r.object == PLANTED), rows[-1]) for rows in firsts]
    called = [row for one in found for row in one.benefit if row.q <= LEVEL]
    false = sum(any(row.q <= LEVEL for row in one.benefit) for one in nonsense)
    p = [row.p for one in nonsense for row in one.benefit]
    return {
        "benchmark": "planted_paintings",
        "seeds": len(found),
        "accuracy": round(float(np.mean([one.accuracy for one in found])), 3),
        "planted_first": sum(
            row.object == PLANTED and row.rank == 1 and row.effect == max(r.effect for r in rows)
            for row, rows in zip(planted, firsts, strict=True)
        ),
        "interval_excludes_null": sum(r.object == PLANTED and r.excess_low > 0 for r in planted),
        "planted_called": sum(row.object == PLANTED for row in called),
        "decoys": len(DECOYS) * len(found),
        "decoys_called": sum(row.object in DECOYS for row in called),
        "gives_way_called": sum(row.object == GIVES_WAY for row in called),
        "permutations": len(nonsense),
        "false_calls": false,
        "expected_at_most": round(LEVEL * len(nonsense), 2),
        "allowed": int(binom.ppf(0.95, len(nonsense), LEVEL)) if nonsense else 0,
        "p_below_level": round(float(np.mean(np.array(p) <= LEVEL)), 3) if p else None,
    }


def print_cohort(seed: int, found: Found) -> None:
    """A table of the class with the planted object."""
    print(f"seed {seed}, accuracy on slides not seen {found.accuracy:.2f}")
    benefit = {row.object: row for row in found.benefit}
    for row in found.rows:
        if row.class_name == "class-B":
            other = benefit[row.object]
            print(
                f"  {row.rank} {row.object:38} effect {row.effect:+.3f} null {row.null:+.3f}"
                f" excess {row.excess:+.3f} [{row.excess_low:+.3f}, {row.excess_high:+.3f}]"
                f" imp {row.imp:.2f} benefit {other.benefit:+.3f} p {other.p:.4f} q {other.q:.4f}"
            )


if __name__ == "__main__":
    main()
