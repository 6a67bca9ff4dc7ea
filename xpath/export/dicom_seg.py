"""Object masks as a DICOM segmentation of a DICOM slide, for archives and DICOM viewers.

Written through highdicom, an optional extra. The masks lie in the frame of reference of the slide
they were made from, tiled, one segment per label; segments may overlap.
Axes: h w pixels of the masks.
"""

from __future__ import annotations

import uuid
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import DataError, MissingDependencyError
from xpath.export.colour import object_colour
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["write_dicom_seg"]

NEEDS_HIGHDICOM = "DICOM segmentations need highdicom: pip install highdicom"

TILE = 512
SQUARE_TOLERANCE = 0.02
"""How much the masks' pixels may be wider than high, or the reverse, beside the slide's."""
SCHEME = "99XPATH"
"""Of codes that are our label ids; 99 marks private schemes."""
MOST_CHARACTERS = 1024
"""Of a segment's description: DICOM's "short text"."""


def write_dicom_seg(
    path: Path,
    source: Path,
    masks: Mapping[str, NDArray[np.bool_]],
    *,
    algorithm: str,
    descriptions: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes masks of a whole slide as ``.dcm``. Equal input gives equal identifiers.

    Args:
        path: File to write; it appears when it is whole.
        source: A DICOM file of the slide (VL Whole Slide Microscopy, TILED_FULL): one level.
        masks: ``(h, w)`` of the whole slide by label, as large as that level or smaller by the
            same factor across and down.
        algorithm: Name of what made the masks, such as the segmentor's.
        descriptions: What is said of the segments of some labels, cut after 1024 characters.

    Raises:
        MissingDependencyError: highdicom is not installed.
        DataError: No DICOM slide, no masks, or masks that do not fit it.
        StoreError: The disk is full.
    """
    highdicom, pydicom = _packages()
    slide = _slide(pydicom, source)
    size = _size_of(masks, slide, source)
    digest = _digest(slide, masks, algorithm)
    segments = _segments(highdicom, list(masks), algorithm, digest)
    for label, segment in zip(masks, segments, strict=True):
        if label in descriptions:
            segment.SegmentDescription = descriptions[label][:MOST_CHARACTERS]
    segmentation = highdicom.seg.Segmentation(
        source_images=[slide],
        pixel_array=np.stack(list(masks.values()), axis=-1)[None].astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=_uid(digest, "series"),
        series_number=1,
        sop_instance_uid=_uid(digest, "instance"),
        instance_number=1,
        manufacturer="xpath",
        manufacturer_model_name="xpath",
        software_versions=version("xpath-pathology"),
        device_serial_number="0",
        content_description="Predicted objects; research use",
        omit_empty_frames=False,  # TILED_FULL: no position per frame, which viewers read best
        dimension_organization_type="TILED_FULL",
        tile_pixel_array=True,
        tile_size=(TILE, TILE),
        **_position(highdicom, slide, size),
    )
    with atomic(path) as draft:
        segmentation.save_as(draft)


def _packages() -> tuple[Any, Any]:
    try:
        return import_module("highdicom"), import_module("pydicom")
    except ImportError as error:
        raise MissingDependencyError(NEEDS_HIGHDICOM) from error


def _slide(pydicom: Any, source: Path) -> Any:
    """The header of a DICOM slide."""
    try:
        slide = pydicom.dcmread(source, stop_before_pixels=True)
        wanted = slide.SOPClassUID == pydicom.uid.VLWholeSlideMicroscopyImageStorage
    except (OSError, AttributeError, pydicom.errors.InvalidDicomError) as error:
        raise DataError(
            f"{source} is no DICOM file ({error}); pass one .dcm file of the slide"
        ) from error
    if not wanted:
        raise DataError(
            f"{source} is {slide.SOPClassUID.name}, wanted VL Whole Slide Microscopy Image; only a"
            " DICOM slide has the frame of reference a segmentation needs"
        )
    return slide


def _size_of(masks: Mapping[str, NDArray[np.bool_]], slide: Any, source: Path) -> tuple[int, int]:
    """Height and width of the masks."""
    shapes = {mask.shape for mask in masks.values()}
    types = {mask.dtype for mask in masks.values()}
    whole = (int(slide.TotalPixelMatrixRows), int(slide.TotalPixelMatrixColumns))
    if len(shapes) != 1 or types != {np.dtype(np.bool_)}:
        raise DataError(
            f"wanted boolean masks (h, w) of one size, got {sorted(map(str, shapes))} of"
            f" {sorted(map(str, types))}"
        )
    height, width = next(iter(shapes))
    down, across = whole[0] / height, whole[1] / width
    # A smaller mask is rounded up to whole pixels, so its factors differ by up to a pixel.
    tolerance = max(SQUARE_TOLERANCE * down, 1 / min(height, width) * down)
    if min(down, across) < 1 or abs(down - across) > tolerance:
        raise DataError(
            f"{source.name} has {whole[1]} x {whole[0]} pixels, masks of {width} x {height} do not"
            " fit; pass masks of the whole slide, of this size or smaller by one factor"
        )
    return height, width


def _digest(slide: Any, masks: Mapping[str, NDArray[np.bool_]], algorithm: str) -> str:
    """Of everything that is written."""
    digest = sha256(f"{slide.SOPInstanceUID}/{algorithm}/{version('xpath-pathology')}".encode())
    for label, mask in masks.items():
        digest.update(f"/{label}/{mask.shape}/".encode())
        digest.update(np.packbits(mask).tobytes())
    return digest.hexdigest()


def _uid(digest: str, what: str) -> str:
    """A DICOM identifier made from a UUID, which needs no registered root."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, f'xpath:{digest}:{what}').int}"


def _segments(highdicom: Any, labels: list[str], algorithm: str, digest: str) -> list[Any]:
    codes = import_module("pydicom.sr.codedict").codes

    family = highdicom.AlgorithmIdentificationSequence(
        name=algorithm,
        family=codes.DCM.ArtificialIntelligence,
        version=version("xpath-pathology"),
    )
    segments = []
    for number, label in enumerate(labels, start=1):
        colour = np.array(object_colour(label), np.uint8)
        segments.append(
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=label[:64],  # the most DICOM allows
                segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure
                if label.endswith(("tumor", "neoplastic", "necrosis or debris"))
                else codes.SCT.AnatomicalStructure,
                segmented_property_type=highdicom.sr.CodedConcept(_code(label), SCHEME, label[:64]),
                algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=family,
                tracking_uid=_uid(digest, label),
                tracking_id=label[:64],
                display_color=highdicom.color.CIELabColor.from_rgb(*colour.tolist()),
            )
        )
    return segments


def _code(label: str) -> str:
    """At most 16 characters, the same for a label everywhere."""
    return label if len(label) <= 16 else sha256(label.encode()).hexdigest()[:16]


def _position(highdicom: Any, slide: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Where smaller masks lie on the slide, nothing for masks as large as the slide."""
    whole = (int(slide.TotalPixelMatrixRows), int(slide.TotalPixelMatrixColumns))
    if size == whole:
        return {}
    measures = slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    down, across = (float(each) for each in measures.PixelSpacing)
    origin = slide.TotalPixelMatrixOriginSequence[0]
    corner = (
        float(origin.XOffsetInSlideCoordinateSystem),
        float(origin.YOffsetInSlideCoordinateSystem),
        0.0,
    )
    return {
        "pixel_measures": highdicom.PixelMeasuresSequence(
            pixel_spacing=(down * whole[0] / size[0], across * whole[1] / size[1]),
            slice_thickness=float(measures.get("SliceThickness", 0.001)),
        ),
        "plane_orientation": highdicom.PlaneOrientationSequence(
            highdicom.CoordinateSystemNames.SLIDE, list(slide.ImageOrientationSlide)
        ),
        "plane_positions": [
            highdicom.PlanePositionSequence(
                highdicom.CoordinateSystemNames.SLIDE,
                image_position=corner,
                pixel_matrix_position=(1, 1),
            )
        ],
    }
