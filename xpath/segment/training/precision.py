"""Which floating-point type trains fastest on a machine.

bfloat16 halves the time of a step where the processor multiplies it. Where it does not, PyTorch
falls back to convolutions that take five times as long as those in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from xpath.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AUTO", "PRECISIONS", "Precision", "choose_precision"]

AUTO = "auto"
PRECISIONS = ("fp32", "bf16", AUTO)
MULTIPLY_BF16 = ("avx512_bf16", "amx_bf16")
"""Instructions for products of bfloat16, by their names in ``torch.cpu.get_capabilities``."""


class Precision(NamedTuple):
    """A floating-point type, and why it was chosen."""

    name: str
    """``fp32`` or ``bf16``."""
    why: str


def choose_precision(
    wanted: str, device: str, *, processor: Mapping[str, object] | None = None
) -> Precision:
    """The type to train in.

    Args:
        wanted: ``fp32``, ``bf16``, or ``auto`` for whichever is faster on the device.
        device: ``cpu``, ``cuda``, ``cuda:1`` ...
        processor: What the CPU can do, as ``torch.cpu.get_capabilities`` returns it; asked of
            this machine if not given.

    Raises:
        ConfigError: Another type.
    """
    if wanted not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {wanted!r}")
    if torch.device(device).type == "cuda":
        able = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        can = f"{device} {'multiplies' if able else 'does not multiply'} bfloat16"
    else:
        known = torch.cpu.get_capabilities() if processor is None else processor
        here = [name for name in MULTIPLY_BF16 if known.get(name)]
        able = bool(here)
        can = f"the processor has {here[0] if able else 'neither ' + ' nor '.join(MULTIPLY_BF16)}"
    if wanted != AUTO:
        slow = ", so a step will take five times as long" if wanted == "bf16" and not able else ""
        return Precision(wanted, f"as asked for{slow}; {can}")
    return Precision("bf16" if able else "fp32", can)
