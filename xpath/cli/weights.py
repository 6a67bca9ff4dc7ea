"""``xpath weights``: published weights as a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xpath.cli.command import Command

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]

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


COMMAND = Command(
    name="weights",
    help="make a checkpoint folder of published weights",
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
    ),
)
