import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from xpath.errors import CheckpointError, DataError
from xpath.segment.model.tokenizer import PromptTokenizer


def clip_like():
    """Byte pairs with ``</w>`` at word ends, as in CLIP's tokenizer.json."""
    words = ["l", "o", "w", "lo", "w</w>", "low</w>", "o</w>", "<|startoftext|>", "<|endoftext|>"]
    model = models.BPE(
        vocab={word: index for index, word in enumerate(words)},
        merges=[("l", "o"), ("lo", "w</w>")],
        end_of_word_suffix="</w>",
        unk_token="<|endoftext|>",
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", 8), ("<|startoftext|>", 7), add_prefix_space=False
    )
    return tokenizer


def bert_like():
    """Word pieces, as in PubMedBERT's tokenizer.json."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "tumor", "lymph", "##ocyte", "."]
    tokenizer = Tokenizer(
        models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer_type", "prompts", "wanted"),
    [
        (clip_like, ["Low", "low low"], [[7, 5, 8], [7, 5, 5, 8]]),
        (bert_like, ["Tumor.", "lymphocyte gland tumor"], [[2, 4, 7, 3], [2, 5, 6, 1, 4, 3]]),
    ],
)
def test_files_of_clip_and_bert_are_served(tmp_path, tokenizer_type, prompts, wanted):
    """Whatever the file asks for: ends are never cut off and padding is marked."""
    tokenizer = tokenizer_type()
    tokenizer.enable_padding(length=20)
    tokenizer.enable_truncation(max_length=3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    tokens = PromptTokenizer.from_file(tmp_path / "tokenizer.json")(prompts)

    assert tokens.ids.shape == (2, len(wanted[1]))
    for row, ids in enumerate(wanted):
        assert tokens.ids[row][tokens.mask[row]].tolist() == ids
    assert tokens.mask.sum(dim=1).tolist() == [len(ids) for ids in wanted]


def test_the_tokenizer_given_is_left_as_it_is():
    tokenizer = bert_like()
    tokenizer.enable_truncation(max_length=3)

    PromptTokenizer(tokenizer)

    assert tokenizer.truncation is not None


def test_a_saved_tokenizer_is_the_same(tmp_path):
    ours = PromptTokenizer(bert_like())
    ours.save(tmp_path / "tokenizer.json")

    again = PromptTokenizer.from_file(tmp_path / "tokenizer.json")

    assert again.to_json() == ours.to_json()
    assert again.vocabulary == 8


def test_no_prompts_are_no_tokens():
    tokens = PromptTokenizer(bert_like())([])

    assert tokens.ids.shape == tokens.mask.shape == torch.Size([0, 0])


def test_an_empty_prompt_is_refused():
    with pytest.raises(DataError, match="at least one word"):
        PromptTokenizer(bert_like())(["tumor", "  "])


def test_another_file_is_refused_by_name(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")

    with pytest.raises(CheckpointError, match=r"vocab\.json is no tokenizer"):
        PromptTokenizer.from_file(tmp_path / "vocab.json")
