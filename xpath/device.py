"""Where networks run: is the device there, and its random state for a while."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch

from xpath.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["device_of", "seeded", "side_by_side", "tf32"]

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

REFUSED = {"mps": "GPUs of Apple have no double precision, in which scores are summed"}


def device_of(name: str, *, else_cpu: bool = False) -> torch.device:
    """The device of that name, tried out.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1`` ...
        else_cpu: Take the CPU where this machine has no such device, and say so.

    Raises:
        ConfigError: No name of a device, or this machine has none of it.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise _refusal(name, "no such device") from error
    if device.type in REFUSED:
        raise _refusal(name, REFUSED[device.type])
    try:
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
        if not else_cpu:
            raise _refusal(name, str(error).partition("\n")[0]) from error
        logger.warning("device %r is not here, so the CPU does its work: slower, else alike", name)
        return torch.device("cpu")
    return device


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Dropout knows only the global random state of its device: set it, and put it back."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed all devices
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Results of some work on each item, in as many threads as torch may use.

    For many small steps on the CPU: torch would split every step among its threads, which then wait
    for each other, on a busy machine longer than they work.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:  # noqa: FBT001 - a switch is all it is
    """Whether a GPU may round float32 to ten bits on the way into products and convolutions."""
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrices.allow_tf32, convolutions.allow_tf32
    matrices.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        matrices.allow_tf32, convolutions.allow_tf32 = before


def _refusal(name: str, reason: str) -> ConfigError:
    return ConfigError(f"device {name!r} cannot be used ({reason}); wanted cpu, cuda, cuda:1 ...")
