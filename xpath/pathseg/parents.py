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

__all__ = [
    "ANYWHERE",
    "Word",
    "classes_of",
    "in_words",
    "is_union",
    "nearest_taught",
    "with_unions",
    "words_for",
]

ANYWHERE = "unspecified"
"""The region of labels whose images may come from any organ."""


ALIKE_ANYWHERE = ("fat", "stroma", "necrosis or debris")
"""Tissue that looks the same in all organs, so that images of one teach it for all."""


class Word(NamedTuple):
    """A label without its region."""

    structure: str
    """``tissue``, ``cell`` or ``nuclei``."""
    object_type: str


def nearest_taught(label: str, taught: Collection[str]) -> tuple[str, ...]:
    """The taught labels whose union answers for a label, none if nothing does.

    The label itself if it was taught: in its own region, in ``unspecified``, or in any if it is
    tissue that looks the same in all organs. Else the classes it belongs to, likewise; all of them
    must have been taught.

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


def is_union(label: str) -> bool:
    """Whether a label, by id, is answered by several annotated classes together."""
    return len(classes_of(*label.split("-", 2)[1:])) > 1


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


def in_words(image: SourceImage, words: Collection[Word]) -> SourceImage:
    """An image that shows other words than its own labels, once it is read: those it answers for.

    Each where the classes that answer for it are known, in their region.

    Args:
        image: With annotated classes.
        words: Object types of the table.
    """
    return replace(image, read=partial(_read_in_words, image.read, tuple(words)))


def _read_in_words(read: Callable[[], Annotated], words: tuple[Word, ...]) -> Annotated:
    annotated = read()
    masks = dict(annotated.masks)
    found, absent = [], []
    for label, parts in _answered([*masks, *annotated.absent], words).items():
        there = [masks[part] for part in parts if part in masks]
        if there:
            found.append(LabelMask(label, np.logical_or.reduce(there)))
        else:
            absent.append(label)
    return annotated._replace(masks=tuple(found), absent=tuple(absent))


def _read_with_unions(read: Callable[[], Annotated]) -> Annotated:
    annotated = read()
    known = {*(label for label, _ in annotated.masks), *annotated.absent}
    unions = [word for word, classes in _table().items() if len(classes) > 1]
    more = _read_in_words(lambda: annotated, tuple(unions))
    return annotated._replace(
        masks=(*annotated.masks, *(mask for mask in more.masks if mask.label not in known)),
        absent=(*annotated.absent, *(label for label in more.absent if label not in known)),
    )


def _answered(known: Collection[str], words: Collection[Word]) -> dict[str, list[str]]:
    """Ids of words, in every region where all their classes are known, and the ids of these."""
    found = {}
    for region in dict.fromkeys(label.split("-", 1)[0] for label in known):
        for word in words:
            parts = ["-".join((region, *one)) for one in classes_of(*word)]
            if parts and all(part in known for part in parts):
                found["-".join((region, *word))] = parts
    return found


def _in_region(word: Word, region: str, taught: Collection[str]) -> str | None:
    ids = ["-".join((one, *word)) for one in (region, ANYWHERE)]
    if word.object_type in ALIKE_ANYWHERE:
        ids += sorted(one for one in taught if one.partition("-")[2] == "-".join(word))
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
