"""The grounded model on one image: encode, answer in one pass, generate, draw.

Axes: P prompts, N masks, L tokens, W features, H W pixels.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from xpath.errors import ConfigError, DataError
from xpath.grounded.embedding import EncodedImage, repeated
from xpath.grounded.model import enlarge
from xpath.grounded.prompts import END, EVALUATION, Turns
from xpath.grounded.tiles import MAX_TILES, pixels_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.grounded.model import GroundedModel
    from xpath.grounded.prompts import GroundedTokenizer

__all__ = ["GroundedInference", "InterpreterConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class InterpreterConfig:
    """How questions are put and answered."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Type of matrix products and convolutions; probabilities are float32 in any case."""
    max_tiles: int = MAX_TILES
    """Most tiles an image is cut into for the language model."""
    max_tokens: int = 2048
    """Longest answer."""
    chunk: int = 16
    """Prompts answered at once. Changes no mask, but memory: at full size and float32, keys and
    values of an image of 1024 pixels take 63 MB per prompt."""
    turns: Turns = EVALUATION
    """How turns are marked."""

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: Another precision, or numbers below 1.
        """
        if self.precision not in ("fp32", "bf16"):
            raise ConfigError(f"precision must be fp32 or bf16, got {self.precision!r}")
        for name in ("max_tiles", "max_tokens", "chunk"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


class GroundedInference:
    """The passes that every question is made of.

    Args:
        model: In evaluation mode, on its device.
        tokenizer: That of the weights.
        config: Precision, tiles and turns.
        device: Where the model is.
    """

    def __init__(
        self,
        model: GroundedModel,
        tokenizer: GroundedTokenizer,
        config: InterpreterConfig,
        device: torch.device,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.device = device

    def encoded(self, image: NDArray[np.uint8], max_tiles: int, *, mapped: bool) -> EncodedImage:
        """An image, run through the language model. SAM2's maps only if they are wanted."""
        pixels = pixels_of(image, self.model.config, max_tiles=max_tiles)
        count = len(pixels.tiles) * self.model.config.vision.tokens
        ids = self._ids(self.config.turns.before(count))
        with self._precision():
            tokens = self.model.image_tokens(pixels.tiles.to(self.device))
            prefix = self.model.embed(ids, tokens)
            cache = self.model.states(prefix, use_cache=True).cache
        encoded = EncodedImage(image, prefix, cache, None)
        return encoded._replace(maps=self._maps(pixels.square)) if mapped else encoded

    def _maps(self, square: Tensor) -> tuple[Tensor, ...]:
        with self._precision():
            return self.model.image_maps(square[None].to(self.device))

    def pointed(self, image: EncodedImage, tails: list[list[int]]) -> Tensor:
        """States ``(P, W)`` of the last token of each tail, in one pass."""
        lengths = torch.tensor([len(tail) for tail in tails], device=self.device)
        ids = torch.full((len(tails), int(lengths.max())), self.tokenizer.pad, device=self.device)
        for row, tail in enumerate(tails):
            ids[row, : len(tail)] = torch.tensor(tail, device=self.device)
        states = self.states(image, self.model.embed(ids))
        return states[torch.arange(len(tails), device=self.device), lengths - 1]

    def states(self, image: EncodedImage | None, tails: Tensor) -> Tensor:
        """States ``(P, L, W)`` of embeddings that follow the image."""
        options = {"cache": repeated(image.cache, len(tails)), "use_cache": True} if image else {}
        with self._precision():
            states: Tensor = self.model.states(tails, **options).last_hidden_state
        return states

    def probabilities(self, image: EncodedImage, states: Tensor) -> NDArray[np.float32]:
        """``(N, H, W)`` of states ``(N, W)``."""
        size = (image.image.shape[0], image.image.shape[1])
        maps = image.maps or self._maps(pixels_of(image.image, self.model.config).square)
        with self._precision():
            drawn = self.model.draw(maps, states[None])
        large = enlarge(drawn.logits, size, self.model.config.grounding.image)[0]
        if not large.isfinite().all():
            raise DataError(
                "the model gave values that are not finite; use fp32, and if it is that already,"
                " the weights are damaged"
            )
        values: NDArray[np.float32] = large.sigmoid().cpu().numpy()
        return values

    def embed(self, image: EncodedImage | None, text: str, grid: Tensor | None = None) -> Tensor:
        """Embeddings ``(1, L, W)`` of what follows the image. Tokens of regions are put in."""
        if image is None:
            return self.model.embed(self._ids(self.config.turns.before(0) + text))
        if grid is None:
            return self.model.embed(self._ids(text))
        tokens = self.model.config.vision.tokens
        tile = image.prefix[0, -1 - tokens : -1]
        chosen = torch.cat([tile[one.flatten().to(tile.device)] for one in grid])
        return self.model.embed(self._ids(text), chosen)

    def generated(self, image: EncodedImage | None, tail: Tensor) -> Tensor:
        """Ids ``(L,)`` of the answer, the end included."""
        whole, options = tail, dict[str, Any]()
        if image:  # what is cached is not looked at again, but must be there
            whole = torch.cat((image.prefix, tail), dim=1)
            options["cache"] = repeated(image.cache, 1)
        with self._precision():
            ids: Tensor = self.model.internvl.generate(
                inputs_embeds=whole,
                attention_mask=torch.ones(whole.shape[:2], dtype=torch.long, device=self.device),
                do_sample=False,
                max_new_tokens=self.config.max_tokens,
                stop_strings=[END],
                tokenizer=self.tokenizer.hf,
                eos_token_id=self.tokenizer.stop,
                pad_token_id=self.tokenizer.pad,
                **options,
            )
        return ids[0]

    def _ids(self, text: str) -> Tensor:
        return torch.tensor([self.tokenizer.ids(text)], device=self.device)

    def _precision(self) -> AbstractContextManager[object]:
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)
