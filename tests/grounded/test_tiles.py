import numpy as np
import pytest
import torch

from xpath.errors import DataError, ShapeError
from xpath.grounded.config import GroundedConfig, GroundingSizes, VisionSizes
from xpath.grounded.tiles import as_images, pixels_of, tile_count

CONFIG = GroundedConfig(vision=VisionSizes(tile=28), grounding=GroundingSizes(image=32))


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [
        (448, 448, 1),
        (512, 512, 1),
        (768, 768, 5),
        (1024, 1024, 10),
        (480, 640, 13),
        (100, 9000, 13),
    ],
)
def test_tiles_of_an_image(height, width, count):
    assert tile_count(height, width) == count


def test_tiles_lie_row_by_row_with_the_whole_image_last():
    image = np.zeros((56, 56, 3), np.uint8)
    image[:28, 28:] = 100
    image[28:, :28] = 200

    tiles, _ = pixels_of(image, CONFIG, max_tiles=4)

    centres = (tiles[:, 0, 14, 14] * 0.229 + 0.485) * 255
    assert centres[:4].tolist() == pytest.approx([0, 100, 200, 0], abs=1e-3)
    assert len(tiles) == 5


def test_one_tile_on_request():
    tiles, square = pixels_of(np.full((56, 56, 3), 255, np.uint8), CONFIG, max_tiles=1)

    assert tiles.shape == (1, 3, 28, 28)
    assert square.shape == (3, 32, 32)
    white = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(square[:, 0, 0], white)


def test_image_tokens_per_tile():
    assert VisionSizes().tokens == 256
    assert VisionSizes(tile=56).tokens == 4


def test_what_is_no_image():
    with pytest.raises(DataError, match="got list"):
        as_images([[0]])
    with pytest.raises(DataError, match="got float64"):
        as_images(np.zeros((4, 4, 3)))
    with pytest.raises(ShapeError):
        as_images(np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="one pixel"):
        as_images(np.zeros((0, 4, 3), np.uint8))
