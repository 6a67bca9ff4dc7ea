from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.nucls import CLASSES, SOURCE

NAME = "TCGA-A1-A0SP-DX1_id-5ea4095addda5f8398977ebc_left-7053_top-53231_bottom-53311_right-7133"
HEADER = (
    "raw_classification,main_classification,super_classification,type,"
    "xmin,ymin,xmax,ymax,coords_x,coords_y\n"
)
SIZE = (40, 50)


def row(raw, box, points=None):
    """A row of a table, an outline where there are points, else a rectangle."""
    box = ",".join(str(number) for number in box)
    if points is None:
        return f"{raw},main,super,rectangle,{box},,\n"
    xs, ys = (",".join(map(str, axis)) for axis in zip(*points, strict=True))
    return f'{raw},main,super,polyline,{box},"{xs}","{ys}"\n'


def square(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def write(root, name=NAME, *, table=None, codes=None, rng=None):
    """A field of view with a table, a mask or both."""
    folders = {below: root / below for below in ("rgb", "csv", "mask")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    pixels = (rng or np.random.default_rng(1)).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folders["rgb"] / f"{name}.png")
    if table is not None:
        (folders["csv"] / f"{name}.csv").write_text(table)
    if codes is not None:
        # instance numbers are the product of the other channels
        channels = np.stack(
            [codes, np.ones_like(codes), np.arange(codes.size).reshape(codes.shape) % 7], -1
        )
        Image.fromarray(channels.astype(np.uint8)).save(folders["mask"] / f"{name}.png")
    return pixels


def read(root):
    (image,) = SOURCE.images(root)
    return image.read()


def masks_of(annotated):
    return {mask.label.rpartition("-")[2]: mask.mask for mask in annotated.masks}


def test_outlines_of_a_table(tmp_path):
    table = HEADER + row("tumor", (2, 3, 6, 8), square(2, 3, 6, 8))
    table += row("correction_plasma_cell", (20, 20, 24, 24), square(20, 20, 24, 24))
    pixels = write(tmp_path, table=table)

    (image,) = SOURCE.images(tmp_path)
    annotated = image.read()

    assert (image.name, image.group, image.split) == (NAME, "TCGA-A1-A0SP", None)
    assert (image.mpp, image.region) == (0.2, "breast")
    assert np.array_equal(annotated.image, pixels)
    masks = masks_of(annotated)
    assert set(masks) == {"tumor", "plasma cells"}
    rows, columns = np.nonzero(masks["tumor"])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 8, 2, 6)
    assert masks["tumor"].sum() == 30
    assert annotated.ignore is None
    assert len(annotated.absent) == len(CLASSES) - 2


def test_a_boxed_nucleus_is_an_ellipse_and_its_corners_are_ignored(tmp_path):
    write(tmp_path, table=HEADER + row("macrophage", (10, 10, 30, 20)))

    annotated = read(tmp_path)
    mask = masks_of(annotated)["macrophage"]

    assert mask.sum() == pytest.approx(np.pi * 10 * 5, rel=0.03)
    assert mask.sum() + annotated.ignore.sum() == 200
    assert annotated.ignore[10, 10]
    assert not (annotated.ignore & mask).any()


def test_an_unnamed_nucleus_is_ignored_but_not_what_is_named_beneath(tmp_path):
    table = HEADER + row("unlabeled", (5, 5, 15, 15), square(5, 5, 14, 14))
    table += row("lymphocyte", (10, 5, 20, 15), square(10, 5, 19, 14))
    write(tmp_path, table=table)

    annotated = read(tmp_path)

    assert masks_of(annotated)["lymphocyte"].sum() == 100
    assert annotated.ignore.sum() == 50
    assert annotated.ignore[5, 5:10].all()
    assert not annotated.ignore[5, 10:].any()


@pytest.mark.parametrize("column", ["raw_classification", "group"])
def test_beyond_the_field_of_view_nothing_is_known(tmp_path, column):
    table = HEADER + row("fov_basic", (10, 5, 40, 35))
    table += row("tumor", (5, 10, 15, 20), square(5, 10, 14, 19))
    write(tmp_path, table=table.replace("raw_classification", column))

    ignore = read(tmp_path).ignore

    assert not ignore[5:35, 10:40].any()
    assert not ignore[10:20, 5:15].any()
    assert ignore.sum() == 40 * 50 - 30 * 30 - 10 * 5


def test_every_code_of_the_mask(tmp_path):
    codes = np.zeros(SIZE, int)
    codes[2:38, 2:48] = 253
    for code in range(1, 13):
        codes[5:8, 3 * code : 3 * code + 2] = code
    codes[20, 10:14] = 99
    write(tmp_path, codes=codes)

    annotated = read(tmp_path)

    assert [mask.label for mask in annotated.masks] == list(SOURCE.info.labels)
    assert {int(mask.mask.sum()) for mask in annotated.masks} == {6}
    for (code, label), mask in zip(CLASSES.values(), annotated.masks, strict=True):
        assert mask.label == label
        assert mask.mask[5, 3 * code]
    assert annotated.ignore.sum() == 40 * 50 - 36 * 46 + 4
    assert annotated.ignore[20, 10]
    assert annotated.absent == ()


def test_a_mask_tells_the_field_of_view_of_a_table(tmp_path):
    codes = np.zeros(SIZE, int)
    codes[:, :30] = 253
    write(tmp_path, table=HEADER + row("tumor", (2, 3, 6, 8), square(2, 3, 6, 8)), codes=codes)

    annotated = read(tmp_path)

    assert set(masks_of(annotated)) == {"tumor"}
    assert annotated.ignore.sum() == 40 * 20


def test_names_of_folders_of_other_releases(tmp_path):
    write(tmp_path / "QC", codes=np.full(SIZE, 253))
    (tmp_path / "QC" / "rgb").rename(tmp_path / "QC" / "rgbs")

    assert read(tmp_path).masks == ()


def test_what_is_missing_is_told(tmp_path):
    write(tmp_path)

    assert SOURCE.missing(tmp_path) == [
        "1 of 1744 pictures in rgb",
        f"csv/{NAME}.csv or mask/{NAME}.png",
    ]
    with pytest.raises(DataError, match="has neither"):
        read(tmp_path)


def test_broken_files_leave_the_others(tmp_path):
    fine = HEADER + row("tumor", (2, 3, 6, 8), square(2, 3, 6, 8))
    write(tmp_path, "a", table=HEADER + row("martian", (1, 1, 4, 4)))
    write(tmp_path, "b", table=fine.replace("2,6,6,2", "2,6,6"))
    write(tmp_path, "c", table=fine.replace("xmin", "left"))
    write(tmp_path, "d", table=HEADER + row("tumor", ("", 1, 4, 4)))
    write(tmp_path, "e", codes=np.full((40, 51), 1))
    write(tmp_path, "f", codes=np.full(SIZE, 77))
    write(tmp_path, "g", table=fine)
    reads = {image.name: image.read for image in SOURCE.images(tmp_path)}

    for name, message in {
        "a": r"a\.csv has the unknown class 'martian'",
        "b": r"b\.csv has a broken outline",
        "c": r"c\.csv has no column 'xmin'",
        "d": r"d\.csv is truncated or no table of nuclei",
        "e": r"e\.png is 51 x 40 pixels",
        "f": r"f\.png has unknown classes \[77\]",
    }.items():
        with pytest.raises(DataError, match=message):
            reads[name]()
    assert len(reads["g"]().masks) == 1
