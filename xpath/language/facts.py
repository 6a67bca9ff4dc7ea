"""Do two texts say the same? Findings in common, which no n-gram tells.

"No necrosis" and "necrosis" share half their words and contradict each other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from xpath.errors import DataError
from xpath.language.offline import OfflineReader
from xpath.language.reading import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xpath.labels import Label
    from xpath.language.reading import Reader

__all__ = ["FactScores", "fact_scores"]


class FactScores(NamedTuple):
    """Counts of labels over pairs of texts."""

    right: int
    """Present in both."""
    wrong: int
    """Present in the text, but not in its reference."""
    missed: int
    """Present in the reference alone."""
    contradicted: int
    """Of the wrong ones, those that the reference denies."""

    @property
    def precision(self) -> float:
        """Share of a text's findings that its reference has. NaN without any."""
        return _share(self.right, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """Share of a reference's findings that the text has. NaN without any."""
        return _share(self.right, self.right + self.missed)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall. NaN if no text has a finding."""
        return _share(2 * self.right, 2 * self.right + self.wrong + self.missed)


def fact_scores(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    regions: Sequence[str | None] | None = None,
    reader: Reader | None = None,
) -> FactScores:
    """How far texts find what their references find.

    A finding is a label that is present or uncertain; what is denied, of the past or left out is
    none.

    Args:
        hypotheses: Texts to judge.
        references: What is true, one per text.
        regions: Region of each slide, where it is known.
        reader: Who reads; by default the offline reader.

    Raises:
        DataError: Texts, references and regions are not equally many.
    """
    known = [None] * len(references) if regions is None else regions
    if not len(hypotheses) == len(references) == len(known):
        raise DataError(
            f"facts need a reference and a region per text, got {len(hypotheses)} texts, "
            f"{len(references)} references, {len(known)} regions"
        )
    reader = reader or OfflineReader()
    right = wrong = missed = contradicted = 0
    for hypothesis, reference, region in zip(hypotheses, references, known, strict=True):
        said, _ = _facts(reader, hypothesis, region)
        true, denied = _facts(reader, reference, region)
        right += len(said & true)
        wrong += len(said - true)
        missed += len(true - said)
        contradicted += len((said - true) & denied)
    return FactScores(right, wrong, missed, contradicted)


def _facts(reader: Reader, text: str, region: str | None) -> tuple[set[Label], set[Label]]:
    """Labels a report finds, and those it denies."""
    reading = reader.read(Request(text, "report", region))
    denied = {mention.label for mention in reading.mentions if mention.status == "absent"}
    return set(reading.labels), denied


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
