"""Where classifiers are trained."""

from __future__ import annotations

import logging

import torch

from xpath.errors import ConfigError

__all__ = ["device_of"]

logger = logging.getLogger(__name__)


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
    except RuntimeError as error:
        raise _refusal(name, error) from error
    try:
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
        if not else_cpu:
            raise _refusal(name, error) from error
        logger.warning("device %r is not here, so the CPU does its work: slower, else alike", name)
        return torch.device("cpu")
    return device


def _refusal(name: str, error: Exception) -> ConfigError:
    reason = str(error).partition("\n")[0]
    return ConfigError(f"device {name!r} cannot be used ({reason}); wanted cpu, cuda, cuda:1 ...")
