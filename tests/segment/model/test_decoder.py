"""The joint decoder against a slow one, written as its description reads."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from xpath.segment.model.attention import sine_positions
from xpath.segment.model.decoder import JointDecoder, mask_logits
from xpath.segment.model.pixel_decoder import PixelFeatures
from xpath.segment.model.text_encoder import TextFeatures

DIM, QUERIES, HEADS = 16, 5, 4


def decoder(**sizes):
    torch.manual_seed(1)
    sizes = {"dim": DIM, "queries": QUERIES, "depth": 4, "heads": HEADS, "hidden": 24} | sizes
    return JointDecoder(**sizes).eval().requires_grad_(False)


def features(images=1, *, pixel_dim=DIM, mask_dim=DIM):
    """Maps of a 128 x 64 image."""
    torch.manual_seed(2)
    scales = [torch.randn(images, pixel_dim, 4 * n, 2 * n) for n in (1, 2, 4)]
    return PixelFeatures(torch.randn(images, mask_dim, 32, 16), tuple(scales))


def prompts(*lengths):
    """Padded with numbers that would be noticed."""
    torch.manual_seed(3)
    tokens = torch.randn(len(lengths), max(lengths), DIM)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    tokens[~mask] = 100.0
    sentence = torch.stack([row[length - 1] for row, length in zip(tokens, lengths, strict=True)])
    return TextFeatures(tokens, mask, sentence)


def torchs(attention):
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    theirs.load_state_dict(attention.state_dict())
    return theirs.eval()


def slow(model, pixels, words):
    """All query masks and classes of one image, whose self-attention holds ``words`` (T, D)."""

    def heads(q):
        z = model.norm(q)
        masks = torch.einsum("qm,mhw->qhw", model.mask_projector(z), pixels.mask_features[0])
        return masks, z @ model.class_projector

    def blocked(masks, size):
        small = functional.interpolate(masks[None], size, mode="bilinear")[0]
        rows = small.sigmoid().flatten(1) < 0.5
        rows[rows.all(dim=1)] = False
        return rows

    q, position, t = model.query_content.weight, model.query_position.weight, words
    masks, classes = heads(q)
    for i, layer in enumerate(model.layers):
        level = i % 3
        y = model.projections[level](pixels.scales[level])
        height, width = y.shape[-2:]
        source = y[0].flatten(1).T + model.level_embedding.weight[level]
        where = sine_positions(height, width, DIM, torch.device("cpu"))[0].flatten(1).T
        mask = blocked(masks, (height, width))
        read, _ = torchs(layer.cross)(
            (q + position)[None], (source + where)[None], source[None], attn_mask=mask
        )
        q = layer.cross_norm(q + read[0])
        x, xp = torch.cat((q, t)), torch.cat((position, words))
        read, _ = torchs(layer.self_attention)((x + xp)[None], (x + xp)[None], x[None])
        x = layer.self_norm(x + read[0])
        x = layer.ffn_norm(x + layer.ffn.linear2(functional.relu(layer.ffn.linear1(x))))
        q, t = x[:QUERIES], x[QUERIES:]
        masks, classes = heads(q)
    return masks, classes


SIZES = [{}, {"pixel_dim": 32, "mask_dim": 8}, {"pixel_dim": DIM}]


@pytest.mark.parametrize("sizes", SIZES, ids=["published", "all different", "projected"])
def test_each_prompt_alone_equals_the_slow_decoder(sizes):
    model, pixels, text = decoder(**sizes), features(**sizes), prompts(3, 6, 1)
    memory = model.prepare(pixels)

    head = model(memory, text)[-1]

    logits = mask_logits(head.masks, memory.mask_features)[0]
    for p, length in enumerate((3, 6, 1)):
        masks, classes = slow(model, pixels, text.tokens[p, :length])
        torch.testing.assert_close(logits[p], masks, atol=1e-4, rtol=0)
        torch.testing.assert_close(head.classes[0, p], classes, atol=1e-4, rtol=0)


def test_coupled_prompts_share_one_self_attention():
    """One set of queries hears all words. Padding between them is not heard."""
    model, pixels, text = decoder(), features(), prompts(3, 6, 1)
    memory = model.prepare(pixels)

    head = model(memory, text, coupled=True)[-1]

    masks, classes = slow(model, pixels, text.tokens[text.mask])
    assert head.masks.shape == (1, 1, QUERIES, DIM)
    logits = mask_logits(head.masks, memory.mask_features)[0, 0]
    torch.testing.assert_close(logits, masks, atol=1e-4, rtol=0)
    torch.testing.assert_close(head.classes[0, 0], classes, atol=1e-4, rtol=0)


def test_coupled_with_one_prompt_is_the_same_as_alone():
    model, text = decoder(), prompts(4)
    memory = model.prepare(features())

    for alone, coupled in zip(model(memory, text), model(memory, text, coupled=True), strict=True):
        torch.testing.assert_close(alone, coupled)


def test_prompts_do_not_see_each_other():
    model, text = decoder(), prompts(3, 6, 1, 4)
    memory = model.prepare(features(2))
    whole = model(memory, text)[-1]

    for asked in ([2], [3, 0], [1, 1, 2]):
        part = model(memory, TextFeatures(*(x[asked] for x in text)))[-1]

        torch.testing.assert_close(part.masks, whole.masks[:, asked], atol=1e-4, rtol=0)
        torch.testing.assert_close(part.classes, whole.classes[:, asked], atol=1e-4, rtol=0)


def test_images_may_have_prompts_of_their_own():
    model, pixels, text = decoder(), features(2), prompts(3, 6, 1, 4)
    own = TextFeatures(*(torch.stack((x[:2], x[2:])) for x in text))

    head = model(model.prepare(pixels), own)[-1]
    coupled = model(model.prepare(pixels), own, coupled=True)[-1]

    for b in range(2):
        image = PixelFeatures(
            pixels.mask_features[b : b + 1], tuple(x[b : b + 1] for x in pixels.scales)
        )
        asked = TextFeatures(*(x[2 * b : 2 * b + 2] for x in text))
        single = model.prepare(image)
        torch.testing.assert_close(head.masks[b], model(single, asked)[-1].masks[0])
        together = model(single, asked, coupled=True)[-1]
        torch.testing.assert_close(coupled.masks[b], together.masks[0])


def test_no_prompt_is_no_mask():
    model = decoder()
    nothing = TextFeatures(torch.zeros(0, 0, DIM), torch.zeros(0, 0).bool(), torch.zeros(0, DIM))

    head = model(model.prepare(features(2)), nothing)[-1]

    assert head.masks.shape == (2, 0, QUERIES, DIM)


def test_a_query_with_an_empty_mask_looks_everywhere():
    model, text = decoder(), prompts(3, 5)
    torch.nn.init.zeros_(model.mask_projector[-1].weight)
    torch.nn.init.constant_(model.mask_projector[-1].bias, -1)
    pixels = features()._replace(mask_features=torch.ones(1, DIM, 32, 16))

    head = model(model.prepare(pixels), text)[-1]

    for p, length in enumerate((3, 5)):
        masks, classes = slow(model, pixels, text.tokens[p, :length])
        assert (masks < 0).all()
        torch.testing.assert_close(head.classes[0, p], classes, atol=1e-4, rtol=0)
