from __future__ import annotations

import numpy as np
import pytest
import tifffile

from xpath.errors import DataError
from xpath.pathseg.sources.monusac import SOURCE

TRAIN, TEST = "MoNuSAC_images_and_annotations", "MoNuSAC Testing Data and Annotations"
SLIDE = "TCGA-5P-A9K0-01Z-00-DX1"


def annotation(kind, *outlines):
    """An annotation as ImageScope writes it."""
    regions = "".join(
        f'<Region Id="{index}" NegativeROA="0"><Attributes/><Vertices>'
        + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in outline)
        + "</Vertices></Region>"
        for index, outline in enumerate(outlines, 1)
    )
    return (
        f'<Annotation Id="1" Name="" LineColor="65280"><Attributes><Attribute Name="{kind}" '
        f'Id="0" Value=""/></Attributes><Regions><RegionAttributeHeaders>'
        f'<AttributeHeader Id="9999" Name="Region"/></RegionAttributeHeaders>{regions}</Regions>'
        "<Plots/></Annotation>"
    )


def square(x, y, side=2):
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]


def write(root, folder, name, *annotations, suffix=".tif", slide=SLIDE):
    patient = root / folder / slide
    patient.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(patient / f"{name}{suffix}", np.full((20, 30, 3), 120, np.uint8))
    xml = '<Annotations MicronsPerPixel="0.252000">' + "".join(annotations) + "</Annotations>"
    (patient / f"{name}.xml").write_text(xml)
    return patient


def test_outlines_become_one_mask_per_kind(tmp_path):
    write(
        tmp_path,
        TRAIN,
        f"{SLIDE}_1",
        annotation("Lymphocyte", square(20, 5), square(25, 10)),
        annotation("Epithelial", square(1.2, 1.4)),
    )

    (image,) = SOURCE.images(tmp_path)
    found = image.read()

    assert (image.name, image.group) == (f"{SLIDE}_1", "TCGA-5P-A9K0")
    assert (image.split, image.region) == ("train", "unspecified")
    epithelial, lymphocyte = found.masks
    assert epithelial.label == "unspecified-cell-epithelial"
    assert np.argwhere(epithelial.mask).min(axis=0).tolist() == [1, 1]
    assert np.argwhere(epithelial.mask).max(axis=0).tolist() == [3, 3]
    assert lymphocyte.mask.sum() == 2 * 9
    assert lymphocyte.mask[5:8, 20:23].all()
    assert found.ignore is None
    assert found.absent == ("unspecified-cell-macrophage", "unspecified-cell-neutrophil")


def test_doubtful_regions_of_the_test_part_are_ignored(tmp_path):
    write(
        tmp_path,
        TEST,
        f"{SLIDE}_2",
        annotation("Macrophage", square(4, 4)),
        annotation("Ambiguous", square(4, 4, side=6)),
        suffix=".svs",
    )

    (image,) = SOURCE.images(tmp_path)
    found = image.read()

    assert image.split == "test"
    assert [mask.label for mask in found.masks] == ["unspecified-cell-macrophage"]
    assert found.ignore.sum() == 7 * 7 - 3 * 3
    assert not (found.ignore & found.masks[0].mask).any()


def test_the_tiff_is_taken_where_there_are_both(tmp_path):
    patient = write(tmp_path, TRAIN, f"{SLIDE}_1", annotation("Neutrophil", square(1, 1)))
    (patient / f"{SLIDE}_1.svs").write_bytes(b"never read")

    (image,) = SOURCE.images(tmp_path)

    assert image.path.suffix == ".tif"
    assert image.read().masks[0].label == "unspecified-cell-neutrophil"


def test_broken_images_are_named_and_the_others_stay_usable(tmp_path):
    write(tmp_path, TRAIN, f"{SLIDE}_1", annotation("Lymphocyte", square(1, 1)))
    write(tmp_path, TRAIN, f"{SLIDE}_2", annotation("Fibroblast", square(1, 1)))
    write(tmp_path, TRAIN, f"{SLIDE}_3", annotation("Lymphocyte", square(900, 900)))
    patient = write(tmp_path, TRAIN, f"{SLIDE}_4")
    (patient / f"{SLIDE}_4.xml").write_text("<Annotations><Annotation>")
    write(tmp_path, TRAIN, f"{SLIDE}_5")
    (patient / f"{SLIDE}_5.xml").unlink()

    good, kind, elsewhere, cut, gone = SOURCE.images(tmp_path)

    assert good.read().masks
    with pytest.raises(DataError, match=r"_2\.xml has an unknown cell type 'Fibroblast'"):
        kind.read()
    with pytest.raises(DataError, match=r"_3\.xml has no outline within.*30 x 20"):
        elsewhere.read()
    with pytest.raises(DataError, match=r"_4\.xml is truncated or no XML"):
        cut.read()
    with pytest.raises(DataError, match=r"_5\.xml does not exist"):
        gone.read()
    assert SOURCE.missing(tmp_path) == [
        "5 of 209 pictures to train",
        f"{SLIDE}/{SLIDE}_5.xml",
        f"{TEST}/PATIENT/*.tif or *.svs",
    ]


def test_a_number_that_is_none_is_named(tmp_path):
    write(tmp_path, TRAIN, f"{SLIDE}_1", annotation("Lymphocyte", [("a", 1), (2, 2), (3, 1)]))

    with pytest.raises(DataError, match=r"_1\.xml is truncated or no Aperio annotation"):
        next(SOURCE.images(tmp_path)).read()


def test_an_image_without_cells_has_none_of_them(tmp_path):
    write(tmp_path, TRAIN, f"{SLIDE}_1")

    found = next(SOURCE.images(tmp_path)).read()

    assert found.masks == ()
    assert len(found.absent) == 4
