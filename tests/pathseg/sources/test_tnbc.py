from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.tnbc import IMAGES, LABELS, MAPS, PICTURES, SOURCE

CODES = {
    "epithelial": 1,
    "lymphocyte or plasmocyte": 2,
    "cancerous": 3,
    "fibroblast": 4,
    "mitosis": 5,
    "endothelial": 6,
    "adipocyte": 7,
    "necrosis": 8,
    "glial": 9,
    "neuron": 10,
    "myo epithelial": 11,
}
"""Some order; nothing must depend on it but 8 and 11."""
SLIDES = {f"{number:02d}": 5 for number in range(1, 11)} | {"12": 6, "13": 6, "14": 6}


def write(root, slide, number, values, *, pictures=PICTURES, rng=None):
    """An image and its cell type map."""
    values = np.asarray(values, np.uint8)
    pixels = (rng or np.random.default_rng(2)).integers(0, 256, (*values.shape, 4), dtype=np.uint8)
    pixels[..., 3] = 255  # opaque, as published
    files = {root / pictures / f"Slide_{slide}": pixels, root / MAPS / f"GT_{slide}": values}
    for folder, content in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content).save(folder / f"{slide}_{number}.png")
    return pixels


def fill(root, *, pictures=PICTURES):
    """All 68 images, in which every cell type is as often as published."""
    corners = [(slide, number) for slide, count in SLIDES.items() for number in range(1, count + 1)]
    maps = {place: np.zeros(11, np.uint8) for place in corners}
    breast = corners[:50]
    for object_type, count in IMAGES.items():
        pool = corners[50:] if object_type in ("glial", "neuron") else breast
        start = 7 * CODES[object_type]
        for index in range(count):
            maps[pool[(start + index) % len(pool)]][CODES[object_type] - 1] = CODES[object_type]
    for (slide, number), values in maps.items():
        write(root, slide, number, [values], pictures=pictures)


def note(root, codes=CODES):
    """Somebody's note of what the integers mean."""
    lines = [f"{value},{object_type}" for object_type, value in codes.items()]
    (root / "classes.csv").write_text("\n".join(["value,class", *lines]))


@pytest.mark.parametrize("pictures", [PICTURES, MAPS])
def test_the_full_archive_tells_its_integers_apart(tmp_path, pictures):
    fill(tmp_path, pictures=pictures)

    images = list(SOURCE.images(tmp_path))
    counts = dict.fromkeys(LABELS.values(), 0)
    for image in images:
        for mask in image.read().masks:
            counts[mask.label] += 1
            object_type = mask.label.rpartition("-")[2]
            assert np.argwhere(mask.mask).tolist() == [[0, CODES[object_type] - 1]]

    assert len(images) == 68
    assert counts == {LABELS[object_type]: count for object_type, count in IMAGES.items()}
    assert SOURCE.missing(tmp_path) == []


def test_published_numbers_add_up():
    assert sum(IMAGES.values()) == SOURCE.info.masks
    assert len(IMAGES) == 11


def test_a_note_tells_what_few_images_cannot(tmp_path):
    pixels = write(tmp_path, "03", 2, [[0, 3, 3], [2, 0, 5]])
    note(tmp_path)

    (image,) = SOURCE.images(tmp_path)
    annotated = image.read()

    assert (image.name, image.group, image.split) == ("03_2", "slide_03", None)
    assert np.array_equal(annotated.image, pixels[..., :3])
    assert {mask.label: mask.mask.tolist() for mask in annotated.masks} == {
        "breast-cell-lymphocyte or plasmocyte": [[False] * 3, [True, False, False]],
        "breast-cell-cancerous": [[False, True, True], [False] * 3],
        "breast-cell-mitosis": [[False] * 3, [False, False, True]],
    }
    assert len(annotated.absent) == 8


def test_a_note_may_be_spelt_freely_but_not_wrongly(tmp_path):
    write(tmp_path, "03", 2, [[11]])
    (tmp_path / "classes.csv").write_text("class,value\nMyo-Epithelial ,11\n")

    assert next(SOURCE.images(tmp_path)).read().masks[0].label == "breast-cell-myo epithelial"
    (tmp_path / "classes.csv").write_text("class,value\nmartian,11\n")
    with pytest.raises(DataError, match=r"classes\.csv has the row .*martian"):
        next(SOURCE.images(tmp_path))


def test_without_a_note_few_images_are_refused(tmp_path):
    write(tmp_path, "03", 2, [[0, 3, 3]])

    with pytest.raises(DataError, match=r"3 in 1.* write classes\.csv"):
        next(SOURCE.images(tmp_path))
    gaps = SOURCE.missing(tmp_path)
    assert gaps[0] == "1 of 68 pictures in Slide_XX"
    assert gaps[1].startswith("classes.csv (")


def test_with_no_readable_map_one_is_named(tmp_path):
    write(tmp_path, "03", 2, [[0, 3, 3]])
    write(tmp_path, "03", 3, [[0, 3, 3]])
    for path in (tmp_path / MAPS / "GT_03").iterdir():
        path.write_bytes(b"")

    with pytest.raises(DataError, match=r"GT_03/03_2\.png and 1 more are broken"):
        next(SOURCE.images(tmp_path))


def test_an_integer_too_many_is_refused(tmp_path):
    fill(tmp_path)
    write(tmp_path, "05", 1, [[255]])

    with pytest.raises(DataError, match="255 in 1"):
        next(SOURCE.images(tmp_path))


def test_a_truncated_map_leaves_the_others(tmp_path):
    fill(tmp_path)
    path = tmp_path / MAPS / "GT_02" / "02_3.png"
    path.write_bytes(path.read_bytes()[:40])

    images = {image.name: image for image in SOURCE.images(tmp_path)}

    with pytest.raises(DataError, match=r"GT_02/02_3\.png is truncated"):
        images["02_3"].read()
    assert images["02_4"].read().masks


def test_broken_maps_are_named(tmp_path):
    write(tmp_path, "01", 1, [[12]])
    write(tmp_path, "01", 2, [[1, 1]])
    write(tmp_path, "01", 3, [[1]])
    note(tmp_path)
    Image.new("L", (1, 1)).save(tmp_path / MAPS / "GT_01" / "01_2.png")
    (tmp_path / MAPS / "GT_01" / "01_3.png").unlink()
    reads = [image.read for image in SOURCE.images(tmp_path)]

    with pytest.raises(DataError, match=r"01_1\.png has unknown classes \[12\]"):
        reads[0]()
    with pytest.raises(DataError, match=r"01_2\.png is 1 x 1 pixels"):
        reads[1]()
    with pytest.raises(DataError, match=r"01_3\.png does not exist"):
        reads[2]()
    assert "GT_01/01_3.png" in SOURCE.missing(tmp_path)
