from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.midog import SOURCE, Midog

MITOSIS = "unspecified-nuclei-neuroendocrine tumor mitotic figure"
LOOK_ALIKE = "unspecified-nuclei-neuroendocrine tumor non mitotic figure"


def write(root, annotations, *, table="MIDOG2022_training.json", cases=(1, 300), tumors=None):
    """Images of 300 x 400 pixels and their table."""
    images = []
    for number in cases:
        name = f"{number:03d}.tiff"
        tifffile.imwrite(root / name, np.full((300, 400, 3), 90, np.uint8), tile=(64, 64))
        images.append({"id": number, "file_name": name, "width": 400, "height": 300})
        if tumors:
            images[-1]["tumor_type"] = tumors[number]
    rows = [
        {"id": index, "image_id": image, "category_id": category, "bbox": box}
        for index, (image, category, box) in enumerate(annotations)
    ]
    categories = [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}]
    content = {"images": images, "annotations": rows, "categories": categories}
    (root / table).write_text(json.dumps(content))


def test_neuroendocrine_tumours_are_taken_by_number_and_boxes_are_filled(tmp_path):
    """The first releases write corners."""
    write(
        tmp_path, [(1, 1, [0, 0, 50, 50]), (300, 1, [210, 20, 260, 70]), (300, 2, [0, 9, 50, 59])]
    )

    (image,) = SOURCE.images(tmp_path)
    found = image.read()

    assert (image.name, image.group, image.split, image.mpp) == ("300", "300", None, 0.23)
    mitosis, look_alike = found.masks
    assert [mitosis.label, look_alike.label] == [MITOSIS, LOOK_ALIKE]
    expected = np.zeros((300, 400), bool)
    expected[20:70, 210:260] = True
    assert (mitosis.mask == expected).all()
    assert look_alike.mask.sum() == 50 * 50
    assert look_alike.mask[9, 0]
    assert found.absent == ()
    assert (found.image == 90).all()


def test_boxes_may_be_written_as_sizes(tmp_path):
    """MIDOG++ and COCO write left, top, width and height."""
    write(tmp_path, [(300, 1, [310, 220, 50, 50])], table="MIDOG++.json", cases=(300,))

    (mask,) = next(SOURCE.images(tmp_path)).read().masks

    assert mask.mask[220:270, 310:360].all()
    assert mask.mask.sum() == 2500


def test_a_table_that_tells_the_tumour_is_believed(tmp_path):
    tumors = {300: "canine lung cancer", 400: "human neuroendocrine tumor"}
    write(tmp_path, [], table="MIDOG++.json", cases=(300, 400), tumors=tumors)

    (image,) = SOURCE.images(tmp_path)

    assert image.name == "400"
    assert image.read().masks == ()
    assert image.read().absent == (MITOSIS,)  # look-alikes are not annotated exhaustively


def test_discs_touch_their_boxes(tmp_path):
    write(tmp_path, [(300, 1, [210, 20, 260, 70]), (300, 1, [380, 280, 430, 330])])

    (mask,) = next(Midog(shape="disc").images(tmp_path)).read().masks

    whole = mask.mask[:100]
    assert whole.sum() == pytest.approx(np.pi * 25**2, rel=0.01)
    assert whole[45, 210]
    assert whole[20, 235]
    assert not whole[20, 210]
    cut = mask.mask[280:, 380:]  # centre (405, 305) lies outside of 400 x 300 pixels
    assert not cut[0, 0]
    assert cut[-1, -1]


def test_a_box_beyond_the_border_is_cut(tmp_path):
    write(tmp_path, [(300, 1, [-20, -10, 30, 40]), (300, 1, [390, 290, 440, 340])])

    (mask,) = next(SOURCE.images(tmp_path)).read().masks

    assert mask.mask.sum() == 30 * 40 + 10 * 10


def test_images_may_lie_in_their_own_folder_and_be_png(tmp_path):
    write(tmp_path, [(300, 1, [210, 20, 260, 70])])
    text = (tmp_path / "MIDOG2022_training.json").read_text().replace(".tiff", ".png")
    (tmp_path / "MIDOG2022_training.json").unlink()
    (tmp_path / "MIDOG2022_training_png.json").write_text(text)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (400, 300)).save(tmp_path / "images" / "300.png")

    assert next(SOURCE.images(tmp_path)).read().masks[0].mask.sum() == 2500


def test_broken_files_are_named_and_the_others_stay_usable(tmp_path):
    write(tmp_path, [(301, 1, [210, 20, 260, 70])], cases=(300, 301, 302))
    (tmp_path / "300.tiff").unlink()
    tifffile.imwrite(tmp_path / "302.tiff", np.zeros((30, 40, 3), np.uint8))

    gone, good, size = SOURCE.images(tmp_path)

    assert good.read().masks
    with pytest.raises(DataError, match=r"300\.tiff does not exist"):
        gone.read()
    with pytest.raises(DataError, match=r"json is 400 x 300 pixels.*302\.tiff is 40 x 30"):
        size.read()
    assert SOURCE.missing(tmp_path) == ["3 of 55 neuroendocrine tumours in the table", "300.tiff"]


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"MIDOG2022_training\.json does not exist"):
        list(SOURCE.images(tmp_path))
    assert SOURCE.missing(tmp_path)[0].startswith("one of MIDOG2022_training.json")
    write(tmp_path, [(300, 3, [210, 20, 260, 70])])
    with pytest.raises(DataError, match=r"unknown category 3, known are 1"):
        list(SOURCE.images(tmp_path))
    assert "unknown category 3" in SOURCE.missing(tmp_path)[0]
    (tmp_path / "MIDOG2022_training.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"MIDOG2022_training\.json .*'annotations'"):
        list(SOURCE.images(tmp_path))
