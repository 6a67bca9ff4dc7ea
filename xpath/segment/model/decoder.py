"""The joint decoder: queries read the image and the prompt in turns.

Every prompt of an image is decoded on its own: prompts are an axis, not a sequence, so a mask never
depends on which other prompts were asked. What depends on the image only (the keys and values
of every cross-attention, the low-resolution mask features) is computed once by ``prepare``.

Axes: B images, P prompts, Q queries, T text tokens, D features, M features of masks, S positions of
a map, H W pixels.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional

from xpath.segment.model.attention import Attention, FeedForward, KeysValues, sine_positions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor

    from xpath.segment.model.pixel_decoder import PixelFeatures
    from xpath.segment.model.text_encoder import TextFeatures

__all__ = ["Heads", "ImageMemory", "JointDecoder", "mask_logits"]


class ImageMemory(NamedTuple):
    """Everything the decoder needs to know of a batch of images, whatever the prompt."""

    mask_features: Tensor
    """``(B, M, H / 4, W / 4)``."""
    low_features: tuple[Tensor, ...]
    """The mask features at strides 32, 16 and 8, ``(B, M, h, w)``."""
    sources: tuple[KeysValues, ...]
    """Keys and values of each layer's cross-attention."""


class Heads(NamedTuple):
    """Masks and class embeddings of the queries after one layer."""

    masks: Tensor
    """``(B, P, Q, M)`` mask embeddings, to be multiplied with the mask features; M is usually D."""
    classes: Tensor
    """``(B, P, Q, D)`` class embeddings, to be compared with the prompt's sentence."""


def mask_logits(embedding: Tensor, features: Tensor) -> Tensor:
    """Masks ``(B, P, Q, H, W)`` of embeddings ``(B, P, Q, M)`` on features ``(B, M, H, W)``."""
    return torch.einsum("bpqd,bdhw->bpqhw", embedding, features)


class JointDecoder(nn.Module):
    """Learnable queries that become one mask and one class embedding each.

    Args:
        dim: Features.
        queries: Number of queries; 101 in the published model.
        depth: Layers; layer i reads the map of stride 32, 16 or 8 by turns.
        heads: Attention heads.
        hidden: Width inside the feed-forward layers.
        pixel_dim: Features of the pixel decoder's maps, each scale of which then has a projection
            of its own; if not given they have ``dim`` features and are read as they are.
        mask_dim: Features of the mask features; ``dim`` if not given.
    """

    def __init__(
        self,
        *,
        dim: int,
        queries: int,
        depth: int,
        heads: int,
        hidden: int,
        pixel_dim: int | None = None,
        mask_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            nn.Conv2d(pixel_dim, dim, 1) if pixel_dim else nn.Identity() for _ in range(3)
        )
        self.query_content = nn.Embedding(queries, dim)
        self.query_position = nn.Embedding(queries, dim)
        self.level_embedding = nn.Embedding(3, dim)
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.mask_projector = nn.Sequential(
            nn.Linear(dim, dim),
            nn.ReLU(),
            nn.Linear(dim, dim),
            nn.ReLU(),
            nn.Linear(dim, mask_dim or dim),
        )
        self.class_projector = nn.Parameter(torch.randn(dim, dim) * dim**-0.5)

    def prepare(self, features: PixelFeatures) -> ImageMemory:
        """The part of the computation that every prompt shares."""
        tokens, positions = [], []
        for level, projection in enumerate(self.projections):
            scale = projection(features.scales[level])
            height, width = scale.shape[-2:]
            position = sine_positions(height, width, scale.shape[1], scale.device).to(scale.dtype)
            tokens.append(scale.flatten(2).transpose(1, 2) + self.level_embedding.weight[level])
            positions.append(position.flatten(2).transpose(1, 2))
        sources = tuple(
            layer.cross.project(tokens[i % 3] + positions[i % 3], tokens[i % 3])
            for i, layer in self._numbered()
        )
        # Resizing is linear, so masks of resized features are resized masks: only these small
        # maps are needed to know where a query may look next.
        low = tuple(
            functional.interpolate(features.mask_features, scale.shape[-2:], mode="bilinear")
            for scale in features.scales
        )
        return ImageMemory(features.mask_features, low, sources)

    def forward(
        self, memory: ImageMemory, text: TextFeatures, *, coupled: bool = False
    ) -> list[Heads]:
        """The heads before the first and after every layer. The last is the answer.

        The heads before the first layer do not depend on a prompt; their P is 1.

        Args:
            memory: Of B images.
            text: Tokens ``(B, P, T, D)`` or ``(P, T, D)`` for the same prompts on every image,
                with their mask of the same leading axes.
            coupled: One set of queries hears the words of all prompts at once, as the published
                code does when it is given several; the heads' P is then 1 throughout, and a mask
                depends on what else was asked. For comparison only.
        """
        images = len(memory.mask_features)
        tokens, mask = text.tokens, text.mask
        if tokens.ndim == 3:
            tokens, mask = tokens.expand(images, -1, -1, -1), mask.expand(images, -1, -1)
        if coupled:
            tokens, mask = tokens.flatten(1, 2)[:, None], mask.flatten(1, 2)[:, None]
        # Before the first self-attention nothing depends on the prompt: one row serves all.
        queries = self.query_content.weight.expand(images, 1, -1, -1)
        words, positions = tokens, tokens.detach()
        heads = [self._heads(queries)]
        for i, layer in self._numbered():
            allowed = self._visible(heads[-1].masks, memory.low_features[i % 3])
            queries = layer.look(queries, self.query_position.weight, memory.sources[i], allowed)
            queries = queries.expand(-1, tokens.shape[1], -1, -1)
            queries, words = layer.listen(
                queries, self.query_position.weight, words, positions, mask
            )
            heads.append(self._heads(queries))
        return heads

    def _numbered(self) -> Iterator[tuple[int, DecoderLayer]]:
        for i, layer in enumerate(self.layers):
            yield i, cast("DecoderLayer", layer)

    def _heads(self, queries: Tensor) -> Heads:
        z = self.norm(queries)
        with _full_precision(z):  # which query answers hangs on the digits
            classes = z.float() @ self.class_projector.float()
        return Heads(self.mask_projector(z), classes)

    @staticmethod
    def _visible(embedding: Tensor, features: Tensor) -> Tensor:
        """Where each query may look, ``(B, P, Q, S)``: on its own mask, or everywhere if empty."""
        with torch.no_grad():
            inside = mask_logits(embedding, features).flatten(3) >= 0  # sigmoid >= 0.5
            return inside | ~inside.any(dim=-1, keepdim=True)


class DecoderLayer(nn.Module):
    """Cross-attention to the image, self-attention with the words, feed-forward, post-norm."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.cross = Attention(dim, heads)
        self.cross_norm = nn.LayerNorm(dim)
        self.self_attention = Attention(dim, heads)
        self.self_norm = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, hidden)
        self.ffn_norm = nn.LayerNorm(dim)

    def look(
        self, queries: Tensor, position: Tensor, source: KeysValues, allowed: Tensor
    ) -> Tensor:
        """Queries ``(B, P, Q, D)`` after reading the image.

        Rows of cross-attention do not see each other, so the prompts of an image share one call.
        """
        _, prompts, count, _ = queries.shape
        flat = (queries + position).flatten(1, 2)  # (B, P Q, D)
        read = self.cross(flat, source, allowed.flatten(1, 2)[:, None])
        out: Tensor = self.cross_norm(queries + read.unflatten(1, (prompts, count)))
        return out

    def listen(
        self, queries: Tensor, position: Tensor, words: Tensor, word_position: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries and words after attending to each other, within one prompt.

        Args:
            queries: ``(B, P, Q, D)``.
            position: ``(Q, D)`` positions of the queries.
            words: ``(B, P, T, D)``.
            word_position: ``(B, P, T, D)`` positions of the words.
            mask: ``(B, P, T)``, True on real words.
        """
        images, prompts, count, _ = queries.shape
        x = torch.cat((queries, words), dim=2).flatten(0, 1)  # (B P, Q + T, D)
        positions = torch.cat((position.expand_as(queries), word_position), dim=2).flatten(0, 1)
        real = functional.pad(mask, (count, 0), value=True).flatten(0, 1)[:, None, None]
        source = self.self_attention.project(x + positions, x)
        x = self.self_norm(x + self.self_attention(x + positions, source, real))
        x = self.ffn_norm(x + self.ffn(x)).unflatten(0, (images, prompts))
        return x[:, :, :count], x[:, :, count:]


def _full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """A block without autocast, which tensors without data (FLOP counts) do not know."""
    if tensor.device.type == "meta":
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)
