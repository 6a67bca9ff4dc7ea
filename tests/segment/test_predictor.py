import numpy as np
import pytest
import torch

from xpath.errors import CheckpointError, DataError
from xpath.segment.predictor import SegmentorEncoder, SegmentPredictor

PROMPTS = [
    "nuclei-level lymphocyte in breast pathology.",
    "tissue-level tumor in breast pathology.",
    "tissue-level necrosis or debris in breast pathology.",
]


def test_prompts_do_not_know_of_each_other(predictor, image):
    embedding = predictor.encode(image)
    together = predictor.masks(embedding, PROMPTS).probability
    shuffled = predictor.masks(embedding, PROMPTS[::-1]).probability[:, ::-1]
    chunked = predictor.masks(embedding, PROMPTS, chunk=1).probability

    np.testing.assert_allclose(shuffled, together, atol=1e-4)
    np.testing.assert_allclose(chunked, together, atol=1e-4)
    assert not np.allclose(together[:, 0], together[:, 1], atol=1e-3)  # words do matter


def test_images_do_not_know_of_each_other(predictor, image):
    other = np.ascontiguousarray(image[::-1])
    pair = predictor.masks(predictor.encode(np.stack([image, other])), PROMPTS).probability

    for row, single in enumerate((image, other)):
        alone = predictor.masks(predictor.encode(single), PROMPTS).probability
        np.testing.assert_allclose(pair[row], alone[0], atol=1e-4)


def test_the_predictor_equals_the_module_called_by_hand(predictor, model, image):
    found = predictor.masks(predictor.encode(image), PROMPTS[:1])

    tokens = predictor.tokenizer(PROMPTS[:1])
    with torch.no_grad():
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        logits = model(x, tokens.ids, tokens.mask).logits
        wanted = torch.nn.functional.interpolate(logits, size=(64, 96), mode="bilinear").sigmoid()
    np.testing.assert_allclose(found.probability, wanted.numpy(), atol=1e-5)
    np.testing.assert_array_equal(found.masks, found.probability > 0.5)


def test_presence_is_the_mean_probability_inside_the_mask(predictor, image):
    found = predictor.masks(predictor.encode(image), PROMPTS)

    for p in range(3):
        inside = found.probability[0, p][found.masks[0, p]]
        wanted = inside.mean() if inside.size else 0.0
        assert found.presence[0, p] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (33, 95)])
def test_any_image_size_comes_back_at_its_size(predictor, rng, size):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)

    found = predictor.masks(predictor.encode(image), PROMPTS[:2])

    assert found.masks.shape == (1, 2, *size)


def test_no_prompts_give_no_masks(predictor, image):
    found = predictor.masks(predictor.encode(image), [])

    assert found.masks.shape == (1, 0, 64, 96)
    assert found.presence.shape == (1, 0)


@pytest.mark.parametrize(
    ("bad", "hint"),
    [
        (np.zeros((64, 64, 3), np.float32), "uint8"),
        (np.full((64, 64, 3), np.nan), "uint8"),
        (np.zeros((64, 64, 4), np.uint8), "images must be"),
        (np.zeros((64, 64), np.uint8), "images must be"),
    ],
)
def test_images_of_another_kind_are_refused(predictor, bad, hint):
    with pytest.raises(DataError, match=hint):
        predictor.encode(bad)


def test_an_empty_prompt_is_refused(predictor, image):
    with pytest.raises(DataError, match="at least one word"):
        predictor.masks(predictor.encode(image), ["  "])


def test_a_missing_checkpoint_says_what_is_wanted(tmp_path):
    with pytest.raises(CheckpointError, match="no folder"):
        SegmentPredictor.from_pretrained(tmp_path / "nowhere")


def test_the_encoder_sees_where_things_are(predictor):
    """A change in one corner moves the features there more than far away."""
    images = torch.full((2, 3, 128, 128), 200, dtype=torch.uint8)
    images[1, :, :32, :32] = 20

    maps = SegmentorEncoder(predictor).maps(images)

    assert maps.shape == (2, SegmentorEncoder(predictor).dim, 16, 16)
    change = (maps[1] - maps[0]).norm(dim=0)
    assert change[:4, :4].mean() > 3 * change[12:, 12:].mean()
