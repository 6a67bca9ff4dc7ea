"""docs/reproduce.md: a row for every table and figure, and commands that exist as written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from xpath.cli.main import main

PAGE = (Path(__file__).parents[1] / "docs" / "reproduce.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
WANTED = {
    "PathSegmentor": [f"Fig. {n}" for n in range(1, 13)] + [f"Table {n}" for n in range(1, 21)],
    "BiomedParse": [f"Fig. {n}" for n in range(1, 5)]
    + [f"Extended Data Fig. {n}" for n in range(1, 8)],
    "UniBiomed": [f"Fig. {n}" for n in range(1, 12)] + [f"Table {n}" for n in range(1, 19)],
}
COMMANDS = sorted(
    set(re.findall(r"`((?:xpath|python) [^`]+)`", PAGE))
    | {
        line.split("  #")[0].strip()
        for line in PAGE.splitlines()
        if line.startswith(("    xpath ", "    python "))
    }
)


@pytest.mark.parametrize("paper", WANTED)
def test_every_table_and_figure_has_a_row_with_a_command_or_a_reason(paper):
    rows = [line.strip("| ").split(" | ") for line in SECTIONS[paper].splitlines() if "|" in line]
    body = {row[0]: row[1:] for row in rows if row[0] in WANTED[paper]}

    assert list(body) == WANTED[paper]
    for name, (command, what) in body.items():
        assert command in {"none", "the same", "D", "E", "G"} or command.startswith("`"), name
        assert len(what) > 5, name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_one_of_its_command(command, load_script, capsys, monkeypatch):
    words = shlex.split(command)
    if words[0] == "xpath":
        actions = [w for w in words[1:3] if re.fullmatch("[a-z]+", w)]
        call, arguments = main, [*actions, "--help"]
    else:
        script = load_script(words[1])
        call, arguments = script.main, ["--help"]
        if not script.main.__code__.co_argcount:  # reads the command line itself
            monkeypatch.setattr("sys.argv", ["script", "--help"])
            call, arguments = script.main, None

    with pytest.raises(SystemExit) as ended:
        call(arguments) if arguments else call()

    assert ended.value.code == 0
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert {word for word in words if word.startswith("--")} <= known
