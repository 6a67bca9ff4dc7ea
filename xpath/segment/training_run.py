"""A training on disk: what it needs to go on, and what it has seen.

state.pt         weights, their average, optimiser, step; replaced every few minutes
log.csv          a row every few steps
validation.csv   a row per validation and object kind
"""

from __future__ import annotations

import csv
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from xpath.errors import CheckpointError, DataError
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tqdm import tqdm

    from xpath.segment.train import TrainBatch, Trainer, TrainStep

__all__ = ["Process", "RunConfig", "TrainingRun", "join_processes", "show_step"]

STATE = "state.pt"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """How often a training looks up."""

    minutes: float = math.inf
    """Wall time after which it stops, saved and ready to be resumed."""
    save_minutes: float = 5.0
    """Time between saved states."""
    log_steps: int = 20
    """Steps between rows of the log."""
    validate_steps: int = 0
    """Steps between validations; 0 for none before the end."""


class TrainingRun:
    """Makes steps, saves, logs; knows where it stopped.

    Args:
        folder: Made if need be.
        trainer: What is trained.
        facts: Settings that must not change when the training is resumed.
        lead: False for all processes but one of a distributed training: only one writes.

    Raises:
        CheckpointError: The folder holds the state of another training, or a broken one.
    """

    def __init__(
        self, folder: Path, trainer: Trainer, facts: Mapping[str, str], *, lead: bool = True
    ) -> None:
        self._folder, self._trainer, self._lead = folder, trainer, lead
        self._facts = dict(facts)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / STATE).exists():
            self._resume(folder / STATE)

    def _resume(self, path: Path) -> None:
        try:
            state: dict[str, Any] = torch.load(
                path, map_location=self._trainer.device, weights_only=True
            )
        except Exception as error:  # torch.load raises whatever a damaged file leads to
            raise CheckpointError(
                f"{path} cannot be read: {error}; delete it to begin again"
            ) from error
        changed = {
            name: (state["facts"].get(name), value)
            for name, value in self._facts.items()
            if state["facts"].get(name) != value
        }
        if changed:
            raise CheckpointError(
                f"{path} belongs to another training; (then, now): {changed}."
                " Give the same settings again, or another folder"
            )
        self._trainer.resume(state)

    def save(self) -> None:
        """Replaces the saved state."""
        if self._lead:
            with atomic(self._folder / STATE) as draft:
                torch.save(self._trainer.state() | {"facts": self._facts}, draft)

    def run(
        self,
        batches: Iterable[TrainBatch],
        config: RunConfig,
        *,
        on_step: Callable[[TrainStep], None] | None = None,
        validate: Callable[[], Mapping[str, tuple[int, float]]] | None = None,
    ) -> bool:
        """Trains until the batches or the minutes run out; True if the schedule is finished.

        Args:
            batches: From the step the trainer is at.
            config: How often to look up.
            on_step: Called after every step.
            validate: Number of images and mean Dice per object kind.

        Raises:
            DataError: The loss is no number any more.
        """
        started = saved = waited = time.monotonic()
        waiting = 0.0
        for batch in batches:
            waiting += time.monotonic() - waited
            step = self._trainer(batch)
            if on_step:
                on_step(step)
            if step.step % config.log_steps == 0:
                self._log(step, started, waiting)
            if validate and config.validate_steps and step.step % config.validate_steps == 0:
                self.record(validate())
            now = waited = time.monotonic()
            if now - saved > config.save_minutes * 60:
                self.save()
                saved = waited = time.monotonic()
            if now - started > config.minutes * 60:
                break
        self.save()
        return self._trainer.step >= self._trainer.config.steps

    def _log(self, step: TrainStep, started: float, waiting: float) -> None:
        values = {name: float(value) for name, value in step.loss._asdict().items()}
        if not all(math.isfinite(value) for value in values.values()):
            raise DataError(
                f"the loss is {values} at step {step.step}: the training has diverged."
                f" The last saved state is in {self._folder}; go on from it with a smaller lr"
            )
        elapsed = time.monotonic() - started
        self._append(
            "log.csv",
            {
                "step": step.step,
                **{name: round(value, 5) for name, value in values.items()},
                "lr": f"{step.lr:.3g}",
                "gradient": round(float(step.gradient), 3),
                "seconds": round(elapsed, 1),
                "waiting": round(waiting / max(elapsed, 1e-9), 4),
            },
        )

    def record(self, scores: Mapping[str, tuple[int, float]]) -> None:
        """Adds a validation to the record."""
        for name, (count, score) in scores.items():
            row = {"step": self._trainer.step, "kind": name, "images": count, "dice": score}
            self._append("validation.csv", row)

    def _append(self, name: str, row: Mapping[str, object]) -> None:
        if not self._lead:
            return
        path = self._folder / name
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)


class Process(NamedTuple):
    """One of the processes of a training."""

    rank: int
    world: int
    """How many there are."""
    device: str
    """Its own."""


def join_processes(device: str) -> Process:
    """Joins those that ``torchrun`` started, each with a GPU of its own; else there is one."""
    if "RANK" not in os.environ:
        return Process(0, 1, device)
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    own = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    return Process(torch.distributed.get_rank(), torch.distributed.get_world_size(), own)


def show_step(bar: tqdm, step: TrainStep) -> None:
    """Moves a progress bar; looks at the loss now and then only, as that waits for the device."""
    bar.update()
    if step.step % 20 == 0:
        bar.set_postfix({k: f"{float(v):.3f}" for k, v in step.loss._asdict().items()})
