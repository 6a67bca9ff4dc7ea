"""Sentences for a label: the paper's template, and what else people write.

A model that has only ever read one sentence per label breaks on the next; one that has read the
organ in every sentence of a label takes the organ for the label.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from xpath.labels import load_labels
from xpath.pathseg.parents import ALIKE_ANYWHERE, Word, classes_of, words_for

if TYPE_CHECKING:
    import numpy as np

__all__ = ["SYNONYMS", "PromptConfig", "names_of", "say", "sentences"]

ANYWHERE = "unspecified"

SYNONYMS = {
    "nuclei:nuclei": ("nucleus", "nuclei of any kind", "cell nuclei"),
    "nuclei:neoplastic": ("neoplastic cells", "cancerous", "malignant epithelial"),
    "nuclei:inflammatory": ("immune", "inflammatory cells", "leukocytes"),
    "nuclei:connective": ("stromal", "connective tissue cells", "fibroblast"),
    "nuclei:epithelial": ("healthy epithelial", "non-neoplastic epithelial"),
    "nuclei:dead": ("dead cells", "apoptotic body"),
    "nuclei:lymphocyte": ("lymphocytes",),
    "cell:epithelial": ("any epithelial", "epithelial cells"),
    "tissue:gland": ("glandular structure", "glands"),
    "tissue:fat": ("adipose tissue", "fatty tissue"),
    "tissue:tumor epithelial tissue": ("tumor epithelium", "tumor"),
    "tissue:tumor associated stroma tissue": ("tumor stroma", "stroma"),
    "tissue:necrosis or debris": ("necrosis", "necrotic tissue"),
}
"""Other names of a class, of nearly the same meaning. A training also asks for it by the published
words that it answers for (``parents.toml``)."""

PHRASES = (
    "{object} in {region} pathology",
    "{structure}-level {object}",
    "{object} in {region} pathology image",
    "{structure}-level {object} in {region}",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptConfig:
    """How freely a label is put into words while training."""

    other_region: float = 0.35
    """Chance that what looks alike in all organs, such as nuclei, is asked for in another one."""
    no_region: float = 0.15
    """Chance that the region is left ``unspecified``."""
    synonym: float = 0.5
    """Chance of another name: a synonym, or a published word that the class answers for."""
    phrase: float = 0.1
    """Chance of another sentence than the paper's template."""
    cell: float = 1 / 3
    """Chance that nuclei are asked for as cells, and cells as nuclei: sources disagree on which
    word to use. Not where that would ask for something else, as with ``cell-epithelial``."""


def say(label: str, config: PromptConfig, rng: np.random.Generator) -> str:
    """A sentence that asks for a label, ``region-structure-object type``."""
    region, structure, object_type = label.split("-", 2)
    alike = structure != "tissue" or object_type in ALIKE_ANYWHERE
    if alike and rng.random() < config.other_region:
        region = str(rng.choice(load_labels().regions))
    elif rng.random() < config.no_region:
        region = ANYWHERE
    names = names_of(structure, object_type)
    if names and rng.random() < config.synonym:
        structure, object_type = names[int(rng.integers(len(names)))]
    if rng.random() < config.cell:
        structure = _exchanged(structure, object_type)
    template = "{structure}-level {object} in {region} pathology."
    if rng.random() < config.phrase:
        clear = [phrase for phrase in PHRASES if "structure" in phrase]
        template = str(rng.choice(clear if object_type in _ambiguous() else PHRASES))
    return template.format(structure=structure, object=object_type, region=region).lower()


def names_of(structure: str, object_type: str) -> tuple[Word, ...]:
    """All other names that a training asks for an object type by."""
    synonyms = SYNONYMS.get(f"{structure}:{object_type}", ())
    words = (*(Word(structure, name) for name in synonyms), *words_for(structure, object_type))
    return tuple(dict.fromkeys(words))


def _exchanged(structure: str, object_type: str) -> str:
    """Cell for nuclei and the other way round, where that asks for the same."""
    other = {"nuclei": "cell", "cell": "nuclei"}.get(structure, structure)
    there = classes_of(other, object_type)
    return other if not there or there == classes_of(structure, object_type) else structure


@lru_cache(maxsize=1)
def _ambiguous() -> frozenset[str]:
    """Names that mean different things in tissue, cells and nuclei, and so need the structure."""
    meanings: dict[str, set[tuple[Word, ...]]] = {}
    for label in load_labels():
        own = (Word(label.structure, label.object_type),)
        classes = classes_of(label.structure, label.object_type) or own
        meanings.setdefault(label.object_type, set()).add(classes)
    for key, names in SYNONYMS.items():
        structure, object_type = key.split(":")
        word = Word(structure, object_type)
        for name in names:
            classes = classes_of(structure, name) or classes_of(*word) or (word,)
            meanings.setdefault(name, set()).add(classes)
    return frozenset(name for name, several in meanings.items() if len(several) > 1)


def sentences() -> list[str]:
    """Every sentence of the published labels and every synonym: what a tokenizer should know."""
    known = [label.prompt for label in load_labels()]
    names = [name for others in SYNONYMS.values() for name in others]
    return known + [
        phrase.format(structure="nuclei", object=n, region="colon")
        for n in names
        for phrase in PHRASES
    ]
