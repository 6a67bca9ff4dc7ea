"""Breast cancer subtypes from slides, explained by objects (paper, section 2.6).

    python pipelines/brca_subtype.py SLIDES LABELS.csv --out RUN
    python pipelines/brca_subtype.py SLIDES LABELS.csv --out RUN --device cuda
    python pipelines/brca_subtype.py --features FEATURES --labels LABELS.csv --out RUN
    python pipelines/brca_subtype.py --features FEATURES --labels LABELS.csv --out RUN --folds 5

SLIDES is a folder of whole-slide images (TCGA-BRCA, say), LABELS.csv has the columns slide_id (file
name without suffix), label (IDC, ILC) and, if slides share patients, patient (or CLAM's case_id).
The run segments 21 breast objects with words, extracts features, trains the standard and the
object-aware classifier, explains the test slides and writes pages, QuPath files and tables.

With --features no slides are needed: FEATURES is a folder that CLAM (h5_files, pt_files), TRIDENT
(features_<encoder>), STAMP or LazySlide wrote. The standard classifier is trained and scored beside
the mean over patches, the baseline it must beat, on the paper's split or, with --folds K, on every
slide; --by site keeps hospitals together, which tells what is left where nobody trained. RUN gets
predictions.csv, metrics.json (scores with 95 % intervals over patients, differences, DeLong's test,
calibration), roc.png, reliability.png, models/ and splits_*.csv as CLAM reads them. Object-aware
models need slides, because objects are not in such files.

It can be stopped at any moment and started again: on slides, what is done stays, byte for byte. A
slide that fails is named with its reason, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from xpath.cli.stages import add_study_options, study_from
from xpath.errors import ConfigError, XPathError
from xpath.export.classification_figures import reliability_figure, roc_figure
from xpath.metrics.calibration import reliability
from xpath.mil.cohort_features import CohortConfig, divide, read_cohort, run_cohort
from xpath.mil.memory_map import Spool
from xpath.mil.train import TrainConfig
from xpath.study.chain import run_chain

# Options of one mode, and what to do instead in the other.
ON_FEATURES = {
    "split": "the split is drawn; --set split.seed=1 draws another",
    **dict.fromkeys(("folds", "by"), "pass copies ID.h5 of slides/ID/features.h5 as --features"),
    "calibrate": "a temperature is fitted wherever there are enough validation slides",
    **{name: f"use --set classifier.train.{name}=..." for name in ("epochs", "lr")},
    "memory_gb": "use --set memory_gb=4",
    "seed": "use --set split.seed=1 --set classifier.train.seed=1",
}
ON_SLIDES = {
    **dict.fromkeys(("objects", "mpp"), "both were decided when the features were made"),
    **dict.fromkeys(("config", "set"), "use --epochs, --lr, --seed, --device and their like"),
}


def main(arguments: list[str] | None = None) -> int:
    """From arguments to pages; 1 if a slide failed or nothing could be done."""
    args = _parser().parse_args(arguments)
    try:
        return _on_features(args) if args.features else _on_slides(args)
    except XPathError as error:
        print(f"brca_subtype: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    add = parser.add_argument
    add("slides", type=Path, nargs="?", help="a folder of slides")
    add("table", type=Path, nargs="?", help="the labels, as --labels")
    add("--labels", type=Path, help="CSV: slide_id, label[, patient][, mpp]")
    add("--out", type=Path, required=True, help="the run folder")
    add_study_options(parser.add_argument_group("on slides"))  # type: ignore[arg-type]
    add = parser.add_argument_group("on feature files").add_argument
    add("--features", type=Path, metavar="DIR", help="feature files; no slides are read")
    add("--split", type=Path, help="CLAM's splits_k.csv (default: 7 to 1 to 2, by label)")
    add("--folds", type=int, help="cross-validation instead of one split")
    add("--by", choices=("patient", "site"), help="what folds keep together (default: patient)")
    add("--calibrate", action="store_const", const=True, help="fit a temperature on validation")
    add("--epochs", type=int, help="at most; it stops early (default: 100)")
    add("--lr", type=float, help="learning rate of Adam (default: 2e-4, the paper's)")
    add("--memory-gb", type=float, help="keep features beyond it on disk (default: 8)")
    add("--seed", type=int, help="of split, weights and intervals (default: 0)")
    return parser


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those options that were passed."""
    return {name: found for name in names if (found := getattr(args, name)) not in (None, [])}


def _refuse(args: argparse.Namespace, others: dict[str, str], where: str) -> None:
    for name in _given(args, *others):
        raise ConfigError(f"--{name.replace('_', '-')} does nothing on {where}; {others[name]}")


def _on_slides(args: argparse.Namespace) -> int:
    _refuse(args, ON_FEATURES, "slides")
    labels = args.labels or args.table
    if args.slides is None or labels is None:
        raise ConfigError("pass SLIDES and LABELS.csv, or --features DIR and --labels LABELS.csv")
    args.slides = [args.slides]
    study = study_from(args, labels=labels)
    good = run_chain(study, title=f"Breast subtypes: {args.slides[0].resolve().name}")
    print(f"open {study.folder.index}")
    if not good:
        print(f"some slides failed; see {study.folder.ledger}", file=sys.stderr)
    return 0 if good else 1


def _on_features(args: argparse.Namespace) -> int:
    _refuse(args, ON_SLIDES, "feature files")
    if args.labels is None or args.slides is not None:
        raise ConfigError("with --features pass the labels as --labels LABELS.csv, and no slides")
    if args.split and (args.folds or args.by):
        raise ConfigError("--split says what is held out; leave out --folds and --by, or --split")
    config = CohortConfig(
        **_given(args, "folds", "by", "calibrate", "device"),
        train=TrainConfig(**_given(args, "epochs", "lr", "seed")),
    )
    spool = Spool(args.out, **_given(args, "memory_gb"))
    with tqdm(desc="reading", unit="slide") as bar:
        cohort = read_cohort(
            args.features, args.labels, spool=spool, on_slide=lambda _: bar.update()
        )
    splits = divide(cohort, config, args.split)
    with tqdm(total=2 * len(splits), desc="training", unit="model") as bar:
        answers = run_cohort(cohort, splits, config, args.out, lambda *_: bar.update())
    found = next(iter(answers.values()))
    label, groups = found.predictions.label, [cohort.patients[place] for place in found.place]
    if len(cohort.classes) == 2 and min((label == 0).sum(), (label == 1).sum()) >= 2:
        scores = {name: a.predictions.probability[:, 1] for name, a in answers.items()}
        roc_figure(args.out / "roc.png", scores, label, positive=cohort.classes[1], groups=groups)
    curves = {
        name: reliability(a.predictions.probability, label, bins=10, equal_mass=True)
        for name, a in answers.items()
    }
    reliability_figure(args.out / "reliability.png", curves)
    print((args.out / "metrics.json").read_text(encoding="utf-8"), end="")
    for problem in cohort.left_out:
        print(f"left out: {problem}", file=sys.stderr)
    print(f"see {args.out}; {len(cohort.bags)} slides, {len(cohort.left_out)} left out")
    return 1 if cohort.left_out else 0


if __name__ == "__main__":
    sys.exit(main())
