"""A training on disk: what it needs to go on, and what it has seen.

state.pt         weights, their average, optimiser, step; replaced every few minutes
log.csv          a row every few steps
validation.csv   a row per validation and object class
sessions.csv     a row each time it ran, with the precision and why it was chosen
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from xpath.errors import CheckpointError, DataError
from xpath.store.schema import atomic
from xpath.store.tables import append_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tqdm import tqdm

    from xpath.segment.training.precision import Precision
    from xpath.segment.training.trainer import Batch, Trainer, TrainStep

__all__ = ["STATE", "Process", "RunConfig", "TrainingRun", "join_processes", "show_step"]

STATE = "state.pt"
PATIENCE = timedelta(days=1)
"""How long processes wait for the lead, which validates alone; NCCL would give up after minutes."""


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
    """A training that makes steps, saves, logs, and resumes where it stopped.

    Args:
        folder: Made if need be.
        trainer: What is trained.
        facts: Settings that must not change when the training is resumed, plain or as the JSON of a
            dataclass; one that an older state does not know is not compared.
        lead: False for all processes of a distributed training but that of rank 0: it alone writes,
            validates and looks at the clock.

    Raises:
        CheckpointError: The folder holds the state of another training, or a broken one.
    """

    def __init__(
        self, folder: Path, trainer: Trainer, facts: Mapping[str, str], *, lead: bool = True
    ) -> None:
        self._folder, self._trainer, self._lead = folder, trainer, lead
        self._facts = dict(facts)
        self._sound = torch.ones((), dtype=torch.bool, device=trainer.device)
        self._others: Any = None  # a group: on the CPU, as asking must not wait for the GPU
        if torch.distributed.is_initialized():
            self._others = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
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
        then, now = _settings(state["facts"]), _settings(self._facts)
        changed = {
            name: (then[name], value)
            for name, value in now.items()
            if name in then and then[name] != value
        }
        if changed:
            raise CheckpointError(
                f"{path} belongs to another training; (then, now): {changed}."
                " Give the same settings again, or another folder"
            )
        self._trainer.resume(state)

    def save(self) -> None:
        """Replaces the saved state.

        Raises:
            DataError: The loss was no number in a step since; the last saved state stays.
        """
        self._refuse_divergence()
        if self._lead:
            with atomic(self._folder / STATE) as draft:
                torch.save(self._trainer.state() | {"facts": self._facts}, draft)

    def run(
        self,
        batches: Iterable[Batch],
        config: RunConfig,
        *,
        on_step: Callable[[TrainStep], None] | None = None,
        validate: Callable[[], Mapping[str, tuple[int, float]]] | None = None,
    ) -> bool:
        """Trains until the batches or minutes run out and returns whether the schedule is finished.

        Args:
            batches: From the step the trainer is at.
            config: How often to look up.
            on_step: Called after every step.
            validate: Number of images and mean Dice per object class; the lead alone asks.

        Raises:
            DataError: The loss or its gradient is no number any more.
        """
        started = saved = waited = time.monotonic()
        waiting = 0.0
        for batch in batches:
            waiting += time.monotonic() - waited
            step = self._trainer(batch)
            self._sound &= torch.isfinite(step.loss.total + step.gradient)  # not read: a GPU waits
            if on_step:
                on_step(step)
            if step.step % config.log_steps == 0:
                self._log(step, started, waiting)
            if validate and config.validate_steps and step.step % config.validate_steps == 0:
                self._validate(validate)
            now = time.monotonic()
            if now - saved > config.save_minutes * 60:
                self.save()
                saved = time.monotonic()
            late = now - started > config.minutes * 60
            if math.isfinite(config.minutes) and self._lead_says(yes=late):
                break
            waited = time.monotonic()
        self.save()
        return self._trainer.step >= self._trainer.config.steps

    def _log(self, step: TrainStep, started: float, waiting: float) -> None:
        self._refuse_divergence()
        values = {name: float(value) for name, value in step.loss._asdict().items()}
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

    def _refuse_divergence(self) -> None:
        if not bool(self._sound):
            raise DataError(
                f"the loss or its gradient is no finite number by step {self._trainer.step}: the"
                f" training has diverged. What {self._folder} holds was saved before, but the same"
                " command would come here again: train with a smaller lr, in another folder"
            )

    def _lead_says(self, *, yes: bool) -> bool:
        """The lead's yes or no, for which the other processes wait.

        Clocks differ, and a process that goes on alone waits for the others' gradients for ever.
        """
        if self._others is None:
            return yes
        word = torch.tensor([yes], dtype=torch.uint8)
        torch.distributed.broadcast(word, 0, group=self._others)
        return bool(word)

    def _validate(self, validate: Callable[[], Mapping[str, tuple[int, float]]]) -> None:
        if self._lead:
            self.record(validate())
        self._lead_says(yes=True)

    def record(self, scores: Mapping[str, tuple[int, float]]) -> None:
        """Adds a validation to the record."""
        for name, (count, score) in scores.items():
            row = {"step": self._trainer.step, "object_class": name, "images": count, "dice": score}
            self._append("validation.csv", row)

    def note_session(self, first: int, seconds: float, precision: Precision) -> None:
        """Adds to the record that steps were made, where and in which floating-point type.

        Args:
            first: Steps that had been made before.
            seconds: How long it took, reading and validation included.
            precision: As chosen.
        """
        row = {
            "first": first,
            "steps": self._trainer.step - first,
            "minutes": round(seconds / 60, 1),
            "precision": precision.name,
            "why": precision.why,
            "torch": torch.__version__,
            "machine": platform.platform(),
        }
        self._append("sessions.csv", row)

    def _append(self, name: str, row: Mapping[str, object]) -> None:
        if self._lead:
            append_row(self._folder / name, row)


def _settings(facts: Mapping[str, str]) -> dict[str, Any]:
    """Facts one by one: what is JSON of a dataclass is taken apart, ``train`` to ``train.lr``."""
    found: dict[str, Any] = {}
    for name, text in facts.items():
        parts = json.loads(text) if text.startswith("{") else None
        found |= {f"{name}.{key}": value for key, value in parts.items()} if parts else {name: text}
    return found


class Process(NamedTuple):
    """One of the processes of a training."""

    rank: int
    world: int
    """How many there are."""
    device: str
    """Its own."""


def join_processes(device: str) -> Process:
    """Joins the processes of ``torchrun``, each with its own GPU, or runs as the only one."""
    if "RANK" not in os.environ:
        return Process(0, 1, device)
    own = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    if device == "cuda":
        torch.cuda.set_device(own)  # or every process pins memory, and runs kernels, on the first
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    return Process(torch.distributed.get_rank(), torch.distributed.get_world_size(), own)


def show_step(bar: tqdm, step: TrainStep) -> None:
    """Moves a progress bar, and reads the loss only now and then, as that waits for the device."""
    bar.update()
    if step.step % 20 == 0:
        bar.set_postfix({k: f"{float(v):.3f}" for k, v in step.loss._asdict().items()})
