"""Nearest trained labels for labels never taught, and mask values to ignore."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpath.errors import DataError, LabelError
from xpath.labels import load_labels
from xpath.pathseg.prompts import SYNONYMS
from xpath.pathseg.sentences import guess_label
from xpath.store.names import is_missing
from xpath.store.tables import parse_whole, read_user_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from xpath.labels import Label

__all__ = ["label_of", "nearest_label", "nearest_to_words", "read_ignore_values"]


def label_of(text: str | None) -> Label | None:
    """The label of an id, published or not, and None for no text or other words."""
    if not text:
        return None
    try:
        return load_labels().parse(text, allow_new=True)
    except LabelError:
        return None


def nearest_label(label: Label, trained: Sequence[str]) -> Label | None:
    """The trained label of the same object type or of a synonym, or None if there is none.

    Among several, the one of the same structure comes first, then of the same region, then of no
    particular region. The paper's external evaluation goes by the object type alone (section 2.4);
    other names are taken between cells and nuclei only, for "tumor" tissue is no "neoplastic"
    nucleus.

    Args:
        label: What is asked for.
        trained: Label ids the weights were taught, in their order.
    """
    known = [known for known in map(label_of, trained) if known]
    return min(
        (other for other in known if _alike(label, other)),
        key=lambda other: _distance(label, other),
        default=None,
    )


def nearest_to_words(sentence: str, trained: Sequence[str]) -> Label | None:
    """The trained label that free words most likely mean, or None if in doubt."""
    guess = label_of(guess_label(sentence))
    return nearest_label(guess, trained) if guess else None


def read_ignore_values(path: Path) -> dict[str, int]:
    """Label id to the mask value where nothing is known, from the column ``ignore`` of a mapping.

    Returns:
        Labels with a value; none for a JSON mapping or without that column.

    Raises:
        DataError: The table is damaged, or a value is no number.
    """
    if path.suffix.lower() == ".json":
        return {}
    values = {}
    for row in read_user_table(path):
        text, label = row.get("ignore", ""), label_of(row.get("label"))
        try:
            value = None if is_missing(text) else parse_whole(text)
        except ValueError:
            value = -1
        if value is not None and value < 0:
            raise DataError(f"{path}: ignore must be a mask value such as 255, got {text!r}")
        if value is not None and label:
            values[label.id] = value
    return values


def _alike(label: Label, other: Label) -> bool:
    if label.object_type == other.object_type:
        return True
    names = {
        name
        for object_type, synonyms in ((key.split(":")[1], v) for key, v in SYNONYMS.items())
        if label.object_type in {object_type, *synonyms}
        for name in (object_type, *synonyms)
    }
    return other.object_type in names and "tissue" not in {label.structure, other.structure}


def _distance(label: Label, other: Label) -> tuple[bool, ...]:
    return (
        label.object_type != other.object_type,
        label.structure != other.structure,
        label.region != other.region,
        other.region != "unspecified",
    )
