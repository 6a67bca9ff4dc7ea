"""A look at everything a run needs before any work: in seconds, and all problems at once."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from xpath.device import device_of
from xpath.errors import XPathError
from xpath.features.encoders import check_encoder
from xpath.study.jobs import STAGES
from xpath.wsi.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from xpath.batch.slides import SlideEntry
    from xpath.study.study import Study
    from xpath.wsi.probe import SlideProbe

__all__ = ["preflight"]

MASK_BYTES = 1200
"""Of a packed mask of one label in one patch of 256 pixels, measured on drawn slides."""
OBJECT_BYTES = 6000
"""Of the outlines of all objects of a patch, measured on the same."""
FEATURES = 1024
"""Numbers of a patch's features: encoders give 150 to 1,536, and are not loaded to be asked."""
PAPER_OBJECTS = 21
"""Labels of a run that names none."""


def preflight(study: Study, slides: Iterable[SlideEntry]) -> Iterator[str]:
    """Problems that segmenting slides and making their features would meet.

    Device, weights, labels and encoder; whether the run folder can be written and has room for
    what is to be made, if all of the slides' area is tissue; then every slide by a first look at
    it: damage, no resolution, no pyramid.

    Args:
        study: The study. Its resolution counts for slides that store none.
        slides: Those to work on. Each that has no masks yet is looked at in a child process with
            limits.
    """
    of_tools = list(_tools(study))
    yield from of_tools
    yield from _unwritable(study.folder.root)
    needed = 0.0
    for entry in slides:
        if not of_tools and STAGES["segment"].is_made(study, entry):
            continue
        try:
            facts = probe(entry.path, mpp=study.mpp_of(entry))
        except XPathError as error:
            yield f"{entry.slide_id}: {error}"
            continue
        yield from (f"{entry.slide_id}: {problem}" for problem in facts.problems)
        needed += _bytes_of(study, facts)
    free = shutil.disk_usage(_existing(study.folder.root)).free
    if free < needed:
        yield (
            f"{study.folder.root}: up to {needed / 1e9:.1f} GB are needed for masks and features,"
            f" {free / 1e9:.1f} GB are free; make room, or choose another folder"
        )


def _tools(study: Study) -> Iterator[str]:
    """Problems of device, weights, labels and encoder, none of which is loaded."""
    objects = study.config.objects
    checks: list[Callable[[], object]] = [
        lambda: device_of(objects.device),
        lambda: study.segmentor,
        lambda: study.labels,
        lambda: study.segment_config,
        lambda: None if objects.encoder == "segmentor" else check_encoder(objects.encoder),
    ]
    said = set[str]()
    for check in checks:
        try:
            check()
        except XPathError as error:
            if str(error) not in said:
                yield str(error)
            said.add(str(error))


def _unwritable(root: Path) -> Iterator[str]:
    folder = _existing(root)
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        yield f"{root}: {folder} cannot be written to; choose another folder with --out"


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())


def _bytes_of(study: Study, facts: SlideProbe) -> float:
    """Bytes of masks, objects and features of a slide that is tissue all over."""
    grid = study.config.grid
    side = grid.patch_px or grid.patch_um / (facts.mpp or grid.mpp)
    patches = facts.size.width * facts.size.height / (side * (1 - grid.overlap)) ** 2
    labels = len(study.config.objects.labels) or PAPER_OBJECTS
    features = 4 * FEATURES + 2 * FEATURES * (labels + 1)
    return patches * (MASK_BYTES * labels + OBJECT_BYTES + features)
