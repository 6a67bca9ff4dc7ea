"""A sub-command of ``xpath``: its name, its arguments, its work."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

__all__ = ["Command", "add_commands"]


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
    actions: Sequence[Command] = ()
    """The commands of a group. Without one of them its help is printed."""


def add_commands(parser: argparse.ArgumentParser, commands: Sequence[Command]) -> None:
    """Adds commands to a parser, which by itself prints its help."""
    parser.set_defaults(run=partial(_print_help, parser))
    group = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in commands:
        formatter = argparse.HelpFormatter
        if "\n" in command.description + command.epilog:
            formatter = argparse.RawDescriptionHelpFormatter
        each = group.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            epilog=command.epilog,
            formatter_class=formatter,
        )
        if command.arguments:
            command.arguments(each)
        if command.actions:
            add_commands(each, command.actions)
        if command.run:
            each.set_defaults(run=command.run)


def _print_help(parser: argparse.ArgumentParser, _: argparse.Namespace) -> int:
    parser.print_help()
    return 2
