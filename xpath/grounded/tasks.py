"""Tasks of the grounded model: annotated images as questions and answers.

UniBiomed's tasks, worded as in its training code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.errors import DataError
from xpath.grounded.prompts import DISEASE, REGION, REGION_REPORT, REPORT, SEG, anatomy_question
from xpath.pathseg.reading import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy as np

    from xpath.errors import XPathError
    from xpath.pathseg.biomedparse_data import PromptedMask

__all__ = [
    "OF_MASKS",
    "OF_REPORTS",
    "TASKS",
    "Annotation",
    "Exchange",
    "Task",
    "annotations_of",
    "phrase_of",
    "read_reports",
]

SEGMENT_QUESTIONS = ("Please segment {}.", "Can you segment the {}?")
SEGMENT_ANSWERS = (
    f"Sure, it is {SEG}.",
    f"It is {SEG}.",
    f"Sure, {SEG}.",
    f"Sure, the segmentation result is {SEG}.",
    f"{SEG}.",
)
DISEASE_ANSWERS = (f"It is {SEG}. {{}}.", f"{SEG}. {{}}.")
NOTHING = "no findings"
"""As an abnormality: the mask is empty, whatever file is named."""


class Annotation(NamedTuple):
    """Annotation of one part of an image."""

    image: Path
    mask: Path | None
    """Non-zero is the part; None if there is nothing."""
    phrases: tuple[str, ...]
    """What it is, any of which will do; for a report, the abnormality."""
    anatomy: str = ""
    """Where it is, if known."""
    report: str = ""
    """What the image shows, if known."""
    caption: str = ""
    """What this part looks like, if known."""


class Exchange(NamedTuple):
    """A question and its right answer."""

    question: str
    answer: str
    """With as many ``[SEG]`` as masks: one, or none if a box is drawn."""


class Task(NamedTuple):
    """One way to ask for an annotation."""

    exchange: Callable[[Annotation, np.random.Generator], Exchange]
    """Paraphrases are drawn at random."""
    fits: Callable[[Annotation], bool]
    """Whether an annotation tells enough."""
    boxed: bool = False
    """A box is drawn on the image, which is shown as one tile; nothing is segmented."""
    least: int = 5000
    """Smaller data sets are repeated up to about as many samples."""


def phrase_of(sentence: str) -> str:
    """A sentence as the model is asked for it: lower case, no full stop."""
    return sentence.strip().removesuffix(".").lower()


def annotations_of(items: Iterable[PromptedMask]) -> list[Annotation]:
    """Annotations in BiomedParseData's layout, from ``read_biomedparse``."""
    return [Annotation(item.image, item.mask, item.prompts) for item in items]


def read_reports(
    path: Path, *, on_error: Callable[[XPathError], object] | None = None
) -> list[Annotation]:
    """A JSON list of ``{image_file, mask_file, abnormality, anatomy, report}``, as UniBiomed's.

    A ``caption`` describes the part under the mask alone. Files are looked for from the folder of
    the JSON. "no findings" as abnormality means that there is nothing to segment.

    Args:
        path: The JSON.
        on_error: Called with the error of every broken entry, which is then left out. Without it
            the first one is raised.

    Raises:
        DataError: Not such a list; or, without ``on_error``, an entry lacks something or names a
            file that is not there.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}, wanted a list of annotations")
    annotations = []
    for number, row in enumerate(rows):
        try:
            annotations.append(_annotation(path.parent, row))
        except (DataError, KeyError, TypeError, AttributeError) as error:
            problem = DataError(
                f"entry {number} of {path} is no annotation ({error!r}); wanted image_file,"
                " mask_file and words in abnormality, anatomy, report, caption"
            )
            if on_error is None:
                raise problem from error
            on_error(problem)
    return annotations


def _annotation(folder: Path, row: Any) -> Annotation:
    abnormality = phrase_of(row.get("abnormality", ""))
    image = folder / row["image_file"]
    mask = None if abnormality == NOTHING else folder / row["mask_file"]
    missing = [str(file) for file in (image, mask) if file and not file.is_file()]
    if missing:
        raise DataError(f"no file {', '.join(missing)}")
    return Annotation(
        image,
        mask,
        (abnormality,) if abnormality else (),
        row.get("anatomy", "").strip().lower(),
        row.get("report", "").strip().lower(),
        row.get("caption", "").strip().lower(),
    )


def _drawn(texts: Sequence[str], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]


def _segment(it: Annotation, rng: np.random.Generator) -> Exchange:
    phrase = phrase_of(_drawn(it.phrases, rng))
    question = _drawn(SEGMENT_QUESTIONS, rng).format(phrase)
    return Exchange(question, _drawn(SEGMENT_ANSWERS, rng))


def _disease(it: Annotation, rng: np.random.Generator) -> Exchange:
    phrase = phrase_of(_drawn(it.phrases, rng))
    return Exchange(DISEASE, _drawn(DISEASE_ANSWERS, rng).format(phrase))


def _region(it: Annotation, rng: np.random.Generator) -> Exchange:
    return Exchange(REGION, phrase_of(_drawn(it.phrases, rng)))


def _region_report(it: Annotation, _: np.random.Generator) -> Exchange:
    return Exchange(REGION_REPORT, it.caption)


def _anatomy(it: Annotation, _: np.random.Generator) -> Exchange:
    return Exchange(anatomy_question(it.anatomy), f"<p> {it.phrases[0]}. </p> {SEG}")


def _report(it: Annotation, _: np.random.Generator) -> Exchange:
    return Exchange(REPORT, f"<p> {it.phrases[0]}. {it.report} </p> {SEG}")


def _named(it: Annotation) -> bool:
    return bool(it.phrases and it.mask)


TASKS: dict[str, Task] = {
    "segment": Task(_segment, _named),
    "disease": Task(_disease, _named),
    "region": Task(_region, _named, boxed=True, least=3000),
    "region-report": Task(_region_report, lambda it: bool(it.caption and it.mask), boxed=True),
    "anatomy": Task(_anatomy, lambda it: bool(it.phrases and it.anatomy)),
    "report": Task(_report, lambda it: bool(it.phrases and it.report)),
}
OF_REPORTS = ("anatomy", "report", "region-report")
"""Tasks of annotations that come with a report; the others need masks and phrases only."""
OF_MASKS = tuple(name for name in TASKS if name not in OF_REPORTS)
