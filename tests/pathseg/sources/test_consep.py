from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from xpath.errors import DataError
from xpath.pathseg.sources.consep import CLASSES, OTHER, SOURCE


def write(root, part, name, types, rng, *, instances=None):
    """An image and the maps HoVer-Net's authors store as doubles."""
    types = np.asarray(types, float)
    for below in ("Images", "Labels"):
        (root / part / below).mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (2, 4, 4), dtype=np.uint8)
    pixels[..., 3] = 255  # opaque, as published
    Image.fromarray(pixels).save(root / part / "Images" / f"{name}.png")
    instances = types if instances is None else np.asarray(instances, float)
    content = {"inst_map": instances, "type_map": types, "inst_type": np.unique(types)[1:]}
    savemat(root / part / "Labels" / f"{name}.mat", content)
    return pixels


def test_nuclei_by_type(tmp_path, rng):
    pixels = write(tmp_path, "Train", "train_1", [[0, 2, 2, 7], [3, 4, 5, 6]], rng)
    write(tmp_path, "Test", "test_1", [[0] * 4, [0, 0, 0, 4]], rng)

    train, test = SOURCE.images(tmp_path)
    annotated = train.read()

    assert (train.name, test.name) == ("train_1", "test_1")
    assert {image.split for image in (train, test)} == {"test"}
    assert SOURCE.info.external
    assert np.array_equal(annotated.image, pixels[..., :3])
    assert {mask.label: np.argwhere(mask.mask).tolist() for mask in annotated.masks} == {
        "colon-cell-inflammatory": [[0, 1], [0, 2]],
        "colon-cell-healthy epithelial": [[1, 0]],
        "colon-cell-malignant epithelial": [[1, 1]],
        "colon-cell-fibroblast": [[1, 2]],
        "colon-cell-muscle": [[1, 3]],
        "colon-cell-endothelial": [[0, 3]],
    }
    assert (annotated.ignore, annotated.absent) == (None, ())
    assert len(test.read().absent) == len(CLASSES) - 1


def test_nuclei_nobody_named_are_ignored(tmp_path, rng):
    types = [[OTHER, 0, 0, 2], [0, 0, 0, 0]]
    write(tmp_path, "Test", "test_1", types, rng, instances=[[1, 0, 0, 2], [3, 0, 0, 0]])

    (image,) = SOURCE.images(tmp_path)
    annotated = image.read()

    assert np.argwhere(annotated.ignore).tolist() == [[0, 0], [1, 0]]
    assert [mask.label for mask in annotated.masks] == ["colon-cell-inflammatory"]


def test_what_is_missing_is_told(tmp_path, rng):
    write(tmp_path / "CoNSeP", "Train", "train_1", np.zeros((2, 4)), rng)
    write(tmp_path / "CoNSeP", "Test", "test_1", np.zeros((2, 4)), rng)
    (tmp_path / "CoNSeP" / "Test" / "Labels" / "test_1.mat").unlink()

    assert SOURCE.missing(tmp_path) == [
        "1 of 27 pictures in Train/Images",
        "1 of 14 pictures in Test/Images",
        "Test/Labels/test_1.mat",
    ]
    assert SOURCE.missing(tmp_path / "none") == [
        "Train/",
        "Test/",
    ]


def test_broken_maps_leave_the_others(tmp_path, rng):
    write(tmp_path, "Test", "test_1", [[8, 0, 0, 0], [0] * 4], rng)
    write(tmp_path, "Test", "test_2", np.zeros((3, 4)), rng)
    write(tmp_path, "Test", "test_3", np.zeros((2, 4)), rng)
    write(tmp_path, "Test", "test_4", np.full((2, 4), 6), rng)
    path = tmp_path / "Test" / "Labels" / "test_3.mat"
    path.write_bytes(path.read_bytes()[:200])
    reads = [image.read for image in SOURCE.images(tmp_path)]

    with pytest.raises(DataError, match=r"test_1\.mat has unknown classes"):
        reads[0]()
    with pytest.raises(DataError, match=r"test_2\.mat is 4 x 3 pixels, .* 4 x 2"):
        reads[1]()
    with pytest.raises(DataError, match=r"test_3\.mat"):
        reads[2]()
    assert reads[3]().masks[0].mask.all()
