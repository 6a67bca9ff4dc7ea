from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.digestpath import SOURCE

LESION = "2019-07366-1-1_2019-05-28 21_55_54-lv1-34749-9467-5243-3059"
HEALTHY = "18-09926B_2019-05-08 00_06_56-lv1-22063-15843-1655-1670"


@pytest.fixture
def root(tmp_path):
    for folder in ("tissue-train-pos-v1", "tissue-train-neg"):
        (tmp_path / folder).mkdir()
    mask = np.zeros((32, 48, 3), np.uint8)
    mask[9:23, 15:41] = 255  # not along the blocks of JPEG
    folder = tmp_path / "tissue-train-pos-v1"
    Image.new("RGB", (48, 32), (180, 100, 160)).save(folder / f"{LESION}.jpg")
    Image.fromarray(mask).save(folder / f"{LESION}_mask.jpg")
    Image.new("RGB", (48, 32)).save(tmp_path / "tissue-train-neg" / f"{HEALTHY}.jpg")
    return tmp_path


def test_white_is_malignant_and_healthy_tissue_tells_so(root):
    lesion, healthy = SOURCE.images(root)

    assert lesion.name == "pos_2019-07366-1-1_2019-05-28_21_55_54-lv1-34749-9467-5243-3059"
    assert [lesion.group, healthy.group] == ["2019-07366-1-1", "18-09926B"]
    assert (lesion.split, lesion.region) == (None, "colon")
    (mask,) = lesion.read().masks
    assert mask.label == "colon-tissue-malignant lesion"
    assert mask.mask.sum() == 14 * 26
    assert mask.mask[9, 15]
    assert not mask.mask[8, 15]
    assert lesion.read().image.shape == (32, 48, 3)
    assert healthy.read().masks == ()
    assert healthy.read().absent == (mask.label,)


def test_broken_images_are_named_and_the_others_stay_usable(root):
    folder = root / "tissue-train-pos-v1"
    Image.new("RGB", (48, 32)).save(folder / "zz.jpg")
    lesion, gone, healthy = SOURCE.images(root)

    assert lesion.read().masks
    assert healthy.read().absent
    with pytest.raises(DataError, match=r"zz_mask\.jpg does not exist"):
        gone.read()
    Image.new("L", (3, 3)).save(folder / "zz_mask.jpg")
    with pytest.raises(DataError, match=r"zz_mask\.jpg is 3 x 3 pixels.*48 x 32"):
        gone.read()


def test_what_is_missing_is_told(root):
    (root / "tissue-train-pos-v1" / f"{LESION}_mask.jpg").unlink()

    assert SOURCE.missing(root) == [
        "1 of 250 pictures in tissue-train-pos-v1/",
        f"tissue-train-pos-v1/{LESION}_mask.jpg",
        "1 of 410 pictures in tissue-train-neg/",
    ]
    assert SOURCE.missing(root / "gone") == ["tissue-train-pos-v1/", "tissue-train-neg/"]
    assert list(SOURCE.images(root / "gone")) == []
