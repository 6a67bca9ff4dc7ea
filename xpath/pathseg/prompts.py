"""Sentences for a label: the paper's template, and what else people write.

A model that has only ever read one sentence per label breaks on the next; one that has read the
organ in every sentence of a label takes the organ for the label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xpath.labels import load_labels

if TYPE_CHECKING:
    import numpy as np

__all__ = ["PromptConfig", "say", "sentences"]

ANYWHERE = "unspecified"

SYNONYMS = {
    "nuclei": ("nucleus", "nuclei of any kind", "cell nuclei"),
    "neoplastic": ("tumor", "cancerous", "malignant epithelial", "neoplastic cells"),
    "inflammatory": ("immune", "inflammatory cells", "leukocytes"),
    "connective": ("stromal", "connective tissue cells", "fibroblast"),
    "epithelial": ("healthy epithelial", "non-neoplastic epithelial", "epithelial cells"),
    "dead": ("dead cells", "apoptotic body"),
    "gland": ("glandular structure", "glands"),
    "lymphocyte": ("lymphocytes",),
    "tumor epithelial tissue": ("tumor epithelium",),
    "tumor associated stroma tissue": ("tumor stroma",),
    "necrosis or debris": ("necrosis",),
}
"""Other names of an object type, of the same or nearly the same meaning."""

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
    """Chance that a nucleus or cell is asked for in another organ: they look alike in all."""
    no_region: float = 0.15
    """Chance that the region is left ``unspecified``."""
    synonym: float = 0.1
    """Chance of another name of the object type."""
    phrase: float = 0.1
    """Chance of another sentence than the paper's template."""
    cell: float = 0.1
    """Chance that nuclei are asked for as cells: sources disagree on which word to use."""


def say(label: str, config: PromptConfig, rng: np.random.Generator) -> str:
    """A sentence that asks for a label, ``region-structure-object type``."""
    region, structure, object_type = label.split("-", 2)
    if structure != "tissue" and rng.random() < config.other_region:
        region = str(rng.choice(load_labels().regions))
    elif rng.random() < config.no_region:
        region = ANYWHERE
    if object_type in SYNONYMS and rng.random() < config.synonym:
        object_type = str(rng.choice(SYNONYMS[object_type]))
    if structure == "nuclei" and rng.random() < config.cell:
        structure = "cell"
    template = "{structure}-level {object} in {region} pathology."
    if rng.random() < config.phrase:
        template = str(rng.choice(PHRASES))
    return template.format(structure=structure, object=object_type, region=region).lower()


def sentences() -> list[str]:
    """Every sentence of the published labels and every synonym: what a tokenizer should know."""
    known = [label.prompt for label in load_labels()]
    names = [name for others in SYNONYMS.values() for name in others]
    return known + [
        phrase.format(structure="nuclei", object=n, region="colon")
        for n in names
        for phrase in PHRASES
    ]
