"""From annotated images to batches of the grounded model.

Sample k is a function of k and the seed alone, so a training goes on exactly where it stopped.
Axes: M masks, h w pixels of a mask before it is enlarged, L tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from xpath.errors import DataError
from xpath.grounded.boxes import draw_box, region_box
from xpath.grounded.losses import IGNORED
from xpath.grounded.prompts import END, SEG, TRAINING, Turns
from xpath.grounded.tasks import TASKS
from xpath.grounded.tiles import MAX_TILES, pixels_of
from xpath.grounded.train import GroundedBatch
from xpath.pathseg.biomedparse_data import read_binary_mask
from xpath.pathseg.reading import read_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor
    from torch.utils.data import Dataset

    from xpath.grounded.config import GroundedConfig
    from xpath.grounded.prompts import GroundedTokenizer
    from xpath.grounded.tasks import Annotation
    from xpath.grounded.tiles import Pixels

__all__ = [
    "GroundedSample",
    "GroundedSamples",
    "SampleConfig",
    "batches",
    "collate",
    "mask_of",
    "schedule",
]


class GroundedSample(NamedTuple):
    """One question with its answer, ready for the model."""

    prompt: Tensor
    """``(L,)`` ids, image tokens included."""
    answer: Tensor
    """``(L,)`` ids, the end included."""
    pixels: Pixels
    masks: Tensor
    """``(M, h, w)`` uint8, one for each ``[SEG]``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """How samples are made."""

    turns: Turns = TRAINING
    max_tiles: int = MAX_TILES
    """Most tiles of an image; one where a box is drawn."""
    repeat: bool = True
    """Show small data sets several times, as UniBiomed does (``Task.least``)."""
    seed: int = 0
    """Of order, paraphrases and boxes."""


def schedule(
    data_sets: Iterable[Mapping[str, Sequence[Annotation]]], config: SampleConfig
) -> list[tuple[str, Annotation]]:
    """Tasks and annotations of an epoch, small data sets repeated.

    Args:
        data_sets: Annotations of each by task, a key of ``TASKS``; those that tell too little for
            the task are left out.
        config: Whether to repeat.

    Raises:
        DataError: There is nothing to show.
    """
    shown: list[tuple[str, Annotation]] = []
    for task, items in (pair for data in data_sets for pair in data.items()):
        fitting = [(task, it) for it in items if TASKS[task].fits(it)]
        times = max(1, TASKS[task].least // max(1, len(fitting))) if config.repeat else 1
        shown += fitting * times
    if not shown:
        raise DataError("there is no annotation that fits a task; add data, or other tasks")
    return shown


class GroundedSamples:
    """Sample number k, for any k.

    Args:
        shown: From ``schedule``; every epoch shows all of it in an order of its own.
        model: Sizes.
        tokenizer: Of the weights.
        config: How samples are made.
    """

    def __init__(
        self,
        shown: Sequence[tuple[str, Annotation]],
        model: GroundedConfig,
        tokenizer: GroundedTokenizer,
        config: SampleConfig,
    ) -> None:
        self._shown, self._model = shown, model
        self._tokenizer, self._config = tokenizer, config

    def __getitem__(self, number: int) -> GroundedSample:
        """A sample, read from its files.

        Raises:
            DataError: A file is missing or damaged, or a mask that needs a region has none.
        """
        epoch, position = divmod(number, len(self._shown))
        order = _order(len(self._shown), self._config.seed, epoch)
        name, annotation = self._shown[order[position]]
        rng = np.random.default_rng((self._config.seed, number))
        task = TASKS[name]
        question, answer = task.exchange(annotation, rng)
        image = read_image(annotation.image)
        mask = mask_of(annotation, (image.shape[0], image.shape[1]))
        if task.boxed:
            image = _boxed(annotation, image, mask, rng)
        tiles = 1 if task.boxed else self._config.max_tiles
        pixels = pixels_of(image, self._model, max_tiles=tiles)
        turns, count = self._config.turns, len(pixels.tiles) * self._model.vision.tokens
        return GroundedSample(
            self._ids(turns.before(count) + turns.after(question)),
            self._ids(answer + END),
            pixels,
            _small(mask, self._model)[: answer.count(SEG)],
        )

    def _ids(self, text: str) -> Tensor:
        return torch.tensor(self._tokenizer.ids(text))


def collate(samples: Sequence[GroundedSample], *, pad: int) -> GroundedBatch:
    """Samples as tensors, padded on the right with the id ``pad``."""
    ids = [torch.cat((one.prompt, one.answer)) for one in samples]
    labels = [torch.cat((torch.full_like(one.prompt, IGNORED), one.answer)) for one in samples]
    return GroundedBatch(
        pad_sequence(ids, batch_first=True, padding_value=pad),
        pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        torch.cat([one.pixels.tiles for one in samples]),
        torch.stack([one.pixels.square for one in samples]),
        torch.cat([one.masks for one in samples]),
    )


def batches(
    samples: GroundedSamples,
    steps: range,
    *,
    size: int,
    accumulate: int,
    pad: int,
    workers: int = 0,
) -> Iterator[list[GroundedBatch]]:
    """The batches of each step, ``accumulate`` of ``size`` samples.

    Args:
        samples: Any number of them.
        steps: Consecutive; step n shows samples from ``n * accumulate * size``.
        size: Samples of a batch.
        accumulate: Batches of a step.
        pad: Id of padding.
        workers: Processes that read ahead; 0 reads in this one.
    """
    parts = range(steps.start * accumulate, steps.stop * accumulate)
    numbers = [list(range(part * size, (part + 1) * size)) for part in parts]
    dataset = cast("Dataset[GroundedSample]", samples)
    together = partial(collate, pad=pad)
    loader = DataLoader(dataset, batch_sampler=numbers, collate_fn=together, num_workers=workers)
    ahead = iter(loader)
    for _ in steps:
        yield [next(ahead) for _ in range(accumulate)]


def mask_of(annotation: Annotation, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of an annotation at the size of its image. Nothing where none is named.

    Args:
        annotation: Read from its file.
        size: Height and width; a mask of another size is brought to it by its nearest values.

    Raises:
        DataError: The file is missing or damaged.
    """
    if annotation.mask is None:
        return np.zeros(size, np.bool_)
    mask = read_binary_mask(annotation.mask)
    if mask.shape == size:
        return mask
    import cv2

    resized = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized > 0)


def _boxed(
    annotation: Annotation,
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    box = region_box(mask, rng)
    if box is None:
        raise DataError(f"{annotation.mask} is empty, but a region of it is asked for; remove it")
    return draw_box(image, box)


def _small(mask: NDArray[np.bool_], model: GroundedConfig) -> Tensor:
    """A mask ``(1, h, w)`` at the size at which SAM2 draws it, by its nearest values."""
    side = model.grounding.image // 4
    whole = torch.from_numpy(mask.astype(np.float32))[None, None]
    return functional.interpolate(whole, (side, side), mode="nearest")[0].to(torch.uint8)


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)
