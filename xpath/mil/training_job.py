"""Training on an executor: models in place of slides, each made by whichever process is free."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from xpath.batch.ledger import LedgerEntry
from xpath.batch.slides import SlideEntry
from xpath.mil.cohort import read_cohort, split_cohort
from xpath.mil.cohort_training import is_trained, train_model
from xpath.mil.feature_cache import FeatureCache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from xpath.batch.runner import Executor
    from xpath.mil.cohort import Cohort, CohortConfig, CohortSlide
    from xpath.mil.cohort_training import ModelTask
    from xpath.mil.splits import Split

__all__ = ["TrainingJob", "train_elsewhere"]

logger = logging.getLogger(__name__)

STAGE = "train"


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Trains a model of a cohort. Travels as the paths of the features, which are read anew."""

    slides: tuple[CohortSlide, ...]
    config: CohortConfig
    tasks: Mapping[str, ModelTask]
    """By the name of the model's folder."""
    folder: Path
    """Where features beyond the memory go."""
    memory_gb: float
    """Most memory for features, of each process."""
    threads: int
    """Threads of each process: sums over other numbers of threads round otherwise."""

    def __call__(self, slide: SlideEntry) -> LedgerEntry:
        """Trains one model. What goes wrong is told by the entry."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            cohort, splits = _read(self.slides, self.config, self.folder, self.memory_gb)
            task = self.tasks[slide.slide_id]
            train_model(cohort, task, splits[task.fold], self.config)
        except Exception as error:  # noqa: BLE001 - tried again where it can be raised
            return self.lost(slide, f"{type(error).__name__}: {error}")
        finally:
            torch.set_num_threads(before)
        return LedgerEntry(slide_id=slide.slide_id, stage=STAGE, status="done")

    def lost(self, slide: SlideEntry, reason: str) -> LedgerEntry:
        """The entry of a model that could not be trained."""
        return LedgerEntry(slide_id=slide.slide_id, stage=STAGE, reason=reason, attempts=1)

    def known(self, slide: SlideEntry) -> LedgerEntry:
        """The entry of a model nothing is known of."""
        return self.lost(slide, "not trained")

    def ended(self, slide: SlideEntry) -> AbstractContextManager[None]:  # noqa: ARG002 - of a Job
        """Nothing is held against a model whose training was ended."""
        return nullcontext()


@lru_cache(maxsize=1)
def _read(
    slides: tuple[CohortSlide, ...], config: CohortConfig, folder: Path, memory_gb: float
) -> tuple[Cohort, Sequence[Split]]:
    """Cohort and splits, read once per process."""
    cohort = read_cohort(slides, config, cache=FeatureCache(folder, memory_gb=memory_gb))
    return cohort, split_cohort(cohort, config.split)


def train_elsewhere(
    cohort: Cohort,
    splits: Sequence[Split],
    job: TrainingJob,
    executor: Executor,
    on_model: Callable[[], object] = lambda: None,
) -> None:
    """Trains those of a job's models that are not done, in other processes.

    One that could not be trained is left to whoever needs it, who will hear why.

    Args:
        cohort: The slides of the job.
        splits: Of the cohort.
        job: What to train.
        executor: Where.
        on_model: Called when a model is done.
    """
    models = [
        SlideEntry(slide_id=name, path=task.output)
        for name, task in job.tasks.items()
        if not is_trained(cohort, task, splits[task.fold], job.config)
    ]
    for entry in executor.run(job, models, lambda _: None):
        if entry.status == "done":
            on_model()
        else:
            logger.warning("%s is trained in this process: %s", entry.slide_id, entry.reason)
