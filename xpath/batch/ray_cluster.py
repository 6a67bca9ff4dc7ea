"""Slides on a Ray cluster: actors that keep their networks, each at one slide at a time.

What travels is the name of a stage, the path of the run folder and that of a slide, never pixels.
So all machines must see run folder and slides under the same paths.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from xpath.batch.workers import Worker, share_out
from xpath.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from xpath.batch.ledger import LedgerEntry
    from xpath.batch.runner import Job
    from xpath.batch.slides import SlideEntry

__all__ = ["RayCluster"]


@dataclass(frozen=True, slots=True)
class RayCluster:
    """Actors of a Ray cluster, which is made of this machine if there is no other."""

    address: str = ""
    """Of a running cluster, such as ``auto`` or ``ray://head:10001``. Empty for this machine."""
    count: int = 0
    """Actors; 0 for one per GPU, without GPUs one per CPU core."""
    gpus: float = 0.0
    """GPUs of an actor, or a part of one."""

    busy_seconds: ClassVar[float] = 10.0  # each look may be a cluster that begins and ends

    @property
    def lost(self) -> type[Exception]:
        """Errors Ray raises when an actor or its machine is gone."""
        from ray.exceptions import RayActorError

        return RayActorError

    def run(
        self, job: Job, slides: Sequence[SlideEntry], on_start: Callable[[str], None]
    ) -> Iterator[LedgerEntry]:
        """Entries as they come.

        Raises:
            ConfigError: There is no cluster at the address, or it has no GPU but one is needed.
            MissingDependencyError: Ray is not installed.
        """
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            self._connect(ray)
        try:
            yield from share_out(job, slides, self._sized(ray), on_start)
        finally:
            if ours:
                ray.shutdown()

    def start(self, number: int, job: Job) -> Worker:  # noqa: ARG002 - all are alike
        """An actor, begun when the cluster has room for it."""
        return _Actor(job, self.gpus)

    def _connect(self, ray: Any) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            if self.address:
                ray.init(address=self.address, **quiet)
            else:
                cores = max(self.count, os.cpu_count() or 1)
                ray.init(
                    address="local",
                    num_cpus=cores,
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    **quiet,
                )
        except ConnectionError as error:
            raise ConfigError(
                f"no Ray cluster answers at {self.address!r} ({error}); start one with `ray start"
                " --head`, or leave out --address to use this machine alone"
            ) from error

    def _sized(self, ray: Any) -> RayCluster:
        """The same with as many actors as the cluster has room for."""
        room = ray.cluster_resources()
        if self.gpus and not room.get("GPU"):
            raise ConfigError("the Ray cluster has no GPU; use --device cpu, or add a machine")
        most = int(room["GPU"] / self.gpus) if self.gpus else int(room.get("CPU", 1))
        return RayCluster(self.address, min(self.count or most, most), self.gpus)


class _Actor:
    """A Ray actor that runs one job."""

    def __init__(self, job: Job, gpus: float) -> None:
        self._ray = _ray()
        self._handle = self._ray.remote(num_cpus=1, num_gpus=gpus)(_Runner).remote(job)

    def submit(self, slide: SlideEntry) -> Future[LedgerEntry]:
        future: Future[LedgerEntry] = self._handle.work.remote(slide).future()
        return future

    def stop(self) -> None:
        self._ray.kill(self._handle)


class _Runner:
    """The worker an actor is on its machine."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def work(self, slide: SlideEntry) -> LedgerEntry:
        return self._job(slide)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            "--executor ray needs Ray; install it with `pip install xpath-pathology[ray]`"
        ) from error
    return ray
