"""``xpath run``, ``train-segmentor`` and the like: the pipelines, also of an installed wheel."""

from __future__ import annotations

import importlib.util
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xpath.cli.command import Command
from xpath.errors import StoreError

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMANDS"]

HOMES = (Path(__file__).parents[1] / "pipelines", Path(__file__).parents[2] / "pipelines")
"""In a wheel, and in a checkout."""


def _run(script: str, name: str, args: argparse.Namespace) -> int:
    """Runs a pipeline as if it had been called by its file.

    Raises:
        StoreError: The file is not there.
    """
    path = next((home / script for home in HOMES if (home / script).is_file()), None)
    spec = importlib.util.spec_from_file_location(path.stem, path) if path else None
    if spec is None or spec.loader is None:
        raise StoreError(f"{script} is in none of {[str(home) for home in HOMES]}; install again")
    module = importlib.util.module_from_spec(spec)
    before = sys.argv
    sys.argv = [f"xpath {name}", *args.rest]
    try:
        spec.loader.exec_module(module)
        return int(module.main() or 0)
    finally:
        sys.argv = before


def _pipeline(name: str, script: str, what: str) -> Command:
    return Command(name=name, help=what, run=partial(_run, script, name), takes_rest=True)


COMMANDS = (
    _pipeline("run", "brca_subtype.py", "a whole study at once, from slides or features to pages"),
    _pipeline("train-segmentor", "train_segmentor.py", "train a segmentor on images with masks"),
    _pipeline("train-baseline", "train_baseline.py", "train DeepLabV3+, nnU-Net and the like"),
    _pipeline("evaluate", "evaluate_segmentor.py", "measure a segmentor on images with masks"),
)
