"""The command line of a training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xpath.segment.training import options
from xpath.segment.training.batches import batch_shapes
from xpath.segment.training.precision import AUTO, PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["training_arguments"]


def training_arguments(
    description: str | None, split: Path, words: Sequence[str] | None = None
) -> argparse.Namespace:
    """Settings of a training from its command line, a preset's where that does not give them.

    Args:
        description: Of the command.
        split: Default of ``--split``.
        words: Of the command line; those of this process if not given.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_options(parser, split)
    parser.set_defaults(**options.PRESETS[parser.parse_known_args(words)[0].preset])
    return parser.parse_args(words)


def _add_options(parser: argparse.ArgumentParser, split: Path) -> None:
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, help="annotated images, see above")
    add("--mpp", action="append", default=[], metavar="SOURCE=X", help="where SOURCE does not tell")
    add("--out", type=Path, required=True, help="folder of the run")
    add("--split", type=Path, default=split, help="which images are held out, and validated")
    add("--preset", choices=options.PRESETS, default="own", help="see above")
    add("--model", choices=options.MODELS, default="mini", help="init: as the checkpoint of --init")
    add("--init", type=Path, help="checkpoint to take fitting weights from")
    add("--set", type=options.settings, default={}, help="pixel_dim=64,...: other sizes of it")
    add("--epochs", type=float, default=200, help="length of the schedule, in crops per image")
    add("--steps", type=int, help="its length in steps, instead")
    add("--accumulate", type=int, default=1, help="parts of a batch, one after the other")
    add("--minutes", type=float, default=float("inf"), help="stop after, to resume")
    add("--shapes", type=batch_shapes, default="32x256", help="crops x pixels, by turns")
    add("--memory-gb", type=float, default=8, help="keep larger data on disk")
    add("--emphasis", type=options.factors, default={}, help="source=2,...: to see more of")
    add("--shares", type=options.factors, default={}, help="source=0.1,...: of all crops")
    add("--compose", type=float, default=0, help="share of tissue crops set into others")
    add("--unions", type=float, default=1, help="how often to ask for several classes as one")
    add("--drawn", type=int, default=0, help="fields of drawn tissue to add")
    _add_recipe(parser)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--lr", type=float, default=8e-4, help="largest learning rate")
    add("--encoder", type=Path, help="pretrained weights of the image encoder, a state dict")
    add("--encoder-lr", type=float, default=1, help="its learning rate, as a share of --lr")
    add("--text-lr", type=float, default=1, help="that of the text encoder, likewise")
    add("--contrast", type=float, default=0, help="weight of the loss between object classes")
    add("--ema", type=float, default=0.999, help="decay of the mean of the weights; 0: none")
    add("--prompts", type=int, default=4, help="questions per crop")
    add("--drop-path", type=float, default=0.1, help="stochastic depth")
    add("--full-heads", type=int, default=0, help="last answers judged at full size; 0: all")
    add("--precision", choices=PRECISIONS, default=AUTO, help="auto: by the processor")
    add("--device", default="cpu", help="cpu or cuda")
    add("--workers", type=int, default=0, help="processes that make batches")
    add("--validate-steps", type=int, default=0, help="steps between validations")
    add("--seed", type=int, default=0, help="decides everything random")
