"""A sub-command of ``xpath``: its name, its arguments, its work."""

from __future__ import annotations

import argparse
import difflib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

__all__ = ["Command", "Parser", "add_commands", "microns"]


def microns(text: str) -> float:
    """Microns per pixel of an option, with a decimal point or comma.

    Raises:
        argparse.ArgumentTypeError: It is no length.
    """
    from xpath.store.tables import parse_number

    try:
        value = parse_number(text)
    except ValueError:
        value = math.nan
    if 0 <= value < math.inf:
        return value
    raise argparse.ArgumentTypeError(
        f"must be microns per pixel, often 0.25 (40x) or 0.5 (20x), got {text!r}"
    )


class _Defaults(argparse.HelpFormatter):
    """Help that names the default of every option that has one worth a word."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        plain = action.default is None or action.default is False or action.default == []
        if (
            plain
            or action.default == argparse.SUPPRESS
            or not action.option_strings
            or "default" in text
        ):
            return text
        return f"{text} (default: %(default)s)"


class _DefaultsAsWritten(_Defaults, argparse.RawDescriptionHelpFormatter):
    """The same, with the lines of description and epilog as they are."""


class Parser(argparse.ArgumentParser):
    """A parser that knows what was probably meant by a word that is no command."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - argparse's
        """As argparse does, but a slip in the name of a command is answered with that name.

        Args:
            args: Words of the command line, those of the process by default.
            namespace: Where the values go.
        """
        words = list(sys.argv[1:] if args is None else args)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction) and words:
                self._check_command(words, list(action.choices))
        return super().parse_known_args(words, namespace)

    def _check_command(self, words: Sequence[str], known: Sequence[str]) -> None:
        word = next((word for word in words if not word.startswith("-")), None)
        if word is None or word in known:
            return
        close = difflib.get_close_matches(word, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"commands: {', '.join(known)}"
        self.error(f"no command {word!r}; {hint}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A sub-command, or a group of them."""

    name: str
    help: str
    """A line for the list of commands."""
    description: str = ""
    """The beginning of its own help. Several lines are kept as they are."""
    epilog: str = ""
    """The end of its own help, likewise."""
    arguments: Callable[[argparse.ArgumentParser], None] | None = None
    """Adds its arguments."""
    run: Callable[[argparse.Namespace], int] | None = None
    """Does the work and returns the exit code."""
    takes_rest: bool = False
    """Whether all words after the name, ``--help`` too, are left to ``run`` as ``args.rest``."""
    lists: bool = False
    """Whether it does nothing but print, so that all is well when nobody reads on."""
    actions: Sequence[Command] = ()
    """The commands of a group. Without one of them its help is printed."""


def add_commands(parser: argparse.ArgumentParser, commands: Sequence[Command]) -> None:
    """Adds commands to a parser, which by itself prints its help."""
    parser.set_defaults(run=partial(_print_help, parser))
    group = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    for command in commands:
        formatter = _Defaults
        if "\n" in command.description + command.epilog:
            formatter = _DefaultsAsWritten
        each = group.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            epilog=command.epilog,
            formatter_class=formatter,
            add_help=not command.takes_rest,
        )
        if command.arguments:
            command.arguments(each)
        if command.actions:
            add_commands(each, command.actions)
        if command.run:
            each.set_defaults(run=command.run, takes_rest=command.takes_rest, lists=command.lists)


def _print_help(parser: argparse.ArgumentParser, _: argparse.Namespace) -> int:
    parser.print_help()
    return 2
