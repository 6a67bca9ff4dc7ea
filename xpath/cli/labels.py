"""``xpath labels``: what can be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpath.cli.command import Command
from xpath.labels import activation_objects, importance_objects, load_labels

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from xpath.labels import Label

__all__ = ["COMMAND"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--region", help="only this region, e.g. breast")
    parser.add_argument(
        "--find", metavar="TEXT", help='one label in any words, e.g. "breast stroma" or "TILs"'
    )
    parser.add_argument(
        "--brca", choices=["importance", "maps"], help="the paper's 12 or 21 breast objects"
    )


def run(args: argparse.Namespace) -> int:
    """Prints a table. Unknown spellings end with a suggestion."""
    tree = load_labels()
    if args.find:
        label = tree.parse(args.find)
        print(label.id, label.prompt, sep="\n")
        return 0
    rows: Iterable[Label] = tree
    if args.brca:
        rows = importance_objects() if args.brca == "importance" else activation_objects()
    chosen = [label for label in rows if args.region in (None, label.region)]
    for label in chosen:
        dice = "-" if label.dice is None else f"{label.dice:.3f}"
        print(f"{label.id:48} masks {label.masks or 0:>6}  Dice {dice:>5}  {label.prompt}")
    print(f"{len(chosen)} labels")
    return 0 if chosen else 1


COMMAND = Command(
    name="labels",
    help="list the 160 PathSeg labels, or find one by any spelling",
    description="The labels of the PathSeg data set, their prompts, how many masks it holds, "
    "and the Dice the paper's own model reaches. Which of them the weights that ship were "
    "taught, and what they score, is in their model card: xpath/segment/weights/mini.",
    arguments=add_arguments,
    run=run,
    lists=True,
)
