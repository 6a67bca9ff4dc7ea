"""Examples to look at, a column per model (paper, Figs. 5b, d, h and 8).

Axes: H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from xpath.export.colour import object_colour
from xpath.export.evaluation_figures import Answer, file_name, marked, new_figure, save_figure
from xpath.metrics.overlap import dice
from xpath.pathseg.reading import read_image
from xpath.segment.evaluation.evaluate import ask
from xpath.segment.evaluation.predictions import MaskFolder
from xpath.segment.evaluation.questions import read_mask
from xpath.segment.evaluation.tables import examples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.protocols import Segmentor
    from xpath.segment.evaluation.evaluate import Sample
    from xpath.segment.evaluation.questions import Question

__all__ = ["MaskOf", "draw_panels", "models_of", "panels_figure", "samples_over"]

INCHES = 2.1
OVER = ("irregularity", "instance_ratio", "instance_count")
"""Traits of Fig. 5b, 5d and 5h."""
QUANTILES = (0.05, 0.35, 0.65, 0.95)


class MaskOf(Protocol):
    """Anything that answers a question with a mask."""

    def __call__(self, question: Question, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """The mask ``(H, W)`` for an image ``(H, W, 3)``."""


def models_of(name: str, segmentor: Segmentor, folders: Mapping[str, Path]) -> dict[str, MaskOf]:
    """Our model, and the masks other tools wrote, each asked for one mask at a time.

    Args:
        name: Of our model.
        segmentor: Ours.
        folders: Name of another model to the folder of its masks.

    Raises:
        DataError: There is no such folder.
    """

    def ours(question: Question, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        answers = ask(segmentor, image[None], [question.prompt], mpp=question.mpp)
        return np.asarray(answers.masks[0, 0])

    models: dict[str, MaskOf] = {name: ours}
    for other, folder in folders.items():
        masks = MaskFolder(folder)
        models[other] = lambda question, image, masks=masks: masks.mask(question, image.shape[:2])
    return models


class _Row(NamedTuple):
    title: str
    sample: Sample


def draw_panels(folder: Path, samples: Sequence[Sample], models: Mapping[str, MaskOf]) -> None:
    """Draws examples of every label, and over every trait, with the answers of all models.

    Args:
        folder: ``panels_LABEL.png`` and ``panels_over_TRAIT.png`` go here.
        samples: Of our model; they choose the examples: best, median and worst, and from one end
            of a trait to the other.
        models: Name to model, ours first; asked again about each example.

    Raises:
        DataError: A file that is missing or damaged.
    """
    for name, chosen in examples(samples).items():
        rows = [_Row(word, sample) for word, sample in chosen.items()]
        panels_figure(folder / f"panels_{file_name(name)}.png", rows, models)
    for trait in OVER:
        rows = [
            _Row(f"{trait.replace('_', ' ')} {getattr(sample.traits, trait):.3g}", sample)
            for sample in samples_over(samples, trait)
        ]
        if rows:
            panels_figure(folder / f"panels_over_{trait}.png", rows, models)


def samples_over(samples: Sequence[Sample], trait: str) -> list[Sample]:
    """Samples from low to high values of a trait, each once."""
    present = [s for s in samples if s.present and np.isfinite(getattr(s.traits, trait))]
    order = sorted(present, key=lambda sample: (getattr(sample.traits, trait), sample.dice))
    chosen = [order[round(q * (len(order) - 1))] for q in QUANTILES] if order else []
    unique: list[Sample] = []
    for sample in chosen:
        if not any(sample is other for other in unique):
            unique.append(sample)
    return unique


def panels_figure(path: Path, rows: Sequence[_Row], models: Mapping[str, MaskOf]) -> None:
    """A row per example: the image, then each model's answer tinted, the truth outlined in blue."""
    columns = 1 + len(models)
    figure, axes = new_figure(INCHES * columns, (INCHES + 0.35) * len(rows), len(rows), columns)
    for line, row in zip(axes, rows, strict=True):
        question = row.sample.question
        image = read_image(question.image)
        truth, unknown = read_mask(
            question.mask or question.image, ignore=question.ignore, unknown=question.unknown
        )
        line[0].imshow(image)
        line[0].set_title(f"{row.title}\n{question.name}", fontsize=7)
        for axis, (name, model) in zip(line[1:], models.items(), strict=True):
            mask = model(question, image)
            mask = mask if unknown is None else mask & ~unknown
            answer = Answer(name, image, mask, truth)
            axis.imshow(marked(answer, object_colour(question.name)))
            axis.set_title(f"{name}\nDice {dice(mask, truth):.3f}", fontsize=7)
        for axis in line:
            axis.set_axis_off()
    save_figure(figure, path)
