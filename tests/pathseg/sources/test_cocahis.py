from __future__ import annotations

import h5py
import numpy as np
import pytest

from xpath.errors import DataError
from xpath.pathseg.sources.cocahis import SOURCE


def write(root, *, splits=("train", "test"), size=(5, 7), mask_size=None):
    """The published groups, with tiny images. Image k is filled with k."""
    root.mkdir(exist_ok=True)
    count = len(splits)
    images = (
        np.zeros((count, *size, 3), np.uint8)
        + np.arange(count, dtype=np.uint8)[:, None, None, None]
    )
    masks = np.zeros((count, *(mask_size or size)), np.uint8)
    masks[1:, 1:3, 2:4] = 1
    with h5py.File(root / "CoCaHis.hdf5", "w") as file:
        he, gt = file.create_group("HE"), file.create_group("GT")
        he["raw"], he["sn1"] = images, images + 100
        gt["GT_majority_vote"], gt["GT1"] = masks, 1 - masks
        he.attrs["train_test_split"] = list(splits)
        he.attrs["patient_num"] = ["4", "19"] * (count // 2)
        he.attrs["image_num"] = np.arange(1, count + 1)


def test_images_masks_patients_and_split_come_from_the_file(tmp_path):
    write(tmp_path)

    first, second = SOURCE.images(tmp_path)

    assert [first.split, second.split] == ["train", "test"]
    assert [first.group, second.group] == ["patient4", "patient19"]
    assert second.name == "patient19_image2_01"
    assert second.mpp == 0.45
    found = second.read()
    assert (found.image == 1).all()
    assert found.image.shape == (5, 7, 3)
    (mask,) = found.masks
    assert mask.label == "liver-tissue-metastatic colon cancer in a liver"
    assert np.argwhere(mask.mask).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    assert first.read().masks == ()
    assert first.read().absent == (mask.label,)


def test_a_split_nobody_knows_is_refused(tmp_path):
    write(tmp_path, splits=("train", "validate"))

    with pytest.raises(DataError, match=r"CoCaHis\.hdf5 has an image of split 'validate'"):
        list(SOURCE.images(tmp_path))


def test_broken_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"CoCaHis\.hdf5 does not exist"):
        list(SOURCE.images(tmp_path))
    write(tmp_path, mask_size=(6, 7))
    images = list(SOURCE.images(tmp_path))
    with pytest.raises(DataError, match=r"7 x 6 pixels.*7 x 5"):
        images[0].read()
    path = tmp_path / "CoCaHis.hdf5"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"CoCaHis\.hdf5 is truncated or no HDF5"):
        list(SOURCE.images(tmp_path))
    assert "truncated" in SOURCE.missing(tmp_path)[0]


def test_a_dataset_that_is_not_there_is_named(tmp_path):
    write(tmp_path)
    with h5py.File(tmp_path / "CoCaHis.hdf5", "a") as file:
        del file["GT/GT_majority_vote"]

    with pytest.raises(DataError, match=r"GT_majority_vote"):
        next(SOURCE.images(tmp_path)).read()


def test_what_is_missing_is_told(tmp_path):
    assert SOURCE.missing(tmp_path) == ["CoCaHis.hdf5"]
    write(tmp_path / "CoCaHis")
    assert SOURCE.missing(tmp_path) == ["2 of 82 images"]
