"""Object masks of a run as DICOM segmentations, one file per slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.batch.done import make_once
from xpath.errors import DataError
from xpath.export.answers import answered_names
from xpath.export.dicom_seg import write_dicom_seg
from xpath.export.dicom_slide import finest_level, is_dicom, require_highdicom
from xpath.objects.canvas import strips, whole_canvas
from xpath.store.masks import open_masks
from xpath.study.keys import stage_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.batch.slides import SlideEntry
    from xpath.store.masks import SlideMasks
    from xpath.study.study import Study

__all__ = ["DICOM_SEG", "require_dicom", "write_dicom"]

DICOM_SEG = "objects.dcm"
"""Name of the file in the slide's folder."""
GUESS = "A guess: the segmentor never learnt this label."
MOST_PIXELS = 1_000_000_000
"""Pixels of all labels together, at about four bytes each. Larger slides are written coarser."""


def require_dicom(study: Study) -> None:
    """Refuses a run none of whose slides can have a DICOM segmentation.

    Raises:
        DataError: None of the slides is DICOM.
        MissingDependencyError: highdicom is not installed.
    """
    if study.slides and not any(is_dicom(entry.path) for entry in study.slides):
        raise DataError(
            f"none of the {len(study.slides)} slides is DICOM, such as"
            f" {study.slides[0].path.name}; only a DICOM slide has the frame of reference a DICOM"
            " segmentation needs. For others use slides/ID/export/objects.geojson"
        )
    require_highdicom()


def write_dicom(study: Study, entry: SlideEntry) -> bool:
    """Writes ``objects.dcm`` of a segmented DICOM slide. Returns True if it had to be made.

    Its pixels are those of the masks, or on large slides 2, 4, ... of them along each axis.

    Raises:
        DataError: No DICOM slide.
        MissingDependencyError: highdicom is not installed.
        StoreError: The slide has no masks, or the disk is full.
    """
    path, made_from = study.folder.masks(entry.slide_id), study.masks_key(entry)
    study.require(path, made_from, "segment")
    output = study.folder.slide(entry.slide_id) / DICOM_SEG

    def produce() -> None:
        masks = open_masks(path)
        source = finest_level(entry.path, masks.grid.slide_size)
        algorithm = masks.provenance.get("segmentor", "xpath")
        said = dict.fromkeys(study.asked.guesses, GUESS)
        for label, asked in study.asked.answers.items():
            said[label] = f"Answers for labels never learnt: {answered_names(label, asked)}."
        write_dicom_seg(output, source, _whole(masks), algorithm=algorithm, descriptions=said)

    return make_once(output, stage_key("dicom-seg", study.config, made_from), produce)


def _whole(masks: SlideMasks) -> dict[str, NDArray[np.bool_]]:
    """Masks ``(h, w)`` of the whole slide by label."""
    canvas = whole_canvas(masks, MOST_PIXELS)
    shape = (len(masks.labels), canvas.size.height, canvas.size.width)
    whole = np.zeros(shape, np.bool_)
    for strip in strips(masks, masks.labels, canvas):
        whole[:, strip.top : strip.top + strip.masks.shape[1]] = strip.masks
    return dict(zip(masks.labels, whole, strict=True))
