from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.rings import SOURCE

GLANDS, TUMOR = SOURCE.info.labels


def write(root, part, name, rng, *, glands=255, tumor=255, size=(12, 14)):
    """An image of a part. Its glands in the upper rows, its tumour in the left columns."""
    folders = {"IMAGES": None, "MANUAL GLANDS": glands, "MANUAL TUMOR": tumor}
    masks = {"MANUAL GLANDS": np.s_[:3], "MANUAL TUMOR": np.s_[:, :2]}
    for folder, value in folders.items():
        path = root / part / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if value is None:
            pixels = rng.integers(0, 256, (12, 14, 3), dtype=np.uint8)
        else:
            pixels = np.zeros(size, np.uint8)
            pixels[masks[folder]] = value
        Image.fromarray(pixels).save(path)


def test_glands_and_tumour_of_both_parts(tmp_path, rng):
    write(tmp_path, "TRAIN", "P1_A2_1_1_1", rng)
    write(tmp_path, "TEST", "P15_D2_2_7_1", rng, glands=1, tumor=0)

    train, test = SOURCE.images(tmp_path)

    assert (train.name, train.group, train.split) == ("train_P1_A2_1_1_1", "P1", "train")
    assert (test.name, test.group, test.split) == ("test_P15_D2_2_7_1", "P15", "test")
    masks = {mask.label: mask.mask for mask in train.read().masks}
    assert {label: int(mask.sum()) for label, mask in masks.items()} == {GLANDS: 42, TUMOR: 24}
    assert masks[GLANDS][0].all()
    assert masks[TUMOR][:, 0].all()
    annotated = test.read()
    assert [mask.label for mask in annotated.masks] == [GLANDS]
    assert annotated.absent == (TUMOR,)


def test_an_image_of_1500_pixels_gives_36_windows_at_40x():
    image_mpp = 0.934
    side = round(1500 * image_mpp / 0.25)

    assert -(-side // 1024) == 6
    assert SOURCE.info.images <= 1500 * 36


def test_the_folder_of_the_archive_may_be_there(tmp_path, rng):
    write(tmp_path / "RINGS algorithm dataset", "TRAIN", "P1_A2_1_1_1", rng)

    assert [image.name for image in SOURCE.images(tmp_path)] == ["train_P1_A2_1_1_1"]
    assert "TEST/" in SOURCE.missing(tmp_path)


def test_what_is_missing_is_told(tmp_path, rng):
    write(tmp_path, "TRAIN", "P1_A2_1_1_1", rng)
    (tmp_path / "TRAIN" / "MANUAL TUMOR" / "P1_A2_1_1_1.png").unlink()

    assert SOURCE.missing(tmp_path) == [
        "1 of 1000 pictures in TRAIN/IMAGES",
        "TRAIN/MANUAL TUMOR/P1_A2_1_1_1.png",
        "TEST/",
    ]


def test_a_broken_mask_leaves_the_others(tmp_path, rng):
    write(tmp_path, "TRAIN", "P1_a", rng, size=(12, 13))
    write(tmp_path, "TRAIN", "P2_b", rng, tumor=7)
    write(tmp_path, "TRAIN", "P3_c", rng)
    write(tmp_path, "TRAIN", "P4_d", rng)
    (tmp_path / "TRAIN" / "MANUAL GLANDS" / "P3_c.png").unlink()
    reads = {image.group: image.read for image in SOURCE.images(tmp_path)}

    with pytest.raises(DataError, match=r"MANUAL GLANDS/P1_a\.png is 13 x 12 .* 14 x 12"):
        reads["P1"]()
    with pytest.raises(DataError, match=r"MANUAL TUMOR/P2_b\.png has unknown classes \[7\]"):
        reads["P2"]()
    with pytest.raises(DataError, match=r"MANUAL GLANDS/P3_c\.png does not exist"):
        reads["P3"]()
    assert len(reads["P4"]().masks) == 2
