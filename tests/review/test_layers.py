import numpy as np
import pytest

from xpath.explain.explanation import read_explanation
from xpath.export.colour import AGAINST, FOR, object_colour
from xpath.geometry import Box, Size
from xpath.review.layers import LayerPainter
from xpath.review.pyramid import Pyramid, Tile
from xpath.review.refusal import Refused
from xpath.store.masks import open_masks

WHOLE = Tile(Box(0, 0, 512, 384), Size(512, 384))


@pytest.fixture
def opened(made):
    slide = made / "run" / "slides" / "one"
    return open_masks(slide / "masks.zarr"), read_explanation(slide / "explanation.h5")


def test_objects_are_painted_to_the_pixel_small_ones_on_top(opened):
    picture = LayerPainter(*opened).paint("objects", WHOLE, [0, 1, 2])

    masks = np.zeros((384, 512), bool)
    masks[40:90, 60:220] = masks[10:20, 300:340] = masks[200:] = True
    assert np.array_equal(picture[..., 3] > 0, masks)
    assert picture[64, 104, :3].tolist() == list(object_colour("breast-nuclei-lymphocyte"))
    assert picture[50, 70, :3].tolist() == list(object_colour("breast-tissue-tumor"))


def test_outlines_are_the_borders_of_the_objects(opened):
    painter = LayerPainter(*opened)
    filled, picture = (painter.paint(layer, WHOLE, [0]) for layer in ("objects", "outlines"))

    assert (picture[40:90, 60, 3] == 255).all()
    assert (picture[89, 60:220, :3] == object_colour("breast-tissue-tumor")).all()
    assert not picture[42:88, 62:218, 3].any()  # also not where patches meet
    assert not picture[..., 3][filled[..., 3] == 0].any()


def test_a_mask_is_read_once_for_all_tiles_layers_and_toggles(opened, monkeypatch):
    masks, explanation = opened
    reads, packed = [], masks._packed
    monkeypatch.setattr(masks, "_packed", lambda index: reads.extend(index) or packed(index))
    painter, pyramid = LayerPainter(masks, explanation), Pyramid(Size(512, 384))

    for layer in ("objects", "outlines", "object_map", "local_map"):
        for classes in ([0], [0, 1], [2]):
            for column, row in ((0, 0), (1, 0), (0, 1), (1, 1)):
                painter.paint(layer, pyramid.tile(9, column, row), classes)

    assert 0 < len(reads) == len(set(reads))


def test_tiles_are_the_picture_cut(opened):
    painter, pyramid = LayerPainter(*opened), Pyramid(Size(512, 384))
    for layer in ("objects", "patch_map", "object_map", "local_map"):  # outlines end at tiles
        whole = painter.paint(layer, WHOLE, [0, 1])

        right = painter.paint(layer, pyramid.tile(9, 1, 1), [0, 1])

        assert np.array_equal(right, whole[256:, 256:])


def test_from_afar_objects_are_painted_from_their_areas(opened, monkeypatch):
    """A patch of 4 pixels: no mask is read."""
    masks, explanation = opened
    monkeypatch.setattr(masks, "read", None)
    painter = LayerPainter(masks, explanation)

    picture = painter.paint("objects", Tile(Box(0, 0, 512, 384), Size(16, 12)), [1])

    # stroma covers 56 of 128 rows of the second row of patches, and all of the third
    assert (picture[..., 3] > 0).all(axis=1).tolist() == 4 * [False] + 8 * [True]


def test_maps_are_signed_and_no_positive_evidence_shows_no_red(opened):
    masks, explanation = opened
    for sign, colour in ((1, FOR), (-1, AGAINST)):
        explanation.object.activation[:] = sign * np.abs(explanation.object.activation)
        explanation.object.patch_contribution[:] = sign * np.abs(
            explanation.object.patch_contribution
        )
        explanation.patch.scores[:] = sign * np.abs(explanation.patch.scores)
        for layer in ("patch_map", "object_map", "local_map"):
            picture = LayerPainter(masks, explanation).paint(layer, WHOLE, [0, 1, 2])
            seen = picture[picture[..., 3] > 0]
            assert len(seen)
            assert (seen[:, :3] == colour).all()


def test_without_classes_nothing_is_painted(opened):
    for layer in ("objects", "object_map", "local_map"):
        assert not LayerPainter(*opened).paint(layer, WHOLE, [])[..., 3].any()


@pytest.mark.parametrize(
    ("size", "last"), [((1, 1), 0), ((2, 1), 1), ((256, 256), 8), ((257, 3), 9)]
)
def test_levels_are_those_of_deepzoom(size, last):
    pyramid = Pyramid(Size(*size))

    assert pyramid.last == last
    assert pyramid.level_size(last) == Size(*size)
    assert pyramid.level_size(0) == Size(1, 1)


def test_tiles_cover_a_slide_once():
    pyramid = Pyramid(Size(1000, 600))
    covered = np.zeros((600, 1000), int)
    for row in range(3):
        for column in range(4):
            box, size = pyramid.tile(10, column, row)
            assert box.size == size
            covered[box.y : box.bottom, box.x : box.right] += 1

    assert (covered == 1).all()
    with pytest.raises(Refused, match="no tile 4, 0"):
        pyramid.tile(10, 4, 0)
    with pytest.raises(Refused, match="level must be 0 to 10"):
        pyramid.tile(11, 0, 0)
    assert pyramid.tile(9, 1, 1) == (Box(512, 512, 488, 88), Size(244, 44))
