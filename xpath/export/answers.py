"""Names of labels that were asked for and that another one answers, beside the name of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpath.export.overlay import short_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NEAREST", "answered_names", "answers_in_words"]

NEAREST = "Never learnt by the segmentor, and answered by the nearest label it was taught"
"""What pages say before ``answers_in_words``."""


def answered_names(label: str, asked: Sequence[str]) -> str:
    """``lymphocyte, plasma cells``: the labels that one answers for, empty for none.

    Structure and region are named where they are not those of the answer.

    Args:
        label: Id of the label that answers.
        asked: Ids of those asked for.
    """
    region, structure, _ = label.split("-", 2)
    return ", ".join(_name(one, region, structure) for one in asked)


def answers_in_words(answers: Mapping[str, Sequence[str]]) -> str:
    """``inflammatory (nuclei) for lymphocyte, plasma cells``, and so on. Empty for none.

    Args:
        answers: Ids of labels asked for, by the id of the one that answers.
    """
    return "; ".join(
        f"{short_name(label)} for {answered_names(label, asked)}"
        for label, asked in answers.items()
    )


def _name(label: str, region: str, structure: str) -> str:
    own_region, own_structure, object_type = label.split("-", 2)
    name = object_type if own_structure == structure else f"{object_type} ({own_structure})"
    return name if own_region == region else f"{name} in {own_region}"
