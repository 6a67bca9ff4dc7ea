"""Breast cancer subtypes from slides, explained by objects (paper, section 2.6).

    xpath run SLIDES LABELS.csv --out RUN          (or python pipelines/brca_subtype.py ...)
    python pipelines/brca_subtype.py SLIDES LABELS.csv --out RUN --folds 5 --by site --device cuda
    python pipelines/brca_subtype.py --features FEATURES --labels LABELS.csv --out RUN
    python pipelines/brca_subtype.py SLIDES LABELS.csv --out RUN --preset paper --encoder FILE

SLIDES is a folder of whole-slide images (TCGA-BRCA, say), LABELS.csv has the columns slide_id (file
name without suffix), label (IDC, ILC) and, if slides share patients, patient (or CLAM's case_id).
The run segments breast objects with words, extracts features, trains the classifiers, explains
the slides that were held out and writes pages, QuPath files and tables.

With --features no slides are needed: FEATURES is a run, or a folder that CLAM (h5_files, pt_files),
TRIDENT (features_<encoder>), STAMP or LazySlide wrote. Classifiers are trained and scored, nothing
is explained; those of objects are left out on files that hold no objects, as only runs' do.

Either way RUN gets, for every classifier of classifier.models, checkpoints in models/, figures/
(ROC, reliability) and tables/: split, predictions, metrics (95 % intervals over patients),
differences (DeLong's test), table19 (mean and deviation over folds and --seeds, pooled AUC),
calibration, splits_*.csv as CLAM reads them, and metrics.json.
Tested are the slides of the paper's split or, with --folds K, all, each by a model that never saw
it; --by site keeps hospitals together. It can be stopped at any moment and started again: what is
done stays. A slide that fails is named, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from xpath.batch.slides import labels_without_slide, read_labels
from xpath.cli.batch_options import add_batch_options, batch_from, executor_from, show_plan
from xpath.cli.stages import add_keep_na, add_study_options, print_end, study_from
from xpath.config import load_config
from xpath.errors import ConfigError, XPathError
from xpath.mil.classifier import ClassifierConfig
from xpath.study.chain import Batch, run_chain
from xpath.study.cohort import train_on_features
from xpath.study.config import StudyConfig
from xpath.study.folder import RunFolder

SETTINGS = {
    "split": ("split.table",),
    "folds": ("split.folds",),
    "by": ("split.by",),
    "calibrate": ("classifier.calibrate",),
    "controls": ("classifier.models",),
    "seeds": ("classifier.seeds",),
    "encoder": ("objects.encoder_weights",),
    "epochs": ("classifier.train.epochs",),
    "lr": ("classifier.train.lr",),
    "memory_gb": ("memory_gb",),
    "seed": ("split.seed", "classifier.train.seed", "explain.seed"),
}
"""Options, and the settings they stand for."""


def main(arguments: list[str] | None = None) -> int:
    """From arguments to pages; 1 if a slide failed or nothing could be done."""
    args = _parser().parse_args(arguments)
    args.preset = StudyConfig.paper() if args.preset else None
    given = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    args.set = [
        *(f"{key}={json.dumps(value)}" for name, value in given.items() for key in SETTINGS[name]),
        *args.set,
    ]
    try:
        return _on_features(args) if args.features else _on_slides(args)
    except XPathError as error:
        print(f"brca_subtype: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"brca_subtype: interrupted; {args.out} keeps what is finished", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    add = parser.add_argument
    add("slides", type=Path, nargs="?", help="a folder of slides")
    add("table", type=Path, nargs="?", help="the labels, as --labels")
    add("--features", type=Path, metavar="DIR", help="a run or feature files; no slides are read")
    add("--table", dest="table_name", help="of LazySlide's stores, where they have several")
    add("--labels", type=Path, help="CSV: slide_id, label[, patient][, site][, mpp]")
    add_keep_na(parser)
    add("--out", type=Path, required=True, help="the run folder")
    add_study_options(parser)
    add_batch_options(parser)
    add("--preset", choices=("paper",), help="settings of the paper: 1024 px, CONCH, plain loss")
    add("--encoder", metavar="FILE", help="weights of the encoder (default: fetched from its hub)")
    every = ClassifierConfig().with_controls().models
    add("--controls", action="store_const", const=every, help="also models without objects, names")
    add("--split", help="CLAM's splits_k.csv (default: 7 to 1 to 2, by label)")
    add("--folds", type=int, help="cross-validation instead of one split")
    add("--seeds", type=int, help="train every classifier so often, for table19.csv (default: 1)")
    add("--by", choices=("patient", "site"), help="what folds keep together (default: patient)")
    add("--calibrate", action="store_const", const=True, help="fit a temperature on validation")
    add("--epochs", type=int, help="at most; it stops early (default: 100)")
    add("--lr", type=float, help="learning rate of Adam (default: 1e-3; the paper's: 2e-4)")
    add("--memory-gb", type=float, help="keep features beyond it on disk (default: 8)")
    add("--seed", type=int, help="of split, weights and intervals (default: 0)")
    return parser


def _on_slides(args: argparse.Namespace) -> int:
    labels = args.labels or args.table
    if args.slides is None or labels is None:
        raise ConfigError("pass SLIDES and LABELS.csv, or --features DIR and --labels LABELS.csv")
    args.slides = [args.slides]
    study = study_from(args, labels=labels, save=not args.dry_run, preset=args.preset)
    batch = batch_from(args, study)
    if args.dry_run:
        return show_plan(study, "segment", batch) + show_plan(study, "features", batch)
    title = f"Breast subtypes: {args.slides[0].resolve().name}"
    good = run_chain(study, title=title, batch=batch)
    if not batch.selection.is_part:
        print(f"open {study.folder.index}")
        print_end(study)
    absent = labels_without_slide(study.slides, read_labels(labels, keep_na=args.keep_na))
    return 0 if good and not absent else 1


def _on_features(args: argparse.Namespace) -> int:
    if args.labels is None or args.slides is not None:
        raise ConfigError("with --features pass the labels as --labels LABELS.csv, and no slides")
    if (args.objects, args.mpp) != (None, None):
        raise ConfigError("--objects and --mpp were decided when the features were made; leave out")
    if args.device:
        args.set.append(f"objects.device={json.dumps(args.device)}")
    config = load_config(StudyConfig, args.config, args.set, base=args.preset)
    folder = RunFolder(args.out)
    cohort = train_on_features(
        args.features,
        args.labels,
        config,
        folder,
        table=args.table_name,
        keep_na=args.keep_na,
        executor=Batch(executor=executor_from(args, config, folder)).elsewhere,
    )
    print(folder.table("metrics").read_text(encoding="utf-8"), end="")
    print(f"see {args.out}; {len(cohort.slides)} slides, {len(cohort.left_out)} left out")
    return 1 if cohort.left_out else 0


if __name__ == "__main__":
    sys.exit(main())
