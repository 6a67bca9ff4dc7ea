"""Masks of a run as DICOM: in the place they have on the slide, made once, and a word if not."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from xpath.batch.done import mark_done
from xpath.batch.slides import SlideEntry
from xpath.cli.main import main
from xpath.errors import DataError, MissingDependencyError
from xpath.geometry import Size
from xpath.labels import parse_object
from xpath.study.asked_objects import AskedObjects
from xpath.study.chain import dicom_stage
from xpath.study.config import StudyConfig
from xpath.study.study import Study, new_study
from xpath.testing.masks import grid_at, write_masks

LABELS = ("breast-tissue-tumor", "breast-tissue-stroma")
TILE = 256


def write_level(path, image, spacing, number):
    """A level of a DICOM slide, uncompressed, as OpenSlide reads it."""
    import pydicom
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

    def item(**values):
        one = Dataset()
        for name, value in values.items():
            setattr(one, name, value)
        return [one]

    height, width = image.shape[:2]
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.zeros((rows * TILE, columns * TILE, 3), np.uint8)
    padded[:height, :width] = image
    frames = padded.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = f"2.25.{10 + number}"
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    kind = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    facts = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": "2.25.2",
        "SeriesInstanceUID": "2.25.3",
        "FrameOfReferenceUID": "2.25.4",
        "Modality": "SM",
        "ImageType": kind if number else ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        **dict.fromkeys(("PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber"), ""),
        "PatientID": "p",
        "PatientName": "p^",
        "StudyDate": "20260101",
        "StudyTime": "000000",
        "ReferringPhysicianName": "",
        "PositionReferenceIndicator": "SLIDE_CORNER",
        "ContainerIdentifier": "c",
        "IssuerOfTheContainerIdentifierSequence": [],
        "ContainerTypeCodeSequence": [],
        "AcquisitionContextSequence": [],
        "SpecimenDescriptionSequence": [],
        **dict.fromkeys(("Rows", "Columns"), TILE),
        "NumberOfFrames": rows * columns,
        "TotalPixelMatrixRows": height,
        "TotalPixelMatrixColumns": width,
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        **dict.fromkeys(("BitsAllocated", "BitsStored"), 8),
        "HighBit": 7,
        "PixelRepresentation": 0,
        "ImageOrientationSlide": [0, -1, 0, -1, 0, 0],
        "DimensionOrganizationType": "TILED_FULL",
        "TotalPixelMatrixFocalPlanes": 1,
        "NumberOfOpticalPaths": 1,
        "OpticalPathSequence": item(OpticalPathIdentifier="1"),
        "TotalPixelMatrixOriginSequence": item(
            XOffsetInSlideCoordinateSystem=20.0, YOffsetInSlideCoordinateSystem=40.0
        ),
        "SharedFunctionalGroupsSequence": item(
            PixelMeasuresSequence=item(PixelSpacing=[spacing, spacing], SliceThickness=0.001)
        ),
    }
    for name, value in facts.items():
        setattr(data, name, value)
    data.PixelData = frames.tobytes()
    data.save_as(path, enforce_file_format=True)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A DICOM slide of 700 x 600 pixels, known by the file of its coarser level, with masks."""
    pytest.importorskip("highdicom")
    folder = tmp_path / "slide"
    folder.mkdir()
    image = np.full((600, 700, 3), 200, np.uint8)
    write_level(folder / "a.dcm", image[::2, ::2], 0.001, 1)
    write_level(folder / "b.dcm", image, 0.0005, 0)
    (folder / "notes.txt").write_text("no slide")
    monkeypatch.setattr(Study, "masks_key", lambda self, entry: "key")  # loads no segmentor
    entry = SlideEntry(slide_id="a", path=folder / "a.dcm")
    study = new_study(tmp_path / "run", StudyConfig(), [entry])
    with study.open_slide(entry) as slide:
        assert slide.size == Size(700, 600)
    write_two_patches(study.folder.masks("a"))
    mark_done(study.folder.masks("a"), "key")
    return study


def write_two_patches(path):
    """Tumor at x 128 to 256, y 128 to 192; stroma in the whole patch at (256, 128)."""
    grid = grid_at([[128, 128], [256, 128]], 128, pixels=64, slide_size=Size(700, 600))
    masks = np.zeros((2, 2, 64, 64), np.bool_)
    masks[0, 0, :32] = masks[1, 1] = True
    write_masks(path, grid, masks, LABELS, provenance={"segmentor": "mini"})


def test_masks_lie_where_they_do_on_the_slide(study):
    import highdicom

    assert dicom_stage(study).done == ("a",)

    found = highdicom.seg.segread(study.folder.slide("a") / "objects.dcm")
    assert [segment.SegmentLabel for segment in found.SegmentSequence] == list(LABELS)
    algorithm = found.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "mini"
    # the finest level's file, though the run knows the slide by another
    assert found.FrameOfReferenceUID == "2.25.4"
    assert (
        found
        .ReferencedSeriesSequence[0]
        .ReferencedInstanceSequence[0]["ReferencedSOPInstanceUID"]
        .value
        == "2.25.10"
    )
    spacing = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert [float(each) for each in spacing] == pytest.approx([0.001, 0.001])
    wanted = np.zeros((300, 350, 2), np.bool_)
    wanted[64:96, 64:128, 0] = wanted[64:128, 128:192, 1] = True
    np.testing.assert_array_equal(found.get_total_pixel_matrix().astype(bool), wanted)


def test_segments_say_that_they_are_guesses_or_answer_for_other_labels(study, monkeypatch):
    import highdicom

    tumor, stroma = map(parse_object, LABELS)
    tumor = replace(tumor, answers_for=("breast-tissue-dcis", "breast-cell-cancerous"))
    asked = AskedObjects((), (tumor, stroma), (), frozenset({stroma.id}))
    monkeypatch.setattr(Study, "asked", asked)

    assert dicom_stage(study).ok

    found = highdicom.seg.segread(study.folder.slide("a") / "objects.dcm")
    assert [segment.SegmentDescription for segment in found.SegmentSequence] == [
        "Answers for labels never learnt: dcis, cancerous (cell).",
        "A guess: the segmentor never learnt this label.",
    ]


def test_what_is_there_is_not_made_again_unless_it_is_damaged(study):
    import highdicom

    dicom_stage(study)
    path = study.folder.slide("a") / "objects.dcm"
    content, made = path.read_bytes(), path.stat().st_mtime_ns

    dicom_stage(study)
    assert path.stat().st_mtime_ns == made

    path.write_bytes(content[:1000])
    dicom_stage(study)
    assert path.stat().st_size == len(content)
    assert highdicom.seg.segread(path).SegmentSequence


def test_without_its_finest_level_a_slide_fails_alone(study):
    (study.slides[0].path.parent / "b.dcm").unlink()

    assert dicom_stage(study).failed == ("a",)
    assert "keep all levels" in study.ledger.entry("a", "dicom-seg").reason


@pytest.fixture
def bare(tmp_path):
    """Runs of one slide that only looks like what its name says."""

    def make(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        entry = SlideEntry(slide_id="a", path=path)
        return new_study(tmp_path / "run", StudyConfig(), [entry])

    return make


def test_slides_of_other_formats_are_refused_with_an_alternative(bare):
    with pytest.raises(DataError, match=r"none of the 1 slides is DICOM, such as a\.svs.*geojson"):
        dicom_stage(bare("a.svs", b"TIFF" * 100))


def test_without_highdicom_the_command_fails_at_once(bare, monkeypatch, capsys):
    study = bare("a.dcm", bytes(128) + b"DICM")
    monkeypatch.setitem(sys.modules, "highdicom", None)

    with pytest.raises(MissingDependencyError, match="pip install highdicom"):
        dicom_stage(study)
    assert main(["export", "--out", str(study.folder.root), "--dicom-seg"]) == 1
    assert "pip install highdicom" in capsys.readouterr().err
