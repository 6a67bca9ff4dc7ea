"""A written folder gives back what was written."""

from __future__ import annotations

import numpy as np
import pytest

from xpath.errors import DataError
from xpath.pathseg.biomedparse_data import read_biomedparse
from xpath.pathseg.biomedparse_source import images_of
from xpath.pathseg.biomedparse_writer import PromptedImage, write_biomedparse
from xpath.pathseg.image_files import write_png
from xpath.pathseg.record import Annotated, LabelMask

TUMOR, FAT = "breast-tissue-tumor", "breast-tissue-fat"


@pytest.fixture
def written(tmp_path, rng):
    """Two images. The first has two labels and an unknown corner."""
    image = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    left = np.zeros((6, 8), bool)
    left[:, :3] = True
    ignore = np.zeros((6, 8), bool)
    ignore[0, 7] = True
    first = Annotated(image, (LabelMask(TUMOR, left), LabelMask(FAT, ~left)), ignore)
    second = Annotated(255 - image, (LabelMask(FAT, left),), None, (TUMOR,))
    items = [PromptedImage("a", "breast", first), PromptedImage("b", "breast", second)]
    write_biomedparse(tmp_path, "train", items)
    return tmp_path, (first, second)


def test_images_come_back_as_they_were(written):
    folder, wanted = written
    found = images_of(read_biomedparse(folder, "train"), source="mine", split="train")

    assert [(one.name, one.source, one.split, one.region) for one in found] == [
        ("a_pathology_breast", "mine", "train", "breast"),
        ("b_pathology_breast", "mine", "train", "breast"),
    ]
    for image, known in zip(found, wanted, strict=True):
        read = image.read()
        assert np.array_equal(read.image, known.image)
        assert [mask.label for mask in read.masks] == [mask.label for mask in known.masks]
        for mask, other in zip(read.masks, known.masks, strict=True):
            assert np.array_equal(mask.mask, other.mask)
        assert (read.ignore is None) == (known.ignore is None)
        assert read.absent == known.absent
    assert found[0].read().ignore.sum() == 1


def test_masks_of_one_label_are_united_and_those_without_left_out(written):
    folder, _ = written
    first, second, *_ = read_biomedparse(folder, "train")

    (united,) = images_of([first, second._replace(label=TUMOR)], source="x", split="train")
    assert [mask.label for mask in united.read().masks] == [TUMOR]
    assert united.read().masks[0].mask.all()
    (left,) = images_of([first, second._replace(label=None)], source="x", split="train")
    assert np.array_equal(left.read().masks[0].mask, np.arange(8)[None] < np.full((6, 1), 3))
    assert images_of([first._replace(label=None)], source="x", split="train") == []


def test_a_mask_that_changed_since_is_named(written):
    folder, _ = written
    (image, _) = images_of(read_biomedparse(folder, "train"), source="x", split="train")
    mask = next((folder / "train_mask").glob("a_*"))
    write_png(mask, np.ones((3, 3), bool))

    with pytest.raises(DataError, match=mask.name.replace("+", r"\+")):
        image.read()
