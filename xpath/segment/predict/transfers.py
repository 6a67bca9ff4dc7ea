"""Pixels on their way to a GPU and results on their way back, while it computes.

Both go through page-locked memory on streams of their own, so nobody waits: the host fills the next
batch while the device works on this one, and reads a result when it has long arrived. On the CPU
nothing moves and nothing is copied.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.wsi.patches import PatchBatch

__all__ = ["DeviceBatch", "arrived", "on_device", "uploaded"]

Results = TypeVar("Results", bound=tuple[Any, ...])


class DeviceBatch(NamedTuple):
    """A batch of patches where the network runs."""

    indices: NDArray[np.int64]
    """``(B,)`` positions in the grid."""
    images: Tensor
    """``(B, H, W, 3)`` uint8 RGB."""


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array on a device, without waiting for it to get there."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def uploaded(batches: Iterable[PatchBatch], device: torch.device) -> Iterator[DeviceBatch]:
    """Batches on a GPU, the next one on its way while this one is worked on."""
    stream = torch.cuda.Stream(device)
    waiting: deque[tuple[DeviceBatch, torch.cuda.Event]] = deque()

    def first() -> DeviceBatch:
        batch, event = waiting.popleft()
        computing = torch.cuda.current_stream(device)
        computing.wait_event(event)
        batch.images.record_stream(computing)
        return batch

    for indices, images in batches:
        with torch.cuda.stream(stream):
            batch = DeviceBatch(indices, on_device(images, device))
            waiting.append((batch, stream.record_event()))
        if len(waiting) > 1:
            yield first()
    while waiting:
        yield first()


def arrived(results: Iterable[Results], device: torch.device) -> Iterator[Results]:
    """Named tuples of results with their tensors on the host, one after the other.

    On a GPU each is yielded when the next has been asked for, so that the device has work while
    the host waits for this one.
    """
    if device.type != "cuda":
        yield from results
        return
    stream = torch.cuda.Stream(device)
    waiting: deque[tuple[Results, torch.cuda.Event]] = deque()

    def first() -> Results:
        result, event = waiting.popleft()
        event.synchronize()
        return result

    for result in results:
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            sent = type(result)(*(_sent(part, stream) for part in result))
            waiting.append((sent, stream.record_event()))
        if len(waiting) > 1:
            yield first()
    while waiting:
        yield first()


def _sent(part: Any, stream: torch.cuda.Stream) -> Any:
    """A tensor on its way to page-locked memory; anything else as it is."""
    if not isinstance(part, torch.Tensor) or not part.is_cuda:
        return part
    part.record_stream(stream)
    host = torch.empty(part.shape, dtype=part.dtype, pin_memory=True)
    return host.copy_(part, non_blocking=True)
