"""Scores of a segmentor on images it was not trained on.

Axes: P prompts, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.labels import Label
from xpath.metrics.overlap import dice
from xpath.store.tables import read_rows, write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from xpath.pathseg.record import Annotated, SourceImage
    from xpath.protocols import ImageSegmentor

__all__ = ["Sample", "mean_by_label", "prompt_of", "read_samples", "validate", "write_samples"]


class Sample(NamedTuple):
    """One question about one image."""

    source: str
    image: str
    group: str
    label: str
    present: bool
    """Whether the object is there."""
    dice: float
    """Over the known pixels; 1 where nothing is and nothing was found."""
    presence: float
    """The model's own mean probability inside its mask; 0 of an empty one."""
    found: int
    """Pixels of the answer."""
    answered: bool
    """Whether the answer is "present"."""


def prompt_of(label: str) -> str:
    """The paper's sentence for a label id, published or not."""
    region, structure, object_type = label.split("-", 2)
    return Label(region, structure, object_type).prompt


def validate(
    segmentor: ImageSegmentor,
    images: Iterable[SourceImage],
    *,
    mpp: float | tuple[float, float] | None = None,
    on_image: Callable[[SourceImage, Annotated, NDArray[np.bool_]], None] | None = None,
) -> list[Sample]:
    """Asks for every label that is known to be present or absent.

    Args:
        segmentor: ``SegmentPredictor`` or one of one's own.
        images: Held-out images.
        mpp: Resolution to show them at, or the range within which they are shown at their own;
            None for their own in any case.
        on_image: Called with each image, its truth and the answers ``(P, H, W)``.
    """
    samples: list[Sample] = []
    for item in images:
        annotated = item.read()
        labels = [mask.label for mask in annotated.masks] + list(annotated.absent)
        if not labels:
            continue
        answer = predict(segmentor, annotated.image, labels, _zoom(item.mpp, mpp))
        samples += _samples(item, annotated, labels, answer)
        if on_image:
            on_image(item, annotated, answer[0])
    return samples


def _zoom(own: float, mpp: float | tuple[float, float] | None) -> float | None:
    """Factor by which an image of resolution ``own`` is enlarged to be shown."""
    if mpp is None:
        return None
    low, high = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    return own / min(max(own, low), high)


def predict(
    segmentor: ImageSegmentor,
    image: NDArray[np.uint8],
    labels: Sequence[str],
    zoom: float | None,
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.bool_]]:
    """Masks ``(P, H, W)``, presence and "present" ``(P,)`` of an image shown ``zoom``-fold."""
    import cv2

    height, width = image.shape[:2]
    if zoom is not None and abs(zoom - 1) > 0.02:
        mode = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
        resized = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=mode)
        image = np.asarray(resized, np.uint8)
    answer = segmentor.masks(segmentor.encode(image), [prompt_of(label) for label in labels])
    masks = answer.masks[0]
    if masks.shape[1:] != (height, width):
        masks = np.stack([
            cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
            > 0.5
            for mask in masks
        ])
    return masks, answer.presence[0], answer.present[0]


def _samples(
    item: SourceImage,
    annotated: Annotated,
    labels: Sequence[str],
    answer: tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.bool_]],
) -> list[Sample]:
    known = np.ones(annotated.image.shape[:2], bool)
    if annotated.ignore is not None:
        known &= ~annotated.ignore
    truth = {mask.label: mask.mask for mask in annotated.masks}
    nothing = np.zeros_like(known)
    return [
        Sample(
            item.source,
            item.name,
            item.group,
            label,
            label in truth,
            dice(mask & known, truth.get(label, nothing) & known),
            float(presence),
            int((mask & known).sum()),
            bool(present),
        )
        for label, mask, presence, present in zip(labels, *answer, strict=True)
    ]


def mean_by_label(samples: Sequence[Sample]) -> dict[str, tuple[int, float]]:
    """Number of images and mean Dice per object class, where it is present.

    Organs are pooled: the key is ``structure-object type``.

    Raises:
        DataError: No sample with an object.
    """
    scores: dict[str, list[float]] = {}
    for sample in samples:
        if sample.present:
            scores.setdefault(sample.label.split("-", 1)[1], []).append(sample.dice)
    if not scores:
        raise DataError("nothing to average: no held-out image shows any of its labels")
    return {name: (len(values), float(np.mean(values))) for name, values in sorted(scores.items())}


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Writes a row per sample."""
    write_table(path, samples, Sample)


def read_samples(path: Path) -> list[Sample]:
    """Reads the table that ``write_samples`` writes."""
    return read_rows(path, Sample)
