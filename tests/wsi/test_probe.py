"""The first look at a slide: whatever a file does, only the child pays for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from xpath.errors import ConfigError, ResolutionError, SlideError
from xpath.geometry import Size
from xpath.wsi.probe import ProbeLimits, Prober, probe
from xpath.wsi.probe_child import sample

SHORT = ProbeLimits(seconds=3)


@pytest.fixture
def prober():
    with Prober(SHORT) as prober:
        yield prober


@pytest.fixture
def good(write_tiff, rng):
    picture = rng.integers(0, 256, (600, 800, 3), dtype=np.uint8)
    return write_tiff(picture, picture[::4, ::4], mpp=0.5, name="good.svs")


def test_what_a_good_slide_is(good, prober):
    found = prober.probe(good)

    assert found.size == Size(800, 600)
    assert [level.size for level in found.levels] == [Size(800, 600), Size(200, 150)]
    assert found.mpp == pytest.approx(0.5, rel=1e-3)
    assert (found.vendor, found.objective, found.problems) == ("generic-tiff", None, ())


def test_it_costs_little(good, prober):
    """The bound for a slide is a second. Here there is room for a busy machine."""
    prober.probe(good)

    begin = time.monotonic()
    for _ in range(10):
        prober.probe(good)

    assert (time.monotonic() - begin) / 10 < 0.5


def test_the_child_imports_no_torch():
    script = "import xpath.wsi.probe_child, sys; print('torch' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_crash_is_that_slides_failure_and_the_next_goes_on(write_bomb, good, prober):
    with pytest.raises(SlideError, match=r"bomb\.tiff ended the process.*SIGABRT.*allocate"):
        prober.probe(write_bomb())

    assert prober.probe(good).size == Size(800, 600)


def test_a_hang_is_that_slides_failure_and_the_next_goes_on(tmp_path, good):
    """Opening a pipe that nobody writes to waits for ever, in native code."""
    os.mkfifo(tmp_path / "hang.svs")

    with Prober(ProbeLimits(seconds=2)) as prober:
        with pytest.raises(SlideError, match=r"hang\.svs was not opened and sampled within 2 s"):
            prober.probe(tmp_path / "hang.svs")
        prober.limits = ProbeLimits()  # another child begins, on a busy machine perhaps
        assert prober.probe(good).size == Size(800, 600)


def test_ctrl_c_during_a_hang_leaves_the_next_slide_alone(tmp_path, good):
    os.mkfifo(tmp_path / "hang.svs")
    ctrl_c = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))

    with Prober(ProbeLimits(seconds=20)) as prober:
        prober.probe(good)  # the child is there
        ctrl_c.start()
        with pytest.raises(KeyboardInterrupt):
            prober.probe(tmp_path / "hang.svs")
        assert prober.probe(good).size == Size(800, 600)


def test_what_a_slide_asks_for_beyond_the_limit_is_that_slides_failure(write_bomb):
    """Two gigabytes for a tile: GLib aborts where it gets none, and where it does the tile is bad.

    Without a limit the system might give them, and end the process when they are used.
    """
    path = write_bomb(2**21)

    with (
        Prober(ProbeLimits(memory=2**30)) as prober,
        pytest.raises(SlideError, match="ended the process"),
    ):
        prober.probe(path)
    with Prober(ProbeLimits(memory=2**33)) as prober:
        problems = prober.probe(path).problems
    assert "is damaged at" in problems[-1]


def test_properties_that_cannot_be_read(write_named, prober):
    """OpenSlide lists a name that it then does not know: a KeyError without a word."""
    path = write_named("names.svs", b"\xff\xfeNA")

    with pytest.raises(SlideError, match=r"names\.svs has properties that cannot be read"):
        prober.probe(path)
    assert prober.probe(write_named("fine.svs", b"Name")).objective == 20


def test_errors_keep_their_class(good, tmp_path, prober):
    with pytest.raises(SlideError, match="does not exist"):
        prober.probe(tmp_path / "none.svs")
    with pytest.raises(ResolutionError, match="must be a number within"):
        prober.probe(good, mpp=400)


def test_problems_are_told_before_they_cost_anything(write_tiff, rng):
    picture = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    path = write_tiff(picture, mpp=None, compression="jpeg")
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[3]
    content = bytearray(path.read_bytes())
    content[start : start + 200] = bytes(200)
    path.write_bytes(content)

    resolution, damage = sample(path, None)["problems"]

    assert "stores no resolution" in resolution
    assert "level 0: slide.tiff is damaged at" in damage


def test_an_objective_that_contradicts_the_resolution_is_a_problem(write_named):
    path = write_named("a.svs", b"Name")

    assert sample(path, None)["problems"] == []
    (problem,) = sample(path, 0.25)["problems"]
    assert "0.25 microns per pixel do not go with the 20x objective" in problem


def test_one_child_for_the_whole_process(good):
    from xpath.wsi import probe as module

    first = probe(good)
    child = module._prober(ProbeLimits(), os.getpid())._child

    assert probe(Path(good)) == first
    assert module._prober(ProbeLimits(), os.getpid())._child is child


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"memory": 1000}, {"files": 3}])
def test_limits_within_which_nothing_can_be_read(limits):
    with pytest.raises(ConfigError, match="wanted seconds"):
        ProbeLimits(**limits)


def test_the_slide_that_once_ended_every_run_is_refused(shared, good, prober):
    with pytest.raises(SlideError, match=r"abort\.tiff (ended the process|claims to have)"):
        prober.probe(shared / "cases" / "abort.tiff")

    assert prober.probe(good).size == Size(800, 600)
