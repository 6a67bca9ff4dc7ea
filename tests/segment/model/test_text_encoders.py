import pytest
import torch

from xpath.errors import DataError
from xpath.segment.model.bert_encoder import BertTextEncoder
from xpath.segment.model.text_encoder import CausalTextEncoder, TextFeatures

SIZES = {"vocabulary": 50, "context": 9, "width": 16, "depth": 2, "heads": 2, "dim": 12}
BOTH = pytest.mark.parametrize("encoder_type", [CausalTextEncoder, BertTextEncoder])


@pytest.fixture
def tokens():
    """Two prompts of 3 and 6 tokens, padded to 9 with an id that means something else."""
    ids = torch.randint(1, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(9) < torch.tensor([3, 6])[:, None]
    return ids, mask


def encoder(encoder_type):
    torch.manual_seed(0)
    return encoder_type(**SIZES).eval()


@BOTH
@torch.no_grad()
def test_padding_changes_nothing(encoder_type, tokens):
    model, (ids, mask) = encoder(encoder_type), tokens

    both = model(ids, mask)

    assert isinstance(both, TextFeatures)
    assert both.tokens.shape == (2, 9, 12)
    for row, length in enumerate((3, 6)):
        alone = model(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(both.tokens[row, :length], alone.tokens[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(both.sentence[row], alone.tokens[0, -1], atol=1e-5, rtol=0)


@BOTH
def test_a_prompt_longer_than_the_context_is_refused(encoder_type):
    with pytest.raises(DataError, match="9 tokens, got one of 10"):
        encoder(encoder_type)(torch.ones(1, 10).long(), torch.ones(1, 10).bool())


@BOTH
def test_no_prompts_are_no_features(encoder_type):
    found = encoder(encoder_type)(torch.zeros(0, 0).long(), torch.zeros(0, 0).bool())

    assert found.tokens.shape == (0, 0, 12)
    assert found.sentence.shape == (0, 12)


@torch.no_grad()
def test_words_behind_the_end_are_heard_by_bert_only():
    """One reads from left to right, the other both ways. So its first token knows the last."""
    ids = torch.tensor([[4, 5, 6], [4, 5, 7]])
    mask = torch.ones(2, 3).bool()

    causal = encoder(CausalTextEncoder)(ids, mask).tokens
    both_ways = encoder(BertTextEncoder)(ids, mask).tokens

    torch.testing.assert_close(causal[0, :2], causal[1, :2])
    assert (both_ways[0, 0] - both_ways[1, 0]).abs().max() > 1e-4


def test_bert_can_be_frozen_behind_its_projection(tokens):
    model = encoder(BertTextEncoder)
    model.bert.requires_grad_(False)

    model(*tokens).sentence.sum().backward()

    assert model.projection.grad is not None
    assert all(parameter.grad is None for parameter in model.bert.parameters())
