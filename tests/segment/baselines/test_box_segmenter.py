"""Box-prompted models: MedSAM's names and preparation, and the protocol of boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from xpath.errors import CheckpointError
from xpath.metrics.boxes import box_cost, fill_boxes
from xpath.pathseg.biomedparse_data import PromptedMask
from xpath.segment.baselines.box_segmenter import BoxSegmenter, score_boxes
from xpath.segment.baselines.sam_names import is_original, rename_sam
from xpath.segment.evaluation.questions import EvaluationConfig, questions_of


class Filler:
    """Takes every box for its mask."""

    def __init__(self):
        self.encoded = 0

    def encode(self, image):
        self.encoded += 1
        return image.shape[:2]

    def masks(self, size, boxes):
        return np.stack([fill_boxes(box[None], size) for box in boxes])


@pytest.fixture(scope="module")
def sam():
    """A Segment Anything of 64 pixels with random weights."""
    from transformers import SamConfig, SamModel

    torch.manual_seed(0)
    return SamModel(
        SamConfig(
            vision_config={
                "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                "image_size": 64, "patch_size": 16, "mlp_dim": 16, "output_channels": 8,
                "global_attn_indexes": [0], "num_pos_feats": 4,
            },
            prompt_encoder_config={
                "hidden_size": 8, "image_size": 64, "patch_size": 16, "image_embedding_size": 4
            },
            mask_decoder_config={
                "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                "mlp_dim": 16, "iou_head_hidden_dim": 8,
            },
        )
    ).eval()  # fmt: skip


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
    names = {"image_encoder.pos_embed": encoder.pos_embed}
    names |= under("image_encoder.patch_embed.proj", encoder.patch_embed.projection)
    for number, block in enumerate(encoder.layers):
        here = f"image_encoder.blocks.{number}"
        names |= under(f"{here}.norm1", block.layer_norm1) | under(f"{here}.attn", block.attn)
        names |= under(f"{here}.norm2", block.layer_norm2) | under(f"{here}.mlp", block.mlp)
    layers = (neck.conv1, neck.layer_norm1, neck.conv2, neck.layer_norm2)
    return names | numbered("image_encoder.neck", dict(enumerate(layers)))


def published_prompts(prompts):
    down, here = prompts.mask_embed, "prompt_encoder"
    positions = prompts.shared_embedding.positional_embedding
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


def published_names(sam):
    """The same tensors under Segment Anything's names, worked out from its modules.

    Its sequences are numbered: a neck of four, three steps of down- and two of upscaling with
    activations between, MLPs of three layers.
    """
    return (
        published_encoder(sam.vision_encoder)
        | published_prompts(sam.prompt_encoder)
        | published_decoder(sam.mask_decoder)
    )


def test_published_names_are_all_known(sam):
    theirs = published_names(sam)
    renamed = rename_sam(theirs)

    assert is_original(theirs)
    assert not is_original(renamed)
    ours = sam.state_dict()
    assert renamed.keys() == ours.keys()
    position = "positional_embedding"
    assert all(torch.equal(renamed[n], ours[n]) for n in ours if position not in n)
    assert torch.equal(*(renamed[name] for name in ours if position in name))


def test_boxes_are_scaled_and_images_prepared_as_medsam_does(sam, rng):
    """Against the model called by hand; 20 boxes need two calls of the decoder."""
    image = rng.integers(40, 200, (64, 32, 3), dtype=np.uint8)
    segmenter = BoxSegmenter(sam)
    boxes = np.array([[2, 4, 18, 40]] * 20)

    masks = segmenter.masks(segmenter.encode(image), boxes)

    from skimage.transform import resize

    shown = resize(image, (64, 64), order=3, preserve_range=True, anti_aliasing=True)
    shown = np.clip(shown, 0, 255).astype(np.uint8).astype(np.float32)
    shown = (shown - shown.min()) / (shown.max() - shown.min())
    pixels = torch.from_numpy(shown).permute(2, 0, 1)[None]
    with torch.inference_mode():
        answer = sam(
            pixel_values=pixels,
            input_boxes=torch.tensor([[[4.0, 4.0, 34.0, 39.0]]]),
            multimask_output=False,
        ).pred_masks
    large = torch.nn.functional.interpolate(answer[0].sigmoid(), (64, 32), mode="bilinear")
    assert masks.shape == (20, 64, 32)
    assert (masks == (large[0, 0] > 0.5).numpy()).all()
    assert 0 < masks[0].mean() < 1


@pytest.fixture
def items(tmp_path, rng):
    """One image with two labels, one of them in three parts."""
    for part in ("test", "test_mask"):
        (tmp_path / "s" / part).mkdir(parents=True)
    image = tmp_path / "s" / "test" / "a.png"
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(image)
    masks = np.zeros((2, 60, 80), np.uint8)
    masks[0, 5:15, 5:15] = masks[0, 30:42, 40:50] = masks[0, 50:58, 60:79] = 255
    masks[1, 20:50, 10:30] = 255
    masks[1, 25:30, 15:20] = 0
    items = []
    for number, object_type in enumerate(("lymphocyte", "neoplastic")):
        path = tmp_path / "s" / "test_mask" / f"{number}.png"
        Image.fromarray(masks[number]).save(path)
        sentence = f"nuclei-level {object_type} in breast pathology."
        label = f"breast-nuclei-{object_type}"
        items.append(PromptedMask(image, path, (sentence,), label, str(number)))
    return items, masks > 0


def test_a_model_that_fills_its_box_costs_what_the_table_says(items):
    items, masks = items
    config = EvaluationConfig()
    costs = [box_cost(mask) for mask in masks]
    for way in ("union", "instance"):
        model = Filler()

        found = score_boxes(model, questions_of(items, config), config, way)

        assert [s.dice for s in found.samples] == [getattr(c, f"{way}_dice") for c in costs]
        assert model.encoded == 1
        assert not found.problems


def test_other_files_are_named(tmp_path):
    path = tmp_path / "medsam.pth"
    torch.save({"image_encoder.pos_embed": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"medsam\.pth is no Segment Anything.*missing"):
        BoxSegmenter.from_pretrained(path)
    path.write_bytes(b"none")
    with pytest.raises(CheckpointError, match="cannot be read"):
        BoxSegmenter.from_pretrained(path)


def test_it_is_scored_by_the_pipeline(sam, items, tmp_path, load_script, monkeypatch):
    """End to end from a folder of transformers' to columns beside ours."""
    import json

    pipeline = load_script("pipelines/evaluate_segmentor.py")
    monkeypatch.setattr(pipeline, "write_figures", lambda *_, **__: None)
    monkeypatch.setattr(pipeline, "draw_examples", lambda *_: None)
    sam.save_pretrained(tmp_path / "medsam")
    items, _ = items
    index = {
        "images": [{"id": 0, "file_name": "a.png", "mpp": 0.25}],
        "annotations": [
            {"image_id": 0, "mask_file": i.mask.name, "sentences": [{"raw": i.prompts[0]}]}
            for i in items
        ],
    }
    (tmp_path / "s" / "test.json").write_text(json.dumps(index))
    out = tmp_path / "out"

    code = pipeline.main([
        *("--data", str(tmp_path / "s"), "--out", str(out)),
        *("--boxes", f"MedSAM={tmp_path / 'medsam'}"),
    ])

    assert code == 0
    header = (out / "compare_by_structure.csv").read_text().splitlines()[0]
    assert {"MedSAM union", "MedSAM instance"} <= set(header.split(","))
