"""The "is a" table: which annotated classes answer for an object type of PathSeg.

A lymphocyte *is an* inflammatory cell. Weights that were taught the class, and not the word, answer
with the class and say so; a training asks for the class by all words that it answers. The table is
``parents.toml``.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from functools import lru_cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.pathseg.record import Annotated, LabelMask

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from xpath.pathseg.record import SourceImage

__all__ = ["Word", "classes_of", "nearest_taught", "with_unions", "words_for"]

ANYWHERE = "unspecified"
"""The region of labels whose images may come from any organ."""


class Word(NamedTuple):
    """A label without its region."""

    structure: str
    """``tissue``, ``cell`` or ``nuclei``."""
    object_type: str


def nearest_taught(label: str, taught: Collection[str]) -> tuple[str, ...]:
    """The taught labels whose union answers for a label, none if nothing does.

    The label itself if it was taught, in its own region or in ``unspecified``. Else the classes it
    belongs to, likewise; all of them must have been taught.

    Args:
        label: Id, ``region-structure-object type``, published or not.
        taught: Ids of the labels the weights were trained on.
    """
    region, structure, object_type = label.split("-", 2)
    word = Word(structure, object_type)
    own = _in_region(word, region, taught)
    if own:
        return (own,)
    found = [_in_region(one, region, taught) for one in classes_of(structure, object_type)]
    return tuple(one for one in found if one) if all(found) else ()


def classes_of(structure: str, object_type: str) -> tuple[Word, ...]:
    """The annotated classes whose union answers for an object type, none if nothing does."""
    return _table().get(Word(structure, object_type.lower()), ())


def words_for(structure: str, object_type: str) -> tuple[Word, ...]:
    """Other object types of the tree that an annotated class answers by itself."""
    word = Word(structure, object_type)
    return tuple(one for one, classes in _table().items() if classes == (word,) and one != word)


def with_unions(image: SourceImage) -> SourceImage:
    """An image that also shows the labels that are unions of its own, once it is read.

    Such as "cell-level epithelial", every epithelial cell: neoplastic and other epithelial nuclei.
    Only where each class is known to be there or absent.
    """
    return replace(image, read=partial(_read_with_unions, image.read))


def _read_with_unions(read: Callable[[], Annotated]) -> Annotated:
    annotated = read()
    masks = dict(annotated.masks)
    known = [*masks, *annotated.absent]
    unions, absent = [], []
    for label, parts in _unions(known).items():
        if label in known:
            continue
        there = [masks[part] for part in parts if part in masks]
        if there:
            unions.append(LabelMask(label, np.logical_or.reduce(there)))
        else:
            absent.append(label)
    return annotated._replace(
        masks=(*annotated.masks, *unions), absent=(*annotated.absent, *absent)
    )


def _unions(known: Collection[str]) -> dict[str, list[str]]:
    """Ids of unions, in every region where all classes are known, and the ids of these."""
    found = {}
    for region in dict.fromkeys(label.split("-", 1)[0] for label in known):
        for word, classes in _table().items():
            parts = ["-".join((region, *one)) for one in classes]
            if len(parts) > 1 and all(part in known for part in parts):
                found["-".join((region, *word))] = parts
    return found


def _in_region(word: Word, region: str, taught: Collection[str]) -> str | None:
    ids = ("-".join((one, *word)) for one in (region, ANYWHERE))
    return next((one for one in ids if one in taught), None)


@lru_cache(maxsize=1)
def _table() -> Mapping[Word, tuple[Word, ...]]:
    """Every object type and the classes that answer for it."""
    text = files("xpath.pathseg").joinpath("parents.toml").read_text(encoding="utf-8")
    return {
        Word(structure, name): tuple(Word(*one.split(":")) for one in classes)
        for structure, rows in tomllib.loads(text).items()
        for name, classes in rows.items()
    }
