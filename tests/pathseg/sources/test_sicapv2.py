from __future__ import annotations

import zipfile

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.sicapv2 import CANCER, SOURCE, read_sheet

FIRST = "16B0001851_Block_Region_1_0_0_xini_6803_yini_59786"
SECOND = "18B0005478J_Block_Region_13_2_1_xini_1_yini_2"
SPACE = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def sheet(path, rows, *, shared=True):
    """An Excel file as pandas writes it (shared strings), or with the text in its cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    strings: list[str] = []

    def cell(value, place):
        if isinstance(value, int):
            return f'<c r="{place}"><v>{value}</v></c>'
        if not shared:
            return f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>'
        strings.append(f"<si><r><t>{value[:3]}</t></r><r><t>{value[3:]}</t></r></si>")
        return f'<c r="{place}" t="s"><v>{len(strings) - 1}</v></c>'

    lines = "".join(
        f'<row r="{number}">'
        + "".join(
            cell(value, f"{'ABCDE'[column]}{number}")
            for column, value in enumerate(row)
            if value is not None
        )
        + "</row>"
        for number, row in enumerate(rows, 1)
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "xl/worksheets/sheet1.xml",
            f"<worksheet {SPACE}><sheetData>{lines}</sheetData></worksheet>",
        )
        if shared:
            archive.writestr("xl/sharedStrings.xml", f"<sst {SPACE}>{''.join(strings)}</sst>")


def write(root, name, values, rng):
    """A patch and its mask."""
    values = np.asarray(values, np.uint8)
    for below in ("images", "masks"):
        (root / below).mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (*values.shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "images" / f"{name}.jpg")
    Image.fromarray(values).save(root / "masks" / f"{name}.png")


@pytest.fixture
def data(tmp_path, rng):
    """A patch of the training part, two of the test part, of which one is not listed."""
    write(tmp_path, FIRST, [[0, 3, 4], [5, 0, 0]], rng)
    write(tmp_path, SECOND, np.zeros((2, 3)), rng)
    write(tmp_path, SECOND.replace("_2_1_", "_2_2_"), [[4, 4, 4], [0, 0, 0]], rng)
    header = ["image_name", "NC", "G3"]
    sheet(tmp_path / "partition" / "Test" / "Train.xlsx", [header, [f"{FIRST}.jpg", 0, 1]])
    sheet(tmp_path / "partition" / "Test" / "Test.xlsx", [header, [f"{SECOND}.jpg", 1, 0]])
    labels = [["slide_id", "patient_id"], ["16B0001851", "P7"], ["18B0005478J", None]]
    sheet(tmp_path / "wsi_labels.xlsx", labels)
    return tmp_path


def test_all_patterns_are_cancer(data):
    first, second, third = SOURCE.images(data)

    assert [image.split for image in (first, second, third)] == ["train", "test", "test"]
    assert [image.group for image in (first, second)] == ["P7", "18B0005478J"]
    annotated = first.read()
    assert [(mask.label, mask.mask.tolist()) for mask in annotated.masks] == [
        (CANCER, [[False, True, True], [True, False, False]])
    ]
    assert (annotated.ignore, annotated.absent) == (None, ())
    assert second.read()[1:] == ((), None, (CANCER,))


def test_tables_may_be_exported(data):
    folder = data / "partition" / "Test"
    (folder / "Train.xlsx").unlink()
    (folder / "Train.csv").write_text(f"image_name,NC\n{FIRST}.jpg,0\n")
    (folder / "Test.xlsx").unlink()

    assert [image.split for image in SOURCE.images(data)] == ["train", None, None]


@pytest.mark.parametrize("shared", [True, False])
def test_a_sheet_keeps_its_columns_where_cells_are_empty(tmp_path, shared):
    path = tmp_path / "a.xlsx"
    rows = [["name", "n", "m"], ["alpha", None, 3], [None, None, None], [None, 4, None]]
    sheet(path, rows, shared=shared)

    assert read_sheet(path, "m") == [
        {"name": "alpha", "n": "", "m": "3"},
        {"name": "", "n": "4", "m": ""},
    ]
    with pytest.raises(DataError, match=r"a\.xlsx has no column 'k', only name, n, m"):
        read_sheet(path, "k")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"a\.xlsx is truncated or no Excel table"):
        read_sheet(path)


def test_what_is_missing_is_told(data):
    (data / "masks" / f"{FIRST}.png").unlink()
    (data / "wsi_labels.xlsx").unlink()
    (data / "partition" / "Test" / "Test.xlsx").unlink()

    assert SOURCE.missing(data) == [
        "3 of 18783 patches in images",
        f"masks/{FIRST}.png",
        "partition/Test/Test.xlsx (no official split without it)",
        "wsi_labels.xlsx (patients are not known without it)",
    ]
    assert SOURCE.missing(data / "none") == ["images/", "masks/"]


def test_broken_masks_leave_the_others(tmp_path, rng):
    for slide, values in {"1": [[9]], "2": [[3]], "3": [[3]], "4": [[3]]}.items():
        write(tmp_path, f"{slide}_Block_Region_1", values, rng)
    Image.new("L", (2, 2)).save(tmp_path / "masks" / "2_Block_Region_1.png")
    (tmp_path / "masks" / "3_Block_Region_1.png").unlink()
    reads = [image.read for image in SOURCE.images(tmp_path)]

    with pytest.raises(DataError, match=r"1_Block_Region_1\.png has unknown classes \[9\]"):
        reads[0]()
    with pytest.raises(DataError, match=r"2_Block_Region_1\.png is 2 x 2 pixels"):
        reads[1]()
    with pytest.raises(DataError, match=r"3_Block_Region_1\.png does not exist"):
        reads[2]()
    assert reads[3]().masks[0].mask.all()
