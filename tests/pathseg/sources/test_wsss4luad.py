from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.wsss4luad import SOURCE

TUMOR, STROMA, NORMAL = SOURCE.info.labels
PALETTE = [0, 64, 128, 64, 128, 0, 243, 152, 0, 255, 255, 255, 1, 2, 3]


def write(folder, name, values, rng):
    """An image and its mask, which has colours but is stored as indices."""
    values = np.asarray(values, np.uint8)
    for below in ("img", "mask"):
        (folder / below).mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (*values.shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "img" / f"{name}.png")
    mask = Image.fromarray(values).convert("P")
    mask.putdata(values.ravel().tolist())
    mask.putpalette(PALETTE)
    mask.save(folder / "mask" / f"{name}.png")


def test_zero_is_tumour_and_three_is_nothing(tmp_path, rng):
    write(tmp_path / "2.validation", "00", [[0, 0, 3], [1, 0, 3]], rng)
    write(tmp_path / "3.testing", "00", [[2, 2, 3]], rng)

    first, second = SOURCE.images(tmp_path)

    assert (first.name, second.name) == ("validation_00", "testing_00")
    assert {image.split for image in (first, second)} == {None}
    masks = {mask.label: mask.mask.tolist() for mask in first.read().masks}
    assert masks == {
        TUMOR: [[True, True, False], [False, True, False]],
        STROMA: [[False] * 3, [True, False, False]],
    }
    assert first.read().absent == (NORMAL,)
    assert second.read().absent == (TUMOR, STROMA)


def test_some_unpack_a_part_into_itself(tmp_path, rng):
    write(tmp_path / "WSSS4LUAD" / "2.validation" / "2.validation", "07", [[1]], rng)

    assert [image.name for image in SOURCE.images(tmp_path)] == ["validation_07"]


def test_real_images_have_the_pixels_they_had(shared, tmp_path):
    with (shared / "data" / "labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "wsss4luad"]
    pixels = {(row["image"].split("/")[-1][:2], row["label"]): int(row["pixels"]) for row in rows}
    real = shared / "data" / "annotated" / "wsss4luad"
    for below, suffix in (("img", "jpg"), ("mask", "png")):
        (tmp_path / "2.validation" / below).mkdir(parents=True)
        for path in (real / ("images" if below == "img" else "masks")).glob(f"*.{suffix}"):
            Image.open(path).save(
                tmp_path / "2.validation" / below / f"{path.stem}.png", compress_level=1
            )

    images = list(SOURCE.images(tmp_path))
    found = {
        (image.path.stem, mask.label): int(mask.mask.sum())
        for image in images
        for mask in image.read().masks
    }

    assert len(images) == 40
    assert found == pixels
    assert SOURCE.missing(tmp_path) == ["3.testing/"]


def test_what_is_missing_is_told(tmp_path, rng):
    write(tmp_path / "2.validation", "00", [[0]], rng)
    (tmp_path / "2.validation" / "mask" / "00.png").unlink()

    assert SOURCE.missing(tmp_path) == [
        "1 of 40 pictures in 2.validation/img",
        "2.validation/mask/00.png",
        "3.testing/",
    ]


def test_broken_masks_leave_the_others(tmp_path, rng):
    folder = tmp_path / "3.testing"
    write(folder, "00", [[0, 4]], rng)
    write(folder, "01", [[0, 1]], rng)
    write(folder, "02", [[0, 1]], rng)
    write(folder, "03", [[0, 1]], rng)
    Image.new("L", (3, 1)).save(folder / "mask" / "01.png")
    (folder / "mask" / "02.png").unlink()
    reads = [image.read for image in SOURCE.images(tmp_path)]

    with pytest.raises(DataError, match=r"mask/00\.png has unknown classes \[4\]"):
        reads[0]()
    with pytest.raises(DataError, match=r"mask/01\.png is 3 x 1 pixels"):
        reads[1]()
    with pytest.raises(DataError, match=r"mask/02\.png does not exist"):
        reads[2]()
    assert len(reads[3]().masks) == 2
