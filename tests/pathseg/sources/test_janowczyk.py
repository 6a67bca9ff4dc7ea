from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.janowczyk import SOURCE


def write(root, name, nuclei):
    root.mkdir(exist_ok=True)
    nuclei = np.asarray(nuclei, np.uint8)
    tifffile.imwrite(root / f"{name}_original.tif", np.full((*nuclei.shape, 3), 66, np.uint8))
    Image.fromarray(nuclei).save(root / f"{name}_mask.png")


def test_what_is_outlined_is_a_nucleus_and_nothing_is_absent(tmp_path):
    write(tmp_path / "nuclei", "12750_500_f00003", [[0, 255], [255, 0]])
    write(tmp_path / "nuclei", "8863_500_f00018", [[0, 0], [0, 0]])

    first, second = SOURCE.images(tmp_path)

    assert (first.name, first.group) == ("12750_500_f00003", "12750")
    (mask,) = first.read().masks
    assert mask.label == "breast-nuclei-nuclei"
    assert mask.mask.tolist() == [[False, True], [True, False]]
    assert (first.read().image == 66).all()
    assert second.read().masks == second.read().absent == ()


def test_files_may_lie_in_the_folder_itself(tmp_path):
    write(tmp_path, "12750_500_f00003", [[1]])

    assert [image.name for image in SOURCE.images(tmp_path)] == ["12750_500_f00003"]


def test_broken_images_are_named_and_the_others_stay_usable(tmp_path):
    for name in ("1_500_f1", "2_500_f1", "3_500_f1"):
        write(tmp_path, name, [[1, 0]])
    (tmp_path / "2_500_f1_mask.png").unlink()
    (tmp_path / "3_500_f1_original.tif").write_bytes(b"II*\x00")

    good, gone, cut = SOURCE.images(tmp_path)

    assert good.read().masks
    with pytest.raises(DataError, match=r"2_500_f1_mask\.png does not exist"):
        gone.read()
    with pytest.raises(DataError, match=r"3_500_f1_original\.tif is truncated or no TIFF"):
        cut.read()
    Image.new("L", (5, 5)).save(tmp_path / "1_500_f1_mask.png")
    with pytest.raises(DataError, match=r"1_500_f1_mask\.png is 5 x 5 pixels"):
        good.read()


def test_what_is_missing_is_told(tmp_path):
    assert SOURCE.missing(tmp_path) == ["0 of 143 pictures *_original.tif"]
    write(tmp_path, "1_500_f1", [[1]])
    (tmp_path / "1_500_f1_mask.png").unlink()
    assert SOURCE.missing(tmp_path) == ["1 of 143 pictures *_original.tif", "1_500_f1_mask.png"]
