"""``xpath recognise``: everything in an image at once, without a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xpath.cli.command import Command, microns

if TYPE_CHECKING:
    import argparse

    from xpath.labels import Label
    from xpath.segment.predict.predictor import SegmentPredictor

__all__ = ["COMMAND"]

DESCRIPTION = """\
Asks an image for every label of a region that the weights were taught, drops what is not there, and
gives every pixel to one label at most (BiomedParse's object recognition). Tissue, cells and nuclei
lie within each other, so each structure has a label map of its own.
"""

EPILOG = """\
examples:
  xpath recognise tile.png --region breast --mpp 0.25
  xpath recognise tile.png --region colon --structure nuclei --rules paper
  xpath recognise tile.png --region breast --presence ks.json   what the tests refuse is dropped

written to --out (by default recognised-NAME):
  recognised.csv            a row per label asked: recognised or not, score, pixels
  STRUCTURE/NAME.png        label map, 0 where nothing is; STRUCTURE/labels.csv names the values
  objects.geojson           outlines for QuPath
  overlay.png               the image with the objects in their colours
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add = parser.add_argument
    add("image", type=Path, metavar="IMAGE", help="an image such as PNG or JPEG")
    add("--region", required=True, help="what it shows, e.g. breast")
    add("--structure", choices=("cell", "nuclei", "tissue"), help="only this one")
    add("--all", action="store_true", help="also labels that the weights never learnt")
    add("--rules", choices=("code", "paper"), default="code", help="BiomedParse's two versions")
    add("--presence", type=Path, help="presence.json: labels it takes for absent are dropped")
    add("--mpp", type=microns, help="microns per pixel of the image")
    add("--weights", metavar="PATH", help="segmentor: folder or hub id (default: those that ship)")
    add("--device", default="cpu", help="where the segmentor runs, such as cuda (default: cpu)")
    add("--out", type=Path, metavar="DIR", help="folder to write (default: recognised-NAME)")


def run(args: argparse.Namespace) -> int:
    """Writes the files and prints what was recognised. Returns 1 if nothing was."""
    from dataclasses import replace

    from xpath.ask.recognised import write_recognised
    from xpath.pathseg.reading import read_image
    from xpath.segment.predict.calibration import load_presence
    from xpath.segment.predict.predictor import SegmentPredictor
    from xpath.segment.predict.presence import mean_probability
    from xpath.segment.predict.recognition import CODE, PAPER, recognise

    image = read_image(args.image)
    predictor = SegmentPredictor.from_pretrained(args.weights, device=args.device)
    rules = CODE if args.rules == "code" else PAPER
    judge = load_presence(args.presence) if args.presence else None
    if judge is not None:
        rules = replace(rules, min_score=judge.threshold)
    found = {
        structure: recognise(
            predictor, image, labels=labels, mpp=args.mpp, rules=rules,
            score=judge or mean_probability,
        )
        for structure, labels in _asked(args, predictor).items()
    }  # fmt: skip
    folder = args.out or Path(f"recognised-{args.image.stem}")
    paths = write_recognised(folder, image, args.image.stem, found, mpp=args.mpp)
    names = [name for one in found.values() for name in one.names]
    print("\n".join(names) or "nothing was recognised")
    print(f"see {paths[0]} and {paths[2]}")
    return 0 if names else 1


def _asked(args: argparse.Namespace, predictor: SegmentPredictor) -> dict[str, list[Label]]:
    """Labels to ask for, by structure.

    Raises:
        LabelError: No such region, or no label of it was taught.
    """
    from xpath.errors import LabelError
    from xpath.labels import load_labels

    taught = set(predictor.info.labels)
    asked: dict[str, list[Label]] = {}
    for label in load_labels().children(args.region):
        wanted = args.structure in (None, label.structure)
        if wanted and (args.all or not taught or label.id in taught):
            asked.setdefault(label.structure, []).append(label)
    if not asked:
        raise LabelError(
            f"{predictor.info.name} was taught no {args.structure or 'label'} of {args.region};"
            " --all asks for those it never learnt"
        )
    return asked


COMMAND = Command(
    name="recognise",
    help="find everything in an image at once: label maps, table, outlines",
    description=DESCRIPTION,
    epilog=EPILOG,
    arguments=add_arguments,
    run=run,
)
