from __future__ import annotations

import numpy as np
import pytest

from xpath.errors import DataError
from xpath.pathseg.sources.conic import SOURCE


def write(root, classes, names=("consep_1-0000", "crag_12-0003")):
    """The three published files. Patch k is filled with k."""
    classes = np.asarray(classes, np.uint16)
    images = np.zeros((*classes.shape, 3), np.uint8)
    images += np.arange(len(classes), dtype=np.uint8)[:, None, None, None]
    instances = (classes > 0).astype(np.uint16) * 7
    np.save(root / "images.npy", images)
    np.save(root / "labels.npy", np.stack([instances, classes], axis=-1))
    (root / "patch_info.csv").write_text("patch_info\n" + "\n".join(names) + "\n")


def test_the_second_channel_tells_the_class(tmp_path):
    write(tmp_path, [[[0, 1], [2, 3]], [[4, 5], [6, 6]]])

    first, second = SOURCE.images(tmp_path)

    assert (first.name, first.group) == ("0000_consep_1-0000", "consep_1")
    assert (second.group, second.mpp, second.split) == ("crag_12", 0.5, None)
    assert [mask.label for mask in first.read().masks] == [
        "colon-nuclei-neutrophil",
        "colon-nuclei-epithelial",
        "colon-nuclei-lymphocyte",
    ]
    found = second.read()
    assert (found.image == 1).all()
    assert {mask.label: mask.mask.tolist() for mask in found.masks} == {
        "colon-nuclei-plasma cells": [[True, False], [False, False]],
        "colon-nuclei-eosinophil": [[False, True], [False, False]],
        "colon-nuclei-connective": [[False, False], [True, True]],
    }
    assert found.absent == tuple(mask.label for mask in first.read().masks)
    assert found.ignore is None


def test_broken_files_are_named_and_the_other_patches_stay_usable(tmp_path):
    write(tmp_path, [[[0, 1]], [[7, 0]]])
    good, bad = SOURCE.images(tmp_path)

    assert good.read().masks[0].label == "colon-nuclei-neutrophil"
    with pytest.raises(DataError, match=r"labels\.npy has unknown classes \[7\]"):
        bad.read()


def test_lengths_must_agree(tmp_path):
    write(tmp_path, [[[0]], [[1]]], names=("consep_1-0000",))

    with pytest.raises(DataError, match=r"images.npy 2, labels.npy 2, patch_info.csv 1"):
        list(SOURCE.images(tmp_path))


def test_another_shape_is_refused(tmp_path):
    write(tmp_path, [[[0]], [[1]]])
    np.save(tmp_path / "labels.npy", np.zeros((2, 3, 3, 2), np.uint16))

    with pytest.raises(DataError, match=r"labels.npy \(2, 3, 3, 2\); wanted"):
        next(SOURCE.images(tmp_path)).read()


def test_a_truncated_array_is_named(tmp_path):
    write(tmp_path, np.ones((2, 64, 64)))
    path = tmp_path / "labels.npy"
    path.write_bytes(path.read_bytes()[:5000])

    with pytest.raises(DataError, match=r"labels\.npy is truncated or no NPY array"):
        list(SOURCE.images(tmp_path))
    assert "truncated" in SOURCE.missing(tmp_path)[0]


def test_what_is_missing_is_told(tmp_path):
    assert SOURCE.missing(tmp_path) == ["images.npy", "labels.npy", "patch_info.csv"]
    write(tmp_path, [[[0]], [[1]]])
    assert SOURCE.missing(tmp_path) == ["2 of 4981 patches"]
    (tmp_path / "labels.npy").unlink()
    assert SOURCE.missing(tmp_path) == ["labels.npy"]
    with pytest.raises(DataError, match=r"labels\.npy does not exist"):
        list(SOURCE.images(tmp_path))
