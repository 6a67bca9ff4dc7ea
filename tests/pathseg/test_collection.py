"""Images of a folder, in either layout. In memory or left on disk."""

import cv2
import numpy as np
import pytest

from xpath.errors import DataError
from xpath.pathseg.biomedparse_writer import PromptedImage, write_biomedparse
from xpath.pathseg.collection import collect, in_memory_or_stored, index_images, to_train_on
from xpath.pathseg.dataset import CropConfig, PromptedCrops
from xpath.pathseg.record import Annotated, LabelMask


@pytest.fixture
def tables(tmp_path):
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 60, 3), 200, np.uint8))
        ids = np.zeros((40, 60), np.uint8)
        ids[5:20, 5:20] = 1
        cv2.imwrite(str(tmp_path / f"{name}_mask.png"), ids)
    (tmp_path / "images.csv").write_text(
        "source,image,mask,region,group,mpp\n"
        "glas,a.png,a_mask.png,colon,p1,0.62\nglas,b.png,b_mask.png,colon,p2,0.62\n"
    )
    (tmp_path / "labels.csv").write_text(
        "source,image,mask,value,label,original\n"
        "glas,a.png,a_mask.png,1,colon-tissue-gland,gland\n"
        "glas,b.png,b_mask.png,1,colon-tissue-gland,gland\n"
    )
    (tmp_path / "split.csv").write_text("source,image,group,split\nglas,b,p2,test\n")
    return tmp_path


def test_tables_are_divided_by_the_split(tables):
    train, held_out = collect(tables, tables / "split.csv")

    assert [item.name for item in train] == ["a"]
    assert [item.name for item in held_out] == ["b"]


def test_a_patient_is_never_torn(tables):
    text = (tables / "images.csv").read_text().replace("p2", "p1")
    (tables / "images.csv").write_text(text)

    with pytest.raises(DataError, match=r"\('glas', 'p1'\)"):
        collect(tables, tables / "split.csv")


def test_biomedparse_folders_know_their_split(tmp_path, rng):
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    mask = np.zeros((32, 32), bool)
    mask[4:12, 4:12] = True
    for part in ("train", "test"):
        annotated = Annotated(image, (LabelMask("colon-tissue-gland", mask),), None)
        item = PromptedImage(f"{part}-1", "colon", annotated)
        write_biomedparse(tmp_path / "CRAG", part, [item])

    train, held_out = collect(tmp_path)

    assert len(train) == len(held_out) == 1
    (found,) = train[0].read().masks
    assert found.label == "colon-tissue-gland"
    np.testing.assert_array_equal(found.mask, mask)


def test_neither_layout_is_refused(tmp_path):
    with pytest.raises(DataError, match="xpath pathseg build"):
        collect(tmp_path)


def test_what_does_not_fit_stays_on_disk_and_gives_the_same_crops(tables):
    stored = index_images(collect(tables).train, tables / "index.csv")

    memory, disk = in_memory_or_stored(stored, 1.0), in_memory_or_stored(stored, 0.0)

    assert disk == {"glas": stored}
    config = CropConfig(balance=True)
    crops = [PromptedCrops(images, config, total=20, seed=1) for images in (memory, disk)]
    assert crops[0]._kept == crops[1]._kept
    for number in range(20):
        one, two = (part[(number, 32)] for part in crops)
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.target, two.target)


def test_what_is_absent_is_known_without_decoding(tables):
    rows = (tables / "labels.csv").read_text().replace("glas,", "wsss4luad,")
    (tables / "labels.csv").write_text(rows.replace("colon-tissue-gland", "colon-tissue-tumor"))
    images = (tables / "images.csv").read_text().replace("glas,", "wsss4luad,")
    (tables / "images.csv").write_text(images)
    train = to_train_on(collect(tables).train, None).train

    first = index_images(train, tables / "index.csv")
    again = index_images(train, tables / "index.csv")

    wanted = [
        *(f"colon-tissue-tumor {name} tissue" for name in ("epithelial", "associated stroma")),
        "colon-tissue-normal tissue",
        "breast-tissue-fat",
    ]
    assert [list(item.absent) for item in first] == [wanted, wanted]
    assert again == first
    sources = in_memory_or_stored(first, 1.0)
    assert [list(item.absent) for item in sources["wsss4luad"]] == [wanted, wanted]


def test_an_index_of_before_is_made_anew(tables):
    images = collect(tables).train
    first = index_images(images, tables / "index.csv")
    lines = (tables / "index.csv").read_text().splitlines()
    (tables / "index.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))

    assert index_images(images, tables / "index.csv") == first
    assert (tables / "index.csv").read_text().splitlines() == lines


def test_the_index_is_made_once_and_broken_images_are_left_out(tables, caplog):
    images = collect(tables).train
    first = index_images(images, tables / "index.csv")
    (tables / "a.png").unlink()

    assert index_images(images, tables / "index.csv") == first
    (tables / "index.csv").unlink()
    again = index_images(images, tables / "index.csv")
    assert [item.image.name for item in again] == ["b"]
    assert "a.png is missing" in caplog.text
