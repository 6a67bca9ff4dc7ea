"""Masks that another tool wrote, scored like the answers of a segmentor.

Two layouts are read: one file per label, named as the data set names its own masks, and one label
map per image, named as the image, beside ``labels.csv`` (``value,label``). Axes: H W pixels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError, XPathError
from xpath.labels import load_labels
from xpath.pathseg.biomedparse_data import read_binary_mask
from xpath.pathseg.reading import read_label_map
from xpath.segment.evaluation.evaluate import READERS, Evaluation, Sample, sample_of
from xpath.segment.evaluation.questions import Problem, batches
from xpath.store.tables import parse_whole, read_user_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.segment.evaluation.questions import Asked, EvaluationConfig, Question

__all__ = ["MaskFolder", "score_masks"]


class MaskFolder:
    """Masks in files.

    Args:
        folder: Holds them, in either layout.

    Raises:
        DataError: There is no such folder, or ``labels.csv`` is damaged.
        LabelError: ``labels.csv`` names a label that cannot be.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; wanted one with a mask per label or image")
        self._folder = folder
        self._values: dict[str, set[int]] = {}
        if (folder / "labels.csv").is_file():
            tree = load_labels()
            for row in read_user_table(folder / "labels.csv", "value", "label"):
                label = tree.parse(row["label"], allow_new=True).id
                self._values.setdefault(label, set()).add(_value(row, folder))

    def mask(self, question: Question, size: tuple[int, ...]) -> NDArray[np.bool_]:
        """The answer ``(H, W)`` to a question.

        Raises:
            DataError: No file answers it, or it has another size than the image.
        """
        path = self._folder / (question.mask.name if question.mask else "")
        if self._values:
            path = self._folder / f"{question.image.stem}.png"
            values = self._values.get(question.name, set())
        if not path.is_file():
            if question.mask is None and not self._values:  # nothing was written of what is absent
                return np.zeros(size, bool)
            raise DataError(f"{path} does not exist, which would answer {question.name}")
        if self._values:
            mask = np.isin(read_label_map(path), sorted(values))
        else:
            mask = read_binary_mask(path)
        if mask.shape != size:
            raise DataError(
                f"{path} is {mask.shape[1]} x {mask.shape[0]} px, its image {question.image} is"
                f" {size[1]} x {size[0]}; write the mask at the size of the image"
            )
        return mask


def _value(row: Mapping[str, str], folder: Path) -> int:
    """The value of a label in the masks of a folder."""
    try:
        return parse_whole(row["value"])
    except ValueError as error:
        raise DataError(
            f"{folder / 'labels.csv'}: the value of {row['label']} must be that of its pixels, such"
            f" as 1, got {row['value']!r}"
        ) from error


def score_masks(
    masks: MaskFolder, questions: Mapping[Path, Sequence[Question]], config: EvaluationConfig
) -> Evaluation:
    """Scores masks in files. Presence is whether a mask has a pixel."""
    scored: list[Sample | Problem] = []
    with ThreadPoolExecutor(READERS) as threads:
        for (asked,) in batches(threads, questions, 1):
            scored += asked.problems
            work = partial(_scored, masks, asked, config)
            scored += threads.map(work, range(len(asked.truths)))
    samples = tuple(one for one in scored if isinstance(one, Sample))
    return Evaluation(samples, tuple(one for one in scored if isinstance(one, Problem)))


def _scored(
    masks: MaskFolder, asked: Asked, config: EvaluationConfig, number: int
) -> Sample | Problem:
    question, truth, unknown = asked.questions[number], asked.truths[number], asked.ignored[number]
    try:
        mask = masks.mask(question, truth.shape)
    except XPathError as error:
        return Problem(question.mask or question.image, str(error))
    mask = mask if unknown is None else mask & ~unknown
    verdict = (bool(mask.any()), float(mask.any()))
    return sample_of(question, truth, mask[None], verdict, config.tolerance)
