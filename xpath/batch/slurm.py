"""Slides as an array of Slurm jobs, each of which has a share of them and one process."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from xpath.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from xpath.batch.ledger import LedgerEntry
    from xpath.batch.runner import Job
    from xpath.batch.slides import SlideEntry

__all__ = ["SlurmArray"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SlurmArray:
    """An array of jobs, submitted by submitit.

    All machines must see run folder and slides under the same paths.
    """

    count: int
    """Jobs of the array."""
    logs: Path
    """Folder for what the jobs print."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What ``sbatch`` takes, such as partition, gres, mem or time in minutes, by its long name."""
    cluster: str = "slurm"
    """``local`` runs the jobs as processes of this machine, to try it out."""
    poll_seconds: float = 10.0
    """How often the queue is asked."""

    busy_seconds: ClassVar[float] = 60.0  # each look is an array in the queue

    def run(
        self, job: Job, slides: Sequence[SlideEntry], on_start: Callable[[str], None]
    ) -> Iterator[LedgerEntry]:
        """Entries as jobs end. Slides of a job that was cancelled or killed have failed.

        Jobs go on when this process is interrupted, which a warning says, with how to end them.

        Raises:
            ConfigError: This machine cannot submit jobs.
            MissingDependencyError: submitit is not installed.
        """
        if not slides:
            return
        submitit = _submitit()
        shares = [slides[number :: self.count] for number in range(min(self.count, len(slides)))]
        try:
            executor = submitit.AutoExecutor(folder=self.logs, cluster=self.cluster)
        except RuntimeError as error:
            raise ConfigError(f"jobs cannot be submitted from here: {error}") from error
        if self.cluster == "slurm":
            executor.update_parameters(slurm_additional_parameters=dict(self.options))
        submitted = executor.map_array(_Share(job), shares)
        on_start(f"{len(submitted)} jobs in the queue")
        left = len(submitted)
        share_of = {id(one): share for one, share in zip(submitted, shares, strict=True)}
        try:
            for one in submitit.helpers.as_completed(submitted, poll_frequency=self.poll_seconds):
                left -= 1
                failure = one.exception()
                if failure is None:
                    yield from one.result()
                else:
                    yield from _left(job, share_of[id(one)], f"job {one.job_id}: {failure}")
        finally:
            if left:
                array = submitted[0].job_id.partition("_")[0]
                logger.warning("%d jobs go on without this process; scancel %s", left, array)


@dataclass(frozen=True, slots=True)
class _Share:
    """Works on the slides of one job of the array."""

    job: Job

    def __call__(self, slides: Sequence[SlideEntry]) -> list[LedgerEntry]:
        return [self.job(slide) for slide in slides]


def _left(job: Job, slides: Sequence[SlideEntry], reason: str) -> Iterator[LedgerEntry]:
    """Entries of the slides of a lost job: the last ones it wrote, or failures."""
    for slide in slides:
        entry = job.known(slide)
        yield entry if entry.status == "done" else job.lost(slide, " ".join(reason.split())[:500])


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise MissingDependencyError(
            "--executor slurm needs submitit; install it with `pip install xpath-pathology[slurm]`"
        ) from error
    return submitit
