"""The layout of BiomedParseData: written, read back, and broken in every way it comes broken."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError, LabelError, StoreError
from xpath.pathseg.biomedparse_data import read_binary_mask, read_biomedparse
from xpath.pathseg.biomedparse_writer import PromptedImage, write_biomedparse
from xpath.pathseg.image_files import image_size, write_png
from xpath.pathseg.reading import read_image
from xpath.pathseg.record import Annotated, LabelMask

TUMOR = "head neck-tissue-lymphocyte or plasmocyte"
"""A label with blanks everywhere."""


def item(name="a", masks=(TUMOR,), ignore=None, absent=()):
    rng = np.random.default_rng(len(name))
    image = rng.integers(0, 256, (10, 14, 3), dtype=np.uint8)
    mask = np.zeros((10, 14), bool)
    mask[2:5, 3:9] = True
    found = tuple(LabelMask(label, mask) for label in masks)
    return PromptedImage(name, "head neck", Annotated(image, found, ignore, absent))


def foreign(folder, annotations, *, images=None, size=(14, 10), categories=()):
    """A folder as others write it."""
    for part in ("test", "test_mask"):
        (folder / part).mkdir(parents=True)
    Image.new("RGB", size, (9, 8, 7)).save(folder / "test" / "Part_1_pathology_breast.png")
    mask = Image.new("RGB", size)
    mask.putpixel((3, 2), (0, 0, 1))
    mask.save(folder / "test_mask" / "Part_1_pathology_breast_neoplastic+cells.png")
    listed = [{"id": 7, "file_name": "Part_1_pathology_breast.png"}] if images is None else images
    index = {"images": listed, "annotations": annotations, "categories": list(categories)}
    (folder / "test.json").write_text(json.dumps(index))
    return folder


MASK = "Part_1_pathology_breast_neoplastic+cells.png"


def test_what_is_written_is_read_back(tmp_path):
    ignore = np.zeros((10, 14), bool)
    ignore[0, 0] = True
    items = [item(), item("b_2", (TUMOR, "head neck-nuclei-dead"), ignore, ("breast-tissue-fat",))]
    write_biomedparse(tmp_path, "train", items, info={"licence": "CC0"})
    found = read_biomedparse(tmp_path, "train")

    assert [one.label for one in found] == [TUMOR, TUMOR, "head neck-nuclei-dead"]
    stem = "a_pathology_head+neck"
    assert found[0].image == tmp_path / "train" / f"{stem}.png"
    assert found[0].mask.name == f"{stem}_tissue-level+lymphocyte+or+plasmocyte.png"
    assert found[0].prompts == ("tissue-level lymphocyte or plasmocyte in head neck pathology.",)
    assert np.array_equal(read_image(found[0].image), items[0].annotated.image)
    assert np.array_equal(read_binary_mask(found[0].mask), items[0].annotated.masks[0].mask)
    assert (found[0].ignore, found[0].absent) == (None, ())
    assert np.array_equal(read_binary_mask(found[2].ignore), ignore)
    assert found[2].absent == ("breast-tissue-fat",)
    assert len({one.name for one in found}) == 3


def test_the_index_is_as_biomedparse_writes_it(tmp_path):
    write_biomedparse(tmp_path, "test", [item()], info={"licence": "CC0"})
    index = json.loads((tmp_path / "test.json").read_text())

    assert set(index) == {"info", "licenses", "images", "categories", "annotations"}
    (image,), (annotation,) = index["images"], index["annotations"]
    assert image == {"file_name": "a_pathology_head+neck.png", "height": 10, "width": 14, "id": 0}
    assert annotation["bbox"] == [2, 3, 3, 6]  # row, column, height, width
    assert annotation["area"] == 18
    assert annotation["category_id"] == index["categories"][0]["id"] == 15
    assert annotation["image_id"] == 0
    assert annotation["split"] == "test"
    assert annotation["sentences"][0]["sent_id"] in annotation["sent_ids"]
    assert index["info"] == {"licence": "CC0"}


def test_the_name_alone_makes_the_paper_s_sentence(tmp_path):
    """The official converter takes target, site and modality from the mask's name."""
    write_biomedparse(tmp_path, "test", [item()])
    path = tmp_path / "test.json"
    index = json.loads(path.read_text())
    del index["annotations"][0]["sentences"]
    path.write_text(json.dumps(index))

    (found,) = read_biomedparse(tmp_path, "test")

    assert found.prompts == ("tissue-level lymphocyte or plasmocyte in head neck pathology",)
    assert found.label == TUMOR


def test_foreign_folders_are_read(tmp_path):
    annotations = [
        {"image_id": 7, "mask_file": MASK, "bbox": "nonsense", "sentences": [
            {"raw": "Neoplastic cells in breast pathology"},
            {"sent": "neoplastic cells in breast pathology"},
            {"raw": "Neoplastic cells in breast pathology"},
        ]},
        {"image_id": 7, "mask_file": MASK.replace("+", " "), "sentences": "one sentence"},
        {"image_id": 7, "sentences": ["tissue-level tumor in breast pathology."]},
        {"file_name": "test/Part_1_pathology_breast.png", "mask_file": f"test_mask/{MASK}"},
    ]  # fmt: skip
    folder = foreign(tmp_path / "x", annotations)
    write_png(folder / "test_mask" / "Part_1_pathology_breast.png", np.ones((10, 14), bool))

    first, second, third, fourth = read_biomedparse(folder, "test")

    assert first.prompts == (
        "Neoplastic cells in breast pathology",
        "neoplastic cells in breast pathology",
    )
    assert (first.label, second.label) == (None, None)
    assert second.prompts == ("one sentence",)
    assert (third.label, third.mask.name) == ("breast-tissue-tumor", "Part_1_pathology_breast.png")
    assert fourth.prompts == ("neoplastic cells in breast pathology",)
    assert [one.name for one in (second, fourth)] == [f"{MASK[:-4]}#2", f"{MASK[:-4]}#3"]
    assert read_binary_mask(first.mask).sum() == 1  # the blue channel counts


@pytest.mark.parametrize(
    "mapping",
    [
        {"Neoplastic cells in breast pathology.": "breast-nuclei-neoplastic"},
        {"neoplastic cells": "breast-nuclei-neoplastic"},  # the target in the name
        {"histology": "breast-nuclei-neoplastic"},
        {"15": "breast-nuclei-neoplastic"},
    ],
)
def test_a_table_goes_before_the_sentence(tmp_path, mapping):
    sentences = ["neoplastic cells in breast pathology", "tissue-level fat in breast pathology."]
    annotation = {"image_id": 7, "mask_file": MASK, "sentences": sentences, "category_id": 15}
    folder = foreign(tmp_path / "x", [annotation], categories=[{"id": 15, "name": "Histology"}])

    (mapped,) = read_biomedparse(folder, "test", mapping=mapping)
    (said,) = read_biomedparse(folder, "test", mapping={"else": "breast-tissue-stroma"})

    assert mapped.label == "breast-nuclei-neoplastic"
    assert said.label == "breast-tissue-fat"


def break_size(folder):
    write_png(folder / "test_mask" / MASK, np.ones((9, 14), bool))


def break_end(folder):
    path = folder / "test_mask" / MASK
    path.write_bytes(path.read_bytes()[:-20])


def break_pointer(folder):
    (folder / "test_mask" / MASK).write_text("version https://git-lfs.github.com/spec/v1\noid x\n")


def break_all(folder):
    (folder / "test_mask" / MASK).write_bytes(b"")


def lose_mask(folder):
    (folder / "test_mask" / MASK).unlink()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (break_size, "14 x 9 pixels, but its image .*14 x 10"),
        (break_end, "truncated"),
        (break_pointer, "git lfs pull"),
        (break_all, "no image"),
        (lose_mask, "does not exist"),
    ],
)
def test_broken_files_are_named_and_the_rest_stays(tmp_path, harm, said):
    good = {"image_id": 7, "sentences": ["x"]}
    folder = foreign(tmp_path / "x", [{"image_id": 7, "mask_file": MASK}, good])
    write_png(folder / "test_mask" / "Part_1_pathology_breast.png", np.ones((10, 14), bool))
    harm(folder)
    errors = []

    found = read_biomedparse(folder, "test", on_error=errors.append)

    assert [one.prompts for one in found] == [("x",)]
    (error,) = errors
    assert "neoplastic+cells.png" in str(error)
    with pytest.raises(DataError, match=said):
        read_biomedparse(folder, "test")


def test_what_is_unknown_is_as_large_as_the_image(tmp_path):
    ignore = np.zeros((10, 14), bool)
    write_biomedparse(tmp_path / "x", "test", [item(ignore=ignore)])
    (path,) = (tmp_path / "x" / "test_ignore").iterdir()
    write_png(path, np.ones((5, 7), bool))

    with pytest.raises(DataError, match=r"test_ignore.*7 x 5 pixels, but its image .*14 x 10"):
        read_biomedparse(tmp_path / "x", "test")


def test_broken_annotations_are_named_and_the_rest_stays(tmp_path):
    good = {"image_id": 7, "mask_file": MASK}
    bad = [
        3,
        {"image_id": 8, "mask_file": MASK},
        {"image_id": 7, "mask_file": MASK, "sentences": 4},
    ]
    folder = foreign(tmp_path / "x", [*bad, good, {"image_id": {}, "mask_file": MASK}])
    errors = []

    assert len(read_biomedparse(folder, "test", on_error=errors.append)) == 1
    positions = [str(error).partition("test.json, ")[2].split()[1].rstrip(":") for error in errors]
    assert positions == ["0", "1", "2", "4"]


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}', '{"images": 1, "annotations": []}'])
def test_a_broken_index_is_named(tmp_path, text):
    (tmp_path / "test.json").write_text(text)

    with pytest.raises(DataError, match=r"test.json.*no JSON index"):
        read_biomedparse(tmp_path, "test")
    with pytest.raises(DataError, match=r"train.json does not exist; wanted train/, train_mask/"):
        read_biomedparse(tmp_path, "train")


def test_masks_of_any_kind_are_nonzero(tmp_path):
    wanted = np.zeros((4, 5), bool)
    wanted[1, 2] = True
    values = wanted.astype(np.uint8)
    rgba = np.dstack([values * 0, values * 0, values, np.full((4, 5), 255, np.uint8)])
    palette = Image.fromarray(np.where(wanted, 0, 3).astype(np.uint8)).convert("P")
    palette.putpalette([9, 0, 0, *[0] * 765])  # index 0 has a colour, the others are black
    pictures = {
        "gray": Image.fromarray(values),
        "bits": Image.fromarray(wanted),
        "deep": Image.fromarray(wanted.astype(np.uint16)),
        "rgba": Image.fromarray(rgba),
        "la": Image.fromarray(rgba[..., 2:]),
        "palette": palette,
    }

    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_binary_mask(tmp_path / f"{name}.png"), wanted), name


def test_damage_inside_a_png_is_named_when_decoded(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, np.ones((64, 64), bool))
    data = bytearray(path.read_bytes())
    data[45:50] = b"\0\1\2\3\4"
    path.write_bytes(data)

    assert image_size(path) == (64, 64)
    with pytest.raises(DataError, match=r"a.png"):
        read_binary_mask(path)


def test_names_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(DataError, match="two images"):
        write_biomedparse(tmp_path, "test", [item(), item()])
    with pytest.raises(DataError, match="no file name"):
        write_biomedparse(tmp_path, "test", [item("../a")])
    with pytest.raises(LabelError, match="a_b"):
        write_biomedparse(tmp_path, "test", [item(masks=("breast-tissue-a_b",))])
    assert not (tmp_path / "test.json").exists()


def test_images_are_not_held_while_they_are_written(tmp_path):
    alive = []

    def items():
        for number in range(3):
            alive.append(len(list((tmp_path / "test").glob("*.png"))))
            yield item(f"i{number}")

    write_biomedparse(tmp_path, "test", items())

    assert alive == [0, 1, 2]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(type(tmp_path), "replace", full)
    with pytest.raises(StoreError, match="disk is full"):
        write_png(tmp_path / "a.png", np.ones((4, 4), bool))
    assert list(tmp_path.iterdir()) == []
