"""Any size, any batch, any floating point type."""

import pytest
import torch
from torch.nn import functional

from xpath.segment.model.segmentor import similarity

SENTENCES = [
    "nuclei-level lymphocyte in breast pathology.",
    "tissue-level tumor in breast pathology.",
    "tissue-level necrosis or debris in breast pathology.",
]
TOLERANCE = {torch.float16: (0.002, 0.01), torch.bfloat16: (0.02, 0.08)}
"""Under autocast on the CPU, tiny model: how far the mask logits of a given query may be off on
average, in standard deviations of the logits, and how many pixels may change sides."""


@pytest.fixture
def text(model, tokenizer):
    with torch.no_grad():
        return model.encode_text(*tokenizer(SENTENCES))


@pytest.fixture
def pixels(rng):
    return torch.from_numpy(rng.integers(0, 256, (2, 3, 70, 45), dtype="uint8"))


@torch.no_grad()
def test_an_image_is_padded_right_and_below_after_normalisation(model, pixels, text):
    """70 x 45 becomes 96 x 64, zeros behind the image."""
    normal = model.normalise(pixels)

    assert normal.shape == (2, 3, 96, 64)
    assert normal[:, :, 70:].abs().max() == normal[:, :, :, 45:].abs().max() == 0
    by_hand = (pixels[1, 0, 3, 4].item() - 123.675) / 58.395
    assert normal[1, 0, 3, 4].item() == pytest.approx(by_hand, abs=1e-5)
    mean = model.pixel_mean.expand(2, 3, 96, 64).clone()  # becomes zero when normalised
    mean[:, :, :70, :45] = pixels
    whole = model.decode(model.encode_image(mean), text)
    found = model.decode(model.encode_image(pixels), text)
    assert found.logits.shape == (2, 3, 24, 16)
    torch.testing.assert_close(found.logits, whole.logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_batch_equals_its_images_alone(model, pixels, text):
    both = model.decode(model.encode_image(pixels), text)

    for b in range(2):
        alone = model.decode(model.encode_image(pixels[b : b + 1]), text)
        torch.testing.assert_close(both.logits[b], alone.logits[0], atol=1e-4, rtol=0)
        assert torch.equal(both.query[b], alone.query[0])


@torch.no_grad()
def test_the_answer_is_the_mask_of_the_most_similar_query(model, pixels, text):
    memory = model.encode_image(pixels)
    for coupled in (False, True):
        head = model.decoder(memory, text, coupled=coupled)[-1]

        found = model.decode(memory, text, coupled=coupled)

        for b in range(2):
            for p in range(3):
                row = 0 if coupled else p
                cosine = functional.cosine_similarity(
                    head.classes[b, row], text.sentence[p][None], dim=1
                )
                best = int(cosine.argmax())
                mask = torch.einsum("d,dhw->hw", head.masks[b, row, best], memory.mask_features[b])
                assert found.query[b, p] == best
                torch.testing.assert_close(found.similarity[b, p], cosine, atol=1e-5, rtol=0)
                torch.testing.assert_close(found.logits[b, p], mask, atol=1e-4, rtol=1e-4)


def test_similarity_of_nothing_is_zero():
    assert not similarity(torch.zeros(1, 1, 2, 4), torch.ones(1, 4)).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_autocast_stays_within_the_written_tolerance(model, tokenizer, pixels, text, dtype):
    wanted = model.decode(model.encode_image(pixels), text)

    with torch.autocast("cpu", dtype=dtype):
        memory = model.encode_image(pixels)
        words = model.encode_text(*tokenizer(SENTENCES))
        head = model.decoder(memory, words)[-1]

    # The query is given: with random weights many are nearly as good as the best.
    masks = head.masks.take_along_dim(wanted.query[..., None, None], dim=2)
    found = torch.einsum("bpqd,bdhw->bphw", masks.float(), memory.mask_features.float())
    mean, changed = TOLERANCE[dtype]
    off = (found - wanted.logits).abs().mean() / wanted.logits.std()
    assert off < mean
    assert ((found > 0) != (wanted.logits > 0)).float().mean() < changed


@torch.no_grad()
def test_bfloat16_weights_work_as_well(model, pixels, text):
    wanted = model.decode(model.encode_image(pixels), text)

    half = model.to(torch.bfloat16)
    words = type(text)(text.tokens.bfloat16(), text.mask, text.sentence.bfloat16())
    found = half.decode(half.encode_image(pixels), words)

    assert found.logits.dtype == torch.bfloat16
    assert found.logits.isfinite().all()
    assert (found.similarity - wanted.similarity).abs().max() < 0.05
