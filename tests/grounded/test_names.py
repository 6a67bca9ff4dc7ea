import pytest
import torch

from xpath.errors import CheckpointError
from xpath.grounded.names import published_name, renaming, to_ours, to_published

SAM = "grounding_encoder.sam2_model."


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("vision_model.embeddings.class_embedding", "vision_tower.embeddings.cls_token"),
        ("vision_model.encoder.layers.7.ls2", "vision_tower.encoder.layer.7.lambda_2"),
        ("mlp1.3.bias", "multi_modal_projector.linear_2.bias"),
        ("language_model.model.layers.3.mlp.up_proj.weight", "language_model.layers.3.mlp.up_proj"),
        ("language_model.lm_head.weight", "internvl.lm_head.weight"),
        ("text_hidden_fcs.2.weight", "projection.2.weight"),
        (f"{SAM}no_mem_embed", "sam.no_memory_embedding"),
        (f"{SAM}image_encoder.trunk.blocks.4.norm2.bias", "backbone.blocks.4.layer_norm2.bias"),
        (f"{SAM}image_encoder.trunk.blocks.4.mlp.layers.1.bias", "blocks.4.mlp.proj_out.bias"),
        (f"{SAM}sam_prompt_encoder.mask_downscaling.4.bias", "mask_embed.layer_norm2.bias"),
        (f"{SAM}sam_mask_decoder.output_upscaling.3.bias", "mask_decoder.upscale_conv2.bias"),
        (f"{SAM}sam_mask_decoder.iou_prediction_head.layers.1.bias", "head.layers.0.bias"),
        (f"{SAM}sam_mask_decoder.transformer.layers.1.self_attn.out_proj.bias", "self_attn.o_proj"),
        (f"{SAM}sam_mask_decoder.transformer.layers.1.mlp.layers.0.bias", "layers.1.mlp.proj_in"),
        (f"{SAM}sam_mask_decoder.transformer.norm_final_attn.bias", "layer_norm_final_attn.bias"),
    ],
)
def test_names_of_every_part(published, ours):
    [found] = renaming([published]).ours[published]

    assert ours in found
    assert published_name(found) == published


def test_queries_keys_and_values_are_rows_of_one_matrix():
    name = "vision_model.encoder.layers.0.attn.qkv.weight"
    matrix = torch.arange(12.0).reshape(6, 2)

    ours = to_ours({name: matrix})

    layer = "internvl.model.vision_tower.encoder.layer.0.attention"
    assert torch.equal(ours[f"{layer}.k_proj.weight"], torch.tensor([[4.0, 5], [6, 7]]))
    shuffled = {key: ours[key] for key in sorted(ours, reverse=True)}
    assert torch.equal(to_published(shuffled)[name], matrix)


def test_point_embeddings_are_rows_of_one_table_and_the_matrix_is_there_twice():
    prompt = f"{SAM}sam_prompt_encoder."
    theirs = {f"{prompt}point_embeddings.{k}.weight": torch.full((1, 3), k) for k in (2, 0, 3, 1)}
    theirs[f"{prompt}pe_layer.positional_encoding_gaussian_matrix"] = torch.ones(2, 4)

    ours = to_ours(theirs)

    assert ours["sam.prompt_encoder.point_embed.weight"][:, 0].tolist() == [0, 1, 2, 3]
    assert len(ours) == 3
    back = to_published(ours)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


def test_what_serves_video_only_is_left_out():
    found = renaming([f"{SAM}memory_attention.norm.bias", f"{SAM}maskmem_tpos_enc"])

    assert found.ours == {}
    assert found.left_out == {"memory_": 1, "maskmem_": 1}


def test_unknown_names_are_all_named():
    with pytest.raises(CheckpointError, match=r"a\.b is no .*; vision_model\.x is no"):
        renaming(["vision_model.x", "mlp1.0.bias", "a.b"])
    with pytest.raises(CheckpointError, match=r"decoder\.nonsense is no parameter"):
        to_published({"sam.mask_decoder.nonsense": torch.zeros(1)})


def test_the_map_is_total_for_a_whole_model(interpreter):
    state = interpreter.model.state_dict()

    again = to_ours(to_published(state))

    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], value) for name, value in state.items())
