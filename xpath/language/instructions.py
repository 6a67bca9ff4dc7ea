"""Instructions for a language model: the label tree, the rules, two examples, a schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from xpath.language.reading import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xpath.labels import Label, LabelTree

__all__ = ["instructions", "response_schema"]

_RULES = """\
You read texts about histology slides and say which objects of a fixed list they mean. Answer with
one JSON object: region, mentions (label, evidence, status) and unknown.

Rules
1. A label is written region-structure-object type and must be one of the list. What the list does
   not have goes into unknown, in the words of the text.
2. evidence is copied from the text, character by character, and as short as possible. Only for an
   open question, where no words name the object, it may be empty.
3. status: "present" for what is there or asked for; "uncertain" for what is suspected, possible,
   equivocal or cannot be excluded; "absent" for what is denied (no, without, negative for, neither
   nor, not seen); "historical" for what was there before (history of, previously diagnosed);
   "excluded" for what a request leaves out (not the, except). A denial ends at . ; : and at but,
   however, only, shows, with, and at a comma that is not followed by and, or, nor.
4. Region: that of the slide if it is given; else what the text says (renal is kidney, mammary is
   breast, rectal is colon); else the only region that has the object; else "unspecified"; else
   none. A metastasis of colon carcinoma in the liver is one label of the liver.
5. Structure: follow the words cells, nuclei, tissue. Otherwise tumour and stroma are tissue where
   the region has it, else nuclei-neoplastic and nuclei-connective; lymphocytes are nuclei;
   inflammation is nuclei-inflammatory.
6. Case report: every finding the text names. Case targeted: what is asked for. Case exploratory:
   the labels of the region that answer the question; all of them if it asks what there is to see.

Example: Case: report, region of the slide: breast, text: "Invasive carcinoma. No evidence of DCIS."
{"region": "breast", "mentions": [
 {"label": "breast-tissue-tumor", "evidence": "Invasive carcinoma", "status": "present"},
 {"label": "breast-tissue-dcis", "evidence": "DCIS", "status": "absent"}], "unknown": []}

Example: Case: targeted, region of the slide: not known, text: "Segment the bicycle in the lung."
{"region": "lung", "mentions": [], "unknown": ["bicycle"]}

Labels (region, structure: object types)
"""


def instructions(tree: LabelTree, region: str | None = None) -> str:
    """The system message: rules, examples, and the labels of a region or of all."""
    lines = []
    for name in tree.regions if region is None else (region,):
        lines.append(name)
        for structure in tree.structures:
            labels = tree.children(name, structure)
            if labels:
                types = "; ".join(label.object_type for label in labels)
                lines.append(f"  {structure}: {types}")
    return _RULES + "\n".join(lines)


def response_schema(tree: LabelTree, region: str | None = None) -> dict[str, Any]:
    """JSON schema of an answer. Labels are those of the region, or all."""
    labels: Iterable[Label] = tree if region is None else tree.children(region)
    mention = {
        "label": {"type": "string", "enum": [label.id for label in labels]},
        "evidence": {"type": "string"},
        "status": {"type": "string", "enum": list(get_args(Status))},
    }
    return _object({
        "region": {"anyOf": [{"type": "string", "enum": list(tree.regions)}, {"type": "null"}]},
        "mentions": {"type": "array", "items": _object(mention)},
        "unknown": {"type": "array", "items": {"type": "string"}},
    })


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
