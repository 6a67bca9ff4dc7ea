"""Standardising against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xpath.errors import ConfigError, DataError, LabelError
from xpath.pathseg.record import Annotated, LabelMask, SourceImage, SourceInfo
from xpath.pathseg.standardisation import (
    StandardConfig,
    native_mpp,
    resize_image,
    resize_mask,
    standardise,
    tiles_of,
)

TUMOR, STROMA, FAT = "breast-tissue-tumor", "breast-tissue-stroma", "breast-tissue-fat"


def info(magnification=40.0):
    return SourceInfo(
        name="Fake",
        magnification=magnification,
        mpp=0.25,
        licence="CC0",
        citation="nobody",
        url="nowhere",
        layout="images",
        regions=("breast",),
        labels=(TUMOR, STROMA, FAT),
        images=1,
        masks=1,
        train_masks=1,
        test_masks=0,
    )


def source_image(annotated, *, source="Fake", mpp=0.25):
    return SourceImage(
        source=source,
        name="a",
        group="a",
        split=None,
        mpp=mpp,
        region="breast",
        path=Path("a.png"),
        read=lambda: annotated,
    )


def annotated(height, width, masks=(), ignore=None, absent=()):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Annotated(image, tuple(masks), ignore, absent)


def box(height, width, rows, columns):
    mask = np.zeros((height, width), bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


@pytest.mark.parametrize(
    ("magnification", "mpp", "side"),
    [(40, 0.25, 512), (20, 0.5, 1024), (100, 0.1, 205), (10, 1, 0)],
)
def test_magnification_is_normalised_to_40x(magnification, mpp, side):
    whole = annotated(512, 512, [LabelMask(TUMOR, np.ones((512, 512), bool))])
    config = StandardConfig(size=None)

    tiles = list(standardise(source_image(whole), info(magnification), config))

    assert native_mpp(info(magnification)) == pytest.approx(mpp)
    if side:
        (tile,) = tiles
        assert tile.annotated.image.shape == (side, side, 3)
        assert tile.annotated.masks[0].mask.shape == (side, side)
        assert tile.name == "a"
    else:  # 2048 px are cut into four
        assert [tile.name for tile in tiles] == ["a-r0c0", "a-r0c1", "a-r1c0", "a-r1c1"]
        assert {tile.annotated.image.shape for tile in tiles} == {(1024, 1024, 3)}


def test_magnification_counts_and_not_the_scanner_s_resolution_unless_asked():
    whole = annotated(100, 100, [LabelMask(TUMOR, np.ones((100, 100), bool))])
    image = source_image(whole, mpp=0.62)

    (nominal,) = standardise(image, info(20), StandardConfig(size=None))
    (physical,) = standardise(image, info(20), StandardConfig(size=None, physical=True))

    assert nominal.annotated.image.shape[0] == 200
    assert physical.annotated.image.shape[0] == 248


def test_a_resolution_close_enough_is_not_resampled():
    whole = annotated(100, 100, [LabelMask(TUMOR, np.ones((100, 100), bool))])

    (tile,) = tiles_of("a", whole, 0.2525, StandardConfig(size=None))
    (scaled,) = tiles_of("a", whole, 0.2525, StandardConfig(size=None, tolerance=0))

    assert np.array_equal(tile.annotated.image, whole.image)
    assert scaled.annotated.image.shape == (101, 101, 3)


def test_masks_take_the_pixel_below_the_centre():
    mask = np.array([[1, 0, 0, 1]], bool)

    assert resize_mask(mask, 1, 8).tolist() == [[True, True, *[False] * 4, True, True]]
    # centres at 2/3, 2 and 10/3 of 4 pixels
    assert resize_mask(mask, 1, 3).tolist() == [[True, False, True]]
    assert resize_mask(mask, 2, 4).tolist() == mask.tolist() * 2


def test_pixels_are_bilinear_and_do_not_alias():
    step = np.zeros((1, 2, 3), np.uint8)
    step[0, 1] = 100
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200

    assert resize_image(step, 1, 4)[0, :, 0].tolist() == [0, 25, 75, 100]
    shrunk = resize_image(stripes, 16, 16)
    assert abs(shrunk.astype(int) - 100).max() <= 13  # every other pixel would give 0 or 200


def test_windows_show_what_is_there_and_everything_travels_along():
    tumor, stroma = box(1600, 1024, (0, 100), (0, 50)), box(1600, 1024, (500, 1100), (0, 1024))
    ignore = box(1600, 1024, (1500, 1600), (0, 1024))
    whole = annotated(
        1600, 1024, [LabelMask(TUMOR, tumor), LabelMask(STROMA, stroma)], ignore, (FAT,)
    )

    first, second = standardise(source_image(whole), info())

    assert [tuple(tile.window)[2:] for tile in (first, second)] == [
        (0, 0, 1024, 1024),
        (576, 0, 1024, 1024),
    ]
    assert [mask.label for mask in first.annotated.masks] == [TUMOR, STROMA]
    assert [mask.label for mask in second.annotated.masks] == [STROMA]
    assert first.annotated.absent == (FAT,)
    assert second.annotated.absent == (FAT, TUMOR)  # drawn above, so not overlooked below
    assert first.annotated.ignore is None
    assert second.annotated.ignore.sum() == 100 * 1024
    assert np.array_equal(second.annotated.image, whole.image[576:])
    assert np.array_equal(second.annotated.masks[0].mask, stroma[576:])


def test_every_window_becomes_1024_square():
    whole = annotated(300, 500, [LabelMask(TUMOR, box(300, 500, (0, 150), (0, 500)))])

    (tile,) = standardise(source_image(whole), info())

    assert tile.annotated.image.shape == (1024, 1024, 3)
    (mask,) = tile.annotated.masks
    assert mask.mask[:512].all()
    assert not mask.mask[512:].any()


def test_empty_and_unknown_windows_are_left_out():
    mask = box(1600, 1024, (0, 100), (0, 100))
    whole = annotated(1600, 1024, [LabelMask(TUMOR, mask)])
    unknown = whole._replace(ignore=box(1600, 1024, (0, 1024), (0, 1024)))
    keep = StandardConfig(keep_empty=True)

    assert [tile.name for tile in standardise(source_image(whole), info())] == ["a-r0c0"]
    kept = list(standardise(source_image(whole), info(), keep))
    assert [len(tile.annotated.masks) for tile in kept] == [1, 0]
    assert kept[1].annotated.absent == (TUMOR,)
    assert [t.name for t in standardise(source_image(unknown), info(), keep)] == ["a-r1c0"]


def test_labels_of_too_few_pixels_are_absent():
    masks = [
        LabelMask(TUMOR, box(1024, 1024, (0, 3), (0, 3))),
        LabelMask(STROMA, np.ones((1024, 1024), bool)),
    ]

    (tile,) = tiles_of("a", annotated(1024, 1024, masks), 0.25, StandardConfig(min_pixels=10))

    assert [mask.label for mask in tile.annotated.masks] == [STROMA]
    assert tile.annotated.absent == (TUMOR,)


def test_glas_is_never_cut_for_the_paper_counts_165_of_its_165_images():
    whole = annotated(522, 775, [LabelMask(TUMOR, np.ones((522, 775), bool))])

    assert len(list(standardise(source_image(whole, source="GlaS"), info(20)))) == 1
    assert len(list(standardise(source_image(whole), info(20)))) == 2  # 1550 px at 40x


def test_what_a_source_must_not_give_is_named():
    other_size = annotated(8, 8, [LabelMask(TUMOR, np.ones((8, 9), bool))])
    twice = annotated(8, 8, [LabelMask(TUMOR, np.ones((8, 8), bool))] * 2)
    gray = other_size._replace(image=np.zeros((8, 8), np.uint8))
    strange = annotated(8, 8, [LabelMask("tumour", np.ones((8, 8), bool))])

    for broken, said in [(other_size, r"\(8, 9\)"), (twice, "two masks"), (gray, "wanted uint8")]:
        with pytest.raises(DataError, match=f"a.png.*{said}"):
            list(standardise(source_image(broken), info()))
    with pytest.raises(LabelError, match="tumour"):
        list(standardise(source_image(strange), info()))


def test_impossible_settings_are_refused():
    for setting in ({"mpp": 0}, {"size": 0}, {"min_pixels": 0}, {"limit": 100}, {"tolerance": 1}):
        with pytest.raises(ConfigError):
            StandardConfig(**setting)
