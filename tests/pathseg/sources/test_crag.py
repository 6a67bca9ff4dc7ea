from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.crag import SOURCE


def write(root, folder, name, glands, size=None):
    glands = np.asarray(glands, np.uint8)
    for below in ("Images", "Annotation", "Overlay"):
        (root / folder / below).mkdir(parents=True, exist_ok=True)
    Image.fromarray(glands).save(root / folder / "Annotation" / name)
    Image.new("RGB", size or glands.shape[::-1], (200, 80, 150)).save(
        root / folder / "Images" / name
    )


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "CRAG", "train", "train_1.png", [[0, 1, 1], [2, 0, 0]])
    write(tmp_path / "CRAG", "valid", "test_1.png", [[0, 0, 0], [0, 0, 0]])
    return tmp_path


def test_glands_are_one_label_and_the_split_is_official(root):
    train, test = SOURCE.images(root)

    assert [(image.name, image.split) for image in (train, test)] == [
        ("train_train_1", "train"),
        ("valid_test_1", "test"),
    ]
    (mask,) = train.read().masks
    assert mask.label == "colon-tissue-gland"
    assert mask.mask.tolist() == [[False, True, True], [True, False, False]]
    assert (train.read().image == (200, 80, 150)).all()
    assert train.read().absent == ()
    assert test.read().absent == ("colon-tissue-gland",)


def test_broken_images_are_named_and_the_others_stay_usable(root):
    write(root / "CRAG", "train", "train_2.png", [[1]], size=(4, 4))
    write(root / "CRAG", "train", "train_3.png", [[1]])
    (root / "CRAG" / "train" / "Annotation" / "train_3.png").unlink()

    good, size, gone, _ = SOURCE.images(root)

    assert good.read().masks
    with pytest.raises(DataError, match=r"Annotation.*train_2\.png is 1 x 1.*Images.*4 x 4"):
        size.read()
    with pytest.raises(DataError, match=r"Annotation.*train_3\.png does not exist"):
        gone.read()
    assert SOURCE.missing(root) == [
        "3 of 173 pictures in train/Images",
        "train/Annotation/train_3.png",
        "1 of 40 pictures in valid/Images",
    ]


def test_what_is_missing_is_told(tmp_path):
    assert SOURCE.missing(tmp_path) == ["train/", "valid/"]
