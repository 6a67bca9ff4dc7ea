import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from xpath.errors import DataError, LabelError, ShapeError
from xpath.geometry import Size
from xpath.objects.extract import extract_objects
from xpath.store.features import read_features, write_features
from xpath.testing.masks import grid_at, write_masks

SIDE = 16


class Picture:
    """A slide that is an array."""

    path = Path("picture.tiff")

    def __init__(self, pixels):
        self.pixels = pixels
        self.size = Size(pixels.shape[1], pixels.shape[0])

    def read(self, box, size):
        assert size == box.size
        return self.pixels[box.y : box.bottom, box.x : box.right]


class Colours:
    """Mean colours of 4 x 4 pixels."""

    name, digest, dim = "colours", "ab" * 32, 3

    def maps(self, images):
        return functional.avg_pool2d(images.float(), 4)


@pytest.fixture
def grid():
    return grid_at([[x * SIDE, y * SIDE] for y in range(2) for x in range(3)], SIDE)


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return Picture(rng.integers(0, 256, (2 * SIDE, 3 * SIDE, 3), dtype=np.uint8))


@pytest.fixture
def found(grid):
    """Masks (N, L, H, W); the second kind is in two patches only."""
    masks = np.random.default_rng(1).random((len(grid), 2, SIDE, SIDE)) > 0.6
    masks[[0, 2, 3, 5], 1] = False
    return masks


@pytest.fixture
def masks(tmp_path, grid, found):
    labels = ["breast-tissue-tumor", "breast-cell-neoplastic"]
    path = tmp_path / "masks.zarr"
    facts = {
        "prompts": json.dumps(["tissue-level tumor in breast pathology.", "big pale cells"]),
        "segmentor": "tiny",
        "segmentor_sha256": "cd" * 32,
    }
    return write_masks(path, grid, found, labels, provenance=facts)


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_a_slow_loop_over_places_says_the_same(picture, masks, grid, found, batch):
    done = []

    slide = extract_objects(
        picture, masks, Colours(), slide_id="a", batch=batch, on_patches=done.append
    )

    assert sum(done) == len(grid)
    assert slide.objects == (*masks.labels, "other")
    for i, box in enumerate(grid.boxes()):
        pixels = picture.read(box, box.size).astype(float)
        maps = pixels.reshape(4, 4, 4, 4, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(slide.features[i], pixels.mean(axis=(0, 1)), rtol=1e-5)
        for j, mask in enumerate([*found[i], ~found[i].any(axis=0)]):
            weight = mask.reshape(4, 4, 4, 4).mean(axis=(1, 3))
            assert slide.object_coverage[i, j] == pytest.approx(mask.mean())
            if mask.any():
                wanted = (maps * weight[..., None]).sum(axis=(0, 1)) / weight.sum()
                np.testing.assert_allclose(slide.object_features[i, j], wanted, rtol=1e-3)
            else:
                assert not slide.object_features[i, j].any()


def test_the_file_says_where_it_came_from(picture, masks, tmp_path):
    slide = extract_objects(picture, masks, Colours(), slide_id="a")
    write_features(tmp_path / "features.h5", slide)

    facts = read_features(tmp_path / "features.h5").provenance

    assert facts["encoder"] == "colours"
    assert facts["encoder_sha256"] == "ab" * 32
    assert facts["segmentor"] == "tiny"
    assert facts["segmentor_sha256"] == "cd" * 32
    assert json.loads(facts["prompts"]) == [
        "tissue-level tumor in breast pathology.",
        "big pale cells",  # the words that were asked, not those the label suggests
    ]


def test_masks_of_another_slide_are_refused(masks):
    other = Picture(np.zeros((2 * SIDE, 4 * SIDE, 3), np.uint8))

    with pytest.raises(DataError, match=r"picture\.tiff"):
        extract_objects(other, masks, Colours(), slide_id="a")


def test_a_kind_called_other_is_refused(picture, masks):
    masks.labels = ("breast-tissue-tumor", "other")

    with pytest.raises(DataError, match="other"):
        extract_objects(picture, masks, Colours(), slide_id="a")


def test_labels_are_looked_at_before_hours_of_work(picture, masks):
    masks.labels = ("breast-tissue-tumor", "thing")
    done = []

    with pytest.raises(LabelError, match="thing"):
        extract_objects(picture, masks, Colours(), slide_id="a", on_patches=done.append)

    assert not done


def test_an_encoder_that_breaks_its_word_is_refused(picture, masks):
    class Wide(Colours):
        dim = 4

    class Broken(Colours):
        def maps(self, images):
            return torch.full((len(images), 3, 4, 4), torch.nan)

    with pytest.raises(ShapeError, match="colours"):
        extract_objects(picture, masks, Wide(), slide_id="a")
    with pytest.raises(DataError, match="NaN"):
        extract_objects(picture, masks, Broken(), slide_id="a")
