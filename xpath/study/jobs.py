"""Work of a stage on one slide, in whatever process: a stage's name and a run folder.

A job goes to another process or machine as these two. There it opens the run anew and loads what
the stage needs once, for all slides the process gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.batch.done import is_done
from xpath.study.attributions import attribute_slide, attributions_key
from xpath.study.cohort import load_explained
from xpath.study.dicom import write_dicom
from xpath.study.exports import export
from xpath.study.folder import slide_splits
from xpath.study.pyramids import write_pyramids
from xpath.study.slides import explain, explain_key, extract, segment, segment_and_extract
from xpath.study.study import Study, open_study

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from xpath.batch.slides import SlideEntry

__all__ = ["STAGES", "StudyJob"]


class StageWork(NamedTuple):
    """The work of a stage."""

    work: Callable[[Study, SlideEntry, Any], bool]
    """Makes the output of a slide, True if it had to be made."""
    load: Callable[[Study], Any]
    """What the work on all slides shares, its third argument."""
    is_made: Callable[[Study, SlideEntry], bool]
    """Whether a slide has the output already."""


def _nothing(_: Study) -> None:
    return None


def _was_made(name: str) -> Callable[[Study, SlideEntry], bool]:
    """Status by the ledger, of stages whose keys are only known when they run."""
    return lambda study, entry: study.ledger.entry(entry.slide_id, name).status == "done"


STAGES: Mapping[str, StageWork] = {
    "segment": StageWork(
        lambda study, entry, _: segment(study, entry),
        _nothing,
        lambda study, entry: (
            entry.path.exists()
            and is_done(study.folder.masks(entry.slide_id), study.masks_key(entry))
        ),
    ),
    "segment, features": StageWork(
        lambda study, entry, _: segment_and_extract(study, entry),
        _nothing,
        lambda study, entry: bool(study.with_features([entry])),
    ),
    "features": StageWork(
        lambda study, entry, _: extract(study, entry),
        _nothing,
        lambda study, entry: bool(study.with_features([entry])),
    ),
    "explain": StageWork(
        lambda study, entry, models: explain(study, entry, models[study.fold_of(entry)]),
        load_explained,
        lambda study, entry: is_done(
            study.folder.explanation(entry.slide_id), explain_key(study, entry)
        ),
    ),
    "attributions": StageWork(
        lambda study, entry, models: attribute_slide(study, entry, models[study.fold_of(entry)]),
        load_explained,
        lambda study, entry: is_done(
            study.folder.attributions(entry.slide_id), attributions_key(study, entry)
        ),
    ),
    "export": StageWork(
        lambda study, entry, splits: export(study, entry, splits.get(entry.slide_id, "")),
        lambda study: slide_splits(study.folder),
        _was_made("export"),
    ),
    "pyramids": StageWork(
        lambda study, entry, _: write_pyramids(study, entry), _nothing, _was_made("pyramids")
    ),
    "dicom-seg": StageWork(
        lambda study, entry, _: write_dicom(study, entry), _nothing, _was_made("dicom-seg")
    ),
}
"""The stages that work on one slide after the other, by name."""


@dataclass(frozen=True)
class StudyJob:
    """A stage of a study, called with a slide."""

    stage: str
    """One of ``STAGES``."""
    study: Study

    def __call__(self, entry: SlideEntry) -> bool:
        """Makes the output of a slide, True if it had to be made."""
        return STAGES[self.stage].work(self.study, entry, self._loaded)

    def __reduce__(self) -> tuple[Callable[[str, Path], StudyJob], tuple[str, Path]]:
        """Goes to another process as the stage's name and the run folder."""
        return _job_of, (self.stage, self.study.folder.root.absolute())

    @cached_property
    def _loaded(self) -> Any:
        return STAGES[self.stage].load(self.study)


def _job_of(stage: str, root: Path) -> StudyJob:
    return _kept(stage, root, _stamp(root / "run.json"), _stamp(root / "models"))


def _stamp(path: Path) -> tuple[int, int]:
    """Changes with a file, or with the files of a folder."""
    about = path.stat() if path.exists() else None
    return (about.st_ino, about.st_mtime_ns) if about else (0, 0)


@lru_cache(maxsize=1)
def _kept(stage: str, root: Path, run: tuple[int, int], _models: tuple[int, int]) -> StudyJob:
    """The job, made once per process: what it loaded serves all slides the process gets.

    Classifiers that were trained again are loaded again.
    """
    return StudyJob(stage, _opened(root, run))


@lru_cache(maxsize=1)
def _opened(root: Path, _run: tuple[int, int]) -> Study:
    """The study of a run as it is now, opened once per process so that networks stay loaded."""
    return open_study(root)
