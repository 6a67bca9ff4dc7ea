"""``xpath weights``: import published weights, fit presence to weights, draw their embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xpath.cli.command import Command

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]

FEWEST = 5
"""Labels of a layout in the plane."""

DESCRIPTION = """\
Makes a checkpoint folder of weights that others published: BiomedParse, or a PathSegmentor saved
under the same names. The folder is what `xpath segment --set objects.segmentor=W`,
evaluate_segmentor.py --weights and train_segmentor.py --init take. It keeps the sentence the
weights were trained with and shows them images as they were trained: enlarged to 1024 pixels.
"""

EPILOG = """\
examples:
  xpath weights import biomedparse_v1.pt --out W                    tokenizer from the hub
  xpath weights import biomedparse_v1.pt --out W --tokenizer clip/tokenizer.json
  xpath weights import pathsegmentor.pt --out W --template pathsegmentor --tokenizer pubmedbert
  xpath weights import biomedparse_v1.pt --out START --template pathsegmentor --bert pubmedbert
                     where PathSegmentor's training begins: train_segmentor.py --preset paper
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help=".pt or .safetensors, under BiomedParse's names")
    add("--out", type=Path, required=True, metavar="W", help="folder to write")
    add("--tokenizer", type=Path, metavar="PATH", help="tokenizer.json, or a folder with it")
    add("--bert", type=Path, metavar="FOLDER", help="put this BERT in place of the text encoder")
    add(
        "--template",
        default="biomedparse",
        help="sentence it was trained with: biomedparse (default), pathsegmentor, or one of your"
        " own such as '{object} in {region}'",
    )
    add(
        "--by-resolution",
        action="store_true",
        help="show images at 0.25 microns per pixel instead of enlarged to 1024 pixels",
    )
    add("--name", default="", help="name in reports (default: the file's)")
    add("--licence", default="as published", help="licence of the weights, for the model card")


def _run(args: argparse.Namespace) -> int:
    from xpath.segment.checkpoints.importing import TEMPLATES, ImportConfig, import_weights

    config = ImportConfig(
        tokenizer=args.tokenizer,
        bert=args.bert,
        template=TEMPLATES.get(args.template, args.template),
        square=not args.by_resolution,
        name=args.name,
        licence=args.licence,
    )
    info = import_weights(args.file, args.out, config)
    print(f"{args.out}: {info.name}, asked as {info.template!r}")
    return 0


PRESENCE = """\
Fits what decides whether an object is there at all, from images whose objects are known, and writes
presence.json. Beside the weights it is used by every command; elsewhere it is given as --presence.

  calibration   a logistic regression on the mask (the default; also works on slides)
  tests         BiomedParse's four Kolmogorov-Smirnov tests of probability and colour; images only
"""


def _add_presence_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("weights", nargs="?", metavar="W", help="folder or hub id (default: those that ship)")
    add("--data", type=Path, required=True, metavar="DIR", help="images with masks to learn from")
    add("--model", choices=("calibration", "tests"), default="calibration", help="which judge")
    add("--threshold", type=float, help="present from here on (default: 0.5, of tests 0.01)")
    add("--limit", type=int, help="only the first images")
    add("--device", default="cpu", help="where the segmentor runs, such as cuda (default: cpu)")
    add("--out", type=Path, metavar="FILE", help="presence.json (default: beside the weights)")


def _presence(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from xpath.errors import ConfigError, DataError
    from xpath.pathseg.collection import collect
    from xpath.segment.checkpoints.checkpoint import locate
    from xpath.segment.evaluation.presence_calibration import calibrate, fit_tests, untaught_labels
    from xpath.segment.predict.calibration import PRESENCE as NAME
    from xpath.segment.predict.predictor import SegmentPredictor

    if args.weights is None and args.out is None:
        raise ConfigError("the weights that ship stay as they are; give --out presence.json")
    predictor = SegmentPredictor.from_pretrained(args.weights, device=args.device)
    images = collect(args.data)[0][: args.limit]
    if not images:
        raise DataError(f"{args.data} has no training images; wanted train.json or images.csv")
    asked = tqdm(images, desc="asking", unit="image")
    if args.model == "tests":
        judge = fit_tests(predictor, asked, threshold=args.threshold or 0.01)
        judge.save(path := args.out or locate(args.weights) / NAME)
    else:
        strange = untaught_labels(predictor.info.labels)
        fitted = calibrate(predictor, asked, threshold=args.threshold or 0.5, untaught=strange)
        fitted.save(path := args.out or locate(args.weights) / NAME)
    print(f"{path}: {args.model}, learnt from {len(images)} images")
    return 0


EMBEDDINGS = """\
Encodes the sentence of every label and lays them out in the plane (BiomedParse, Fig. 1d): UMAP with
umap-learn (pip install "xpath-pathology[umap]"), else t-SNE of scikit-learn. Silhouette scores tell
how well labels of a region, structure and object type hold together.
"""


def _add_embeddings_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("weights", nargs="?", metavar="W", help="folder or hub id (default: those that ship)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    add("--taught", action="store_true", help="only labels that the weights were taught")
    add("--seed", type=int, default=0, help="of the layout")


def _embeddings(args: argparse.Namespace) -> int:
    from xpath.errors import DataError
    from xpath.export.text_map_figure import text_map_figure
    from xpath.labels import load_labels
    from xpath.segment.evaluation.text_map import silhouettes, text_map
    from xpath.segment.predict.predictor import SegmentPredictor
    from xpath.store.tables import write_table

    predictor = SegmentPredictor.from_pretrained(args.weights)
    taught = set(predictor.info.labels)
    labels = [label for label in load_labels() if not args.taught or label.id in taught]
    if len(labels) < FEWEST:
        raise DataError(f"a layout needs {FEWEST} labels, got {len(labels)}; leave out --taught")
    found = text_map(predictor, labels, seed=args.seed)
    rows = [
        {"label": label.id, "region": label.region, "structure": label.structure,
         "object_type": label.object_type, "x": float(x), "y": float(y)}
        for label, (x, y) in zip(found.labels, found.positions, strict=True)
    ]  # fmt: skip
    write_table(args.out / "embeddings.csv", rows)
    write_table(args.out / "silhouette.csv", silhouettes(found))
    text_map_figure(args.out / "embeddings.png", found)
    for row in silhouettes(found):
        print(f"{row['level']}: silhouette {row['silhouette']:.3f} of {row['groups']} groups")
    print(f"see {args.out / 'embeddings.png'} ({found.method})")
    return 0


COMMAND = Command(
    name="weights",
    help="import published weights, fit presence to them, draw their text embeddings",
    description=DESCRIPTION,
    actions=(
        Command(
            name="import",
            help="BiomedParse's weights, or a PathSegmentor's under the same names",
            description=DESCRIPTION,
            epilog=EPILOG,
            arguments=_add_arguments,
            run=_run,
        ),
        Command(
            name="presence",
            help="learn when to say that an object is not there",
            description=PRESENCE,
            arguments=_add_presence_arguments,
            run=_presence,
        ),
        Command(
            name="embeddings",
            help="draw the labels as the text encoder orders them, with silhouette scores",
            description=EMBEDDINGS,
            arguments=_add_embeddings_arguments,
            run=_embeddings,
        ),
    ),
)
