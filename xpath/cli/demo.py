"""``xpath demo``: the whole chain on drawn slides, and on one of yours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xpath.cli.command import Command, microns

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]

DESCRIPTION = """\
Draws a cohort of slides in which one object decides the class and all others are decoys; segments
them with words, trains both classifiers, explains the test slides, and writes pages to open in a
browser. No network, no GPU, no data needed. The segmentor's masks are real predictions.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--out", type=Path, default=Path("demo-run"), help="folder to write")
    parser.add_argument("--slides", type=int, default=24, help="slides to draw")
    parser.add_argument(
        "--workers", type=int, help="slides at once (default: as many as cores, 4 at most)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other slides")
    parser.add_argument(
        "--planted",
        default="breast-tissue-necrosis or debris",
        help="the object that decides (default: %(default)s)",
    )
    parser.add_argument("--slide", type=Path, help="explain a slide of your own with this model")
    parser.add_argument("--mpp", type=microns, help="its microns per pixel, if it stores none")


def _run(args: argparse.Namespace) -> int:
    from xpath.cli.demo_run import run

    return run(args)


COMMAND = Command(
    name="demo",
    help="the whole chain on synthetic slides, in minutes",
    description=DESCRIPTION,
    arguments=add_arguments,
    run=_run,
)
