"""The command says something helpful where it is bare, misspelt or interrupted; pipelines run."""

from __future__ import annotations

import builtins
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from xpath.cli import doctor
from xpath.cli.main import build_parser, main
from xpath.explain.attribution import METHODS
from xpath.explain.perturbation import HIDDEN_BY


@pytest.mark.parametrize("name", ["run", "train-segmentor", "train-baseline", "evaluate"])
def test_a_pipeline_has_its_own_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])

    assert ended.value.code == 0
    assert f"usage: xpath {name}" in capsys.readouterr().out


def test_a_pipeline_runs(capsys, tmp_path):
    assert main(["run", str(tmp_path / "gone"), "l.csv", "--out", str(tmp_path / "run")]) == 1
    assert "gone does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["segmnt"], "did you mean segment?"),
        (["pathseg", "statsu"], "did you mean status?"),
        (["qqq"], "commands: "),
    ],
)
def test_a_slip_in_a_command_is_answered(words, hint, capsys):
    with pytest.raises(SystemExit):
        main(words)

    assert f"no command {words[-1]!r}; {hint}" in capsys.readouterr().err


def test_words_that_nobody_takes_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["labels", "--nonsense"])

    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err


def test_the_version_names_the_licence_of_the_weights(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])

    assert re.fullmatch(r"xpath \d+\.\d+\.\d+; .*CC BY-NC-SA 4\.0\n", capsys.readouterr().out)


def test_every_option_with_a_default_names_it():
    commands = build_parser()._subparsers._group_actions[0].choices
    for name, parser in commands.items():
        text = " ".join(parser.format_help().split())
        for action in parser._actions:
            if isinstance(action.default, float | int) and action.default is not False:
                assert f"{action.default}" in text or "default" in action.help, (name, action.dest)
    assert "(default: 0.0)" in commands["grid"].format_help()


def test_the_doctor_survives_missing_packages(monkeypatch, capsys):
    predict = importlib.import_module("xpath.segment.predict")
    monkeypatch.setattr(sys.modules["xpath.segment"], "predict", predict)  # given back at the end
    real = builtins.__import__

    def bare(name, *args, **kwargs):
        if name.partition(".")[0] in ("numpy", "torch", "openslide"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(builtins, "__import__", bare)
    monkeypatch.setattr(doctor.importlib, "import_module", absent)
    for name in [name for name in sys.modules if name.startswith("xpath.segment.predict")]:
        monkeypatch.delitem(sys.modules, name)

    assert main(["doctor"]) == 1

    out = capsys.readouterr().out
    assert "FAIL numpy" in out and "pip install numpy" in out
    assert "FAIL device" in out and "machine" in out


def test_a_wheel_without_any_package_has_a_doctor(tmp_path):
    """With the standard library alone, as ``pip install --no-deps`` leaves it."""
    facts = tmp_path / "xpath_pathology-0.1.0.dist-info" / "METADATA"
    facts.parent.mkdir()
    facts.write_text("Metadata-Version: 2.1\nName: xpath-pathology\nVersion: 0.1.0\n")
    paths = [str(Path(doctor.__file__).parents[2]), str(tmp_path)]
    code = (
        f"import sys; sys.path[:0] = {paths!r}; from xpath.cli.main import main;"
        " sys.exit(main(sys.argv[1:]))"
    )

    def bare(*arguments):
        command = [sys.executable, "-I", "-S", "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    doctored = bare("doctor")
    assert doctored.returncode == 1, doctored.stderr
    assert "FAIL torch" in doctored.stdout and "pip install lazy-loader" in doctored.stdout
    for name in build_parser()._subparsers._group_actions[0].choices:
        assert "Traceback" not in bare(name, "--help").stderr


def test_choices_of_explain_are_those_of_the_library():
    parser = build_parser()._subparsers._group_actions[0].choices["explain"]
    choices = {action.dest: action.choices for action in parser._actions}

    assert choices["method"] == [*METHODS, "all"]
    assert choices["hide"] == [*HIDDEN_BY]


def test_a_command_without_its_packages_names_the_doctor(monkeypatch, capsys):
    def absent(_):
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")

    monkeypatch.setattr(doctor, "packages", lambda: absent(0))

    assert main(["doctor"]) == 1
    assert "torch.nn'; xpath doctor lists all that is missing" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "packages", lambda: interrupted(0))

    assert main(["doctor"]) == 130
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "kept" in error and "same command again" in error
