"""What was drawn in QuPath comes back as training data, pixel by pixel."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from xpath.cli.main import main
from xpath.errors import DataError, LabelError
from xpath.pathseg.additions import add_picture, annotate, read_drawn
from xpath.pathseg.biomedparse_data import read_binary_mask, read_biomedparse
from xpath.pathseg.collection import collect
from xpath.testing.slides import write_slide

SIDE = 100


def area(name, x, y, width, height):
    ring = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }


def write(path, *areas):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(areas)}))
    return path


@pytest.fixture
def picture(tmp_path, rng):
    pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "tile.png")
    return tmp_path / "tile.png"


def test_the_command_adds_masks_that_training_reads(picture, tmp_path):
    drawn = write(
        tmp_path / "tile.geojson", area("Tumor", 10, 20, 30, 40), area("fat", 60, 0, 40, 9)
    )
    out = tmp_path / "pathseg" / "ours"
    arguments = ["pathseg", "add", picture, drawn, "--region", "breast", "--mpp", "0.25"]

    assert main([str(one) for one in (*arguments, "--out", out)]) == 0

    items = {item.label: item for item in read_biomedparse(out, "train")}
    assert set(items) == {"breast-tissue-tumor", "breast-tissue-fat"}
    mask = read_binary_mask(items["breast-tissue-tumor"].mask)
    share = mask.mean()  # pictures are enlarged to 1024 pixels
    assert share == pytest.approx(30 * 40 / SIDE**2, abs=0.003)
    rows, columns = np.nonzero(mask)
    assert rows.min() / 1024 == pytest.approx(0.20, abs=0.01)
    assert columns.max() / 1024 == pytest.approx(0.40, abs=0.01)
    assert items["breast-tissue-fat"].mpp == pytest.approx(0.25 * SIDE / 1024, rel=1e-3)
    train, held_out = collect(tmp_path / "pathseg")
    assert len(train) == 1
    assert not held_out


def test_a_corrected_picture_replaces_its_first_version(picture, tmp_path):
    out = tmp_path / "ours"
    arguments = ["--region", "breast", "--mpp", "0.25", "--out", str(out)]
    first = write(tmp_path / "a.geojson", area("Tumor", 0, 0, 50, 50))
    second = write(tmp_path / "b.geojson", area("Tumor", 0, 0, 10, 10))
    for drawn in (first, second):
        assert main(["pathseg", "add", str(picture), str(drawn), *arguments]) == 0
    other = ["--name", "other", "--split", "test"]
    assert main(["pathseg", "add", str(picture), str(first), *arguments, *other]) == 0

    (item,) = read_biomedparse(out, "train")
    assert read_binary_mask(item.mask).mean() == pytest.approx(0.01, abs=0.001)
    (tested,) = read_biomedparse(out, "test")
    assert "other" in tested.image.name


def test_outside_of_the_regions_nothing_is_known(tmp_path):
    drawn = read_drawn(
        write(
            tmp_path / "x.geojson",
            area("Region*", 0, 0, 50, 100),
            area("stroma", 40, 0, 20, 20),
            area("Ignore*", 0, 90, 10, 10),
        ),
        "breast",
    )
    made = annotate(np.zeros((SIDE, SIDE, 3), np.uint8), drawn, absent=("breast-tissue-fat",))

    assert made.ignore[:, 50:].all()
    assert made.ignore[90:, :10].all()
    assert not made.ignore[:90, :50].any()
    assert made.masks[0].mask[:20, 40:60].all()
    assert made.absent == ("breast-tissue-fat",)


def test_regions_of_a_slide_are_cut_out_at_40x(tmp_path):
    image = np.full((400, 400, 3), 240, np.uint8)
    image[100:200, 150:250] = (150, 60, 140)
    slide = tmp_path / "case.tiff"
    write_slide(slide, image, mpp=0.5)
    drawn = write(
        tmp_path / "case.geojson",
        area("Region", 100, 50, 200, 200),
        area("Tumor", 150, 100, 100, 100),
    )
    out = tmp_path / "ours"

    assert (
        main(["pathseg", "add", str(slide), str(drawn), "--region", "breast", "--out", str(out)])
        == 0
    )

    (item,) = read_biomedparse(out, "train")
    mask, pixels = read_binary_mask(item.mask), np.asarray(Image.open(item.image), float)
    assert mask.mean() == pytest.approx(0.25, abs=0.01)
    assert pixels[mask].mean(axis=0) == pytest.approx([150, 60, 140], abs=12)


def test_objects_without_a_class_are_counted(tmp_path, caplog):
    drawn = read_drawn(
        write(tmp_path / "a.geojson", area("", 0, 0, 5, 5), area("fat", 0, 0, 5, 5)), "breast"
    )

    assert list(drawn.objects) == ["breast-tissue-fat"]
    assert "a.geojson: passed over: 1 objects without a class" in caplog.text


@pytest.mark.parametrize(("x", "y"), [(SIDE, 0), (0, SIDE), (-9, 0), (2000, 3000)])
def test_what_was_drawn_on_another_picture_is_refused(tmp_path, picture, capsys, x, y):
    """Its class would be learnt as absent."""
    areas = (area("fat", 0, 0, 9, 9), area("Tumor", x, y, 9, 9))
    out = tmp_path / "ours"
    arguments = ["pathseg", "add", picture, write(tmp_path / "a.geojson", *areas)]
    options = ["--region", "breast", "--mpp", "0.25", "--out", out]

    assert main([str(one) for one in (*arguments, *options)]) == 1

    said = capsys.readouterr().err
    assert f"1 of 2 areas lie beyond the picture of {SIDE} x {SIDE} pixels, such as 'Tumor'" in said
    assert not out.exists()


def test_tiles_as_tiff_in_strips_are_added_too(tmp_path, picture):
    Image.open(picture).save(tmp_path / "tile.tif")
    drawn = write(tmp_path / "a.geojson", area("fat", SIDE - 5, 0, 9, 9))
    options = ["--region", "breast", "--mpp", "0.25", "--out", tmp_path / "ours"]

    assert main(["pathseg", "add", str(tmp_path / "tile.tif"), str(drawn), *map(str, options)]) == 0


def test_what_cannot_be_learnt_from_is_refused(tmp_path, picture, capsys):
    nothing = write(tmp_path / "n.geojson", area("", 0, 0, 5, 5))
    with pytest.raises(DataError, match="give objects a class"):
        read_drawn(nothing, "breast")
    with pytest.raises(LabelError, match="rename the class"):
        read_drawn(write(tmp_path / "o.geojson", area("unicorn", 0, 0, 5, 5)), "breast")
    drawn = write(tmp_path / "t.geojson", area("Tumor", 0, 0, 5, 5))
    out = str(tmp_path / "ours")
    assert (
        main(["pathseg", "add", str(picture), str(drawn), "--region", "breast", "--out", out]) == 1
    )
    assert "--mpp" in capsys.readouterr().err
    (tmp_path / "ours").mkdir(exist_ok=True)
    (tmp_path / "ours" / "added.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        annotated = annotate(np.zeros((9, 9, 3), np.uint8), read_drawn(drawn, "breast"))
        add_picture(tmp_path / "ours", "x", annotated, region="breast", mpp=0.25)
