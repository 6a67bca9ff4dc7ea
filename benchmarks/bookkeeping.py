"""Cost of bookkeeping per slide in runs of growing size: no slide is read, no network runs.

    python benchmarks/bookkeeping.py
    python benchmarks/bookkeeping.py --slides 100 1000 10000

Per size a run with made feature files is drawn, the files sealed for made slides. Milliseconds per
slide: ``first`` notes every slide in a stage that does nothing else, ``again`` is the same stage
when all is done, ``features`` looks whether all features are done, in a process that has not looked
before, ``status`` is what ``xpath status`` reads, ``index`` writes the table of ``index.html``. The
last line is JSON. ``growth`` is the cost per slide at the largest size over that at the smallest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from xpath.batch import done
from xpath.batch.done import mark_done
from xpath.batch.runner import run_stage
from xpath.batch.slides import SlideEntry
from xpath.export.report.pages import write_index
from xpath.export.report.records import CohortReport
from xpath.study.config import StudyConfig
from xpath.study.progress import progress_of
from xpath.study.study import Study, new_study

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slides", type=int, nargs="+", default=[100, 1000])
    args = parser.parse_args()
    costs = {}
    for number in args.slides:
        with tempfile.TemporaryDirectory() as folder:
            costs[number] = measure(Path(folder), number)
        print(number, "slides:", "  ".join(f"{k} {v:.2f} ms" for k, v in costs[number].items()))
    first, last = costs[args.slides[0]], costs[args.slides[-1]]
    print(
        json.dumps({
            "benchmark": "bookkeeping",
            "ms_per_slide": costs,
            "growth": {name: round(last[name] / first[name], 2) for name in first},
            "device": platform.machine(),
        })
    )


def measure(folder: Path, number: int) -> dict[str, float]:
    """Milliseconds per slide of each part of the bookkeeping."""
    study = made_run(folder, number)

    def stage(*, made: bool) -> None:
        run_stage("segment", study.slides, lambda _: made, study.ledger, progress=False)

    def features() -> None:
        done._verified.clear()  # as in a new process
        if len(study.with_features()) < number:
            raise SystemExit("features are missing, so this would measure the wrong thing")

    features()  # a process has compared the bytes before
    return {
        "first": per_slide(number, lambda: stage(made=True)),
        "again": per_slide(number, lambda: stage(made=False)),
        "features": per_slide(number, features),
        "status": per_slide(number, lambda: progress_of(study)),
        "index": per_slide(number, lambda: index(study)),
    }


def made_run(folder: Path, number: int) -> Study:
    """A run of made slides with made features."""
    slides = []
    for place in range(number):
        path = folder / "slides" / f"s{place:05}.svs"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(4096))
        slides.append(SlideEntry(slide_id=path.stem, path=path, label="ab"[place % 2]))
    study = new_study(folder / "run", StudyConfig(), slides)
    for entry in slides:
        output = study.folder.features(entry.slide_id)
        output.parent.mkdir(parents=True)
        output.write_bytes(os.urandom(65536))
        mark_done(output, study.features_key(entry))
    time.sleep(done.FRESH / 1e9)  # until times of files tell of every change
    return study


def index(study: Study) -> None:
    """Writes a page that lists all slides."""
    row = {
        "label": "a",
        "split": "test",
        "predicted": "b",
        "probability": "0.90",
        "doubt": "0.10",
        "status": "done",
        "link": "",
    }
    slides = tuple({"slide_id": entry.slide_id, **row} for entry in study.slides)
    report = CohortReport(
        title="-",
        headline="-",
        classes=(),
        metrics=(),
        importance=(),
        examples=(),
        slides=slides,
    )
    write_index(study.folder.index, report)


def per_slide(number: int, work: Callable[[], object]) -> float:
    """Milliseconds per slide of some work."""
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started) / number


if __name__ == "__main__":
    main()
