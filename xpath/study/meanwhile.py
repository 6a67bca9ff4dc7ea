"""Writing down a study while other processes add slides to its run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xpath.batch.claim import claim_in_turn
from xpath.study.study import open_study, save_study

if TYPE_CHECKING:
    from xpath.study.study import Study

__all__ = ["save_with_added"]


def save_with_added(study: Study, *, keep: bool = True) -> Study:
    """Writes ``run.json`` with the slides of a study, and those added since it was opened.

    One process at a time reads and writes the file, so that none loses the slides of another.

    Args:
        study: The study.
        keep: The slides that were added stay.

    Returns:
        What was written: the study itself, unless slides were added.

    Raises:
        StoreError: ``run.json`` is damaged.
    """
    with claim_in_turn(study.folder.settings):
        if keep and study.folder.settings.exists():
            known = {entry.slide_id for entry in study.slides}
            now = open_study(study.folder.root).slides
            added = tuple(entry for entry in now if entry.slide_id not in known)
            if added:
                study = replace(study, slides=(*study.slides, *added))
        save_study(study)
    return study
