"""Questions of an evaluation: prompts for images, and the images and masks themselves.

Axes: H W pixels.
"""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.errors import ConfigError, DataError, XPathError
from xpath.labels import load_labels
from xpath.pathseg.biomedparse_data import read_binary_mask
from xpath.pathseg.reading import read_image, read_label_map
from xpath.pathseg.sentences import template_label
from xpath.segment.evaluation.mapping import label_of, nearest_label, nearest_to_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.labels import Label
    from xpath.pathseg.biomedparse_data import PromptedMask

__all__ = [
    "Asked",
    "EvaluationConfig",
    "Problem",
    "Question",
    "batches",
    "prompts_of",
    "questions_of",
    "read_mask",
]

MASKS_AT_ONCE = 64
"""Most masks, images times prompts, of a batch of several images; bounds the memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """How to evaluate."""

    trained: tuple[str, ...] = ()
    """Label ids the weights were taught; without any, every label counts as taught."""
    batch: int = 4
    """Images of one size encoded at once."""
    tolerance: float = 2.0
    """Pixels within which two edges agree, for the surface Dice."""
    absent: bool = False
    """Also ask every image for the data set's labels it has no mask of, and take them for absent:
    right only where every image was searched for every label."""
    invalid: int = 0
    """Also ask every image for so many labels whose object type its region does not have at all,
    drawn by the name of the image (BiomedParse's invalid prompts)."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.invalid < 0:
            raise ConfigError(
                f"batch must be 1 image at least and invalid 0 or more, got {self.batch} and"
                f" {self.invalid}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One prompt for one image, and where the truth lies."""

    image: Path
    mask: Path | None
    """None if the object is taken for absent."""
    source: str
    """Name of the data set."""
    group: str
    """Patient or slide where known, else the image: what is drawn together in intervals."""
    prompt: str
    label: Label | None
    """None if the words are no label."""
    nearest: Label | None
    """For a label that was never taught, the trained one of its object type, if there is one."""
    trained: bool
    ignore: int | None = None
    """Value of the mask where nothing is known."""
    unknown: Path | None = None
    """A second mask, of where nothing is known."""
    mpp: float | None = None
    """Microns per pixel of the image; None takes the pixels as they are."""

    @property
    def name(self) -> str:
        """Name in reports: the label id, or the words."""
        return self.label.id if self.label else self.prompt

    @property
    def prompts(self) -> tuple[str, ...]:
        """Sentences the model is asked: the question's own, then the nearest trained label's."""
        return (self.prompt, self.nearest.prompt) if self.nearest else (self.prompt,)


class Problem(NamedTuple):
    """Something left out."""

    path: Path
    what: str
    """The fault, and how to mend it."""


class Asked(NamedTuple):
    """An image, decoded, with what is asked of it."""

    pixels: NDArray[np.uint8]
    """``(H, W, 3)``."""
    questions: tuple[Question, ...]
    truths: tuple[NDArray[np.bool_], ...]
    """``(H, W)`` each."""
    ignored: tuple[NDArray[np.bool_] | None, ...]
    problems: tuple[Problem, ...]

    @property
    def mpp(self) -> float | None:
        """Microns per pixel of the image, if known."""
        return self.questions[0].mpp


def questions_of(
    items: Sequence[PromptedMask],
    config: EvaluationConfig,
    *,
    groups: Mapping[str, str] | None = None,
    ignore: Mapping[str, int] | None = None,
) -> dict[Path, list[Question]]:
    """The questions of every image, in the order of the items.

    Args:
        items: Masks with their sentences; the data set is named after its folder.
        config: How to evaluate.
        groups: Image file name, with or without suffix, to patient or slide.
        ignore: Label id to the value of its masks where nothing is known.
    """
    by_image: dict[Path, list[Question]] = {}
    groups = groups or {}
    for item in items:
        group = groups.get(item.image.name) or groups.get(item.image.stem) or str(item.image)
        value = (ignore or {}).get(item.label or "")
        questions = by_image.setdefault(item.image, [])
        questions.append(_question(item, group, value, config))
    for item in items:
        _add_known_absent(by_image[item.image], item, config)
    if config.absent:
        _add_absent(by_image)
    if config.invalid:
        for questions in by_image.values():
            _add_invalid(questions, config)
    return by_image


def batches(
    threads: ThreadPoolExecutor, questions: Mapping[Path, Sequence[Question]], size: int
) -> Iterator[list[Asked]]:
    """Images in order, decoded while the model is busy, neighbours of a size and mpp together.

    Args:
        threads: Decode the images.
        questions: From ``questions_of``.
        size: Most images at once.
    """
    batch: list[Asked] = []
    for asked in _ahead(threads, questions, 2 * size):
        together = [*batch, asked]
        first = together[0]
        same = (asked.pixels.shape, asked.mpp) == (first.pixels.shape, first.mpp)
        masks = len(together) * len(prompts_of(together))
        if batch and (len(batch) == size or not same or masks > MASKS_AT_ONCE):
            yield batch
            batch = []
        batch.append(asked)
    if batch:
        yield batch


def prompts_of(batch: Sequence[Asked]) -> tuple[str, ...]:
    """Every prompt of a batch, once."""
    asked = (q for a in batch for q, _ in zip(a.questions, a.truths, strict=False))
    return tuple(dict.fromkeys(prompt for question in asked for prompt in question.prompts))


def read_mask(
    path: Path, *, ignore: int | None = None, unknown: Path | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """A mask ``(H, W)``, True where the value is not 0, and where nothing is known.

    Args:
        path: An image.
        ignore: Its value that stands for "not known"; the mask then has one value per pixel.
        unknown: A second mask, True where nothing is known.

    Raises:
        DataError: A file is missing or damaged.
    """
    dark = read_binary_mask(unknown) if unknown else None
    if ignore is None:
        mask = read_binary_mask(path)
    else:
        values = read_label_map(path)
        mask = values != 0
        dark = (values == ignore) | (dark if dark is not None else False)
    return (mask if dark is None else mask & ~dark), dark


def _question(
    item: PromptedMask, group: str, ignore: int | None, config: EvaluationConfig
) -> Question:
    """A label is asked in the sentence given if that is the paper's, else in the paper's."""
    label, words = label_of(item.label), (*item.prompts, item.name)[0]
    said = label is None or template_label(words) == label.id
    trained = not config.trained or (label is not None and label.id in config.trained)
    nearest = None
    if not trained:
        nearest = (
            nearest_label(label, config.trained)
            if label
            else nearest_to_words(words, config.trained)
        )
    return Question(
        image=item.image,
        mask=item.mask,
        source=item.image.parent.parent.name,
        group=group,
        prompt=words if label is None or said else label.prompt,
        label=label,
        nearest=nearest,
        trained=trained,
        ignore=ignore,
        unknown=item.ignore,
        mpp=item.mpp,
    )


def _add_known_absent(
    questions: list[Question], item: PromptedMask, config: EvaluationConfig
) -> None:
    """Adds the labels the data set itself calls absent, each once."""
    first, has = questions[0], {question.name for question in questions}
    for label in filter(None, map(label_of, item.absent)):
        if label.id in has:
            continue
        has.add(label.id)
        trained = not config.trained or label.id in config.trained
        nearest = None if trained else nearest_label(label, config.trained)
        questions.append(
            replace(
                first, mask=None, prompt=label.prompt, label=label, nearest=nearest,
                trained=trained, ignore=None,
            )
        )  # fmt: skip


def _add_absent(by_image: dict[Path, list[Question]]) -> None:
    """Adds a question without mask for every label of its source an image has no mask of."""
    by_name: dict[tuple[str, str], Question] = {}
    for questions in by_image.values():
        for question in questions:
            by_name.setdefault((question.source, question.name), question)
    for image, questions in by_image.items():
        first, has = questions[0], {question.name for question in questions}
        questions += [
            replace(
                question, image=image, mask=None, group=first.group, ignore=None, unknown=None,
                mpp=first.mpp,
            )
            for (source, name), question in by_name.items()
            if source == first.source and name not in has
        ]  # fmt: skip


def _add_invalid(questions: list[Question], config: EvaluationConfig) -> None:
    """Adds prompts for object types that no label of the image's region has."""
    tree, first = load_labels(), questions[0]
    regions = {question.label.region for question in questions if question.label}
    native = {label.object_type for label in tree if label.region in regions}
    foreign = [label for label in tree if label.object_type not in native]
    if not regions or not foreign:
        return
    rng = np.random.default_rng(zlib.crc32(first.image.name.encode()))
    chosen = rng.choice(len(foreign), min(config.invalid, len(foreign)), replace=False)
    questions += [
        replace(
            first, mask=None, prompt=foreign[i].prompt, label=foreign[i], nearest=None,
            trained=not config.trained or foreign[i].id in config.trained, ignore=None,
            unknown=None,
        )
        for i in sorted(chosen.tolist())
    ]  # fmt: skip


def _ahead(
    threads: ThreadPoolExecutor, questions: Mapping[Path, Sequence[Question]], depth: int
) -> Iterator[Asked]:
    """Images decoded while the model is busy with those before, at most ``depth`` ahead."""
    waiting: deque[Any] = deque()
    for asked in questions.values():
        waiting.append(threads.submit(_load, tuple(asked)))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _load(questions: tuple[Question, ...]) -> Asked:
    """Decodes an image and its masks. Broken files become problems."""
    image = questions[0].image
    try:
        pixels = read_image(image)
    except XPathError as error:
        lost = f"{error} ({len(questions)} masks of it are left out)"
        return Asked(np.zeros((0, 0, 3), np.uint8), questions, (), (), (Problem(image, lost),))
    kept, truths, ignored, problems = [], [], [], []
    for question in questions:
        try:
            truth, unknown = _truth(question, pixels.shape[:2])
        except XPathError as error:
            problems.append(Problem(question.mask or image, str(error)))
            continue
        kept.append(question)
        truths.append(truth)
        ignored.append(unknown)
    asked = tuple(kept) or questions
    return Asked(pixels, asked, tuple(truths), tuple(ignored), tuple(problems))


def _truth(
    question: Question, size: tuple[int, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    if question.mask is None:
        return np.zeros(size, bool), None
    truth, unknown = read_mask(question.mask, ignore=question.ignore, unknown=question.unknown)
    if truth.shape != size:
        raise DataError(
            f"{question.mask} is {truth.shape[1]} x {truth.shape[0]} px, its image"
            f" {question.image} is {size[1]} x {size[0]}; write the mask at the size of the image"
        )
    return truth, unknown
