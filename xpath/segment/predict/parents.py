"""The nearest taught label of a word the weights never learnt.

A lymphocyte *is an* inflammatory cell: weights that were taught the class, and not the word, answer
with the class and say so. The table is ``parents.toml``.
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["ANYWHERE", "nearest_taught"]

ANYWHERE = "unspecified"
"""The region of labels whose images may come from any organ."""


def nearest_taught(label: str, taught: Collection[str]) -> tuple[str, ...]:
    """The taught labels whose union answers for a label, none if nothing does.

    The label itself if it was taught. Else the classes it belongs to, each in its own region or
    in ``unspecified``; all of them must have been taught.

    Args:
        label: Id, ``region-structure-object type``, published or not.
        taught: Ids of the labels the weights were trained on.
    """
    if label in taught:
        return (label,)
    region, _, rest = label.partition("-")
    structure, _, object_type = rest.partition("-")
    classes = _table().get((structure, object_type.lower()), ())
    found = [_in_region(name.replace(":", "-"), region, taught) for name in classes]
    return tuple(one for one in found if one) if all(found) else ()


def _in_region(name: str, region: str, taught: Collection[str]) -> str | None:
    ids = (f"{region}-{name}", f"{ANYWHERE}-{name}")
    return next((one for one in ids if one in taught), None)


@lru_cache(maxsize=1)
def _table() -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Structure and object type to ``structure:object type`` of the classes."""
    text = files("xpath.segment.predict").joinpath("parents.toml").read_text(encoding="utf-8")
    return {
        (structure, name): tuple(classes)
        for structure, rows in tomllib.loads(text).items()
        for name, classes in rows.items()
    }
