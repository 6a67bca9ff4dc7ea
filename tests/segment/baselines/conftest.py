"""A tiny Segment Anything, and its tensors under the published names."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def sam():
    """A Segment Anything of 64 pixels and two layers, with random weights."""
    from transformers import SamConfig, SamModel

    torch.manual_seed(0)
    sam = SamModel(
        SamConfig(
            vision_config={
                "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
                "image_size": 64, "patch_size": 16, "mlp_dim": 16, "output_channels": 16,
                "global_attn_indexes": [1], "num_pos_feats": 8,
            },
            prompt_encoder_config={
                "hidden_size": 16, "image_size": 64, "patch_size": 16, "image_embedding_size": 4
            },
            mask_decoder_config={
                "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 8,
                "mlp_dim": 16, "iou_head_hidden_dim": 8,
            },
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "mask_tokens" in name or "hypernetworks" in name:
                parameter.mul_(8)  # else masks of random weights are all of one sign
    return sam


def under(prefix, module):
    return {f"{prefix}.{key}": value for key, value in module.state_dict().items()}


def numbered(prefix, modules):
    names = {}
    for number, module in modules.items():
        names |= under(f"{prefix}.{number}", module)
    return names


def mlp(prefix, module):
    layers = {0: module.proj_in, 1: module.layers[0], 2: module.proj_out}
    return numbered(f"{prefix}.layers", layers)


def published_encoder(encoder):
    neck = encoder.neck
    names = {"image_encoder.pos_embed": encoder.pos_embed.detach()}
    names |= under("image_encoder.patch_embed.proj", encoder.patch_embed.projection)
    for number, block in enumerate(encoder.layers):
        here = f"image_encoder.blocks.{number}"
        names |= under(f"{here}.norm1", block.layer_norm1) | under(f"{here}.attn", block.attn)
        names |= under(f"{here}.norm2", block.layer_norm2)
        if hasattr(block.mlp, "adapter"):
            names |= under(f"{here}.mlp", block.mlp.mlp)
            names |= under(f"{here}.Adapter", block.mlp.adapter)
        else:
            names |= under(f"{here}.mlp", block.mlp)
    layers = (neck.conv1, neck.layer_norm1, neck.conv2, neck.layer_norm2)
    return names | numbered("image_encoder.neck", dict(enumerate(layers)))


def published_prompts(prompts):
    down, here = prompts.mask_embed, "prompt_encoder"
    positions = prompts.shared_embedding.positional_embedding.detach()
    layers = {0: down.conv1, 1: down.layer_norm1, 3: down.conv2, 4: down.layer_norm2}
    return (
        {f"{here}.pe_layer.positional_encoding_gaussian_matrix": positions}
        | numbered(f"{here}.point_embeddings", dict(enumerate(prompts.point_embed)))
        | under(f"{here}.not_a_point_embed", prompts.not_a_point_embed)
        | under(f"{here}.no_mask_embed", prompts.no_mask_embed)
        | numbered(f"{here}.mask_downscaling", layers | {6: down.conv3})
    )


def published_decoder(decoder):
    transformer, names = decoder.transformer, {}
    for number, layer in enumerate(transformer.layers):
        here = f"mask_decoder.transformer.layers.{number}"
        names |= {
            f"{here}.norm{n}.{key}": value
            for n in (1, 2, 3, 4)
            for key, value in getattr(layer, f"layer_norm{n}").state_dict().items()
        }
        for part in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token", "mlp"):
            names |= under(f"{here}.{part}", getattr(layer, part))
    here, final = "mask_decoder.transformer", transformer.final_attn_token_to_image
    names |= under(f"{here}.final_attn_token_to_image", final)
    names |= under(f"{here}.norm_final_attn", transformer.layer_norm_final_attn)
    names |= under("mask_decoder.iou_token", decoder.iou_token)
    names |= under("mask_decoder.mask_tokens", decoder.mask_tokens)
    up = {0: decoder.upscale_conv1, 1: decoder.upscale_layer_norm, 3: decoder.upscale_conv2}
    names |= numbered("mask_decoder.output_upscaling", up)
    for number, each in enumerate(decoder.output_hypernetworks_mlps):
        names |= mlp(f"mask_decoder.output_hypernetworks_mlps.{number}", each)
    return names | mlp("mask_decoder.iou_prediction_head", decoder.iou_prediction_head)


@pytest.fixture(scope="session")
def published_names():
    """The tensors of a SamModel under Segment Anything's names, worked out from its modules.

    Its sequences are numbered: a neck of four, three steps of down- and two of upscaling with
    activations between, MLPs of three layers.
    """

    def names(sam):
        return (
            published_encoder(sam.vision_encoder)
            | published_prompts(sam.prompt_encoder)
            | published_decoder(sam.mask_decoder)
        )

    return names
