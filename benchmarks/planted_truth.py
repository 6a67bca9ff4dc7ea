"""Does an explanation name the cause that was planted, and nothing else? On the demo's cohorts.

    python benchmarks/planted_truth.py --work DIR --seeds 5 --cohorts 5 --permutations 20

Cohorts are drawn as ``xpath demo`` draws them: one object decides the class and all others are
decoys. The segmentor that ships marks the objects and encodes the patches; nothing here knows the
drawn masks. A seed is a cohort drawn anew, and first weights and order of the training of its own;
with fewer cohorts than seeds they take turns, and later seeds differ in the training only. On the
slides that were held out of each training two things are asked:

* Contributions of the object-aware classifier: is the planted object first by the difference
  between the classes (``cohort_contributions``), and how many times the largest decoy's is it?
* Importance by hiding, in the attention classifier: is the planted object called, needed for a
  class with intervals above 0 and q below 0.05 that this goes with the true class (``called``)? Is
  any other? What is the verdict of the four checks?

Decoys are all other objects that are asked about and found on a test slide. Of these stroma does
depend on the class, because it lies where the planted object does not: it counts as a decoy, and is
told apart as well.

With ``--permutations`` the labels are permuted within each split, classifiers learn nonsense, and
all that is then called is called falsely.

What costs time (segmentation, features, features with objects hidden) depends on no classifier. It
is done once for each cohort, kept in DIR and gone on with after an interruption. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from tqdm import tqdm

from xpath.batch.done import make_once
from xpath.batch.slides import SlideEntry, find_slides, read_labels, with_labels
from xpath.cli.demo_run import demo_config
from xpath.explain.activation import object_activation
from xpath.explain.cohort import (
    LEVEL,
    BenefitRow,
    called,
    class_benefit,
    cohort_importance,
)
from xpath.explain.contributions import ContributionRow, cohort_contributions
from xpath.explain.hiding import HiddenPatch
from xpath.explain.importance import HiddenObjects, importance_of
from xpath.explain.object_evidence import object_evidence
from xpath.mil.cohort import Cohort, CohortConfig, read_cohort, split_cohort
from xpath.mil.cohort_training import fresh_classifier
from xpath.mil.prediction import evaluate
from xpath.store.features import read_features
from xpath.study.chain import features_stage, segment_stage
from xpath.study.cohort import cohort_config, labelled_slides
from xpath.study.keys import stage_key
from xpath.study.slides import hidden_objects, logits_of
from xpath.study.study import Study, new_study
from xpath.testing.cohort import CohortPlan, make_cohort
from xpath.testing.tissue import LABELS

if TYPE_CHECKING:
    from xpath.mil.bag import Bag
    from xpath.mil.object_aware import ObjectAwareMIL
    from xpath.mil.splits import Split

GIVES_WAY = "breast-tissue-stroma"


class Prepared(NamedTuple):
    """A cohort with all that no classifier changes."""

    cohort: Cohort
    config: CohortConfig
    split: Split
    hidden: dict[int, HiddenObjects]
    """Test slides with each object hidden, by index in the cohort."""


class Trained(NamedTuple):
    """Answers of the classifiers of a seed, or of permuted labels."""

    accuracy: float
    benefit: list[BenefitRow]
    """Of importance by hiding."""
    called: set[str]
    """Objects that a class needs, in keeping with the true class (``explain.cohort.called``)."""
    contributions: list[ContributionRow]
    verdicts: dict[str, str]
    """Of the four checks, by object; empty where they were not asked for."""


def main(arguments: list[str] | None = None) -> dict[str, object]:
    """From arguments to one JSON line, which is also returned."""
    args = parsed(arguments)
    started = time.perf_counter()
    cohorts = [
        prepared(args.work / f"cohort-{number}", plan(args, number))
        for number in range(min(args.cohorts, args.seeds))
    ]
    seeds, nonsense = [], []
    for seed in range(args.seeds):
        one = cohorts[seed % len(cohorts)]
        seeds.append(explained(one, one.cohort, seed, checks=args.checks))
        print_seed(seed, args.planted, seeds[-1])
    for number in tqdm(range(args.permutations), desc="permuted", unit="training"):
        one = cohorts[number % len(cohorts)]
        nonsense.append(explained(one, permuted(one, number), number, checks=0))
    result = summary(args.planted, seeds, nonsense)
    result |= {"cohorts": len(cohorts), "slides": args.slides}
    result |= {"seconds": round(time.perf_counter() - started, 1)}
    print(json.dumps(result))
    return result


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add, drawn = parser.add_argument, CohortPlan()
    add("--work", type=Path, required=True, help="folder that keeps the cohorts")
    add("--seeds", type=int, default=5, help="trainings on true labels")
    add("--cohorts", type=int, default=5, help="cohorts that are drawn; seeds take turns")
    add("--permutations", type=int, default=20, help="trainings on permuted labels")
    add("--checks", type=int, default=5, help="trainings behind each verdict, 0 for no verdicts")
    add("--slides", type=int, default=40, help="slides of a cohort")
    add("--side", type=int, default=drawn.side, help="pixels of a side of a slide")
    add("--planted", default=drawn.planted, help="the object that decides")
    return parser.parse_args(arguments)


def plan(args: argparse.Namespace, number: int) -> CohortPlan:
    """The cohort of a number, that of ``xpath demo --seed``."""
    return CohortPlan(slides=args.slides, seed=number, planted=args.planted, side=args.side)


def prepared(root: Path, drawn: CohortPlan) -> Prepared:
    """Draws, segments, encodes and hides, as far as that is not done."""
    source = root / "cohort"
    with tqdm(total=drawn.slides, desc=f"{root.name}: draw", unit="slide") as bar:
        make_cohort(source, drawn, on_slide=lambda _: bar.update())
    slides = with_labels(find_slides([source / "slides"]), read_labels(source / "labels.csv"))
    study = new_study(root, demo_config(LABELS), slides)
    for stage in (segment_stage, features_stage):
        if not stage(study).ok:
            raise SystemExit(f"slides of {root} failed; see {study.folder.ledger}")
    config = cohort_config(study.config, "cpu")
    cohort = read_cohort(labelled_slides(study), config)
    split = split_cohort(cohort, config.split)[0]
    entries = {entry.slide_id: entry for entry in study.slides}
    hidden = {
        int(i): hidden_once(study, entries[cohort.slides[i].slide_id])
        for i in tqdm(split.test, f"{root.name}: hide", unit="slide")
    }
    return Prepared(cohort, config, split, hidden)


def hidden_once(study: Study, entry: SlideEntry) -> HiddenObjects:
    """A slide with each object hidden, encoded now or before."""
    output = study.folder.slide(entry.slide_id) / "hidden.npz"

    def produce() -> None:
        slide = hidden_objects(study, entry, read_features(study.folder.features(entry.slide_id)))
        with output.open("wb") as file:
            np.savez(file, **arrays_of(slide))

    key = stage_key(
        "explanation", study.config, study.features_key(entry), study.config.explain.labels
    )
    make_once(output, key, produce)
    with np.load(output) as arrays:
        return hidden_of(entry.slide_id, arrays)


def arrays_of(slide: HiddenObjects) -> dict[str, np.ndarray]:
    """A slide with each object hidden, as arrays for a file."""
    arrays = {
        "objects": np.array(slide.objects),
        "features": slide.features,
        "area": slide.area,
        "numbers": np.array([slide.draws, slide.pixels]),
    }
    for j, rows in slide.rows.items():
        arrays[f"patch_{j}"] = np.array([row.patch for row in rows])
        arrays[f"own_{j}"] = np.stack([row.own for row in rows])
        arrays[f"pairs_{j}"] = np.stack([np.stack(list(map(np.stack, r.pairs))) for r in rows])
    return arrays


def hidden_of(slide_id: str, arrays: np.lib.npyio.NpzFile) -> HiddenObjects:
    """The slide of ``arrays_of``."""
    names, rows = arrays["objects"].tolist(), {}
    for j in range(len(names)):
        if f"patch_{j}" in arrays:
            columns = (arrays[f"{column}_{j}"] for column in ("patch", "own", "pairs"))
            rows[j] = [HiddenPatch(int(p), own, tuple(map(tuple, pairs)))
                       for p, own, pairs in zip(*columns, strict=True)]  # fmt: skip
    draws, pixels = arrays["numbers"].tolist()
    return HiddenObjects(
        slide_id=slide_id, objects=tuple(names), features=arrays["features"], rows=rows,
        draws=draws, area=arrays["area"], pixels=pixels,
    )  # fmt: skip


def explained(one: Prepared, cohort: Cohort, seed: int, *, checks: int) -> Trained:
    """Trains both classifiers, and explains the test slides.

    Args:
        one: The prepared cohort.
        cohort: Its cohort, or the same with other labels.
        seed: Of the training.
        checks: Trainings behind each verdict.
    """
    config = reseeded(one.config, seed)
    standard, aware = (
        fresh_classifier(cohort, name, one.split, config, seed=0)
        for name in ("attention", "object_aware")
    )
    patches, objects, test = cohort.bags["patches"], cohort.bags["objects"], one.split.test
    truth = {cohort.slides[i].slide_id: int(patches[i].label) for i in test}
    patients = {slide.slide_id: slide.patient for slide in cohort.slides}
    importance = [
        importance_of(logits_of(standard), one.hidden[int(i)], truth[cohort.slides[i].slide_id])
        for i in test
    ]
    benefit = class_benefit(importance, truth, patients=patients)
    needs = cohort_importance(importance, cohort.sizes.classes, patients=patients)
    added = np.stack([object_activation(aware, objects[i]).class_contribution for i in test])
    contributions = cohort_contributions(
        added, np.array(list(truth.values())), [patients[name] for name in truth],
        objects=cohort.sizes.objects, classes=cohort.sizes.classes, rng=np.random.default_rng(seed),
    )  # fmt: skip
    verdicts = {}
    if checks:
        q = {row.object: row.q for row in benefit}
        needed = {row.object for row in needs if row.supports}

        def again(_: int, number: int) -> ObjectAwareMIL:
            model = fresh_classifier(cohort, "object_aware", one.split, config, seed=number)
            return cast("ObjectAwareMIL", model)

        rows = object_evidence(
            cohort, [one.split], q, needed=needed, seeds=checks, classifier=again
        )
        verdicts = {row.object: row.verdict for row in rows}
    return Trained(
        evaluate(standard, [patches[i] for i in test]).accuracy,
        benefit,
        called(needs, benefit),
        contributions,
        verdicts,
    )


def reseeded(config: CohortConfig, seed: int) -> CohortConfig:
    """The settings with a seed of their own for the training."""
    training = replace(config.classifier.train, seed=100 * seed)
    return replace(config, classifier=replace(config.classifier, train=training))


def permuted(one: Prepared, number: int) -> Cohort:
    """The cohort with labels permuted among the slides of each split."""
    cohort, rng = one.cohort, np.random.default_rng([7, number])
    labels = np.array([bag.label for bag in cohort.bags["patches"]])
    for part in one.split:
        labels[part] = rng.permutation(labels[part])

    def relabelled(bags: tuple[Bag, ...]) -> tuple[Bag, ...]:
        return tuple(
            replace(bag, label=int(label)) for bag, label in zip(bags, labels, strict=True)
        )

    return cohort._replace(bags={view: relabelled(bags) for view, bags in cohort.bags.items()})


def times_largest_decoy(rows: list[ContributionRow], planted: str) -> float:
    """The planted object's difference over the largest of the others, whichever its sign."""
    decoys = [abs(row.difference) for row in rows if row.object != planted]
    return next(row.difference for row in rows if row.object == planted) / max(decoys)


def summary(planted: str, seeds: list[Trained], nonsense: list[Trained]) -> dict[str, object]:
    """The numbers of the last line."""
    ratios = [times_largest_decoy(one.contributions, planted) for one in seeds]
    decoys = [(name, hit) for name, hit, _ in tested(seeds) if name != planted]
    figures = {
        "planted_first": sum(one.contributions[0].object == planted for one in seeds),
        "times_largest_decoy": round(float(np.mean(ratios)), 2),
        "planted_proven": sum(planted in one.called for one in seeds),
        "decoys_called": share([hit for _, hit in decoys]),
        "permuted_called": share([hit for _, hit, _ in tested(nonsense)]),
    }
    return {
        "benchmark": "planted_truth",
        "seeds": len(seeds),
        "accuracy": round(float(np.mean([one.accuracy for one in seeds])), 3),
        **figures,
        "met": met(figures, len(seeds)),
        "each_times_largest_decoy": [round(ratio, 2) for ratio in ratios],
        "decoys": len(decoys),
        "gives_way_called": sum(hit for name, hit in decoys if name == GIVES_WAY),
        "verdicts": verdicts_of(planted, seeds),
        "permutations": len(nonsense),
        "permuted_objects": len(tested(nonsense)),
        "permutations_with_a_call": sum(bool(one.called) for one in nonsense),
        "permuted_q_below_level": share([q < LEVEL for _, _, q in tested(nonsense)]),
    }


def tested(trainings: list[Trained]) -> list[tuple[str, bool, float]]:
    """Of each object that some test slide has: its name, whether it was called, and q."""
    return [
        (row.object, row.object in one.called, row.q)
        for one in trainings
        for row in one.benefit
        if row.slides
    ]


def met(figures: dict[str, float | int | None], seeds: int) -> bool:
    """Whether all is as it must be."""
    return (
        figures["planted_first"] == figures["planted_proven"] == seeds
        and figures["times_largest_decoy"] >= 2
        and max(figures["decoys_called"] or 0, figures["permuted_called"] or 0) <= LEVEL
    )


def share(hits: list[bool]) -> float | None:
    """Share of True, None of nothing."""
    return round(float(np.mean(hits)), 4) if hits else None


def verdicts_of(planted: str, seeds: list[Trained]) -> dict[str, dict[str, int]]:
    """How often each verdict was given, to the planted object and to all others."""
    counts: dict[str, dict[str, int]] = {"planted": {}, "others": {}}
    for one in seeds:
        for name, verdict in one.verdicts.items():
            those = counts["planted" if name == planted else "others"]
            those[verdict] = those.get(verdict, 0) + 1
    return counts


def print_seed(seed: int, planted: str, one: Trained) -> None:
    """A table of what was found with a seed."""
    print(f"seed {seed}, accuracy on slides not seen {one.accuracy:.2f}")
    need = {row.object: row for row in one.benefit}
    for row in one.contributions:
        hiding = need.get(row.object)
        hidden = f"need {hiding.benefit:+7.3f} q {hiding.q:.4f}" if hiding else "not hidden"
        print(
            f" {'*' if row.object == planted else ' '}{row.object:38} difference"
            f" {row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}] q {row.q:.4f}; {hidden};"
            f" {one.verdicts.get(row.object, '')}",
            flush=True,
        )


if __name__ == "__main__":
    main()
