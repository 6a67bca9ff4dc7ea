"""Features of more slides than the memory holds, the rest in a file that is paged in."""

from __future__ import annotations

import tempfile
import weakref
from typing import IO, TYPE_CHECKING

import numpy as np
import torch

from xpath.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = ["FeatureCache"]

ALIGNMENT = 64
"""Bytes; no type of torch needs more."""
SEGMENT = 2**30
"""Bytes mapped at once. A mapping takes a file descriptor, and a process may have only 1,024."""


class FeatureCache:
    """Keeps tensors in memory up to a limit, and those after it in a file.

    A tensor from the file is a tensor like any other: its values are read when they are looked at,
    and the system drops them where memory is short. The file has no name, so it is gone with the
    process, however that ends.

    Args:
        folder: Where the file is made, if one is needed; made too.
        memory_gb: Most memory for tensors, GB.

    Raises:
        ConfigError: A limit below zero, or no number.

    Example::

        cache = FeatureCache(Path("run"), memory_gb=8)
        bags = [Bag(cache.keep(read(slide)), label=...) for slide in slides]
    """

    def __init__(self, folder: Path, *, memory_gb: float = 8.0) -> None:
        if not memory_gb >= 0:
            raise ConfigError(f"memory_gb must be 0 or more, got {memory_gb}; 8 suits most")
        self._folder, self._left = folder, memory_gb * 1e9
        self._file: IO[bytes] | None = None
        self._segment = torch.empty(0, dtype=torch.uint8)
        self._start, self._used = 0, 0  # of the segment in the file, and of it by tensors

    def keep(self, tensor: Tensor) -> Tensor:
        """The tensor, or an equal one in the file, of any type, on the CPU.

        Raises:
            StoreError: The file cannot be made or grow; the disk is full, for instance.
        """
        if tensor.nbytes <= self._left or not tensor.nbytes:
            self._left -= tensor.nbytes
            return tensor
        try:
            return self._in_file(tensor)
        except OSError as error:
            raise StoreError(
                f"{tensor.nbytes / 1e9:.2f} GB of features exceed the memory they may take and"
                f" cannot be kept in {self._folder} ({error}); free some space there, or allow more"
                " memory"
            ) from error

    def _in_file(self, tensor: Tensor) -> Tensor:
        flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
        if self._used + len(flat) > len(self._segment):
            self._map(max(SEGMENT, len(flat)))
        # Written, not assigned: on a full disk a mapping ends the process, a write tells.
        file, start = self._opened(), self._used
        file.seek(self._start + start)
        file.write(flat.numpy().data)
        file.flush()
        self._used += len(flat) + -len(flat) % ALIGNMENT
        return self._segment[start : start + len(flat)].view(tensor.dtype).view(tensor.shape)

    def _map(self, size: int) -> None:
        """Maps further bytes at the file's end, which take no room until they are written."""
        self._start += len(self._segment)
        mapped = np.memmap(self._opened(), np.uint8, "r+", self._start, (size,))
        self._segment, self._used = torch.from_numpy(mapped), 0

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - open while we live
            weakref.finalize(self, self._file.close)  # tensors keep what they map
        return self._file
