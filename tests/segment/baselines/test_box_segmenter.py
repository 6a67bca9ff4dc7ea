"""Box-prompted models: MedSAM's names and preparation, and the protocol of boxes."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from xpath.errors import CheckpointError
from xpath.metrics.boxes import box_cost, fill_boxes
from xpath.pathseg.biomedparse_data import PromptedMask
from xpath.segment.baselines.box_segmenter import BoxSegmenter, score_boxes
from xpath.segment.baselines.sam_names import is_original, rename_sam
from xpath.segment.baselines.sam_recipes import MedSam, PlainSam, SamMed2d
from xpath.segment.baselines.sam_weights import Adapter, add_adapters, config_of
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


@pytest.fixture
def image(rng):
    return rng.integers(40, 200, (64, 32, 3), dtype=np.uint8)


@pytest.fixture
def boxes():
    return np.array([[2, 4, 18, 40], [0, 0, 32, 64]])


def test_published_names_are_all_known(sam, published_names):
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


def test_each_model_is_shown_its_own_square(image):
    """MedSAM's least to largest value, SAM-Med2D's nearest pixels, SAM's own processor."""
    from transformers import SamImageProcessorPil

    tall = np.concatenate((image, image[::-1]))  # 128 pixels high, 32 wide

    own = MedSam().pixels(tall, 64)
    nearest = tall[::2, np.arange(64) // 2]
    wanted = (nearest - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    processor = SamImageProcessorPil(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}
    )
    shown = processor(tall, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)

    assert (own.min(), own.max(), own.shape) == (0, 1, (64, 64, 3))
    assert np.allclose(SamMed2d().pixels(tall, 64), wanted, atol=1e-6)
    assert np.allclose(PlainSam().pixels(tall, 64), shown, atol=1e-5)
    assert not PlainSam().pixels(tall, 64)[:, 16:].any()
    assert PlainSam().scale((128, 32), 64) == (0.5, 0.5)
    assert SamMed2d().scale((128, 32), 64) == MedSam().scale((128, 32), 64) == (2, 0.5)


@pytest.mark.parametrize(
    ("side", "vision"),
    [
        (1024, {}),
        (256, {}),
        (1024, {
            "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16,
            "global_attn_indexes": [7, 15, 23, 31],
        }),
    ],
)  # fmt: skip
def test_published_sizes_are_told_by_their_shapes(published_names, side, vision):
    """MedSAM's ViT-B, SAM-Med2D's at 256 pixels, and ViT-H."""
    from transformers import SamConfig, SamModel

    wanted = SamConfig(
        vision_config=vision | {"image_size": side}, prompt_encoder_config={"image_size": side}
    )
    with torch.device("meta"):
        state = rename_sam(published_names(SamModel(wanted)))
        built = SamModel(config_of(state))

    assert {k: v.shape for k, v in built.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    for name in ("num_attention_heads", "global_attn_indexes", "image_size", "window_size"):
        configs = (built.config.vision_config, wanted.vision_config)
        ours, theirs = (getattr(config, name) for config in configs)
        assert np.array_equal(ours, theirs)
    assert built.config.mask_decoder_config.num_attention_heads == 8


def saved(state, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": state}, path)
    return path


def test_a_published_file_answers_as_the_model_it_was_made_of(
    sam, published_names, tmp_path, image, boxes
):
    path = saved(published_names(sam), tmp_path)

    read, direct = BoxSegmenter.from_pretrained(path), BoxSegmenter(sam)

    wanted = direct.masks(direct.encode(image), boxes)
    assert (read.masks(read.encode(image), boxes) == wanted).all()
    assert 0 < wanted.mean() < 1


def adapted_by_hand(tokens, adapter):
    """SAM-Med2D's adapter in loops and plain formulas, of its own weights."""
    names = {name: value.detach().double() for name, value in adapter.state_dict().items()}
    tokens = tokens.double()
    hidden = (tokens.mean(dim=(0, 1)) @ names["channel.0.weight"].T).clamp(min=0)
    gate = 1 / (1 + (-(hidden @ names["channel.2.weight"].T)).exp())
    gated = tokens * gate
    height, width, features = tokens.shape
    down = torch.zeros(height // 2, width // 2, features, dtype=torch.double)
    kernel = names["spatial.0.weight"]
    for y, x, v, u in itertools.product(*map(range, (*down.shape[:2], 3, 3))):
        row, column = 2 * y + v - 1, 2 * x + u - 1
        if 0 <= row < height and 0 <= column < width:
            down[y, x] += kernel[:, :, v, u] @ gated[row, column]
    up, kernel = torch.zeros_like(gated), names["spatial.2.weight"]
    for y, x, v, u in itertools.product(*map(range, (*down.shape[:2], 4, 4))):
        row, column = 2 * y + v - 1, 2 * x + u - 1
        if 0 <= row < height and 0 <= column < width:
            up[row, column] += down[y, x].clamp(min=0) @ kernel[:, :, v, u]
    total = tokens + up.clamp(min=0)
    spread = (total.var(dim=-1, correction=0, keepdim=True) + 1e-5).sqrt()
    normal = (total - total.mean(dim=-1, keepdim=True)) / spread
    return normal * names["norm.weight"] + names["norm.bias"]


def test_adapters_of_sam_med2d_are_as_published():
    torch.manual_seed(1)
    adapter = Adapter(8)
    torch.nn.init.normal_(adapter.norm.weight)
    tokens = torch.randn(4, 6, 8)

    with torch.no_grad():
        ours = adapter(tokens[None])[0]

    assert torch.allclose(ours.double(), adapted_by_hand(tokens, adapter), atol=1e-5)


@pytest.fixture
def med2d(sam):
    """The tiny model with adapters."""
    adapted = copy.deepcopy(sam)
    torch.manual_seed(2)
    add_adapters(adapted)
    return adapted.eval()


def test_sam_med2d_is_told_by_its_adapters(med2d, published_names, tmp_path, image, boxes):
    """Nearest pixels, ImageNet's normalisation, the best of three masks, enlarged in two steps."""
    image = np.concatenate((image, image[::-1]))  # 128 pixels high, 32 wide
    segmenter = BoxSegmenter.from_pretrained(saved(published_names(med2d), tmp_path))

    masks = segmenter.masks(segmenter.encode(image), boxes)

    nearest = image[::2, np.arange(64) // 2]
    shown = (nearest - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    with torch.inference_mode():
        answer = med2d(
            pixel_values=torch.from_numpy(shown).float().permute(2, 0, 1)[None],
            input_boxes=torch.tensor([[[4.0, 2.0, 34.0, 19.5], [0.0, 0.0, 62.0, 31.5]]]),
            multimask_output=True,
        )
    for number, guess in enumerate(answer.iou_scores[0]):
        logits = answer.pred_masks[0, number, guess.argmax()][None, None]
        for size in ((64, 64), (128, 32)):
            logits = torch.nn.functional.interpolate(logits, size, mode="bilinear")
        assert (masks[number] == (logits[0, 0] > 0).numpy()).all()
    assert 0 < masks.mean() < 1


def test_segment_anything_itself_is_prepared_as_its_own_processor_does(sam, tmp_path, image, boxes):
    from transformers import SamImageProcessorPil

    sam.save_pretrained(tmp_path / "sam")
    segmenter = BoxSegmenter.from_pretrained(f"sam:{tmp_path / 'sam'}")

    masks = segmenter.masks(segmenter.encode(image), boxes)

    processor = SamImageProcessorPil(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}
    )
    shown = processor(image, return_tensors="pt")
    with torch.inference_mode():
        answer = sam(
            pixel_values=shown["pixel_values"],
            input_boxes=torch.tensor([[[2.0, 4.0, 17.0, 39.0], [0.0, 0.0, 31.0, 63.0]]]),
            multimask_output=False,
        )
    (wanted,) = processor.post_process_masks(
        answer.pred_masks,
        shown["original_sizes"],
        shown["reshaped_input_sizes"],
        pad_size={"height": 64, "width": 64},
    )
    assert (masks == wanted[:, 0].numpy()).all()
    assert 0 < masks.mean() < 1


def test_other_files_are_named(sam, published_names, tmp_path):
    """Of a damaged file, another model's, and one with a tensor of another shape."""
    path = tmp_path / "medsam.pth"
    torch.save({"image_encoder.pos_embed": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"medsam\.pth is no Segment Anything"):
        BoxSegmenter.from_pretrained(path)
    torch.save({"weights": [1, 2]}, path)
    with pytest.raises(CheckpointError, match="holds no state dict"):
        BoxSegmenter.from_pretrained(path)
    path.write_bytes(b"none")
    with pytest.raises(CheckpointError, match="cannot be read"):
        BoxSegmenter.from_pretrained(path)

    state = published_names(sam)
    state["mask_decoder.mask_tokens.weight"] = torch.zeros(5, 16)
    with pytest.raises(
        CheckpointError,
        match=r"mask_tokens.weight is \(5, 16\), wanted \(4, 16\) \(1 differences\)",
    ):
        BoxSegmenter.from_pretrained(saved(state, tmp_path))


def test_it_is_scored_by_the_pipeline(sam, items, tmp_path, load_script, monkeypatch):
    """End to end from a folder of transformers' to columns beside ours."""
    import json

    pipeline = load_script("pipelines/evaluate_segmentor.py")
    monkeypatch.setattr(pipeline, "write_figures", lambda *_, **__: None)
    monkeypatch.setattr(pipeline, "draw_examples", lambda *_: None)
    monkeypatch.setattr(pipeline, "write_comparison_figures", lambda *_: None)
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
