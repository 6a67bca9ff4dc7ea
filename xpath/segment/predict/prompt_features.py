"""Prompts as the decoder wants them, each encoded once.

Axes: P prompts, T tokens, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from xpath.segment.model.text_encoder import TextFeatures
from xpath.segment.predict.text_cache import EncodedPrompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xpath.segment.model.segmentor import PathSegmentor
    from xpath.segment.model.tokenizer import PromptTokenizer
    from xpath.segment.predict.text_cache import TextCache

__all__ = ["PromptFeatures"]


class PromptFeatures:
    """The text side of a segmentor, with a memory.

    Always float32, and one prompt at a time: so the features of a prompt are the same to the last
    bit whichever prompts come with it, and may be kept.

    Args:
        model: The segmentor; its text encoder must not change from now on.
        tokenizer: What turns prompts into its ids.
        cache: Where prompts are kept beyond this process; None for nowhere.
    """

    def __init__(
        self, model: PathSegmentor, tokenizer: PromptTokenizer, cache: TextCache | None = None
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._cache = cache
        self._known: dict[str, EncodedPrompt] = {}
        self._last: tuple[tuple[str, ...], TextFeatures] | None = None

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[str]) -> TextFeatures:
        """Features of P prompts on the model's device.

        Raises:
            DataError: A prompt without a word, or longer than the text encoder's context.
        """
        projector = self._model.decoder.class_projector
        if not prompts:
            empty = torch.zeros(0, 1, projector.shape[1], device=projector.device)
            return TextFeatures(empty, empty[..., 0].bool(), empty[:, 0])
        if self._last and self._last[0] == tuple(prompts):
            return self._last[1]  # of the batch before, on the device already
        rows = [self._one(prompt) for prompt in prompts]
        tokens = pad_sequence([row.tokens for row in rows], batch_first=True)
        lengths = torch.tensor([len(row.tokens) for row in rows])
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        sentence = torch.stack([row.sentence for row in rows])
        text = TextFeatures(*(part.to(projector.device) for part in (tokens, mask, sentence)))
        self._last = tuple(prompts), text
        return text

    def _one(self, prompt: str) -> EncodedPrompt:
        if prompt not in self._known:
            kept = self._cache.load(prompt) if self._cache else None
            self._known[prompt] = kept or self._encode(prompt)
        return self._known[prompt]

    def _encode(self, prompt: str) -> EncodedPrompt:
        ids, mask = self._tokenizer([prompt])
        device = self._model.pixel_mean.device
        text = self._model.encode_text(ids.to(device), mask.to(device))
        encoded = EncodedPrompt(text.tokens[0].cpu()[mask[0]], text.sentence[0].cpu())
        if self._cache:
            self._cache.save(prompt, encoded)
        return encoded
