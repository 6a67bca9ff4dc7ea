"""Folders in BiomedParseData's layout, as an evaluation reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpath.pathseg.biomedparse_data import read_biomedparse
from xpath.pathseg.resolution import Resolutions
from xpath.pathseg.sentences import read_mapping
from xpath.segment.evaluation.questions import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from xpath.pathseg.biomedparse_data import PromptedMask

__all__ = ["read_folders"]


def read_folders(
    folders: Iterable[Path],
    *,
    split: str = "test",
    mapping: Path | None = None,
    mpp: Sequence[str] = (),
    limit: int | None = None,
) -> tuple[list[PromptedMask], list[Problem]]:
    """Masks of the images of several folders, each at its own resolution, and what is broken.

    Args:
        folders: Hold ``SPLIT``, ``SPLIT_mask`` and ``SPLIT.json`` each.
        split: Which part of the data.
        mapping: What the sentences mean, CSV or JSON.
        mpp: ``[SOURCE=]X`` for images that say nothing of their resolution.
        limit: Only the first images of every folder.

    Raises:
        DataError: An index or the mapping cannot be read.
        ConfigError: No resolution.
    """
    known = read_mapping(mapping) if mapping else None
    resolutions = Resolutions.parse(mpp)
    items: list[PromptedMask] = []
    problems: list[Problem] = []
    for folder in folders:

        def broken(error: Exception, index: Path = folder / f"{split}.json") -> None:
            problems.append(Problem(index, str(error)))

        read = read_biomedparse(
            folder.resolve(),
            split,
            mapping=known,
            on_error=broken,
        )
        kept = set(list(dict.fromkeys(item.image for item in read))[:limit])
        items += resolutions.fill(
            [item for item in read if item.image in kept],
            folder.resolve().name,
            otherwise="are taken as they are",
        )
    return items, problems
