"""The 160 labels of PathSeg, as a tree: region, structure, object type.

A label is written ``region-structure-object type`` (``breast-tissue-tumor``) and asked for with the
paper's sentence ``tissue-level tumor in breast pathology.`` (section 4.1).
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from xpath.errors import LabelError
from xpath.lexicon import Concept, load_lexicon

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "OTHER",
    "PAPER_TEMPLATE",
    "Label",
    "LabelTree",
    "activation_objects",
    "importance_objects",
    "load_labels",
    "parse_object",
]

PAPER_TEMPLATE = "{structure}-level {object} in {region} pathology."
"""The paper's sentence (section 4.1)."""
OTHER = "other"
"""Name of what no mask covers; never a label."""


@dataclass(frozen=True, slots=True)
class Label:
    """An object class, in lower case."""

    region: str
    """Anatomical region; ``unspecified`` where the source does not tell."""
    structure: str
    """``tissue``, ``cell`` or ``nuclei``."""
    object_type: str
    masks: int | None = None
    """Masks in PathSeg (paper, Table 5); None outside the published set."""
    dice: float | None = None
    """Dice the paper reports for PathSegmentor (Table 15); None where it reports none."""
    sentence: str = ""
    """Words of one's own to ask with; empty for the paper's template."""
    answers_for: tuple[str, ...] = ()
    """Ids of labels that were asked for and that it answers in their place."""

    @property
    def id(self) -> str:
        """``region-structure-object type``."""
        return f"{self.region}-{self.structure}-{self.object_type}"

    @property
    def prompt(self) -> str:
        """The sentence the segmentor is asked with."""
        return self.sentence or self.said()

    def said(self, template: str = PAPER_TEMPLATE) -> str:
        """The label in a sentence with blanks for structure, object and region."""
        return template.format(
            structure=self.structure, object=self.object_type, region=self.region
        )

    @property
    def setting(self) -> str:
        """As settings write it, for ``parse_object``: the id, with ``=sentence`` if it has one."""
        return f"{self.id}={self.sentence}" if self.sentence else self.id

    @property
    def published(self) -> bool:
        """True for the 160 labels of PathSeg."""
        return self.masks is not None


class LabelTree:
    """Labels in a fixed order, findable by any spelling."""

    def __init__(self, labels: Iterable[Label], digest: str) -> None:
        self._by_id = {label.id: label for label in labels}
        self.digest = digest
        """SHA-256 of the table the labels were read from."""

    def __len__(self) -> int:
        """Number of labels."""
        return len(self._by_id)

    def __iter__(self) -> Iterator[Label]:
        """All labels in the order of the paper's table."""
        return iter(self._by_id.values())

    def __contains__(self, label: object) -> bool:
        """True for a label of the tree and for its id."""
        return label in self._by_id if isinstance(label, str) else label in self._by_id.values()

    def __getitem__(self, label_id: str) -> Label:
        """The label of an id, exactly as written. See ``parse`` for free spellings."""
        try:
            return self._by_id[label_id]
        except KeyError:
            raise self._unknown(label_id) from None

    @property
    def regions(self) -> tuple[str, ...]:
        """The anatomical regions."""
        return tuple(dict.fromkeys(label.region for label in self))

    @property
    def structures(self) -> tuple[str, ...]:
        """The histological structures."""
        return tuple(dict.fromkeys(label.structure for label in self))

    def children(self, region: str, structure: str | None = None) -> tuple[Label, ...]:
        """Labels below a region, or below a structure of a region, if any.

        Raises:
            LabelError: No such region or structure.
        """
        _check_choice("region", region, self.regions)
        if structure is not None:
            _check_choice("structure", structure, self.structures)
        return tuple(
            label
            for label in self
            if label.region == region and structure in (None, label.structure)
        )

    def parse(self, text: str, *, allow_new: bool = False) -> Label:
        """The label somebody means.

        Accepts the id, the prompt, any case and order, underscores, slashes, plurals, British
        spelling, and the terms of the lexicon ("TILs", "adipose tissue"). Region and structure may
        be left out where the rest is unambiguous; a part of an object type ("plasma",
        "infiltrate") will do if only one label has it. Of several labels of one region the one
        with most masks in PathSeg is meant.

        Args:
            text: What was written.
            allow_new: Take a complete id or prompt outside the published set as a new label
                (``published`` is then False).

        Raises:
            LabelError: Nothing fits (with the closest labels), or several do (with all of them).
        """
        complete = _complete(text)
        fits = self._with_id(text) or (() if complete else _richest(self._with_words(text)))
        if len(fits) == 1:
            return fits[0]
        if complete and allow_new:
            return complete
        if fits:
            names = ", ".join(label.id for label in fits)
            raise LabelError(f"{text!r} may mean {len(fits)} labels: {names}; say which")
        raise self._unknown(text)

    def _with_id(self, text: str) -> tuple[Label, ...]:
        """Labels whose id has just these words."""
        words = _words(text)
        return tuple(label for label in self._spellings.get(words, ()) if _words(label.id) == words)

    def named(
        self, concept: Concept, region: str | None = None, structures: Sequence[str] = ()
    ) -> tuple[Label, ...]:
        """Labels of a concept of the lexicon.

        Args:
            concept: What is meant.
            region: Where; None if that is not known.
            structures: Structures to prefer, e.g. ``("nuclei", "cell")``.

        Returns:
            The best label of the region, or none. Without a region that of ``unspecified``, else
            the best one of every region that has the concept itself.
        """
        names = concept.objects + (concept.nearest if region else ())
        preferred = [name for name in names if name.partition(":")[0] in structures]
        for choice in (preferred, names):
            best: dict[str, Label] = {}
            for name in choice:
                for label in self._by_object.get(name, ()):
                    best.setdefault(label.region, label)
            fits = best.get(region or "unspecified")
            if fits:
                return (fits,)
            if best and region is None:
                return tuple(best.values())
        return ()

    def _with_words(self, text: str) -> tuple[Label, ...]:
        """Labels of this object type, of this term, or of a type with these words among others."""
        words = _words(text)
        return (
            self._spellings.get(words)
            or self._with_term(text)
            or tuple(
                label for label, full, type_ in self._word_sets if words < full and words & type_
            )
        )

    def _with_term(self, text: str) -> tuple[Label, ...]:
        """Labels of a term of the lexicon, alone or with its region."""
        term, region = load_lexicon().whole(text)
        if term is None or not isinstance(term.meaning, Concept):
            return ()
        return self.named(term.meaning, region, term.structures)

    @cached_property
    def _word_sets(self) -> list[tuple[Label, frozenset[str], frozenset[str]]]:
        """Labels with the words of their ids and of their object types."""
        return [(label, _words(label.id), _words(label.object_type)) for label in self]

    @cached_property
    def _by_object(self) -> dict[str, tuple[Label, ...]]:
        """Labels by ``structure:object type``, as the lexicon names them."""
        names: dict[str, tuple[Label, ...]] = {}
        for label in self:
            name = f"{label.structure}:{label.object_type}"
            names[name] = (*names.get(name, ()), label)
        return names

    @cached_property
    def _spellings(self) -> dict[frozenset[str], tuple[Label, ...]]:
        """Labels by the words of object type, with and without region and structure.

        A type of two names ("necrosis or debris") has the words of either as well.
        """
        spellings: dict[frozenset[str], tuple[Label, ...]] = {}
        for label in self:
            region, structure = _words(label.region), _words(label.structure)
            for name in {label.object_type, *label.object_type.split(" or ")}:
                type_ = _words(name)
                for words in {type_, type_ | region, type_ | structure, type_ | region | structure}:
                    spellings[words] = (*spellings.get(words, ()), label)
        return spellings

    def _unknown(self, text: str) -> LabelError:
        """The error for a text that is no label: the nearest spellings, or where to look."""
        from rapidfuzz.fuzz import ratio
        from rapidfuzz.process import extract

        wanted = " ".join(text.lower().replace("_", " ").split())
        term, region = load_lexicon().whole(text)
        if region and term is None:
            return LabelError(
                f"no label {text!r}; for its labels: `xpath labels --region {region}`"
            )
        close = extract(wanted, list(self._written), scorer=ratio, score_cutoff=70, limit=5)
        names = list(dict.fromkeys(self._written[spelling] for spelling, *_ in close))[:3]
        hint = f"did you mean {' or '.join(names)}?" if names else "see `xpath labels`"
        return LabelError(f"no label {text!r}; {hint}")

    @cached_property
    def _written(self) -> dict[str, str]:
        """Spellings to compare a misspelt text with, and the ids they stand for."""
        spellings = {label.object_type: label.id for label in self}
        spellings |= {f"{label.object_type} in {label.region}": label.id for label in self}
        spellings |= {label.prompt: label.id for label in self}
        return spellings | {label.id: label.id for label in self}


_PHRASES = {"ductal carcinoma in situ": "dcis", "erythrocyte": "red blood cell"}
_PHRASES |= {"mitotic figure": "mitosi"}
_SAME = dict.fromkeys(("in", "of", "the", "or", "a", "and", "level", "pathology"), "")
_SAME |= {"tumour": "tumor", "leucocyte": "leukocyte", "oesophagus": "esophagus"}
_SAME |= {"nucleus": "nuclei", "nuclear": "nuclei", "mitose": "mitosi", "ovary": "ovarian"}
_SAME |= {"epithelium": "epithelial", "endothelium": "endothelial", "pancrea": "pancreatic"}


def _words(text: str) -> frozenset[str]:
    """The words that tell labels apart, in the singular."""
    text = re.sub(r"[^a-z0-9]+", " ", text.lower())
    for phrase, short in _PHRASES.items():
        text = text.replace(phrase, short)
    singular = (re.sub(r"(?<=[a-z]{3})s$", "", word) for word in text.split())
    return frozenset(_SAME.get(word, _SAME.get(word + "s", word)) for word in singular) - {""}


def _complete(text: str) -> Label | None:
    """The label a complete id or prompt names, published or not."""
    clean = " ".join(text.lower().replace("_", " ").split())
    sentence = re.fullmatch(r"(tissue|cell|nuclei)-level (.+) in (.+) pathology\.?", clean)
    if sentence:
        return Label(sentence[3], sentence[1], sentence[2])
    name = re.fullmatch(r"([^-]*[^- ]) ?- ?(tissue|cell|nuclei) ?- ?([^ ].*)", clean)
    return Label(name[1], name[2], name[3]) if name else None


def _richest(labels: tuple[Label, ...]) -> tuple[Label, ...]:
    """The label with most masks where all are of one region, else all of them."""
    if len(labels) < 2 or len({label.region for label in labels}) > 1:
        return labels
    if any(label.masks is None for label in labels):
        return labels
    return (max(labels, key=lambda label: label.masks or 0),)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise LabelError(f"no {name} {value!r}; known are {', '.join(choices)}")


@lru_cache(maxsize=1)
def load_labels() -> LabelTree:
    """The 160 published labels."""
    text = _table_text()
    labels = tuple(_label(row) for row in csv.DictReader(text.splitlines()))
    return LabelTree(labels, sha256(text.encode()).hexdigest())


def parse_object(text: str) -> Label:
    """An object to look for, as settings write it: ``LABEL`` or ``LABEL=sentence of one's own``.

    Args:
        text: Any spelling ``LabelTree.parse`` takes, then perhaps ``=`` and the words to ask with.

    Raises:
        LabelError: No label fits, several do, or nothing stands after ``=``.
    """
    name, equals, words = text.partition("=")
    label = load_labels().parse(name.strip(), allow_new=True)
    sentence = " ".join(words.split())
    if equals and not sentence:
        raise LabelError(f"{text!r} has no sentence after '='; write the words to ask with")
    return replace(label, sentence=sentence)


def importance_objects() -> tuple[Label, ...]:
    """The 12 breast objects of the paper's importance experiment (Table 20)."""
    return tuple(label for label, row in _brca_rows() if row["importance"])


def activation_objects() -> tuple[Label, ...]:
    """The 21 breast objects of the paper's activation maps (Table 20). "other" comes on top."""
    return tuple(label for label, _ in _brca_rows())


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
