"""``xpath segment``, ``features``, ``train``, ``explain``, ``export``: a run, stage by stage."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xpath.cli.batch_options import (
    add_batch_options,
    add_executor_options,
    batch_from,
    executor_from,
    require_tools,
    show_plan,
    tell_problems,
    tell_unready,
)
from xpath.cli.command import Command, microns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xpath.batch.ledger import StageReport
    from xpath.batch.slides import SlideEntry
    from xpath.study.config import StudyConfig
    from xpath.study.folder import RunFolder
    from xpath.study.study import Study

__all__ = [
    "COMMANDS",
    "add_keep_na",
    "add_study_options",
    "beside_known",
    "finish",
    "print_end",
    "study_from",
]

SEALS = ("slides/*/*.done.json", "models/*.done.json")
"""Where a run keeps word of what is finished."""
# fmt: off
METHODS = ("activation", "attention", "centred", "gradient_x_input", "integrated_gradients",
           "leave_one_out", "lrp", "random", "shapley")
# fmt: on
"""Those of ``xpath.explain.attribution``, which cannot be loaded before there are packages."""


def add_study_options(parser: argparse.ArgumentParser) -> None:
    """Options that decide what a run does."""
    parser.add_argument(
        "--objects",
        help="labels to look for, separated by commas, each perhaps with words of its own"
        " (LABEL=SENTENCE); by default those of the run, for a new one those of the paper's 21 that"
        " the weights were taught or have a nearest label for (objects.parents)",
    )
    parser.add_argument("--mpp", type=microns, help="microns per pixel of slides that store none")
    parser.add_argument("--device", help="where the networks run, such as cuda (default: cpu)")
    parser.add_argument("--config", type=Path, help="settings in TOML")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="make finished results again that depend on settings given now",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=C",
        help="one setting, e.g. grid.patch_um=256 or objects.encoder=resnet50; may be repeated",
    )


def add_keep_na(parser: argparse.ArgumentParser) -> None:
    """The option for those who have a class of that name."""
    parser.add_argument(
        "--keep-na",
        action="store_true",
        help="NA, None, null or - in the column label is a class (default: no label)",
    )


def study_from(
    args: argparse.Namespace,
    labels: Path | None = None,
    *,
    keep: bool = False,
    save: bool = True,
    preset: StudyConfig | None = None,
) -> Study:
    """The study that the arguments describe.

    Of a run that is there already all settings stay that the arguments do not change.

    Args:
        args: Of a command with ``add_study_options``.
        labels: Table of the slides' classes.
        keep: The run keeps slides that it has already and the arguments do not name.
        save: Write it to ``run.json``.
        preset: Where settings begin, instead of those of the run or the defaults.

    Raises:
        ConfigError: The run has finished results of other settings, and ``--replace`` is not given.
        XPathError: Something no slide could be segmented with; the run is then left as it was.
    """
    from xpath.batch.slides import find_slides, read_labels, with_labels
    from xpath.config import load_config
    from xpath.study.config import StudyConfig
    from xpath.study.folder import RunFolder
    from xpath.study.meanwhile import save_with_added
    from xpath.study.study import Study, open_study

    folder = RunFolder(args.out)
    before = open_study(args.out).config if folder.settings.exists() else None
    config = load_config(StudyConfig, args.config, _overrides(args), base=preset or before)
    if before is not None and not args.replace:
        _refuse_overwriting(folder, before, config)
    slides = find_slides(args.slides)
    if keep:
        slides = beside_known(args.out, slides)
    if labels is not None:
        slides = with_labels(slides, read_labels(labels, keep_na=args.keep_na))
    study = Study(folder, config, tuple(slides))
    require_tools(study)
    if args.objects:  # free spellings may mean another label than was thought
        names = ", ".join(label.setting for label in study.labels)
        print(f"xpath: looking for {names}", file=sys.stderr)
    if study.asked.summary:
        print(f"xpath: {study.asked.summary}", file=sys.stderr)
    return save_with_added(study, keep=keep) if save else study


def print_end(study: Study) -> None:
    """Prints how good the classifiers are, and each slide that failed with its stage and reason."""
    from xpath.store.tables import read_table

    for row in read_table(study.folder.table("metrics"), auc=float):
        if row["split"] == "test":
            print(f"{row['model']}: AUC {row['auc']:.3f} on {row['slides']} test slides")
    names = {entry.slide_id for entry in study.slides}  # the table knows earlier ones too
    for row in read_table(study.folder.ledger):
        if row["status"] == "failed" and row["slide_id"] in names:
            reason = f"{row['slide_id']} failed in {row['stage']}: {row['reason']}"
            print(f"{reason} (see {study.folder.logs})", file=sys.stderr)


def _overrides(args: argparse.Namespace) -> list[str]:
    """Settings that the options stand for, as in ``--set``."""
    from xpath.labels import parse_object

    overrides = list(args.set)
    if args.objects is not None:
        asked = [parse_object(text) for text in args.objects.split(",")]
        overrides += [
            f"objects.labels={json.dumps([label.setting for label in asked])}",
            f"explain.labels={json.dumps([label.id for label in asked])}",
        ]
    if args.mpp is not None:
        overrides.append(f"default_mpp={args.mpp}")
    if args.device is not None:
        overrides.append(f'objects.device="{args.device}"')
    return overrides


def _refuse_overwriting(folder: RunFolder, before: StudyConfig, after: StudyConfig) -> None:
    """Refuses other settings for a run that has finished results.

    Raises:
        ConfigError: It has some, and some settings differ.
    """
    from xpath.errors import ConfigError
    from xpath.study.keys import settings_that_differ

    different = settings_that_differ(before, after)
    finished = any(next(folder.root.glob(where), None) for where in SEALS)
    if different and finished:
        shown = "; ".join(f"{name} was {old}, now {new}" for name, (old, new) in different.items())
        raise ConfigError(
            f"{folder.root} has finished results of other settings ({shown}); leave out these"
            " options to go on with the settings of the run, add --replace to make again what"
            " depends on them, or choose another --out"
        )


def beside_known(root: Path, slides: Sequence[SlideEntry]) -> list[SlideEntry]:
    """Slides, and those that a run has already, with its labels for files it knows.

    Raises:
        StoreError: ``run.json`` is damaged.
    """
    from xpath.study.folder import RunFolder
    from xpath.study.study import open_study

    if not RunFolder(root).settings.exists():
        return list(slides)
    known = {entry.slide_id: entry for entry in open_study(root).slides}
    merged = dict(known)
    for entry in slides:
        before = known.get(entry.slide_id)
        if before is None or before.path.resolve() != entry.path.resolve():
            merged[entry.slide_id] = entry
    others = len(known.keys() - {entry.slide_id for entry in slides})
    if others:
        print(f"xpath: {root} keeps its {others} other slides", file=sys.stderr)
    return list(merged.values())


def finish(*reports: StageReport) -> int:
    """Prints which slides failed and where to look. Returns 1 if any did."""
    failed = {slide: report.stage for report in reports for slide in report.failed}
    for slide, stage in failed.items():
        print(f"xpath: {slide} failed in {stage}; see slides.csv and logs/", file=sys.stderr)
    return 1 if failed else 0


def _segment_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("slides", type=Path, nargs="+", help="slide files or folders of slides")
    add_study_options(parser)
    add_batch_options(parser)


def _segment(args: argparse.Namespace) -> int:
    from xpath.study.chain import segment_stage

    study = study_from(args, keep=True, save=not args.dry_run)
    batch = batch_from(args, study)
    if args.dry_run:
        return show_plan(study, "segment", batch)
    tell_problems(study, batch)
    return finish(segment_stage(study, batch=batch))


def _features(args: argparse.Namespace) -> int:
    from xpath.study.chain import features_stage
    from xpath.study.study import open_study

    study = open_study(args.out)
    batch = batch_from(args, study)
    if args.dry_run:
        return show_plan(study, "features", batch)
    return finish(features_stage(study, batch=batch))


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "labels", type=Path, help="CSV with slide_id, label, and if wanted patient and site"
    )
    add_keep_na(parser)
    parser.add_argument(
        "--controls",
        action="store_true",
        help="also train controls of the object-aware classifier: without names, without objects,"
        " and a standard one of as many weights",
    )
    add_executor_options(parser)


def _train(args: argparse.Namespace) -> int:
    from xpath.batch.slides import labels_without_slide, read_labels, with_labels
    from xpath.study.chain import Batch, train_stage
    from xpath.study.meanwhile import save_with_added
    from xpath.study.study import open_study

    study = open_study(args.out)
    labels = read_labels(args.labels, keep_na=args.keep_na)
    slides = with_labels(study.slides, labels)
    config = study.config
    if args.controls:
        config = replace(config, classifier=config.classifier.with_controls())
    batch = Batch(executor=executor_from(args, study.config, study.folder))
    labelled = replace(study, slides=tuple(slides), config=config)
    cohort = train_stage(labelled, batch)
    save_with_added(labelled)  # a table that cannot train leaves the run as it was
    print((args.out / "tables" / "metrics.csv").read_text(), end="")
    return 1 if cohort.left_out or labels_without_slide(slides, labels) else 0


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    add_batch_options(parser)
    parser.add_argument(
        "--method",
        action="append",
        default=[],
        choices=[*METHODS, "all"],
        help="also attribute the predictions by this method and judge it (maps, objects,"
        " faithfulness): slides/ID/attributions, tables/faithfulness.csv; may be repeated",
    )
    parser.add_argument(
        "--hide",
        choices=["blur", "inside_blur", "fill", "surround_fill", "removal"],
        help="how objects are hidden (default: that of the run; blur, as the paper)",
    )
    parser.add_argument(
        "--replace", action="store_true", help="explain again slides that are explained otherwise"
    )


def _explain(args: argparse.Namespace) -> int:
    from xpath.study.chain import attributions_stage, explain_stage
    from xpath.study.meanwhile import save_with_added

    study = _to_explain(args)
    batch = batch_from(args, study)
    if args.dry_run:
        stages = ("explain", "attributions") if study.config.explain.methods else ("explain",)
        return max(show_plan(study, stage, batch) for stage in stages)
    study = save_with_added(study)
    reports = [explain_stage(study, batch)]
    if study.config.explain.methods:
        reports.append(attributions_stage(study, batch))
    return max(finish(*reports), tell_unready(study, batch))


def _to_explain(args: argparse.Namespace) -> Study:
    """The run's study, with the methods and the way of hiding that were asked for.

    Raises:
        ConfigError: Slides are explained with another way of hiding, and no ``--replace``.
    """
    from xpath.study.study import open_study

    study = open_study(args.out)
    explain = study.config.explain
    asked = METHODS if "all" in args.method else tuple(dict.fromkeys(args.method))
    explain = replace(explain, methods=asked or explain.methods, hide=args.hide or explain.hide)
    config = replace(study.config, explain=explain)
    explained = any(study.folder.root.glob("slides/*/explanation.h5.done.json"))
    if explained and not args.replace:
        _refuse_overwriting(study.folder, study.config, config)
    return replace(study, config=config)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    add_batch_options(parser)
    parser.add_argument(
        "--pyramids",
        action="store_true",
        help="also the maps as OME-TIFF (scores and colours), slides/ID/pyramids/",
    )
    parser.add_argument(
        "--dicom-seg",
        action="store_true",
        help="also the masks of DICOM slides as DICOM SEG, slides/ID/objects.dcm, for archives"
        " and DICOM viewers; needs highdicom",
    )


def _export(args: argparse.Namespace) -> int:
    from xpath.errors import StoreError
    from xpath.study.chain import dicom_stage, export_stage, pyramids_stage
    from xpath.study.study import open_study

    study = open_study(args.out)
    batch = batch_from(args, study)
    if args.dry_run:
        return show_plan(study, "export", batch)
    # Masks are enough for these, so a run without classifiers has them as well.
    segmentations = [dicom_stage(study, batch)] if args.dicom_seg else []
    reports = [*segmentations, export_stage(study, title=args.out.resolve().name, batch=batch)]
    if args.pyramids:
        reports.append(pyramids_stage(study, batch))
    if not any(report.done or report.failed for report in reports):
        raise StoreError(
            f"{args.out} has no explained slides, so there is nothing to export; run"
            f" `xpath explain --out {args.out}` first"
        )
    code = finish(*reports)
    print(f"open {args.out / 'index.html'}")
    return code


def _stage(
    name: str,
    what: str,
    work: Callable[[argparse.Namespace], int],
    own_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
) -> Command:
    """The command of a stage of a run, which all have ``--out``."""

    def arguments(parser: argparse.ArgumentParser) -> None:
        if own_arguments:
            own_arguments(parser)
        parser.add_argument("--out", type=Path, required=True, help="the run folder")

    about = f"{what[0].upper()}{what[1:]}. Run it again to go on where it stopped."
    return Command(name=name, help=what, description=about, arguments=arguments, run=work)


COMMANDS = (
    _stage("segment", "find objects in slides with words", _segment, _segment_arguments),
    _stage("features", "extract patch and object features", _features, add_batch_options),
    _stage("train", "train the standard and the object-aware classifier", _train, _train_arguments),
    _stage("explain", "explain the test slides", _explain, _explain_arguments),
    _stage("export", "write pictures, QuPath files and pages", _export, _export_arguments),
)
