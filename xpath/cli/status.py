"""``xpath status``: how far is a run?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from xpath.cli.command import Command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from xpath.study.progress import StageProgress

__all__ = ["COMMAND"]

SHOWN = 5
"""Slides named per stage."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    parser.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="with --watch (default: 5)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints a line per stage, what runs and what failed. Returns 1 if a slide failed."""
    from xpath.study.progress import progress_of
    from xpath.study.study import open_study

    while True:
        stages = progress_of(open_study(args.run_folder))
        print("\n".join(_lines(stages)))
        if not args.watch:
            return 1 if any(stage.failed for stage in stages) else 0
        time.sleep(args.every)
        print()


def _lines(stages: Sequence[StageProgress]) -> list[str]:
    lines = [f"{'':10}{'done':>8}{'running':>9}{'failed':>8}{'left':>7}  speed"]
    lines += [
        f"{stage.stage:10}{stage.done:>8}{len(stage.running):>9}{len(stage.failed):>8}"
        f"{stage.left:>7}  {_speed(stage)}"
        for stage in stages
    ]
    for stage in stages:
        named = [f"running  {name}: {who}" for name, who in stage.running.items()]
        named += [f"failed   {name}: {reason}" for name, reason in stage.failed.items()]
        lines += [f"{stage.stage}: {line}" for line in named[:SHOWN]]
        if len(named) > SHOWN:
            lines.append(f"{stage.stage}: and {len(named) - SHOWN} more; see slides.csv")
    return lines


def _speed(stage: StageProgress) -> str:
    if stage.per_hour is None:
        return "-"
    speed = f"{stage.per_hour:.0f} slides an hour"
    return speed if stage.seconds_left is None else f"{speed}, {_duration(stage.seconds_left)} left"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


COMMAND = Command(
    name="status",
    help="how far a run is: done, running, failed, speed, time left",
    description="Reads small files alone, so it may be asked at any time from any machine.",
    arguments=add_arguments,
    run=run,
)
