"""The one run-time shape check, for public doors."""

from __future__ import annotations

from typing import Protocol

from xpath.errors import ShapeError

__all__ = ["check_shape"]


class Shaped(Protocol):
    """A tensor or an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""


def check_shape(name: str, tensor: Shaped, spec: str, **known: int) -> dict[str, int]:
    """Sizes of the axes of a tensor, by letter.

    Args:
        name: What the tensor is, for the message.
        tensor: Anything with a ``shape``.
        spec: One word per axis: a letter that is bound on first sight (``"B N D"``), or a number
            that must match (``"B 3 H W"``).
        known: Sizes that are already bound.

    Returns:
        Every letter of ``spec`` with its size, those of ``known`` included.

    Raises:
        ShapeError: Another number of axes, or an axis of another size.
    """
    axes = spec.split()
    shape = tuple(tensor.shape)
    sizes = dict(known)
    fits = len(axes) == len(shape)
    for axis, size in zip(axes, shape, strict=False):
        wanted = int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
        fits = fits and wanted == size
    if not fits:
        hint = f" with {known}" if known else ""
        raise ShapeError(f"{name} must be ({', '.join(axes)}){hint}, got {shape}")
    return sizes
