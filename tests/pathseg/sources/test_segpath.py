from __future__ import annotations

import gzip

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.segpath import ARCHIVES, SOURCE

MUSCLE = "unspecified-tissue-smooth muscle cells"
TABLE = """filename,train_val_test
aSMA_SmoothMuscle/aSMA_SmoothMuscle_012_100_200_HE.png,train
aSMA_SmoothMuscle/aSMA_SmoothMuscle_012_100_200_mask.png,train
aSMA_SmoothMuscle_013_5_6_HE.png,test
aSMA_SmoothMuscle_014_5_6_HE.png,val
"""


def write(root, archive, corner, rng, *, value=1, size=(9, 8)):
    """A patch of an archive, its cells in the first two rows."""
    folder = root / archive
    folder.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[:2] = value
    Image.fromarray(pixels).save(folder / f"{archive}_{corner}_HE.png")
    Image.fromarray(mask).save(folder / f"{archive}_{corner}_mask.png")
    return pixels


@pytest.fixture
def muscle(tmp_path, rng):
    """Three patches of one archive and its table."""
    for corner in ("012_100_200", "013_5_6", "014_5_6"):
        write(tmp_path, "aSMA_SmoothMuscle", corner, rng, value=0 if corner == "014_5_6" else 1)
    (tmp_path / "aSMA_fileinfo.csv").write_text(TABLE)
    return tmp_path


def test_patches_have_slide_split_and_one_label(muscle):
    found = list(SOURCE.images(muscle))

    assert [image.group for image in found] == ["012", "013", "014"]
    assert [image.split for image in found] == ["train", "test", "train"]
    annotated = found[0].read()
    assert [(mask.label, mask.mask.sum()) for mask in annotated.masks] == [(MUSCLE, 16)]
    assert annotated.masks[0].mask[:2].all()
    assert annotated.absent == ()
    empty = found[2].read()
    assert (empty.masks, empty.absent) == ((), (MUSCLE,))


PUBLISHED = (
    "ERG_Endothelium CD45RB_Leukocyte CD3CD20_Lymphocyte MNDA_MyeloidCell MIST1_PlasmaCell "
    "CD235a_RBC panCK_Epithelium aSMA_SmoothMuscle"
)
"""Archives by the names they are distributed under."""


def test_every_archive_has_its_label(tmp_path, rng):
    for archive in PUBLISHED.split():
        write(tmp_path, archive, "1_2_3", rng, value=255)

    labels = [image.read().masks[0].label for image in SOURCE.images(tmp_path)]

    assert labels == list(ARCHIVES.values()) == list(SOURCE.info.labels)
    assert {image.split for image in SOURCE.images(tmp_path)} == {None}


def test_a_zipped_table_is_read_as_well(muscle):
    path = muscle / "aSMA_fileinfo.csv"
    path.write_bytes(gzip.compress(TABLE.encode()))

    assert [image.split for image in SOURCE.images(muscle)] == ["train", "test", "train"]


@pytest.mark.parametrize(
    "content", [TABLE.replace("val", "valid"), TABLE.replace("filename", "name"), "\x1f\x8b"]
)
def test_a_broken_table_is_refused(muscle, content):
    (muscle / "aSMA_fileinfo.csv").write_text(content, encoding="latin-1")
    if content == "\x1f\x8b":
        (muscle / "aSMA_fileinfo.csv").write_bytes(b"\x1f\x8b")

    with pytest.raises(DataError, match=r"aSMA_fileinfo\.csv"):
        list(SOURCE.images(muscle))


def test_what_is_missing_is_told(muscle):
    (muscle / "aSMA_SmoothMuscle" / "aSMA_SmoothMuscle_013_5_6_mask.png").unlink()
    (muscle / "aSMA_fileinfo.csv").unlink()

    gaps = SOURCE.missing(muscle)

    assert gaps[:7] == [f"{archive}/" for archive in list(ARCHIVES)[:-1]]
    assert gaps[7:] == [
        "aSMA_fileinfo.csv (no official split without it)",
        "aSMA_SmoothMuscle/aSMA_SmoothMuscle_013_5_6_mask.png",
    ]


def test_broken_patches_leave_the_others(tmp_path, rng):
    write(tmp_path, "ERG_Endothelium", "1_0_0", rng, size=(9, 9))
    write(tmp_path, "ERG_Endothelium", "2_0_0", rng, value=2)
    write(tmp_path, "ERG_Endothelium", "3_0_0", rng)
    write(tmp_path, "ERG_Endothelium", "4_0_0", rng)
    path = tmp_path / "ERG_Endothelium" / "ERG_Endothelium_3_0_0_HE.png"
    path.write_bytes(path.read_bytes()[:-60])
    reads = [image.read for image in SOURCE.images(tmp_path)]

    with pytest.raises(DataError, match=r"1_0_0_mask\.png is 9 x 9"):
        reads[0]()
    with pytest.raises(DataError, match=r"2_0_0_mask\.png has unknown classes \[2\]"):
        reads[1]()
    with pytest.raises(DataError, match=r"3_0_0_HE\.png is truncated"):
        reads[2]()
    assert reads[3]().masks[0].mask.sum() == 16
