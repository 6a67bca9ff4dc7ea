"""The 160 labels of PathSeg, as a tree: region, structure, object type.

A label is written ``region-structure-object type`` (``breast-tissue-tumor``) and asked for with the
paper's sentence ``tissue-level tumor in breast pathology.`` (section 4.1).
"""

from __future__ import annotations

import csv
import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from xpath.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "OTHER",
    "Label",
    "LabelTree",
    "activation_objects",
    "importance_objects",
    "load_labels",
    "reliable_labels",
]

OTHER = "other"
"""Name of what no mask covers; never a label."""

LEVELS = ("region", "structure", "object_type")


@dataclass(frozen=True, slots=True)
class Label:
    """A kind of object, in lower case."""

    region: str
    """Anatomical region; ``unspecified`` where the source does not tell."""
    structure: str
    """``tissue``, ``cell`` or ``nuclei``."""
    object_type: str
    masks: int | None = None
    """Masks in PathSeg (paper, Table 5); None outside the published set."""
    dice: float | None = None
    """Dice the paper reports for PathSegmentor (Table 15); None where it reports none."""

    @property
    def id(self) -> str:
        """``region-structure-object type``."""
        return f"{self.region}-{self.structure}-{self.object_type}"

    @property
    def prompt(self) -> str:
        """The sentence the segmentor is asked with."""
        return f"{self.structure}-level {self.object_type} in {self.region} pathology."

    @property
    def published(self) -> bool:
        """True for the 160 labels of PathSeg."""
        return self.masks is not None


class LabelTree:
    """Labels in a fixed order, findable by any spelling."""

    def __init__(self, labels: tuple[Label, ...], digest: str) -> None:
        self._labels = labels
        self._by_id = {label.id: label for label in labels}
        self.digest = digest
        """SHA-256 of the table the labels were read from."""

    def __len__(self) -> int:
        """Number of labels."""
        return len(self._labels)

    def __iter__(self) -> Iterator[Label]:
        """All labels in the order of the paper's table."""
        return iter(self._labels)

    def __contains__(self, label_id: object) -> bool:
        """True for the id of a label."""
        return label_id in self._by_id

    def __getitem__(self, label_id: str) -> Label:
        """The label of an id, exactly as written; see ``parse`` for free spellings."""
        try:
            return self._by_id[label_id]
        except KeyError:
            raise LabelError(self._unknown(label_id)) from None

    @property
    def regions(self) -> tuple[str, ...]:
        """The anatomical regions."""
        return tuple(dict.fromkeys(label.region for label in self))

    @property
    def structures(self) -> tuple[str, ...]:
        """The histological structures."""
        return tuple(dict.fromkeys(label.structure for label in self))

    @property
    def object_types(self) -> tuple[str, ...]:
        """The object types."""
        return tuple(dict.fromkeys(label.object_type for label in self))

    def children(self, region: str, structure: str | None = None) -> tuple[Label, ...]:
        """Labels below a region, or below a structure of a region."""
        return tuple(
            label
            for label in self
            if label.region == region and structure in (None, label.structure)
        )

    def parse(self, text: str, *, allow_new: bool = False) -> Label:
        """The label somebody means.

        Accepts the id, the prompt, any case, underscores, plurals, British spelling, and leaving
        out region or structure where the rest is unambiguous.

        Args:
            text: What was written.
            allow_new: Take a complete id or prompt outside the published set as a new label.

        Raises:
            LabelError: Nothing fits (with the closest labels), or several do (with all of them).
        """
        words = _words(text)
        exact = [label for label in self if _words(label.id) == words]
        fits = exact or [label for label in self if words and words <= _words(label.id)]
        if len(fits) > 1:  # "tumor" also stands in "tumor epithelial tissue": prefer the plain one
            fewest = min(len(_words(label.id)) for label in fits)
            fits = [label for label in fits if len(_words(label.id)) == fewest]
        if len(fits) == 1:
            return fits[0]
        if len(fits) > 1:
            names = ", ".join(label.id for label in fits[:8])
            more = f" and {len(fits) - 8} more" if len(fits) > 8 else ""
            raise LabelError(f"{text!r} may mean {names}{more}; say which")
        new = _complete(text) if allow_new else None
        if new is None:
            raise LabelError(self._unknown(text))
        return new

    def roll_up(self, values: Mapping[str, float], level: str) -> dict[str, float]:
        """Sums of values by ``region``, ``structure``, ``object_type`` or ``region-structure``.

        Args:
            values: Label id to value, e.g. counts or areas.
            level: What to sum over.
        """
        parts = level.split("-")
        if not set(parts) <= set(LEVELS):
            raise LabelError(f"level must be of {LEVELS} or two of them with '-', got {level!r}")
        sums: dict[str, float] = {}
        for label_id, value in values.items():
            key = "-".join(getattr(self[label_id], part) for part in parts)
            sums[key] = sums.get(key, 0) + value
        return sums

    def _unknown(self, text: str) -> str:
        wanted = text.lower().strip()
        spellings = {label.id: label.id for label in self}
        spellings |= {label.prompt: label.id for label in self}
        spellings |= {f"{label.object_type} {label.region}": label.id for label in self}
        spellings |= {label.object_type: label.id for label in self}
        close = difflib.get_close_matches(wanted, spellings, n=5, cutoff=0.5)
        names = list(dict.fromkeys(spellings[spelling] for spelling in close))[:3]
        hint = f"did you mean {' or '.join(names)}?" if names else "see `xpath labels`"
        return f"no label {text!r}; {hint}"


_SAME = {"tumour": "tumor", "tumours": "tumor", "nucleus": "nuclei", "level": "", "pathology": ""}
_SAME |= {"in": "", "of": "", "the": "", "or": "", "a": ""}


def _words(text: str) -> frozenset[str]:
    """The words that tell labels apart."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    plain = (_SAME.get(word, word) for word in words)
    return frozenset(re.sub(r"(?<=[a-z]{3})s$", "", word) for word in plain if word)


def _complete(text: str) -> Label | None:
    """A new label from a complete id or prompt."""
    clean = " ".join(text.lower().replace("_", " ").split())
    sentence = re.fullmatch(r"(tissue|cell|nuclei)-level (.+) in (.+) pathology\.?", clean)
    if sentence:
        return Label(sentence[3], sentence[1], sentence[2])
    name = re.fullmatch(r"([^-]+)-(tissue|cell|nuclei)-(.+)", clean)
    return Label(name[1], name[2], name[3]) if name else None


@lru_cache(maxsize=1)
def load_labels() -> LabelTree:
    """The 160 published labels."""
    text = _table_text()
    labels = tuple(_label(row) for row in csv.DictReader(text.splitlines()))
    return LabelTree(labels, sha256(text.encode()).hexdigest())


def importance_objects() -> tuple[Label, ...]:
    """The 12 breast objects of the paper's importance experiment (Table 20)."""
    return tuple(label for label, row in _brca_rows() if row["importance"])


def activation_objects() -> tuple[Label, ...]:
    """The 21 breast objects of the paper's activation maps (Table 20); "other" comes on top."""
    return tuple(label for label, _ in _brca_rows())


def reliable_labels(region: str = "breast", *, min_dice: float = 0.4) -> tuple[Label, ...]:
    """Labels of a region that the paper segments well enough to build on (section 4.4)."""
    return tuple(
        label
        for label in load_labels().children(region)
        if label.dice is not None and label.dice >= min_dice
    )


def _brca_rows() -> list[tuple[Label, dict[str, str]]]:
    rows = [row for row in csv.DictReader(_table_text().splitlines()) if row["activation"]]
    rows.sort(key=lambda row: int(row["activation"]))
    return [(_label(row), row) for row in rows]


def _table_text() -> str:
    return files("xpath").joinpath("labels.csv").read_text(encoding="utf-8")


def _label(row: dict[str, str]) -> Label:
    return Label(
        row["region"],
        row["structure"],
        row["object_type"],
        int(row["masks"]),
        float(row["dice"]) if row["dice"] else None,
    )
