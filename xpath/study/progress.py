"""How far a run is: what is done, running and failed in each stage, how fast, and time left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xpath.batch.claim import at_work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from xpath.batch.slides import SlideEntry
    from xpath.study.study import Study

__all__ = ["SLIDE_STAGES", "StageProgress", "progress_of"]

SLIDE_STAGES = ("segment", "features", "explain", "export")
"""Stages that work on one slide after the other, in their order."""
LAST = 50
"""Slides that were finished last, from which the speed is taken."""
STILL_SECONDS = 1800.0
"""After this time without a finished slide there is no speed to speak of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageProgress:
    """How far a stage is."""

    stage: str
    total: int
    """Slides it is to work on."""
    done: int
    running: Mapping[str, str]
    """Slide to the process that works on it, and how far it is."""
    failed: Mapping[str, str]
    """Slide to reason."""
    per_hour: float | None
    """Slides per hour, None where nothing was finished lately."""

    @property
    def left(self) -> int:
        """Slides that are neither done nor failed."""
        return max(self.total - self.done - len(self.failed), 0)

    @property
    def seconds_left(self) -> float | None:
        """How long it takes at this speed, None where there is none."""
        return 3600 * self.left / self.per_hour if self.left and self.per_hour else None


def progress_of(study: Study) -> list[StageProgress]:
    """The state of every stage, from small files alone: no output is opened."""
    explained = study.slides_to_explain()
    wanted: dict[str, Sequence[SlideEntry]] = dict.fromkeys(SLIDE_STAGES[:2], study.slides)
    return [_progress(study, stage, wanted.get(stage, explained)) for stage in SLIDE_STAGES]


def _progress(study: Study, stage: str, slides: Sequence[SlideEntry]) -> StageProgress:
    done, running, failed, times = 0, {}, {}, []
    for slide in slides:
        entry = study.ledger.entry(slide.slide_id, stage)
        who = at_work(_outputs(study, stage, slide.slide_id))
        if who:
            far = study.ledger.under_way(slide.slide_id)
            running[slide.slide_id] = f"{who}, {far}" if far else who
        elif entry.status == "done":
            done += 1
            times.append(study.ledger.finished_at(slide.slide_id, stage) or 0.0)
        elif entry.failed:
            failed[slide.slide_id] = entry.reason
    return StageProgress(
        stage=stage,
        total=len(slides),
        done=done,
        running=running,
        failed=failed,
        per_hour=_per_hour(times),
    )


def _outputs(study: Study, stage: str, slide_id: str) -> tuple[Path, ...]:
    """Output of a stage for a slide."""
    folder = study.folder
    return {
        "segment": (folder.masks(slide_id), folder.objects(slide_id)),
        "features": (folder.features(slide_id),),
        "explain": (folder.explanation(slide_id),),
        "export": (folder.exports(slide_id),),
    }[stage]


def _per_hour(times: Sequence[float]) -> float | None:
    last = sorted(times)[-LAST:]
    if len(last) < 2 or last[-1] == last[0] or time.time() - last[-1] > STILL_SECONDS:
        return None
    return 3600 * (len(last) - 1) / (last[-1] - last[0])
