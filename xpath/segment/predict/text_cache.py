"""Prompts that were encoded once, on disk: the next start need not encode them again.

One small safetensors file per prompt, in a folder per text encoder. The cache only ever saves
time: what cannot be read is encoded again and written over, what cannot be written is let go.

Axes: T tokens, D features.
"""

from __future__ import annotations

import logging
import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from xpath.errors import StoreError
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["EncodedPrompt", "TextCache", "cache_folder"]

SCHEMA = "xpath.text/1"

logger = logging.getLogger(__name__)


class EncodedPrompt(NamedTuple):
    """A prompt in the joint space, float32 on the CPU."""

    tokens: Tensor
    """``(T, D)``, real tokens only."""
    sentence: Tensor
    """``(D,)``."""


def cache_folder() -> Path:
    """Where what can be made again is kept: ``XPATH_CACHE``, or the platform's cache folder."""
    named = os.environ.get("XPATH_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "xpath"


class TextCache:
    """Encoded prompts of one text encoder.

    Args:
        digest: SHA-256 of all that decides the features: text encoder and tokenizer.
        folder: Shared by all encoders; None for ``text`` in ``cache_folder()``.
    """

    def __init__(self, digest: str, folder: Path | None = None) -> None:
        self.digest = digest
        self.folder = (cache_folder() / "text" if folder is None else folder) / digest
        self._writable = True

    def path(self, prompt: str) -> Path:
        """The file of a prompt, whether it is there or not."""
        return self.folder / f"{sha256(prompt.encode()).hexdigest()}.safetensors"

    def load(self, prompt: str) -> EncodedPrompt | None:
        """The stored features of a prompt, or None if there are none or damaged ones."""
        path = self.path(prompt)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                encoded = EncodedPrompt(file.get_tensor("tokens"), file.get_tensor("sentence"))
                about = file.metadata() or {}
        except (OSError, SafetensorError, ValueError) as error:
            logger.info("%s is damaged and will be written again: %s", path, error)
            return None
        if about != self._about(prompt, encoded):
            logger.info("%s is not what its name says and will be written again", path)
            return None
        return encoded

    def save(self, prompt: str, encoded: EncodedPrompt) -> None:
        """Keeps a prompt. A folder that cannot be written is no error, and is tried only once."""
        if not self._writable:
            return
        tensors = {name: value.contiguous() for name, value in encoded._asdict().items()}
        try:
            with atomic(self.path(prompt)) as draft:
                save_file(tensors, draft, metadata=dict(self._about(prompt, encoded)))
        except (OSError, StoreError, SafetensorError) as error:
            self._writable = False
            logger.warning(
                "prompts cannot be cached in %s (%s); set XPATH_CACHE to a folder that can be"
                " written",
                self.folder,
                error,
            )

    def _about(self, prompt: str, encoded: EncodedPrompt) -> Mapping[str, str]:
        """SHA-256 of the tensors, for safetensors itself does not notice a flipped bit."""
        content = sha256()
        for value in encoded:
            content.update(str((tuple(value.shape), value.dtype)).encode())
            content.update(value.contiguous().view(torch.uint8).numpy().tobytes())
        return {
            "schema": SCHEMA,
            "prompt": prompt,
            "encoder": self.digest,
            "sha256": content.hexdigest(),
        }
