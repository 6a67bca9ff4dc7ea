"""``xpath compare``: the run's masks against what a person drew or corrected in QuPath."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xpath.cli.command import Command
from xpath.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xpath.batch.slides import SlideEntry
    from xpath.store.masks import SlideMasks
    from xpath.study.agreement import Agreement, Comparison
    from xpath.study.corrections import Corrections
    from xpath.study.study import Study

__all__ = ["COMMAND"]

DESCRIPTION = """\
Measures the agreement of the objects the model found on a slide with those a person drew or
corrected: Dice, IoU, areas and numbers of objects, label by label. Neither is taken for the truth.
"""

EPILOG = """\
example:
  1. xpath export --out RUN
  2. in QuPath open the slide, run RUN/slides/case-7/export/open_in_qupath.groovy, correct, draw
  3. File, Export objects as GeoJSON, all objects, to corrected.geojson
  4. xpath compare RUN corrected.geojson --slide case-7 --out case-7.csv

what the classes mean:
  a label of the run     by any spelling that fits only one: breast-nuclei-lymphocyte, Lymphocytes;
                         an object without a class goes by its name
  Region*, ROI           annotations that bound what is compared, so that a slide need not be drawn
                         to its end; without them it is compared wherever there are patches
  Ignore*                passed over, as are the tissue and the tiles that xpath exports
Any other class is refused, unless --objects says what to compare.

columns:
  model, corrected       area in square microns, square pixels of level 0 where the slide has no
                         resolution; both: what the two share
  objects                of the model: those of the run's objects.h5, as exported and reviewed;
                         of the file: those drawn. One that lies inside in part counts
A label that neither has shows - for Dice and IoU.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="the run folder")
    parser.add_argument(
        "corrected", metavar="CORRECTED.geojson", type=Path, help="QuPath's export, also zipped"
    )
    parser.add_argument("--slide", metavar="NAME", help="which slide; needed if there are several")
    parser.add_argument(
        "--objects",
        help="labels to compare, separated by commas, also those the file has none of;"
        " by default those of the file",
    )
    parser.add_argument("--out", metavar="FILE.csv", type=Path, help="write the table there, too")


def run(args: argparse.Namespace) -> int:
    """Prints a table."""
    from xpath.store.masks import open_masks
    from xpath.store.tables import write_table
    from xpath.study.agreement import compare
    from xpath.study.corrections import chosen_labels, read_corrections
    from xpath.study.slides import objects_of
    from xpath.study.study import open_study

    study = open_study(args.run_folder)
    entry = _entry(study, args.slide)
    masks = open_masks(study.folder.masks(entry.slide_id))
    names = [name.strip() for name in (args.objects or "").split(",") if name.strip()]
    with study.open_slide(entry) as slide:
        bounds = slide.bounds
    only = chosen_labels(names, masks.labels)
    corrections = read_corrections(args.corrected, masks.labels, bounds=bounds, only=only)
    compared = compare(
        masks,
        objects_of(study, entry),
        corrections.objects,
        corrections.regions,
        slide_id=entry.slide_id,
    )
    _report(masks, corrections)
    print(_where(compared, len(corrections.regions)))
    print(*_table(compared.rows), sep="\n")
    print(f"counted as objects of the model: {compared.rows[0].rule}")
    if args.out:
        write_table(args.out, compared.rows)
        print(f"written to {args.out}")
    return 0


def _entry(study: Study, name: str | None) -> SlideEntry:
    """The slide that is meant."""
    known = {entry.slide_id: entry for entry in study.slides}
    if name is None and len(known) == 1:
        return study.slides[0]
    if name in known:
        return known[name]
    shown = ", ".join(list(known)[:10]) + (", ..." if len(known) > 10 else "")
    got = "no slide was named" if name is None else f"no slide {name!r} in {study.folder.root}"
    raise DataError(f"{got}; choose one of its {len(known)} with --slide: {shown}")


def _report(masks: SlideMasks, corrections: Corrections) -> None:
    """Prints on stderr how classes were read and what was left out."""
    for name, label in corrections.meant.items():
        print(f"xpath: class {name!r} is taken for {label}", file=sys.stderr)
    if corrections.unnamed:
        print(
            f"xpath: objects without a class, left out: {corrections.unnamed}; give them one in"
            " QuPath",
            file=sys.stderr,
        )
    if corrections.others:
        print(f"xpath: classes not asked for: {', '.join(corrections.others)}", file=sys.stderr)
    silent = [label for label in masks.labels if label not in corrections.objects]
    if silent:
        print(
            f"xpath: not compared: {', '.join(silent)}; if the person found none of them, name them"
            " in --objects",
            file=sys.stderr,
        )


def _where(compared: Comparison, regions: int) -> str:
    """Where it was compared, in words."""
    unit = compared.rows[0].unit
    area = _area(compared.area, unit)
    if not regions:
        return f"compared wherever there are patches: {area}"
    marked = _area(compared.marked, unit)
    many = "region" if regions == 1 else "regions"
    rest = "" if area == marked else f" of {marked}; where there are no patches nothing is known"
    return f"compared in {regions} {many} of interest: {area}{rest}"


def _area(area: float, unit: str) -> str:
    return f"{area / 1e6:.4g} mm2" if unit == "um2" else f"{area:.0f} px"


def _table(rows: Sequence[Agreement]) -> list[str]:
    """Lines of the table, columns aligned."""
    from xpath.store.tables import aligned

    unit = rows[0].unit
    head = ("label", "Dice", "IoU", f"model {unit}", f"corrected {unit}", f"both {unit}")
    lines: list[tuple[str, ...]] = [(*head, "model objects", "corrected objects")]
    for row in rows:
        areas = (row.model_area, row.corrected_area, row.both_area)
        lines.append((
            row.label,
            _share(row.dice),
            _share(row.iou),
            *(f"{area:.0f}" for area in areas),
            str(row.model_objects),
            str(row.corrected_objects),
        ))
    return list(aligned(lines))


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


COMMAND = Command(
    name="compare",
    help="compare masks with objects drawn or corrected in QuPath",
    description=DESCRIPTION,
    epilog=EPILOG,
    arguments=add_arguments,
    run=run,
)
