"""Names and shapes of a BiomedParse state dict, written out from its description.

Run by the tests with ``runpy``; nothing here looks at our own modules.
"""

from __future__ import annotations

HEAD, PIXEL = "sem_seg_head.predictor.", "sem_seg_head.pixel_decoder."
TEXT = HEAD + "lang_encoder."


def affine(name, size):
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def linear(name, out, size, *kernel):
    return {f"{name}.weight": (out, size, *kernel), f"{name}.bias": (out,)}


def attention(name, dim):
    packed = {f"{name}.in_proj_weight": (3 * dim, dim), f"{name}.in_proj_bias": (3 * dim,)}
    return packed | linear(f"{name}.out_proj", dim, dim)


def backbone(config):
    """FocalNet. ``config`` has numbers per stage."""
    first = config["width"]
    shapes = linear("backbone.patch_embed.proj", first, 3, 7, 7)
    shapes |= affine("backbone.patch_embed.norm", first)
    for i, depth in enumerate(config["depths"]):
        size = first * 2**i
        for j in range(depth):
            block = f"backbone.layers.{i}.blocks.{j}"
            levels, window = config["levels"][i], config["windows"][i]
            shapes |= {f"{block}.gamma_1": (size,), f"{block}.gamma_2": (size,)}
            shapes |= affine(f"{block}.norm1", size) | affine(f"{block}.norm2", size)
            shapes |= linear(f"{block}.modulation.f", 2 * size + levels + 1, size)
            shapes |= linear(f"{block}.modulation.h", size, size, 1, 1)
            shapes |= linear(f"{block}.modulation.proj", size, size)
            for k in range(levels):
                kernel = (window + 2 * k,) * 2
                shapes[f"{block}.modulation.focal_layers.{k}.0.weight"] = (size, 1, *kernel)
            shapes |= linear(f"{block}.mlp.fc1", 4 * size, size)
            shapes |= linear(f"{block}.mlp.fc2", size, 4 * size)
        if i < 3:
            shapes |= linear(f"backbone.layers.{i}.downsample.proj", 2 * size, size, 3, 3)
            shapes |= affine(f"backbone.layers.{i}.downsample.norm", 2 * size)
        shapes |= affine(f"backbone.norm{i}", size)
    return shapes


def pixel_decoder(config):
    first, dim, mask_dim = config["width"], config["pixel_dim"], config["mask_dim"]
    shapes = linear(PIXEL + "input_proj", dim, 8 * first, 1, 1)
    for n in range(config["pixel_depth"]):
        layer = f"{PIXEL}transformer.encoder.layers.{n}"
        shapes |= attention(f"{layer}.self_attn", dim)
        shapes |= linear(f"{layer}.linear1", config["hidden"], dim)
        shapes |= linear(f"{layer}.linear2", dim, config["hidden"])
        shapes |= affine(f"{layer}.norm1", dim) | affine(f"{layer}.norm2", dim)
    for n in (1, 2, 3):
        shapes[f"{PIXEL}adapter_{n}.weight"] = (dim, first * 2 ** (n - 1), 1, 1)
        shapes |= affine(f"{PIXEL}adapter_{n}.norm", dim)
    for n in (1, 2, 3, 4):
        shapes[f"{PIXEL}layer_{n}.weight"] = (dim, dim, 3, 3)
        shapes |= affine(f"{PIXEL}layer_{n}.norm", dim)
    return shapes | linear(PIXEL + "mask_features", mask_dim, dim, 3, 3)


def decoder(config):
    dim, hidden = config["dim"], config["hidden"]
    shapes = {
        HEAD + "query_feat.weight": (config["queries"], dim),
        HEAD + "query_embed.weight": (config["queries"], dim),
        HEAD + "level_embed.weight": (3, dim),
        HEAD + "class_embed": (dim, dim),
    }
    if config["pixel_dim"] != dim:
        for n in range(3):
            shapes |= linear(f"{HEAD}input_proj.{n}", dim, config["pixel_dim"], 1, 1)
    for n in range(config["decoder_depth"]):
        cross = f"{HEAD}transformer_cross_attention_layers.{n}"
        own = f"{HEAD}transformer_self_attention_layers.{n}"
        ffn = f"{HEAD}transformer_ffn_layers.{n}"
        shapes |= attention(f"{cross}.multihead_attn", dim) | affine(f"{cross}.norm", dim)
        shapes |= attention(f"{own}.self_attn", dim) | affine(f"{own}.norm", dim)
        shapes |= linear(f"{ffn}.linear1", hidden, dim) | linear(f"{ffn}.linear2", dim, hidden)
        shapes |= affine(f"{ffn}.norm", dim)
    shapes |= affine(HEAD + "decoder_norm", dim)
    for n, out in enumerate((dim, dim, config["mask_dim"])):
        shapes |= linear(f"{HEAD}mask_embed.layers.{n}", out, dim)
    return shapes


def text_encoder(config):
    width = config["text_width"]
    inner = TEXT + "lang_encoder."
    shapes = {
        TEXT + "lang_proj": (width, config["dim"]),
        TEXT + "logit_scale": (),
        inner + "token_embedding.weight": (config["vocabulary"], width),
        inner + "positional_embedding": (config["context"], width),
    }
    shapes |= affine(inner + "ln_final", width)
    for n in range(config["text_depth"]):
        block = f"{inner}resblocks.{n}"
        shapes |= attention(f"{block}.attn", width)
        shapes |= affine(f"{block}.ln_1", width) | affine(f"{block}.ln_2", width)
        shapes |= linear(f"{block}.mlp.c_fc", 4 * width, width)
        shapes |= linear(f"{block}.mlp.c_proj", width, 4 * width)
    return shapes


def not_needed(config):
    """Point and memory prompts."""
    dim = config["dim"]
    return {
        HEAD + "pn_indicator.weight": (2, dim),
        HEAD + "spatial_embed.weight": (32, dim),
        HEAD + "spatial_featured.weight": (32, dim),
    } | {f"{HEAD}mask_sptial_embed.{n}": (dim, dim) for n in range(3)}


def numbers(config):
    """A ``SegmentorConfig`` with its shorthands written out."""

    def per_stage(value):
        return (value,) * 4 if isinstance(value, int) else value

    return {
        **{name: getattr(config, name) for name in config.__slots__},
        "levels": per_stage(config.focal_levels),
        "windows": per_stage(config.focal_windows),
        "pixel_dim": config.pixel_dim or config.dim,
        "mask_dim": config.mask_dim or config.dim,
    }


def shapes_of(config):
    """All that text prompts need, by name."""
    config = numbers(config)
    parts = (backbone, pixel_decoder, decoder, text_encoder)
    return {name: shape for part in parts for name, shape in part(config).items()}


def spatial_shapes_of(config):
    """Tensors that only point and memory prompts need, by name."""
    return not_needed(numbers(config))


def reference_of(config):
    """The configuration in BiomedParse's field names."""
    size = numbers(config)
    return {
        "config": {
            "DIM_PROJ": size["dim"],
            "TEXT": {
                "TOKENIZER": "clip",
                "CONTEXT_LENGTH": size["context"],
                "WIDTH": size["text_width"],
                "HEADS": size["text_heads"],
                "LAYERS": size["text_depth"],
                "AUTOGRESSIVE": True,
            },
            "BACKBONE": {
                "NAME": "focal",
                "FOCAL": {
                    "EMBED_DIM": size["width"],
                    "DEPTHS": list(size["depths"]),
                    "FOCAL_LEVELS": list(size["levels"]),
                    "FOCAL_WINDOWS": list(size["windows"]),
                    "MLP_RATIO": size["mlp_ratio"],
                    "SCALING_MODULATOR": True,
                },
            },
            "ENCODER": {
                "NAME": "transformer_encoder_fpn",
                "CONVS_DIM": size["pixel_dim"],
                "MASK_DIM": size["mask_dim"],
                "NORM": "GN",
                "TRANSFORMER_ENC_LAYERS": size["pixel_depth"],
            },
            "DECODER": {
                "HIDDEN_DIM": size["dim"],
                "NUM_OBJECT_QUERIES": size["queries"],
                "NHEADS": size["heads"],
                "DIM_FEEDFORWARD": size["hidden"],
                "PRE_NORM": False,
                "ENFORCE_INPUT_PROJ": False,
                "DEC_LAYERS": size["decoder_depth"] + 1,
            },
        },
        "pixel_mean": list(size["pixel_mean"]),
        "pixel_std": list(size["pixel_std"]),
        "vocab_size": size["vocabulary"],
    }
