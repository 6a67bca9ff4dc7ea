from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.image_files import image_size
from xpath.pathseg.reading import (
    absent_labels,
    check_same_size,
    file_safe,
    fill_polygons,
    folder_with,
    list_files,
    masks_of_classes,
    read_array,
    read_gray,
    read_image,
    read_json,
    read_label_map,
    read_mat,
    read_table,
    read_tiff,
    read_xml,
    too_few,
    where_any,
)
from xpath.pathseg.record import LabelMask


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_an_image_keeps_its_pixels(tmp_path, rng, suffix):
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pixels).save(path)
    with_alpha = tmp_path / "alpha.png"
    Image.fromarray(np.dstack([pixels, np.full((5, 7), 255, np.uint8)])).save(with_alpha)

    assert (read_image(path) == pixels).all()
    assert (read_image(with_alpha) == pixels).all()
    assert read_image(path).flags.writeable  # torch warns of arrays it may not write to


@pytest.mark.parametrize("read", [read_image, read_gray])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("type_", "named"),
    [("f4", "32-bit float"), ("f2", "16-bit float"), ("i4", "32-bit"), ("u2", "16-bit integer")],
)
def test_pixels_of_another_depth_are_named_and_never_cut_off(
    tmp_path, rng, read, channels, type_, named
):
    values = rng.integers(0, 256, (5, 7, channels)).astype(type_).squeeze()
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb" if channels == 3 else None)

    if type_ == "u2":
        named = r"16-bit \(but no value above 2\d\d, as of 8 bits\)"
    with pytest.raises(DataError, match=rf"a\.tif has {named}.* pixels, and 8-bit RGB is needed"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("top", "refused"), [(65535, ""), (4095, "above 4095, as of 12"), (255, "above 255, as of 8")]
)
def test_of_16_bits_the_upper_8_are_seen_unless_they_are_empty(tmp_path, suffix, top, refused):
    """Cameras of 12 bits leave the upper ones empty: their images would come out black."""
    values = np.linspace(0, top, 5 * 7 * 3).astype(np.uint16).reshape(5, 7, 3)
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        cv2.imwrite(str(path), values[..., ::-1])
    else:
        tifffile.imwrite(path, values, photometric="rgb")

    if refused:
        with pytest.raises(DataError, match=f"no value {refused}.*0.0623 for 0..4095"):
            read_image(path)
    else:
        assert (read_image(path) == values >> 8).all()


def test_what_is_transparent_lies_on_white_as_on_slides(tmp_path):
    """Hidden pixels are mostly black, which would be found to be nuclei."""
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, 0], pixels[0, 1], pixels[0, 2] = (0, 0, 0, 0), (100, 50, 200, 255), (0, 100, 200, 51)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[..., :3]).save(tmp_path / "key.png", transparency=(0, 0, 0))

    # a fifth of the colour and four fifths of white
    assert read_image(tmp_path / "a.png").tolist() == [
        [[255, 255, 255], [100, 50, 200], [204, 224, 244]]
    ]
    assert read_image(tmp_path / "key.png")[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pixels_keep_their_place_and_turns_are_told(tmp_path, rng, caplog, suffix, orientation):
    """Masks and outlines are of the pixels as they are stored, and so is every slide."""
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)

    assert (read_image(path) == pixels).all()
    assert image_size(path) == (7, 5)
    assert caplog.text.count(f"turn or mirror it (orientation {orientation})") == (orientation > 1)


@pytest.mark.parametrize("exif", [b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0"])
def test_damaged_exif_costs_no_picture(tmp_path, exif):
    Image.new("RGB", (7, 5), (9, 9, 9)).save(tmp_path / "a.jpg", exif=exif)

    assert read_image(tmp_path / "a.jpg").shape == (5, 7, 3)


def test_pages_beside_the_first_are_told(tmp_path, rng, caplog):
    pages = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="rgb")
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        file.write(pages[0], photometric="rgb")
        file.write(pages[0, ::2, ::2], photometric="rgb", subfiletype=1)
    first = Image.fromarray(pages[0])
    first.save(tmp_path / "a.gif", save_all=True, append_images=[Image.fromarray(pages[1])])

    assert (read_image(tmp_path / "pyramid.tif") == pages[0]).all()
    assert not caplog.records
    assert (read_image(tmp_path / "stack.tif") == pages[0]).all()
    assert "stack.tif has 3 pages; only the first is read" in caplog.text
    read_image(tmp_path / "a.gif")
    assert "a.gif has 2 pages" in caplog.text


def test_a_directory_that_goes_round_in_circles_is_not_followed(tmp_path, rng, caplog):
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb")
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * entries, first)  # the next is the first
    path.write_bytes(content)

    assert (read_image(path) == pixels).all()
    assert not caplog.records


@pytest.mark.parametrize("form", [{"imagej": True}, {"ome": True}])
def test_colours_in_pages_of_their_own_are_not_taken_for_a_grey_picture(tmp_path, rng, form):
    planes = rng.integers(0, 256, (3, 8, 9), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", planes, metadata={"axes": "CYX"}, photometric="minisblack", **form
    )

    with pytest.raises(DataError, match=r"3 pages, one of each channel.*Stack to RGB"):
        read_image(tmp_path / "a.tif")


def test_too_many_pixels_are_not_called_damage(tmp_path, monkeypatch):
    Image.new("1", (90, 70)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)

    with pytest.raises(DataError, match=r"too many pixels .*6300.*vips tiffsave") as caught:
        read_image(tmp_path / "a.png")
    assert "truncated" not in str(caught.value)


def test_a_tiff_of_a_form_that_is_not_read_is_not_called_truncated(tmp_path, rng):
    bands = rng.integers(0, 256, (8, 8, 5), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", bands, photometric="minisblack", planarconfig="contig")

    with pytest.raises(DataError, match=r"form that is not read \(compression NONE, 5 values") as e:
        read_image(tmp_path / "a.tif")
    assert "truncated" not in str(e.value)


def test_a_grey_png_of_16_bits_is_no_image_but_a_mask(tmp_path):
    Image.fromarray(np.full((5, 7), 300, np.uint16)).save(tmp_path / "a.png")

    with pytest.raises(DataError, match="16-bit integer pixels"):
        read_image(tmp_path / "a.png")
    assert (read_label_map(tmp_path / "a.png") == 300).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_label_map_keeps_its_values(tmp_path, dtype):
    values = np.array([[0, 1, 21], [7, 200, 3]], dtype)
    Image.fromarray(values).save(tmp_path / "a.png")

    found = read_label_map(tmp_path / "a.png")

    assert found.dtype == dtype
    assert (found == values).all()


def test_a_label_map_may_be_a_palette_a_bit_or_equal_channels(tmp_path):
    values = np.array([[0, 1], [1, 0]], np.uint8)
    palette = Image.new("P", (2, 2))
    palette.putdata(values.ravel().tolist())
    palette.putpalette([255, 0, 0, 0, 255, 0] + [0] * 762)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(values.astype(bool)).save(tmp_path / "bit.png")
    Image.fromarray(np.dstack([values] * 3)).save(tmp_path / "rgb.png")

    for name in ("palette", "bit", "rgb"):
        assert read_label_map(tmp_path / f"{name}.png").tolist() == values.tolist(), name


def test_a_picture_is_no_label_map(tmp_path):
    Image.fromarray(np.array([[[1, 2, 3]]], np.uint8)).save(tmp_path / "a.png")

    with pytest.raises(DataError, match=r"a\.png has colours.*swapped"):
        read_label_map(tmp_path / "a.png")


def test_brightness_is_for_masks_in_jpeg(tmp_path):
    mask = np.zeros((32, 32), np.uint8)
    mask[9:23, 5:27] = 255  # not along the blocks of JPEG
    Image.fromarray(np.dstack([mask] * 3)).save(tmp_path / "a.jpg", quality=75)

    assert ((read_gray(tmp_path / "a.jpg") >= 128) == (mask > 0)).all()


def test_a_tiff_gives_its_first_page_as_rgb(tmp_path, rng):
    pixels = rng.integers(0, 256, (32, 48, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(16, 16), compression="lzw")
    tifffile.imwrite(tmp_path / "grey.tif", pixels[..., 0])

    assert (read_tiff(tmp_path / "a.tif") == pixels[..., :3]).all()
    with pytest.raises(DataError, match=r"grey\.tif holds uint8 \(32, 48\); wanted 8-bit RGB"):
        read_tiff(tmp_path / "grey.tif")


def test_a_mat_file_gives_what_is_asked_for(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"inst_map": np.eye(2), "other": np.ones(3)})

    (instances,) = read_mat(tmp_path / "a.mat", "inst_map")

    assert (instances == np.eye(2)).all()
    with pytest.raises(DataError, match=r"a\.mat has no variable 'type_map'"):
        read_mat(tmp_path / "a.mat", "type_map")


def test_an_array_is_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)

    assert read_array(tmp_path / "a.npy", lazy=True)[1].tolist() == [3, 4, 5]
    with pytest.raises(DataError, match=r"object\.npy is truncated or no NPY array"):
        read_array(tmp_path / "object.npy")


def test_a_table_forgives_blanks_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfname, patient ID ,grade\r\ntrain_1, 3 ,x\r\n\r\ntrain_2\r\n")

    assert read_table(path, "patient ID") == [
        {"name": "train_1", "patient ID": "3", "grade": "x"},
        {"name": "train_2", "patient ID": "", "grade": ""},
    ]
    with pytest.raises(DataError, match=r"a\.csv has no column 'slide', only name, patient ID"):
        read_table(path, "slide")


def test_xml_may_not_declare_entities(tmp_path):
    (tmp_path / "a.xml").write_text("<a><b/></a>")
    (tmp_path / "bomb.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')

    assert [child.tag for child in read_xml(tmp_path / "a.xml")] == ["b"]
    with pytest.raises(DataError, match="declares entities"):
        read_xml(tmp_path / "bomb.xml")


READERS = {
    read_image: "image",
    read_label_map: "image",
    read_gray: "image",
    read_tiff: "TIFF",
    read_array: "NPY array",
    read_mat: "MATLAB file",
    read_json: "JSON",
    read_xml: "XML",
}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_a_missing_or_foreign_file_is_named(tmp_path, reader):
    wanted = READERS[reader]
    with pytest.raises(DataError, match=rf"gone\.x does not exist; wanted {wanted}"):
        reader(tmp_path / "gone.x")
    (tmp_path / "foreign.x").write_bytes(b"\x00\x01 nothing of the kind")
    with pytest.raises(DataError, match=rf"foreign\.x is truncated or no {wanted}.*download"):
        reader(tmp_path / "foreign.x")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_truncated_image_is_no_half_image(tmp_path, rng, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(DataError, match=r"is truncated or no image"):
        read_image(path)


@pytest.mark.parametrize("how", [{}, {"tile": (16, 16), "compression": "lzw"}, {"rowsperstrip": 8}])
def test_a_truncated_tiff_is_no_half_image(tmp_path, rng, how):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), **how)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(DataError, match=r"a\.tif is truncated or no TIFF"):
        read_tiff(path)


def test_a_truncated_array_is_no_half_array(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((64, 64)))
    path.write_bytes(path.read_bytes()[:1000])

    for lazy in (False, True):
        with pytest.raises(DataError, match=r"a\.npy is truncated or no NPY array"):
            read_array(path, lazy=lazy)


def test_polygons_are_filled_with_their_outline():
    square = np.array([[1.0, 2.0], [3.0, 2.0], [3.0, 4.0], [1.0, 4.0]])
    line = np.array([[5.0, 0.0], [5.0, 5.0]])

    mask = fill_polygons([square, line], (6, 7))

    expected = np.zeros((6, 7), bool)
    expected[2:5, 1:4] = True
    assert (mask == expected).all()


def test_polygons_do_not_cut_holes_into_each_other():
    square = np.array([[0.0, 0.0], [5.0, 0.0], [5.0, 5.0], [0.0, 5.0]])

    assert fill_polygons([square, square], (6, 6)).all()


def test_polygons_may_reach_beyond_the_image():
    wide = np.array([[-9.0, -9.0], [90.0, -9.0], [90.0, 90.0], [-9.0, 90.0]])

    assert fill_polygons([wide], (3, 4)).all()


def test_sizes_must_agree():
    check_same_size(Path("m.png"), (4, 6), Path("i.png"), (4, 6, 3))
    with pytest.raises(DataError, match=r"m\.png is 6 x 5 pixels.*i\.png is 6 x 4.*same release"):
        check_same_size(Path("m.png"), (5, 6), Path("i.png"), (4, 6, 3))


def test_classes_become_masks_and_may_share_a_label():
    values = np.array([[0, 1, 2], [3, 9, 9]], np.uint8)
    table = {1: "a", 2: "b", 3: "a", 4: "c"}

    masks = masks_of_classes(values, table, path=Path("m.png"), unlabelled=(0, 9))

    assert [mask.label for mask in masks] == ["a", "b"]
    assert masks[0].mask.tolist() == [[False, True, False], [True, False, False]]
    assert absent_labels(("a", "b", "c"), masks) == ("c",)
    with pytest.raises(DataError, match=r"m\.png has unknown classes \[9\], known are \[0, 1, 2"):
        masks_of_classes(values, table, path=Path("m.png"))


def test_where_any_of_no_value_is_nowhere():
    assert not where_any(np.zeros((2, 2), int), ()).any()
    assert absent_labels((), [LabelMask("a", np.ones((1, 1), bool))]) == ()


def test_folders_are_found_with_and_without_their_own_top(tmp_path):
    (tmp_path / "release" / "CRAG" / "train").mkdir(parents=True)
    (tmp_path / "release" / "CRAG" / "valid").mkdir()

    assert folder_with(tmp_path, "train", "valid") == tmp_path / "release" / "CRAG"
    assert folder_with(tmp_path / "release" / "CRAG", "train").name == "CRAG"
    assert folder_with(tmp_path, "train", depth=1) is None
    assert folder_with(tmp_path / "gone", "train") is None


def test_files_are_listed_in_order_without_hidden_ones(tmp_path):
    for name in ("b.PNG", "a.png", "._a.png", "c.txt"):
        (tmp_path / name).touch()

    assert [path.name for path in list_files(tmp_path, ".png")] == ["a.png", "b.PNG"]
    assert list_files(tmp_path / "gone", ".png") == []


def test_names_are_made_safe():
    assert file_safe("a b/c:d_2019-05-28 21_55.jpg") == "a_b_c_d_2019-05-28_21_55.jpg"
    assert too_few(3, 5, "images") == ["3 of 5 images"]
    assert too_few(5, 5, "images") == []


@pytest.mark.parametrize("values", [[[0.5, 1.0]], [[np.nan, 1.0]], [[np.inf, 1.0]]])
def test_a_map_of_probabilities_is_no_mask(tmp_path, values):
    tifffile.imwrite(tmp_path / "a.tif", np.array(values, np.float32))

    with pytest.raises(DataError, match=r"a\.tif has values that are no whole numbers"):
        read_label_map(tmp_path / "a.tif")


def test_whole_numbers_may_be_stored_as_floats(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 21], [1, 0]], np.float32))

    found = read_label_map(tmp_path / "a.tif")

    assert found.dtype.kind == "i" and found.tolist() == [[0, 21], [1, 0]]
