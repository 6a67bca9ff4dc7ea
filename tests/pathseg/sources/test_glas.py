from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.glas import SOURCE

HEADER = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)\n"
TOP = "Warwick QU Dataset (Released 2016_07_08)"


def write(root, stem, glands, image=None):
    root.mkdir(parents=True, exist_ok=True)
    glands = np.asarray(glands, np.uint8)
    image = np.full((*glands.shape, 3), 77, np.uint8) if image is None else image
    Image.fromarray(image).save(root / f"{stem}.bmp")
    Image.fromarray(glands).save(root / f"{stem}_anno.bmp")


@pytest.fixture
def root(tmp_path):
    top = tmp_path / TOP
    for stem in ("train_1", "testA_2", "testB_3"):
        write(top, stem, [[0, 3], [1, 0]])
    (top / "Grade.csv").write_text(
        HEADER + "testA_2, 4, benign, healthy\ntestB_3, 5, malignant, x\ntrain_1, 11, benign, y\n"
    )
    return tmp_path


def test_names_tell_the_split_and_the_table_tells_the_patients(root):
    images = {image.name: image for image in SOURCE.images(root)}

    assert {name: (image.split, image.group) for name, image in images.items()} == {
        "train_1": ("train", "patient11"),
        "testA_2": ("test", "patient4"),
        "testB_3": ("test", "patient5"),
    }
    (mask,) = images["testA_2"].read().masks
    assert mask.label == "colon-tissue-gland"
    assert mask.mask.tolist() == [[False, True], [True, False]]


def test_without_the_table_every_image_is_its_own_group(root):
    (root / TOP / "Grade.csv").unlink()

    assert {image.group for image in SOURCE.images(root)} == {"train_1", "testA_2", "testB_3"}
    assert SOURCE.missing(root)[0] == "Grade.csv, which tells the patients"


def test_broken_images_are_named_and_the_others_stay_usable(root):
    (root / TOP / "testB_3_anno.bmp").unlink()
    Image.new("RGB", (9, 9)).save(root / TOP / "testA_2.bmp")
    images = {image.name: image for image in SOURCE.images(root)}

    assert images["train_1"].read().masks
    with pytest.raises(DataError, match=r"testB_3_anno\.bmp does not exist"):
        images["testB_3"].read()
    with pytest.raises(DataError, match=r"testA_2_anno\.bmp is 2 x 2 pixels"):
        images["testA_2"].read()
    assert SOURCE.missing(root) == [
        "1 of 85 pictures train_*.bmp",
        "1 of 60 pictures testA_*.bmp",
        "1 of 20 pictures testB_*.bmp",
        "testB_3_anno.bmp",
    ]


def test_what_is_missing_is_told(tmp_path):
    assert SOURCE.missing(tmp_path) == ["Grade.csv and train_1.bmp"]


def test_real_images(shared, tmp_path):
    """Real images in the published layout: patients, sizes and gland pixels as they are known."""
    data = shared / "data"
    wanted = {"train_1", "train_12", "train_50"}
    with (data / "labels.csv").open() as table:
        labels = [row for row in csv.DictReader(table) if row["source"] == "glas"]
    with (data / "images.csv").open() as table:
        images = {row["image"]: row for row in csv.DictReader(table) if row["source"] == "glas"}
    pixels = dict.fromkeys(wanted, 0)
    for row in labels:
        stem = row["image"].rpartition("/")[2][: -len(".jpg")]
        if stem in wanted:
            pixels[stem] += int(row["pixels"])
            with Image.open(data / row["image"]) as image, Image.open(data / row["mask"]) as mask:
                write(tmp_path, stem, np.asarray(mask), np.asarray(image.convert("RGB")))
    groups = {stem: images[f"annotated/glas/images/{stem}.jpg"]["group"] for stem in wanted}
    (tmp_path / "Grade.csv").write_text(
        HEADER + "".join(f"{stem}, {groups[stem]}, a, b\n" for stem in sorted(wanted))
    )

    found = {image.name: image for image in SOURCE.images(tmp_path)}

    assert set(found) == wanted
    for stem, image in found.items():
        annotated = image.read()
        assert image.split == "train"
        assert image.group == f"patient{groups[stem]}"
        assert image.mpp == float(images[f"annotated/glas/images/{stem}.jpg"]["mpp"])
        assert [mask.label for mask in annotated.masks] == ["colon-tissue-gland"]
        assert annotated.masks[0].mask.sum() == pixels[stem] > 0
