"""Masks in DICOM: read back by highdicom, in the slide's frame; a plain word without it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from xpath.errors import DataError, MissingDependencyError
from xpath.export.dicom_seg import write_dicom_seg

TUMOR, STROMA = "breast-tissue-tumor", "breast-tissue-stroma"


@pytest.fixture
def masks(rng):
    return {label: rng.random((600, 700)) < share for label, share in ((TUMOR, 0.3), (STROMA, 0.5))}


def sequence(**values):
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return Sequence([item])


@pytest.fixture
def slide(tmp_path):
    """The header of a tiled slide of 700 x 600 pixels of 0.5 microns, without its pixels."""
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = "2.25.1"
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    facts = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": "2.25.1",
        "StudyInstanceUID": "2.25.2",
        "SeriesInstanceUID": "2.25.3",
        "FrameOfReferenceUID": "2.25.4",
        "Modality": "SM",
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        "PatientID": "p",
        "PatientName": "p^",
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyDate": "20260101",
        "StudyTime": "000000",
        "StudyID": "",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "PositionReferenceIndicator": "SLIDE_CORNER",
        "ContainerIdentifier": "c",
        "IssuerOfTheContainerIdentifierSequence": [],
        "ContainerTypeCodeSequence": [],
        "AcquisitionContextSequence": [],
        "SpecimenDescriptionSequence": [],
        "Rows": 256,
        "Columns": 256,
        "NumberOfFrames": 9,
        "TotalPixelMatrixRows": 600,
        "TotalPixelMatrixColumns": 700,
        "ImageOrientationSlide": [0, -1, 0, -1, 0, 0],
        "DimensionOrganizationType": "TILED_FULL",
        "TotalPixelMatrixFocalPlanes": 1,
        "NumberOfOpticalPaths": 1,
        "TotalPixelMatrixOriginSequence": sequence(
            XOffsetInSlideCoordinateSystem=20.0, YOffsetInSlideCoordinateSystem=40.0
        ),
        "SharedFunctionalGroupsSequence": sequence(
            PixelMeasuresSequence=sequence(PixelSpacing=[0.0005, 0.0005], SliceThickness=0.001)
        ),
    }
    for name, value in facts.items():
        setattr(data, name, value)
    path = tmp_path / "slide.dcm"
    data.save_as(path, enforce_file_format=True)
    return path


def read_back(path):
    import highdicom

    return highdicom.seg.segread(path)


def test_masks_come_back_in_the_slides_frame(tmp_path, slide, masks):
    path = tmp_path / "objects.dcm"

    write_dicom_seg(
        path, slide, masks, algorithm="PathSegmentor", descriptions={STROMA: "A guess."}
    )

    found = read_back(path)
    about = [segment.get("SegmentDescription", "") for segment in found.SegmentSequence]
    assert about == ["", "A guess."]
    assert found.FrameOfReferenceUID == "2.25.4"
    assert [segment.SegmentLabel for segment in found.SegmentSequence] == [TUMOR, STROMA]
    assert (found.TotalPixelMatrixRows, found.TotalPixelMatrixColumns) == (600, 700)
    assert (found.Rows, found.Columns) == (512, 512)
    matrix = found.get_total_pixel_matrix()
    for number, mask in enumerate(masks.values()):
        np.testing.assert_array_equal(matrix[..., number].astype(bool), mask)


def test_smaller_masks_have_larger_pixels_at_the_same_corner(tmp_path, slide, masks):
    small = {label: mask[::4, ::4] for label, mask in masks.items()}

    write_dicom_seg(tmp_path / "objects.dcm", slide, small, algorithm="a")

    found = read_back(tmp_path / "objects.dcm")
    measures = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(each) for each in measures.PixelSpacing] == pytest.approx([0.002, 0.002])
    origin = found.TotalPixelMatrixOriginSequence[0]
    corner = (origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem)
    assert [float(each) for each in corner] == [20, 40]
    matrix = found.get_total_pixel_matrix()
    np.testing.assert_array_equal(matrix[..., 0].astype(bool), small[TUMOR])


def test_the_same_masks_have_the_same_identifier(tmp_path, slide, masks):
    names = []
    for algorithm in ("a", "a", "b"):
        write_dicom_seg(tmp_path / "objects.dcm", slide, masks, algorithm=algorithm)
        names.append(read_back(tmp_path / "objects.dcm").SOPInstanceUID)

    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: mask[:300], "do not fit"),
        (lambda mask: np.repeat(mask, 2, axis=1), "do not fit"),
        (lambda mask: mask.astype(np.uint8), "boolean"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path, slide, masks, change, message):
    wrong = {label: change(mask) for label, mask in masks.items()}

    with pytest.raises(DataError, match=message):
        write_dicom_seg(tmp_path / "objects.dcm", slide, wrong, algorithm="a")
    with pytest.raises(DataError, match="boolean"):
        write_dicom_seg(tmp_path / "objects.dcm", slide, {}, algorithm="a")

    assert not (tmp_path / "objects.dcm").exists()


def test_another_file_is_refused(tmp_path, masks):
    pytest.importorskip("highdicom")
    (tmp_path / "a.svs").write_bytes(b"no")

    with pytest.raises(DataError, match="no DICOM file"):
        write_dicom_seg(tmp_path / "objects.dcm", tmp_path / "a.svs", masks, algorithm="a")


def test_without_the_extra_the_command_is_told(tmp_path, masks, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)

    with pytest.raises(MissingDependencyError, match="pip install highdicom"):
        write_dicom_seg(tmp_path / "a.dcm", tmp_path / "b.dcm", masks, algorithm="a")
