from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.bcss import SOURCE

NAME = "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500.png"


def write(root, name=NAME, *, codes, image=None):
    codes = np.asarray(codes, np.uint8)
    image = np.full((*codes.shape, 3), 99, np.uint8) if image is None else image
    for folder, pixels in (("rgbs", image), ("masks", codes)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / folder / name)


def test_codes_become_labels_and_what_nobody_classified_is_ignored(tmp_path):
    write(tmp_path, codes=[[0, 1, 2], [7, 15, 21], [20, 8, 18]])

    (image,) = SOURCE.images(tmp_path)
    found = image.read()

    assert (image.name, image.group, image.split) == (NAME[:-4], "TCGA-A1-A0SK", None)
    assert (image.mpp, image.region) == (0.25, "breast")
    assert {mask.label: np.argwhere(mask.mask).tolist() for mask in found.masks} == {
        "breast-tissue-tumor": [[0, 1]],
        "breast-tissue-stroma": [[0, 2]],
        "breast-tissue-metaplasia nos": [[2, 1]],
        "breast-tissue-blood vessel": [[2, 2]],
        "breast-tissue-dcis": [[2, 0]],
    }
    assert np.argwhere(found.ignore).tolist() == [[0, 0], [1, 0], [1, 1]]
    assert found.absent == (
        "breast-tissue-lymphocytic infiltrate",
        "breast-tissue-necrosis or debris",
    )


def test_a_mask_without_gaps_ignores_nothing(tmp_path):
    write(tmp_path / "0_Public-data-Amgad2019_0.25MPP", codes=[[1, 2], [3, 4]])

    (image,) = SOURCE.images(tmp_path)

    assert image.read().ignore is None
    assert image.read().absent == ()


def test_broken_images_are_named_and_the_others_stay_usable(tmp_path):
    write(tmp_path, "TCGA-A1-A0SK-DX1_a_MPP-0.2500.png", codes=[[1]])
    write(tmp_path, "TCGA-A1-A0SM-DX1_b_MPP-0.2500.png", codes=[[22]])
    write(tmp_path, "TCGA-A1-A0SN-DX1_c_MPP-0.2500.png", codes=[[1, 2]])
    write(tmp_path, "TCGA-A1-A0SO-DX1_d_MPP-0.2500.png", codes=[[1]])
    write(tmp_path, "TCGA-A1-A0SP-DX1_e_MPP-0.2500.png", codes=np.ones((64, 64)))
    Image.new("RGB", (5, 5)).save(tmp_path / "rgbs" / "TCGA-A1-A0SN-DX1_c_MPP-0.2500.png")
    (tmp_path / "masks" / "TCGA-A1-A0SO-DX1_d_MPP-0.2500.png").unlink()
    cut = tmp_path / "rgbs" / "TCGA-A1-A0SP-DX1_e_MPP-0.2500.png"
    cut.write_bytes(cut.read_bytes()[:60])

    good, unknown, size, gone, truncated = SOURCE.images(tmp_path)

    assert good.read().masks[0].label == "breast-tissue-tumor"
    with pytest.raises(DataError, match=r"masks.*A0SM.*unknown classes \[22\]"):
        unknown.read()
    with pytest.raises(DataError, match=r"masks.*A0SN.* is 2 x 1 pixels.*rgbs.*5 x 5"):
        size.read()
    with pytest.raises(DataError, match=r"masks.*A0SO.*does not exist"):
        gone.read()
    with pytest.raises(DataError, match=r"rgbs.*A0SP.*truncated"):
        truncated.read()
    assert SOURCE.missing(tmp_path) == ["5 of 151 pictures", f"masks/{gone.path.name}"]


def test_what_is_missing_is_told(tmp_path):
    assert SOURCE.missing(tmp_path / "gone") == [
        "masks/ beside one of rgbs, rgbs_colorNormalized, images"
    ]
    assert list(SOURCE.images(tmp_path / "gone")) == []


@pytest.mark.parametrize("name", ["bcss_1008", "bcss_1019"])
def test_real_regions(shared, tmp_path, name):
    """Real tumour regions in the published layout: every pixel of the mask comes back."""
    data = shared / "data"
    with (data / "labels.csv").open() as table:
        rows = [row for row in csv.DictReader(table) if row["image"].endswith(f"/{name}.jpg")]
    with Image.open(data / rows[0]["image"]) as image, Image.open(data / rows[0]["mask"]) as mask:
        window = (0, 0, image.width, 512)
        pixels = np.asarray(image.convert("RGB").crop(window))
        values = np.asarray(mask.crop(window))
    (row,) = rows  # the copy knows one class; whatever else was there is "other"
    write(tmp_path, codes=np.where(values == int(row["value"]), 1, 21), image=pixels)

    (image,) = SOURCE.images(tmp_path)
    found = image.read()

    assert [mask.label for mask in found.masks] == [row["label"]]
    assert found.masks[0].mask.sum() == (values == 1).sum() > 0
    assert (found.image == pixels).all()
    # tumour is darker than what is around it, so that image and mask lie on each other
    inside = found.masks[0].mask
    assert found.image[inside].mean() < found.image[~inside].mean()
