"""Scores of generated text against a reference: BLEU, ROUGE-L, METEOR.

BLEU and ROUGE-L are those of pycocoevalcap, which published report scores use, without its Java:
corpus BLEU with the closest length and its tiny constants, ROUGE-L with beta 1.2 (Lin, 2004), on
Penn-Treebank tokens in lower case without punctuation. One reference per text.
"""

from __future__ import annotations

import math
import re
import shutil
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from xpath.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TextScores", "bleu", "meteor", "rouge_l", "text_scores", "treebank_tokens"]

ORDERS = 4
BETA = 1.2
"""Weight of recall in ROUGE-L."""
TINY, SMALL = 1e-15, 1e-9
"""pycocoevalcap adds them to numerators and denominators instead of smoothing."""


class TextScores(NamedTuple):
    """Scores of a corpus, 0 to 1."""

    bleu: tuple[float, float, float, float]
    """BLEU-1 to BLEU-4."""
    rouge_l: float
    """Mean over texts."""
    meteor: float | None
    """METEOR 1.5; None without ``pycocoevalcap`` and Java, for nothing else is METEOR."""


def text_scores(hypotheses: Sequence[str], references: Sequence[str]) -> TextScores:
    """All scores of texts against their references.

    Raises:
        DataError: No texts, or not as many as references.
    """
    return TextScores(
        bleu(hypotheses, references),
        rouge_l(hypotheses, references),
        meteor(hypotheses, references),
    )


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[float, float, float, float]:
    """BLEU-1 to BLEU-4 of a corpus (Papineni et al., 2002), without smoothing.

    Raises:
        DataError: No texts, or not as many as references.
    """
    pairs = _tokenized(hypotheses, references)
    length = sum(len(hypothesis) for hypothesis, _ in pairs)
    wanted = sum(len(reference) for _, reference in pairs)
    ratio = (length + TINY) / (wanted + SMALL)
    brevity = math.exp(min(0.0, 1 - 1 / ratio))
    product, scores = 1.0, []
    for order in range(1, ORDERS + 1):
        matched = total = 0
        for hypothesis, reference in pairs:
            found = _ngrams(hypothesis, order)
            matched += (found & _ngrams(reference, order)).total()
            total += found.total()
        product *= (matched + TINY) / (total + SMALL)
        scores.append(brevity * product ** (1 / order))
    one, two, three, four = scores
    return one, two, three, four


def rouge_l(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Mean F-score of the longest common subsequence, recall weighted by beta 1.2.

    Raises:
        DataError: No texts, or not as many as references.
    """
    pairs = _tokenized(hypotheses, references)
    return sum(_rouge(hypothesis, reference) for hypothesis, reference in pairs) / len(pairs)


def meteor(hypotheses: Sequence[str], references: Sequence[str]) -> float | None:
    """METEOR 1.5 of a corpus. None if ``pycocoevalcap`` or Java is not there.

    Raises:
        DataError: No texts, or not as many as references.
    """
    pairs = _tokenized(hypotheses, references)
    if find_spec("pycocoevalcap") is None or shutil.which("java") is None:
        return None
    scorer = import_module("pycocoevalcap.meteor.meteor").Meteor()
    texts = [(" ".join(hypothesis), " ".join(reference)) for hypothesis, reference in pairs]
    score, _ = scorer.compute_score(
        {number: [reference] for number, (_, reference) in enumerate(texts)},
        {number: [hypothesis] for number, (hypothesis, _) in enumerate(texts)},
    )
    return float(score)


def treebank_tokens(text: str) -> list[str]:
    """Penn-Treebank tokens in lower case. Punctuation is left out, brackets are spelled out.

    Numbers, hyphenated words and words with a slash stay whole; "cannot" and contractions are two.
    """
    text = text.lower()
    for bracket, name in _BRACKETS.items():
        text = text.replace(bracket, f" {name} ")
    for pattern, replacement in _SPLITS:
        text = pattern.sub(replacement, text)
    words = (word if _ABBREVIATION.fullmatch(word) else word.rstrip(".") for word in text.split())
    return [word for word in words if word not in _PUNCTUATION]


_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_PUNCTUATION = frozenset(("", "''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
_ABBREVIATION = re.compile(r"(?:[a-z]\.){2,}")
_SPLITS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[\u2018\u2019]", "'"),
        (r"[\u2013\u2014]", " -- "),
        (r"[\"\u201c\u201d]|''|``", " "),
        (r"(?<!\d)[,:]|[,:](?!\d)", " "),
        (r"([;!?%@#$&]|\.\.\.|--)", r" \1 "),
        (r"(?<=[a-z])(n't|'(?:s|m|d|ll|re|ve))(?![a-z])", r" \1 "),
        (r"\bcannot\b", "can not"),
        (r"(?<!\S)'(?!(?:s|m|d|ll|re|ve)\b)(?=\w)|(?<=\w)'(?!\w)", " "),
    )
)


def _tokenized(
    hypotheses: Sequence[str], references: Sequence[str]
) -> list[tuple[list[str], list[str]]]:
    if not hypotheses or len(hypotheses) != len(references):
        raise DataError(
            f"text scores need one reference per text, got {len(hypotheses)} texts and "
            f"{len(references)} references"
        )
    return [
        (treebank_tokens(hypothesis), treebank_tokens(reference))
        for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]


def _ngrams(tokens: list[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[first : first + order]) for first in range(len(tokens) - order + 1))


def _rouge(hypothesis: list[str], reference: list[str]) -> float:
    common = _longest_common_subsequence(hypothesis, reference)
    if not common:
        return 0.0
    precision, recall = common / len(hypothesis), common / len(reference)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _longest_common_subsequence(first: list[str], second: list[str]) -> int:
    """Its length, row by row of the usual table."""
    row = [0] * (len(second) + 1)
    for word in first:
        above = row
        row = [0]
        for column, other in enumerate(second):
            longer = above[column] + 1 if word == other else max(above[column + 1], row[column])
            row.append(longer)
    return row[-1]
