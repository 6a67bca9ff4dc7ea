"""A process of its own, and slides that need not exist."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import xpath.errors
from xpath.batch.slides import SlideEntry

CHILD = """
import os, signal, sys, types
package = types.ModuleType("xpath")  # its root imports torch, which takes seconds
package.__path__ = [sys.argv.pop(1)]
sys.modules["xpath"] = package
"""


@pytest.fixture
def start():
    """Starts code in a process of its own."""

    def start(code, *arguments):
        folder = Path(xpath.errors.__file__).parent
        command = [sys.executable, "-c", CHILD + code, str(folder), *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


@pytest.fixture
def python(start):
    """Runs code in a process of its own and returns the finished process."""

    def run(code, *arguments):
        with start(code, *arguments) as process:
            process.communicate(timeout=300)
        return process

    return run


@pytest.fixture
def slides():
    return [SlideEntry(slide_id=name, path=Path(f"{name}.svs")) for name in "abc"]


@pytest.fixture
def until():
    """Waits for a condition, however busy the machine is."""

    def wait(condition):
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    return wait
