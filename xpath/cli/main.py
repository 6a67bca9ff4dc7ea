"""The ``xpath`` command."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, TextIO

from xpath.cli import (
    ask,
    compare,
    demo,
    doctor,
    grid,
    labels,
    pathseg,
    pipelines,
    recognise,
    review,
    sample,
    stages,
    status,
    weights,
)
from xpath.cli.command import Parser, add_commands
from xpath.errors import XPathError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["main"]

COMMANDS = (
    *(module.COMMAND for module in (doctor, labels, sample, grid)),
    *stages.COMMANDS,
    *pipelines.COMMANDS,
    *(
        module.COMMAND
        for module in (status, ask, recognise, review, compare, pathseg, weights, demo)
    ),
)

UNREAD = 141
"""Exit code of work that ended because nobody reads its output, as of all that SIGPIPE ends."""

EPILOG = """\
a first look:
  xpath doctor                           is everything installed?
  xpath demo --out demo-run              the whole chain on synthetic slides; opens in a browser
  xpath labels --find "breast stroma"    what can be asked for
  xpath ask tile.png "where are the lymphocytes?" --region breast
                                         in words, on an image or a slide
  xpath recognise tile.png --region breast
                                         everything at once, without words

your own slides, one stage after the other, or all at once with xpath run:
  xpath segment SLIDES --out RUN --objects breast-tissue-tumor,breast-nuclei-lymphocyte
  xpath features --out RUN
  xpath train LABELS.csv --out RUN
  xpath explain --out RUN
  xpath export --out RUN
  xpath status RUN --watch               how far it is; xpath doctor RUN: is it in order?
  xpath review RUN                       look at it in the browser, note findings
  xpath compare RUN CORRECTED.geojson --slide NAME
                                         against what you corrected in QuPath

the data the segmentor learns from:
  xpath pathseg status DATA              which of the public sources are there
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. The exit code is 0 only if everything went well."""
    parser = build_parser()
    args, rest = parser.parse_known_args(arguments)
    args.rest = rest
    if rest and not getattr(args, "takes_rest", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    with _ended_in_order():
        code = _code(args)
        _flush(sys.stdout, sys.stderr)
        return code


def _code(args: argparse.Namespace) -> int:
    """Exit code of a command, whose errors are told in a line."""
    try:
        return int(args.run(args))
    except XPathError as error:
        print(f"xpath: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in doctor.PACKAGES:
            raise  # a fault of ours, not of the environment
        print(f"xpath: {error}; xpath doctor lists all that is missing", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `xpath labels | head`; of other commands the work was cut short
        return 0 if getattr(args, "lists", False) else UNREAD
    except KeyboardInterrupt:
        print(
            "xpath: interrupted; all slides and stages that are finished are kept, run the same"
            " command again to go on",
            file=sys.stderr,
        )
        return 130


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Takes SIGTERM, which clusters send before they kill, as Ctrl-C.

    So that what is begun is cleared away, and held against no slide.
    """
    first = threading.current_thread() is threading.main_thread()
    if not first or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _flush(*streams: TextIO) -> None:
    """Writes what is left, if anybody reads it. Else Python would at its end, and change the code.

    Args:
        streams: Of the process.
    """
    for stream in streams:
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def build_parser() -> argparse.ArgumentParser:
    """The command line, one sub-command per module."""
    parser = Parser(
        prog="xpath",
        description="Explainable pathology analytics: what on the slide decided, object by object.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    about = f"xpath {version('xpath-pathology')}; the weights inside are CC BY-NC-SA 4.0"
    parser.add_argument("--version", action="version", version=about)
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is going on")
    add_commands(parser, COMMANDS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
