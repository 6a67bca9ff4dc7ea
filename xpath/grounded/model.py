"""The grounded model: a language model that sees, and SAM2, joined by a projection.

UniBiomed's architecture from transformers' classes: InternViT turns tiles into image tokens of a
Qwen2.5 language model; the state of each ``[SEG]`` token becomes a prompt of SAM2's decoder.
Axes: B images, T tiles, L tokens, N masks, W features of the language model, D of SAM2, h w pixels
of a mask before it is enlarged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional

from xpath.grounded.config import internvl_config, sam2_config

if TYPE_CHECKING:
    from torch import Tensor

    from xpath.grounded.config import GroundedConfig

__all__ = ["GroundedModel", "MaskLogits", "empty_grounded", "enlarge"]


class MaskLogits(NamedTuple):
    """Masks SAM2 draws for N prompts of B images."""

    logits: Tensor
    """``(B, N, h, w)`` of the mask it is surest of."""
    iou: Tensor
    """``(B, N)`` overlap with the truth, as it expects."""


class GroundedModel(nn.Module):
    """Language model with images, SAM2, and the projection from one to the other.

    Args:
        config: Sizes.
        image_token: Id of ``<IMG_CONTEXT>`` in the tokenizer of the weights.
    """

    def __init__(self, config: GroundedConfig, *, image_token: int) -> None:
        super().__init__()
        from transformers import InternVLForConditionalGeneration, Sam2Model

        self.config, self.image_token = config, image_token
        language = internvl_config(config, image_token=image_token)
        self.internvl: Any = InternVLForConditionalGeneration(language)
        self.sam: Any = Sam2Model(sam2_config(config.grounding))
        width = config.language.width
        self.projection = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.grounding.width)
        )

    def image_tokens(self, tiles: Tensor) -> Tensor:
        """Image tokens ``(T, 256, W)`` of normalised tiles ``(T, 3, 448, 448)``."""
        features = self.internvl.get_image_features(
            pixel_values=tiles,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
        )
        return cast("Tensor", features.pooler_output)

    def image_maps(self, squares: Tensor) -> tuple[Tensor, ...]:
        """SAM2's maps of normalised images ``(B, 3, S, S)`` at strides 4, 8 and 16.

        Without gradient: SAM2's image encoder is never trained.
        """
        return tuple(self.sam.get_image_embeddings(squares))

    def embed(self, ids: Tensor, image_tokens: Tensor | None = None) -> Tensor:
        """Embeddings ``(B, L, W)`` of ids ``(B, L)``. Image tokens go where their ids are.

        Args:
            ids: Token ids.
            image_tokens: ``(..., W)``, as many as there are ids of ``<IMG_CONTEXT>``, in order.
        """
        embeds = self.internvl.get_input_embeddings()(ids)
        if image_tokens is None:
            return cast("Tensor", embeds)
        here = (ids == self.image_token)[..., None].expand_as(embeds)
        return cast("Tensor", embeds.masked_scatter(here, image_tokens.to(embeds.dtype)))

    def states(self, embeds: Tensor, **options: Any) -> Any:
        """Output of the language model for embeddings ``(B, L, W)``.

        ``last_hidden_state`` is ``(B, L, W)`` after the last norm; ``cache`` comes with
        ``use_cache=True``. Padding on the right needs no mask: nothing looks ahead.
        """
        return self.internvl.model.language_model(inputs_embeds=embeds, **options)

    def draw(self, maps: tuple[Tensor, ...], states: Tensor) -> MaskLogits:
        """The masks that states of ``[SEG]`` tokens point at.

        Each state is one more prompt beside two that stand for "no point", as SAM2 wants them. Of
        three masks the one with the highest expected overlap is taken; SAM2's own opinion on
        whether the object is there at all is not used.

        Args:
            maps: From ``image_maps``.
            states: ``(B, N, W)``; prompts do not see each other.
        """
        batch, count = states.shape[:2]
        points = states.new_zeros(batch, count, 1, 2)
        labels = -torch.ones(batch, count, 1, dtype=torch.int32, device=states.device)
        sparse, dense = self.sam.prompt_encoder(points, labels, None, None)
        pointed = self.projection(states)[:, :, None]
        sparse = torch.cat((sparse.to(pointed.dtype), pointed), dim=2)
        where = self.sam.get_image_wide_positional_embeddings().expand(batch, -1, -1, -1)
        masks, iou, _, _ = self.sam.mask_decoder(
            maps[-1], where, sparse, dense, True, list(maps[:-1])
        )
        best = iou.argmax(dim=-1)[..., None]
        chosen = masks.take_along_dim(best[..., None, None], dim=2)[:, :, 0]
        return MaskLogits(chosen, iou.take_along_dim(best, dim=2)[..., 0])


def enlarge(logits: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """Mask logits ``(..., N, h, w)`` at the size of the image, bilinear.

    In two steps, first to the square SAM2 saw and then to the image, as published: one step gives
    other pixels.
    """
    fine = functional.interpolate(logits.float(), size=(side, side), mode="bilinear")
    return functional.interpolate(fine, size=size, mode="bilinear")


def empty_grounded(config: GroundedConfig, *, image_token: int) -> GroundedModel:
    """The model on the meta device: sizes and names, no weights and no memory.

    Only the frequencies of the rotary positions are there, as no checkpoint holds them.
    """
    with torch.device("meta"):
        model = GroundedModel(config, image_token=image_token)
    language = model.internvl.model.language_model
    language.rotary_emb = type(language.rotary_emb)(language.config)
    return model
