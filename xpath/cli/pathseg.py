"""``xpath pathseg``: which public sources of PathSeg are there, and making them trainable."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xpath.cli import pathseg_add
from xpath.cli.command import Command
from xpath.errors import DataError, XPathError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xpath.pathseg.build import BuildConfig, BuildReport
    from xpath.pathseg.record import Source
    from xpath.pathseg.status import SourceStatus

__all__ = ["COMMAND"]

DESCRIPTION = """\
PathSeg is 17 public data sets under one set of labels. xpath ships none of them: each has its own
licence, and you download it yourself. Unpack every set into a folder of its name below one ROOT:

  ROOT/GlaS/...   ROOT/PanNuke/...   ROOT/MoNuSAC/...

1. xpath pathseg status ROOT       what is there, what is missing, where to get it, which licence
2. xpath pathseg build ROOT --out DIR
                                   everything at 40x in images of 1024 x 1024, in the layout of
                                   BiomedParseData, split into train and test
3. xpath pathseg add PICTURE GEOJSON --region R --out DIR/ours
                                   what you drew or corrected in QuPath, beside the sources
"""

STATUS = """\
A line per source: whether its published layout is complete, the images found, and the numbers of
the paper's Table 1. Counting masks needs every image decoded, so it is done on request.
"""

STATUS_EPILOG = """\
examples:
  xpath pathseg status data                           what is there? takes seconds
  xpath pathseg status data --sources GlaS,CRAG       only these
  xpath pathseg status data --count --workers 8       decode all, count images and masks
  xpath pathseg status data --built pathseg --tables  count what was built; Tables 2 to 5 as well
  xpath pathseg status data --tables T                Tables 1 to 5 as T/table1.csv and so on

columns: files are images as published; images are the standardised ones that have a mask, for
large files are cut into windows; masks are one per image and label; train/test counts masks.
"""

PRINTED = Path()
"""Tables are asked for without a folder."""

BUILD = """\
Converts sources: to 40x by their magnification, sides above 1500 px cut into windows of 1024 with
even overlap, every window to SIZE x SIZE; masks one file per label. The official split where there
is one, else 80 to 20 by patient or slide where known, else by image; frozen in DIR/splits.csv.

Stop it whenever you like: the same command goes on where it was. A broken image is written down in
DIR/SOURCE/failed.csv and the others go on; the exit code is 1 if anything failed.
"""

BUILD_EPILOG = """\
examples:
  xpath pathseg build data --out pathseg --workers 8        all that is there
  xpath pathseg build data --out pathseg --sources GlaS,TNBC
  xpath pathseg build data --out native --size native       windows keep their own size

what is written, for every source:
  DIR/SOURCE/train/IMG_pathology_REGION.png                 pixels
  DIR/SOURCE/train_mask/IMG_pathology_REGION_TARGET.png     one mask per label, 255 is the object
  DIR/SOURCE/train_ignore/IMG_pathology_REGION.png          where nothing is known, if anywhere
  DIR/SOURCE/train.json                                     images with their mpp, masks, sentences;
                                                            test alike

then: train with pipelines/train_segmentor.py, evaluate with pipelines/evaluate_segmentor.py.
"""


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("--count", action="store_true", help="decode all images to count masks")
    parser.add_argument("--built", type=Path, metavar="DIR", help="count what was built there")
    parser.add_argument(
        "--tables",
        nargs="?",
        type=Path,
        const=PRINTED,
        metavar="DIR",
        help="Tables 2 to 5, counted if need be; with DIR, Tables 1 to 5 as CSV as well",
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="DIR",
        help="treemap, bars, Sankey diagram and pies (Fig. 1), of what was counted, else published",
    )


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--size", type=_size, default=1024, help="side of the images, or native (default: 1024)"
    )
    parser.add_argument("--layout", choices=["biomedparse"], default="biomedparse")
    parser.add_argument("--seed", type=int, default=0, help="of the split, where none is official")
    parser.add_argument(
        "--physical",
        action="store_true",
        help="scale by each image's published micrometres per pixel, not by nominal magnification",
    )
    parser.add_argument(
        "--keep-empty", action="store_true", help="keep images without any mask; the paper does not"
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder that holds the sources")
    parser.add_argument("--sources", metavar="A,B", help="only these, separated by commas")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _size(text: str) -> int | None:
    if text == "native":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; wanted a number of pixels, or native")
    return int(text)


def _status(args: argparse.Namespace) -> int:
    """Prints the tables. Returns 1 if an image could not be read."""
    from xpath.pathseg.status import status_lines, table_lines, write_tables
    from xpath.pathseg.tally import Tally

    statuses = [_look(source, args) for source in _sources(args)]
    for line in status_lines(statuses):
        print(line)
    if args.tables:
        everything = Tally()
        for status in statuses:
            everything.update(status.tally or Tally())
        for line in table_lines(everything):
            print(line)
        if args.tables != PRINTED:
            write_tables(args.tables, statuses, everything)
    if args.figures:
        _draw(args.figures, statuses)
    return 1 if any(status.failed for status in statuses) else 0


def _draw(folder: Path, statuses: Sequence[SourceStatus]) -> None:
    """Fig. 1 of the sources that were counted, or of the published numbers if none was."""
    from xpath.export.data_figures import write_data_figures
    from xpath.labels import load_labels
    from xpath.pathseg.tally import Tally

    counted = [status for status in statuses if status.tally and status.tally.masks]
    everything = Tally()
    for status in counted:
        everything.update(status.tally or Tally())
    by_source = {
        status.info.name: status.tally.masks if status.tally else status.info.masks
        for status in counted or statuses
    }
    published = {label.id: label.masks or 0 for label in load_labels()}
    by_label = everything.by_label if counted else published
    write_data_figures(folder, by_source, by_label, counted=bool(counted))
    print(f"see {folder / 'treemap.png'}")


def _look(source: Source, args: argparse.Namespace) -> SourceStatus:
    from xpath.pathseg.status import count_built, count_source, look_at

    status = look_at(source, args.root)
    if args.built:
        return replace(status, tally=count_built(args.built, source.info.name))
    if status.files and (args.count or args.tables):
        tally, failed = count_source(source, args.root, _config(args))
        return replace(status, tally=tally, failed=failed)
    return status


def _build(args: argparse.Namespace) -> int:
    """Converts source after source. Returns 1 if an image or source failed, or none was there."""
    from xpath.pathseg.build import build_source
    from xpath.pathseg.status import look_at

    built, good = 0, True
    for source in _sources(args):
        status = look_at(source, args.root)
        for what in status.missing if status.files or args.sources else ():
            print(f"xpath: {source.info.name} is {status.state}: {what}", file=sys.stderr)
        if not status.files:
            good = good and not args.sources  # asked for by name, it must be there
            continue
        try:
            report = build_source(source, args.root, args.out, _config(args))
        except XPathError as error:
            print(f"xpath: {source.info.name}: {error}", file=sys.stderr)
            good = False
            continue
        built += 1
        good = _print_report(report, source, args.out) and good
    if not built and good:
        print(f"xpath: no source in {args.root}; see `xpath pathseg status`", file=sys.stderr)
    return 0 if good and built else 1


def _print_report(report: BuildReport, source: Source, out: Path) -> bool:
    """Prints how a source was built. Returns True if nothing failed."""
    tally = report.tally
    print(
        f"{report.source}: {report.converted} files converted, {report.kept} kept,"
        f" {len(report.failed)} failed; {tally.images:,} images and {tally.masks:,} masks"
        f" (published {source.info.images:,} and {source.info.masks:,})"
    )
    for reason in list(report.failed.values())[:3]:
        print(f"xpath: {reason}", file=sys.stderr)
    if report.failed:
        print(f"xpath: all failures: {out / report.source / 'failed.csv'}", file=sys.stderr)
    return not report.failed


def _config(args: argparse.Namespace) -> BuildConfig:
    from xpath.pathseg.build import BuildConfig
    from xpath.pathseg.splits import SplitConfig
    from xpath.pathseg.standardisation import StandardConfig

    progress = not args.quiet
    if "size" not in args:  # status counts as the paper does
        return BuildConfig(workers=args.workers, progress=progress)
    standard = StandardConfig(size=args.size, physical=args.physical, keep_empty=args.keep_empty)
    split = SplitConfig(seed=args.seed)
    return BuildConfig(standard=standard, split=split, workers=args.workers, progress=progress)


def _sources(args: argparse.Namespace) -> Sequence[Source]:
    """The sources asked for, or all. Unknown names end with a suggestion."""
    from xpath.pathseg.sources import SOURCES, load_source

    if not args.root.is_dir():
        raise DataError(f"{args.root} is no folder; wanted one that holds a folder per source")
    if args.sources:
        return [load_source(name.strip()) for name in args.sources.split(",") if name.strip()]
    return list(SOURCES.values())


COMMAND = Command(
    name="pathseg",
    help="the public sources of PathSeg: what is there, and making it trainable",
    description=DESCRIPTION,
    actions=(
        Command(
            name="status",
            help="what of each source is present, beside what is published",
            description=STATUS,
            epilog=STATUS_EPILOG,
            arguments=_status_arguments,
            run=_status,
        ),
        Command(
            name="build",
            help="convert what is there into one trainable layout",
            description=BUILD,
            epilog=BUILD_EPILOG,
            arguments=_build_arguments,
            run=_build,
        ),
        pathseg_add.COMMAND,
    ),
)
