"""How much is computed at once, so that it fits into memory.

An estimate from the sizes of the model, not a measurement: what the widest step keeps alive at
once, with a fifth on top. Chunks bound the memory and never change a mask.

Axes: B images, P prompts, Q queries, D features, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xpath.segment.model.segmentor import PathSegmentor

__all__ = ["Chunks", "WorkingSet", "chunks", "shifted", "tiles", "working_set"]

GIB = 2**30
MARGIN = 1.2
"""For the allocator's gaps and the small things not counted."""
FLOAT, BOOL = 4, 1
"""Bytes per value."""

# Arrays of the widest map that are alive at once, read off the code and checked against the peak
# memory measured on the CPU: within a focal block (input, query, context and its sum, modulator,
# and the four-fold hidden layer twice), and in the feature pyramid (map, lateral, sum,
# convolution, norm).
FOCAL_ARRAYS = 12
PYRAMID_ARRAYS = 5


class WorkingSet(NamedTuple):
    """Bytes needed beyond the weights and the result."""

    image: int
    """To encode one image, what is kept of it for the prompts included."""
    prompt: int
    """To decode one prompt on one image; full-size maps, made a few at a time, not included."""


class Chunks(NamedTuple):
    """How many at once, at least one each."""

    encoded: int
    """Images."""
    decoded: int
    """Prompts times images."""


def working_set(model: PathSegmentor, model_size: tuple[int, int], itemsize: int) -> WorkingSet:
    """An estimate of the memory that encoding and decoding need.

    Args:
        model: The segmentor.
        model_size: Height and width of the images the model sees.
        itemsize: Bytes of the type the model computes in.
    """
    rows, columns = -(-model_size[0] // 32), -(-model_size[1] // 32)
    positions = rows * columns  # at stride 32; 4, 16 and 64 times as many where it is finer
    queries, dim = model.decoder.query_content.weight.shape
    width = model.image_encoder.channels[0]
    fine = 64 if model.pixel_decoder.detail is None else 256  # positions at which masks are drawn
    activations = 64 * positions * max(FOCAL_ARRAYS * width, PYRAMID_ARRAYS * dim)
    depth = len(model.decoder.layers)
    kept = (
        dim * positions * (fine + 21 + 2 * 7 * depth)
    )  # mask features, resized ones, keys and values
    if model.pixel_decoder.detail is not None:
        activations += fine * positions * PYRAMID_ARRAYS * model.pixel_decoder.detail.dim
    # Under autocast sums and norms stay float32, so half of the activations are no smaller.
    image = (activations * (itemsize + FLOAT) // 2) + kept * itemsize
    look = 16 * positions * queries * (itemsize + FLOAT + 3 * BOOL)  # logits twice, where to look
    answer = fine * positions * (itemsize + 2 * FLOAT)  # logits, in float32, and checked
    return WorkingSet(int(MARGIN * image), int(MARGIN * (look + answer)))


def chunks(needs: WorkingSet, memory_gb: float) -> Chunks:
    """How many images and prompts fit into so many GiB, one at least."""
    budget = max(memory_gb, 0) * GIB
    return Chunks(max(1, int(budget // needs.image)), max(1, int(budget // needs.prompt)))


def tiles(
    images: int, prompts: int, fits: int, wide: int | None = None
) -> Iterator[tuple[slice, slice]]:
    """Images and prompts to be treated together, all prompts of an image before the next.

    Args:
        images: Number of images.
        prompts: Number of prompts.
        fits: Images times prompts at once.
        wide: Prompts at once; None for as many as fit.
    """
    wide = max(1, wide or min(fits, prompts))
    high = max(1, fits // wide)
    for top in range(0, images, high):
        for left in range(0, prompts, wide):
            yield slice(top, min(top + high, images)), slice(left, min(left + wide, prompts))


def shifted(part: slice, start: int) -> slice:
    """A slice of what begins so much later."""
    return slice(part.start + start, part.stop + start)
