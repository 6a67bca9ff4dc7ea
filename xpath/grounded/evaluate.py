"""Examining a grounded model: every annotation is asked for in every task, and the answer judged.

An image is encoded once for all its questions. What is broken is named and left out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError, XPathError
from xpath.grounded.boxes import region_box
from xpath.grounded.prompts import segment_question
from xpath.grounded.samples import mask_of
from xpath.grounded.scores import mean_by_phrase, names_finding, names_region, paired_dice
from xpath.grounded.tasks import TASKS, phrase_of
from xpath.language.facts import fact_scores
from xpath.metrics.bootstrap import bootstrap_mean
from xpath.metrics.text import text_scores
from xpath.pathseg.reading import read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.grounded.embedding import Embedding
    from xpath.grounded.interpreter import GroundedInterpreter
    from xpath.grounded.tasks import Annotation

__all__ = [
    "Examined",
    "Graded",
    "Question",
    "Score",
    "TextScore",
    "evaluate_grounded",
    "questions_of",
    "score_table",
    "text_table",
]

IN_WORDS = ("report", "region-report")
"""Tasks whose answers are texts, to be held against a reference."""
JUDGES = {"disease": names_finding, "anatomy": names_finding, "region": names_region}
"""What tells whether an answer names the class."""


class Question(NamedTuple):
    """A question about an image, and the right answer."""

    task: str
    words: str
    truth: str
    annotations: tuple[Annotation, ...]
    """Those whose masks answer it together."""


class Graded(NamedTuple):
    """One question, answered and judged."""

    task: str
    image: Path
    question: str
    truth: str
    """Words of the right answer."""
    generated: str
    """Words of the model, without marks; empty where only a mask was asked for."""
    right: float
    """1 or 0: does the answer name what is there? NaN where no class is asked for."""
    dice: float
    """NaN where nothing is segmented, or nothing is there."""


class Examined(NamedTuple):
    """All answers, and what could not be asked."""

    graded: tuple[Graded, ...]
    problems: tuple[str, ...]


class Score(NamedTuple):
    """A mean over the answers of a task."""

    task: str
    measure: str
    """``right`` or ``dice``."""
    n: int
    """Values it is a mean of: answers, or for the segmentation task phrases."""
    mean: float
    low: float
    """The 95 % interval; images are drawn whole."""
    high: float


class TextScore(NamedTuple):
    """Scores of all texts of a task against their references, 0 to 1."""

    task: str
    n: int
    bleu_1: float
    bleu_2: float
    bleu_3: float
    bleu_4: float
    rouge_l: float
    meteor: float
    """NaN without pycocoevalcap and Java: nothing else is METEOR."""
    fact_precision: float
    """Share of the findings a text has that its reference has too; negations are none."""
    fact_recall: float
    """Share of the reference's findings that the text has."""
    contradicted: int
    """Findings that the reference denies."""


def questions_of(asked: Iterable[tuple[str, Annotation]]) -> dict[Path, list[Question]]:
    """Questions by image. Annotations with the same words about an image are one question.

    Args:
        asked: Task and annotation, from ``samples.schedule`` without repetition.
    """
    grouped: dict[Path, dict[tuple[str, str, str], list[Annotation]]] = {}
    for task, annotation in asked:
        key = (task, _words(task, annotation), _truth(task, annotation))
        grouped.setdefault(annotation.image, {}).setdefault(key, []).append(annotation)
    return {
        image: [Question(*key, tuple(annotations)) for key, annotations in questions.items()]
        for image, questions in grouped.items()
    }


def evaluate_grounded(
    interpreter: GroundedInterpreter,
    questions: Mapping[Path, Sequence[Question]],
    *,
    seed: int = 0,
    on_image: Callable[[], object] | None = None,
) -> Examined:
    """Asks and judges.

    Args:
        interpreter: With the turns of the published evaluation, unless others are to be tried.
        questions: By image, from ``questions_of``.
        seed: Decides which region of a mask is boxed.
        on_image: Called after every image.
    """
    graded, problems = list[Graded](), list[str]()
    for number, (path, asked) in enumerate(questions.items()):
        rng = np.random.default_rng((seed, number))
        for outcome in _about(interpreter, path, asked, rng):
            if isinstance(outcome, Graded):
                graded.append(outcome)
            else:
                problems.append(outcome)
        if on_image:
            on_image()
    return Examined(tuple(graded), tuple(problems))


def score_table(graded: Iterable[Graded], *, seed: int = 0) -> list[Score]:
    """Means of every task, with intervals.

    Dice of the segmentation task is the mean over phrases of the means over their images, as
    published; every other score is the mean over answers.
    """
    rows = list(graded)
    scores = []
    for task in dict.fromkeys(row.task for row in rows):
        for measure in ("right", "dice"):
            mine = [(row, float(getattr(row, measure))) for row in rows if row.task == task]
            known = [(row, value) for row, value in mine if not math.isnan(value)]
            if known:
                scores.append(_score(task, measure, known, seed))
    return scores


def text_table(graded: Iterable[Graded]) -> list[TextScore]:
    """Scores of the answers in words: what they share with their reference, and do they agree?

    N-grams are scored as published (``xpath.metrics.text``), findings by the offline reader.
    """
    rows = [row for row in graded if row.task in IN_WORDS]
    return [
        _text_score(task, [row for row in rows if row.task == task])
        for task in dict.fromkeys(row.task for row in rows)
    ]


def _text_score(task: str, rows: list[Graded]) -> TextScore:
    generated, truth = [row.generated for row in rows], [row.truth for row in rows]
    words, facts = text_scores(generated, truth), fact_scores(generated, truth)
    meteor = math.nan if words.meteor is None else words.meteor
    told = (facts.precision, facts.recall, facts.contradicted)
    return TextScore(task, len(rows), *words.bleu, words.rouge_l, meteor, *told)


def _score(task: str, measure: str, known: list[tuple[Graded, float]], seed: int) -> Score:
    rng = np.random.default_rng(seed)
    if task == "segment":
        phrases = mean_by_phrase((row.truth, value) for row, value in known)
        return Score(task, measure, *bootstrap_mean(list(phrases.values()), rng))
    images = [str(row.image) for row, _ in known]
    interval = bootstrap_mean([value for _, value in known], rng, groups=images)
    return Score(task, measure, *interval)


def _about(
    interpreter: GroundedInterpreter,
    path: Path,
    asked: Sequence[Question],
    rng: np.random.Generator,
) -> Iterator[Graded | str]:
    """Answers to all questions about an image. Where there is none, why."""
    try:
        embedding = interpreter.encode(read_image(path))
    except XPathError as error:
        yield f"{path}: {error}"
        return
    for question in asked:
        try:
            yield _graded(interpreter, embedding, question, rng)
        except XPathError as error:
            yield f"{path}, {question.task}: {error}"


def _words(task: str, annotation: Annotation) -> str:
    if task == "segment":
        return segment_question(annotation.phrases[0])
    # the other questions have no paraphrases, so nothing is drawn that counts
    return TASKS[task].exchange(annotation, np.random.default_rng(0)).question


def _truth(task: str, annotation: Annotation) -> str:
    if task == "region-report":
        return annotation.caption
    phrase = phrase_of(annotation.phrases[0])
    return f"{phrase}. {annotation.report}" if task == "report" else phrase


def _graded(
    interpreter: GroundedInterpreter,
    embedding: Embedding,
    asked: Question,
    rng: np.random.Generator,
) -> Graded:
    truths = [mask_of(annotation, embedding.size) for annotation in asked.annotations]
    there = np.array([mask for mask in truths if mask.any()])
    words, masks = _answered(interpreter, embedding, asked, truths[0], rng)
    right, score = math.nan, math.nan
    if asked.task in JUDGES:
        right = float(JUDGES[asked.task](words, asked.truth))
    if len(there) and not TASKS[asked.task].boxed:
        score = paired_dice(masks, there)
    first = asked.annotations[0].image
    return Graded(asked.task, first, asked.words, asked.truth, words, right, score)


def _answered(
    interpreter: GroundedInterpreter,
    embedding: Embedding,
    asked: Question,
    truth: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[str, NDArray[np.bool_]]:
    """Words without marks, and masks ``(N, H, W)``."""
    if asked.task == "segment":
        return "", interpreter.masks(embedding, [asked.truth]).masks[0]
    if not TASKS[asked.task].boxed:
        answer = interpreter.answer(embedding, asked.words)
        return answer.plain, answer.masks
    box = region_box(truth, rng)
    if box is None:
        raise DataError(f"{asked.annotations[0].mask} is empty, but a region of it is asked for")
    [answer] = interpreter.regions(embedding, [box], question=asked.words)
    return answer.plain, answer.masks
