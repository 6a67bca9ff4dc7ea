"""The work of ``xpath demo``, apart from its options, so that these load nothing."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from xpath.batch.processes import usable_cores
from xpath.batch.runner import InProcess
from xpath.batch.slides import SlideEntry, find_slides, read_labels, with_labels
from xpath.batch.workers import LocalProcesses
from xpath.cli.stages import finish
from xpath.errors import DataError
from xpath.mil.classifier import ClassifierConfig
from xpath.mil.splits import SplitConfig
from xpath.mil.training import TrainConfig
from xpath.store.tables import read_table
from xpath.study.chain import (
    Batch,
    explain_stage,
    export_stage,
    features_stage,
    run_chain,
    segment_stage,
)
from xpath.study.config import ExplainConfig, ObjectsConfig, StudyConfig
from xpath.study.study import Study, new_study
from xpath.testing.cohort import CohortPlan, make_cohort
from xpath.testing.tissue import LABELS

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

__all__ = ["demo_config", "run"]

NEVER_FOUND = (
    "breast-tissue-fat",
    "breast-tissue-normal acinus or duct",
    "breast-tissue-blood vessel",
)
"""What is drawn too, but the weights that ship do not find in drawn tissue: Dice below 0.1."""
FOUND = tuple(label for label in LABELS if label not in NEVER_FOUND)

SIDE = 1280
"""Pixels of a side of a drawn slide, at 0.5 microns a pixel: 25 patches, glass among them."""
MOST_WORKERS = 4
"""Processes at once unless more are asked for: each takes a gigabyte and seconds to begin."""


def run(args: argparse.Namespace) -> int:
    """Makes the cohort, runs the chain and prints where to look."""
    started = time.monotonic()
    workers = args.workers or min(usable_cores(), MOST_WORKERS)
    torch.set_num_threads(max(1, usable_cores() // workers))  # as in each of the workers
    batch = Batch(executor=LocalProcesses(workers) if workers > 1 else InProcess())
    plan = CohortPlan(slides=args.slides, side=SIDE, seed=args.seed, planted=args.planted)
    cohort = args.out / "cohort"
    with tqdm(total=plan.slides, desc="      draw", unit="slide") as bar:
        make_cohort(cohort, plan, workers=workers, on_slide=lambda _: bar.update())
    slides = with_labels(find_slides([cohort / "slides"]), read_labels(cohort / "labels.csv"))
    study = new_study(args.out, demo_config(), slides)
    title = "xpath demo: a synthetic cohort with a planted cause"
    good = run_chain(study, title=title, batch=batch)
    print(_verdict(study, cohort))
    code = 0 if good else 1
    if args.slide:
        code = max(code, _explain_own(study, args.slide, args.mpp))
    print(f"done in {(time.monotonic() - started) / 60:.1f} minutes; look at:")
    for name in ("index.html", "tables/importance.csv", "tables/metrics.csv"):
        print(f"  {args.out / name}")
    if args.slide:
        print(f"  {study.folder.exports(args.slide.stem) / 'report.html'}")
    return code


def demo_config(labels: tuple[str, ...] = FOUND) -> StudyConfig:
    """Settings for a small cohort: more slides held out, faster steps.

    Patches overlap as always. Without, a rim of the planted object stays unmarked along the edges
    of patches, and what is left of it when it is hidden still decides some slides.

    Args:
        labels: Objects that are asked for; the tissues among them are hidden, too.
    """
    tissues = tuple(label for label in labels if "-tissue-" in label)
    return StudyConfig(
        objects=ObjectsConfig(labels=labels, batch=2),
        split=SplitConfig(train=0.5, validation=0.15),
        classifier=ClassifierConfig(train=TrainConfig(lr=2e-3, epochs=120, patience=30)),
        explain=ExplainConfig(labels=tissues),
        drawn=True,
    )


def _verdict(study: Study, cohort: Path) -> str:
    """Whether the explanation names the planted object, read from the written table."""
    truth = json.loads((cohort / "truth.json").read_text())
    rows = read_table(study.folder.table("importance"), rank=int)
    first = [row for row in rows if row["rank"] == 1]
    best = next((r for r in first if r["class_name"] == truth["decides"]), None)
    if best is None:
        raise DataError(f"no explained slide of {truth['decides']}; draw more slides")
    right = "the planted cause" if best["object"] == truth["planted"] else "NOT the planted cause"
    return (
        f"{truth['decides']} was made by {truth['planted']}; the explanation ranks"
        f" {best['object']} first: {right}"
    )


def _explain_own(study: Study, path: Path, mpp: float | None) -> int:
    """Runs the trained model on one more slide."""
    entry = SlideEntry(slide_id=path.stem, path=path, mpp=mpp)
    larger = new_study(study.folder.root, study.config, [*study.slides, entry])
    reports = [segment_stage(larger, [entry]), features_stage(larger, [entry])]
    reports += [
        explain_stage(larger),
        export_stage(larger, title="xpath demo, and a slide of yours"),
    ]
    return finish(*reports)
