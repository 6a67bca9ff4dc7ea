"""Which label a sentence asks for: the paper's template, a table of one's own, or a good guess."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from xpath.errors import DataError, LabelError
from xpath.labels import load_labels
from xpath.store.tables import read_user_table

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["guess_label", "plain", "read_mapping", "template_label"]

TEMPLATE = re.compile(r"(tissue|cell|nuclei)[- ]level (.+) in (.+) pathology")
FREE = re.compile(r"(.+) in (?:the )?(.+?) (?:histopathology|pathology)(?: .*)?")
"""As BiomedParse writes: "glandular structure in colon pathology image"."""

REWORDED = {"glandular structure": "gland", "connective tissue cells": "connective"}
"""Names in BiomedParseData of object types of PathSeg."""


def template_label(sentence: str) -> str | None:
    """Id of the label that a sentence in the paper's template asks for, else None.

    Case, blanks and the final dot do not matter. A label outside the published 160 is welcome; one
    of them in another spelling ("tumour") gets its published id.
    """
    match = TEMPLATE.fullmatch(plain(sentence))
    if match is None:
        return None
    structure, object_type, region = match.groups()
    sentence = f"{structure}-level {object_type} in {region} pathology."
    try:
        return load_labels().parse(sentence, allow_new=True).id
    except LabelError:  # two labels of the same words
        return None


def guess_label(sentence: str) -> str | None:
    """Id of the published label that free words most likely mean, or None if in doubt.

    Reads BiomedParse's sentences ("neoplastic cells in breast pathology"), whose "cells" are often
    nuclei in PathSeg.
    """
    strict = template_label(sentence)
    match = FREE.fullmatch(plain(sentence))
    if strict or match is None:
        return strict
    name, region = match.groups()
    name = REWORDED.get(name, name)
    short = re.sub(r" (cells?|nuclei|tissue|structures?)$", "", name)
    for words in dict.fromkeys((name, short)):
        try:
            label = load_labels().parse(f"{words} in {region}")
        except LabelError:
            continue
        return label.id if label.region in region else None
    return None


def read_mapping(path: Path) -> dict[str, str]:
    """Sentence or category to label id, from a table of one's own.

    JSON: ``{"a sentence or category": "label", ...}``. CSV: a header, then the sentence or category
    in the first column and the label in the column ``label``, or else in the second one. Labels in
    any spelling; complete ids outside the published set are taken as they are.

    Returns:
        Keys as ``plain`` writes them.

    Raises:
        DataError: The file is missing or neither of the two.
        LabelError: A label that is not known.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; wanted a table of labels, JSON or CSV")
    try:
        pairs = _json_pairs(path) if path.suffix.lower() == ".json" else _csv_pairs(path)
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise DataError(
            f"{path} is no table of labels ({type(error).__name__}: {error}); wanted JSON "
            '{"sentence or category": "label"} or a CSV with a header, sentence first, then label'
        ) from error
    tree = load_labels()
    try:
        return {plain(key): tree.parse(label, allow_new=True).id for key, label in pairs}
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error


def plain(text: str) -> str:
    """Words in lower case, single blanks, no final dot. ``+`` and ``_`` count as blanks."""
    return " ".join(re.sub(r"[+_\s]+", " ", text.lower()).strip().rstrip(".").split())


def _json_pairs(path: Path) -> list[tuple[str, str]]:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    return [(str(key), str(label)) for key, label in content.items()]


def _csv_pairs(path: Path) -> list[tuple[str, str]]:
    rows = [list(row.items()) for row in read_user_table(path)]
    names = [name for name, _ in rows[0]]
    column = names.index("label") if "label" in names[1:] else 1
    return [(row[0][1], row[column][1]) for row in rows]
