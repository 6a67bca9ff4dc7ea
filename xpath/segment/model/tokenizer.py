"""Prompts as token ids.

Axes: P prompts, T tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from xpath.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import Tensor

__all__ = ["PromptTokenizer", "Tokens", "fit_tokenizer"]

START, END = "<start>", "<end>"


class Tokens(NamedTuple):
    """Prompts, padded to the longest of them."""

    ids: Tensor
    """``(P, T)`` int64."""
    mask: Tensor
    """``(P, T)``, True on real tokens."""


class PromptTokenizer:
    """A ``tokenizer.json`` of the tokenizers library, applied to prompts.

    Ours, CLIP's and BERT's are such files. Padding and truncation that a file asks for are left
    out: prompts are padded to the longest of them, and one that is too long is refused later, by
    the text encoder, instead of losing its end without a word.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @classmethod
    def from_file(cls, path: Path) -> PromptTokenizer:
        """Reads ``tokenizer.json``.

        Raises:
            CheckpointError: The file is missing or no tokenizer.
        """
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(
                f"{path} is no tokenizer of the tokenizers library (tokenizer.json): {error}"
            ) from error

    def save(self, path: Path) -> None:
        """Writes ``tokenizer.json``."""
        self._tokenizer.save(str(path))

    def to_json(self) -> str:
        """The content of ``tokenizer.json``."""
        return str(self._tokenizer.to_str())

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self._tokenizer.get_vocab_size())

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Token ids of prompts.

        Raises:
            DataError: An empty prompt.
        """
        for prompt in prompts:
            if not prompt.strip():
                raise DataError(f"a prompt needs at least one word, got {prompt!r}")
        encoded = [self._tokenizer.encode(prompt).ids for prompt in prompts]
        longest = max((len(ids) for ids in encoded), default=0)
        ids = torch.zeros(len(encoded), longest, dtype=torch.long)
        mask = torch.zeros(len(encoded), longest, dtype=torch.bool)
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = True
        return Tokens(ids, mask)


def fit_tokenizer(texts: Iterable[str], *, vocabulary: int = 1200) -> PromptTokenizer:
    """A lower-casing byte-level BPE tokenizer fitted to texts. It can spell any other text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(START, tokenizer.token_to_id(START)), (END, tokenizer.token_to_id(END))],
    )
    return PromptTokenizer(tokenizer)
