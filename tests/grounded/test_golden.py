"""Equality with the published model, on numbers computed with its own code at tiny sizes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from xpath.grounded.checkpoint import GroundedInfo, load_fitting
from xpath.grounded.config import GroundedConfig, GroundingSizes, LanguageSizes, VisionSizes
from xpath.grounded.inference import InterpreterConfig
from xpath.grounded.interpreter import GroundedInterpreter
from xpath.grounded.losses import IGNORED, answer_loss, mask_loss, object_choice
from xpath.grounded.model import empty_grounded
from xpath.grounded.names import published_name, renaming, to_ours, to_published
from xpath.grounded.prompts import END, EVALUATION, TRAINING, GroundedTokenizer, visual_prompt
from xpath.grounded.tiles import pixels_of, tile_count

CASES = ("segment", "segment_newline", "report_two_masks", "disease", "region", "tiles_wide")
FORCED = ("segment", "report_two_masks", "tiles_wide")
CLOSE = {"atol": 1e-4, "rtol": 0}


def sizes(numbers):
    vision, language, sam = numbers["vision"], numbers["language"], numbers["sam2"]
    return GroundedConfig(
        vision=VisionSizes(
            width=vision["hidden"],
            layers=vision["layers"],
            heads=vision["heads"],
            hidden=vision["intermediate"],
        ),
        language=LanguageSizes(
            width=language["hidden"],
            layers=language["layers"],
            heads=language["heads"],
            kv_heads=language["kv_heads"],
            hidden=language["intermediate"],
            vocabulary=language["vocab"],
        ),
        grounding=GroundingSizes(
            image=sam["image_size"],
            width=sam["fpn_and_decoder_width"],
            embed=sam["hiera_embed"],
            heads=sam["heads"][0],
            blocks=tuple(sam["stages"]),
            windows=tuple(sam["windows"]),
            global_blocks=tuple(sam["global_blocks"]),
        ),
    )


class Golden:
    """The folder, and the model it was computed with."""

    def __init__(self, folder):
        self.folder = folder
        self.cases = json.loads((folder / "cases.json").read_text())
        self.wanted = load_file(folder / "activations.safetensors")
        self.config = sizes(self.cases["_config"])
        self.tokenizer = GroundedTokenizer.from_folder(folder)
        model = empty_grounded(self.config, image_token=self.tokenizer.context)
        weights = folder / "weights_original_names.safetensors"
        load_fitting(model, load_file(weights), weights)
        info = GroundedInfo(name="tiny", licence=None)
        config = InterpreterConfig(max_tokens=64)
        self.interpreter = GroundedInterpreter(model, self.tokenizer, info, config=config)
        self.model = self.interpreter.model

    def image(self, name):
        return np.asarray(Image.open(self.folder / self.cases[name]["image"]).convert("RGB"))

    def question(self, name):
        return self.cases[name]["text"].removeprefix("<image>")

    def mask(self, name, number, shape):
        bits = self.wanted[f"{name}.mask{number}.final_bits"].numpy()
        return np.unpackbits(bits)[: shape[0] * shape[1]].reshape(shape).astype(bool)


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden" / "unibiomed"
    if not folder.is_dir():
        pytest.skip(f"no golden numbers of the grounded model: {folder} is not a folder")
    return Golden(folder)


@pytest.mark.parametrize("name", [*CASES, "tiles_big"])
def test_pixels_are_equal(golden, name):
    case = golden.cases[name]

    pixels = pixels_of(golden.image(name), golden.config)

    assert len(pixels.tiles) == case["tiles"]
    assert torch.equal(pixels.tiles[:, :, ::28, ::28], golden.wanted[f"{name}.pixel_values_16"])
    assert float(pixels.tiles.double().sum()) == pytest.approx(case["pixel_values_sum"], rel=1e-9)
    if f"{name}.sam_pixels_16" in golden.wanted:
        square = pixels.square[None, :, ::16, ::16]
        assert torch.equal(square, golden.wanted[f"{name}.sam_pixels_16"])


def test_every_byte_of_small_tiles_is_equal(golden):
    wanted = load_file(golden.folder / "preprocessing.safetensors")
    image = np.asarray(Image.open(golden.folder / "images/small300x190.png").convert("RGB"))
    config = GroundedConfig(vision=VisionSizes(tile=56), grounding=GroundingSizes(image=96))

    pixels = pixels_of(image, config, max_tiles=4)

    mean = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
    std = torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    tiles = ((pixels.tiles * std + mean) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    square = ((pixels.square * std + mean) * 255).round().to(torch.uint8).permute(1, 2, 0)
    assert torch.equal(tiles, wanted["tiles_56"])
    assert torch.equal(square, wanted["direct_resize_96"])


def test_tiles_of_image_sizes(golden):
    table = json.loads((golden.folder / "tiling.json").read_text())
    for size, wanted in table.items():
        width, height = map(int, size.split("x"))
        count = tile_count(height, width)
        assert (count, 256 * count) == (wanted["tiles_with_thumbnail"], wanted["image_tokens"]), (
            size
        )


@pytest.mark.parametrize("name", [*CASES, "tiles_big"])
def test_prompts_are_equal(golden, name):
    case = golden.cases[name]
    before, after = EVALUATION.before(case["image_tokens"]), EVALUATION.after(golden.question(name))

    ids = golden.tokenizer.ids(before) + golden.tokenizer.ids(after)

    assert len(ids) == case["prompt_length"]
    assert ids.count(golden.tokenizer.context) == case["image_tokens"]
    words = [one for one in ids if one != golden.tokenizer.context]
    assert words == case["prompt_ids_without_image"]


def test_prompts_of_training_are_equal(golden):
    case, tokens = golden.cases["training_example"], golden.tokenizer
    question = case["question"].removeprefix("<image>\n")

    prompt = tokens.ids(TRAINING.before(256) + TRAINING.after(question))

    assert [it for it in prompt if it != tokens.context] == case["prompt_ids_without_image"]
    assert tokens.ids(case["answer"] + END) == case["answer_ids"]


def test_visual_prompts_are_equal(golden):
    case, tokens = golden.cases["visual_prompts"], golden.tokenizer
    grid = golden.wanted["visual_prompts.region_grid"].bool().numpy()
    after = visual_prompt(grid) + EVALUATION.after(golden.question("visual_prompts"))

    ids = tokens.ids(EVALUATION.before(256)) + tokens.ids(after)

    assert len(ids) == case["prompt_length"]
    assert [it for it in ids if it != tokens.context] == case["prompt_ids_without_image"]


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_every_stage_is_equal(golden, name):
    model, wanted = golden.model, golden.wanted
    pixels = pixels_of(golden.image(name), golden.config)
    tokens = model.image_tokens(pixels.tiles)
    every = 16 if len(tokens) > 1 else 1
    torch.testing.assert_close(tokens[:, ::every], wanted[f"{name}.image_tokens"], **CLOSE)

    embedding = golden.interpreter.encode(golden.image(name))
    generated = torch.tensor([golden.cases[name]["generated_ids"]])
    tail = golden.interpreter._run.embed(
        embedding.items[0], EVALUATION.after(golden.question(name))
    )
    whole = torch.cat((tail, model.embed(generated[:, :-1])), dim=1)
    states = golden.interpreter._run.states(embedding.items[0], whole)[0, tail.shape[1] - 1 :]
    torch.testing.assert_close(states, wanted[f"{name}.hidden_answer"], **CLOSE)

    pointing = states[1:][generated[0, :-1] == golden.tokenizer.seg]
    if not len(pointing):
        assert f"{name}.seg_hidden" not in wanted
        return
    torch.testing.assert_close(pointing, wanted[f"{name}.seg_hidden"], **CLOSE)
    torch.testing.assert_close(model.projection(pointing), wanted[f"{name}.seg_embedding"], **CLOSE)
    drawn = model.draw(embedding.items[0].maps, pointing[None])
    for number, chosen in enumerate(golden.cases[name]["chosen"]):
        logits = wanted[f"{name}.mask{number}.logits3"][0, chosen]
        torch.testing.assert_close(drawn.logits[0, number], logits, atol=1e-3, rtol=0)
        best = wanted[f"{name}.mask{number}.iou3"][0, chosen]
        torch.testing.assert_close(drawn.iou[0, number], best, **CLOSE)


@pytest.mark.parametrize("name", ["segment", "report_two_masks", "tiles_wide"])
@torch.inference_mode()
def test_maps_of_sam_are_equal(golden, name):
    found = golden.model.image_maps(pixels_of(golden.image(name), golden.config).square[None])

    memory = golden.model.sam.no_memory_embedding.reshape(1, -1, 1, 1)
    maps = (found[0][..., ::4, ::4], found[1][..., ::4, ::4], found[2] - memory)
    for level, one in enumerate(maps):
        torch.testing.assert_close(one, golden.wanted[f"{name}.sam_fpn{level}"], **CLOSE)


@pytest.mark.parametrize("name", [*CASES, "visual_prompts", "text_only"])
def test_answers_are_equal(golden, name):
    case, interpreter = golden.cases[name], golden.interpreter
    embedding = interpreter.encode(golden.image(name)) if case["image"] else None
    grid = golden.wanted.get(f"{name}.region_grid")
    regions = None if grid is None else grid.bool().numpy()

    answer = interpreter.answer(embedding, golden.question(name), regions=regions)

    assert answer.text + END == case["prediction"]
    assert golden.tokenizer.ids(answer.text + END) == case["generated_ids"]
    assert answer.complete
    assert len(answer.masks) == case["masks"]
    for number, mask in enumerate(answer.masks):
        assert np.count_nonzero(mask != golden.mask(name, number, mask.shape)) <= 3
    assert [span.mask for span in answer.spans] == list(range(len(answer.spans)))


@pytest.mark.parametrize("name", ["segment", "tiles_wide"])
def test_one_pass_gives_the_mask_of_generation(golden, name):
    embedding = golden.interpreter.encode(golden.image(name))

    found = golden.interpreter.masks(embedding, ["lymphocyte", "Tumor in breast pathology."])

    mask = found.masks[0, 1]
    assert np.count_nonzero(mask != golden.mask(name, 0, mask.shape)) <= 3


def test_a_region_is_named(golden):
    """The drawn box of the golden case is made here, from the same numbers."""
    plain = np.asarray(Image.open(golden.folder / "images/square448.png").convert("RGB"))
    box = tuple(golden.cases["boxed448"]["box_xywh"])

    [answer] = golden.interpreter.regions(golden.interpreter.encode(plain), [box])

    assert answer.text + END == golden.cases["region"]["prediction"]
    assert answer.finding == "gland in pathology"


@pytest.mark.parametrize("name", FORCED)
@torch.inference_mode()
def test_language_losses_are_equal(golden, name):
    case, model = golden.cases[name], golden.model
    forced, count = case["forced"], case["image_tokens"]
    text = EVALUATION.before(count) + EVALUATION.after(golden.question(name))
    prompt = golden.tokenizer.ids(text)
    ids = torch.tensor([prompt + forced["answer_ids"]])
    labels = torch.tensor([[IGNORED] * len(prompt) + forced["answer_ids"]])
    tokens = model.image_tokens(pixels_of(golden.image(name), golden.config).tiles)
    states = model.states(model.embed(ids, tokens)).last_hidden_state

    loss = answer_loss(states, labels, model.internvl.lm_head)

    assert float(loss) == pytest.approx(forced["llm_loss"], abs=1e-5)
    logits = model.internvl.lm_head(states[0, len(prompt) - 1 :])
    torch.testing.assert_close(logits, golden.wanted[f"{name}.forced.logits_answer"], **CLOSE)


def test_mask_losses_are_equal(golden):
    case = json.loads((golden.folder / "losses.json").read_text())
    wanted = load_file(golden.folder / "losses.safetensors")
    chosen = object_choice([0, 0], torch.Generator())
    assert chosen == case["order_after_repetition"]

    found = mask_loss(
        wanted["mask_logits"][chosen], wanted["ground_truth"][chosen], wanted["points_512"]
    )

    assert float(found.bce) == pytest.approx(case["loss_mask"], abs=1e-5)
    assert float(found.dice) == pytest.approx(case["loss_dice"], abs=1e-5)


@pytest.fixture(scope="module")
def full(shared):
    path = shared / "golden" / "unibiomed" / "checkpoint_names.json"
    if not path.is_file():
        pytest.skip(f"no names of the published checkpoint: {path} is not a file")
    content = json.loads(path.read_text())
    with torch.device("meta"):
        theirs = {name: torch.empty(shape) for name, shape in content["shapes"].items()}
    return content, theirs, empty_grounded(GroundedConfig(), image_token=151667).state_dict()


def test_the_name_map_is_total_in_both_directions_at_full_size(full):
    _, theirs, ours = full
    names = renaming(theirs)

    assert len(theirs) == 1541 == len(names.ours) + sum(names.left_out.values())
    assert {name: it.shape for name, it in to_ours(theirs).items()} == {
        name: it.shape for name, it in ours.items()
    }
    kept = {name: it.shape for name, it in theirs.items() if name in names.ours}
    assert {name: it.shape for name, it in to_published(ours).items()} == kept
    assert all(published_name(name) for name in ours)


def test_the_full_size_has_the_published_number_of_parameters(full):
    content, theirs, _ = full
    used = renaming(theirs).ours
    video = sum(it.numel() for name, it in theirs.items() if name not in used)
    model = empty_grounded(GroundedConfig(), image_token=151667)

    assert sum(it.numel() for it in model.parameters()) + video == 1_163_665_458
    assert content["total_parameters"] == 1_163_665_458
    parts = content["by_part"]
    assert sum(it.numel() for it in model.projection.parameters()) == parts["text_hidden_fcs"]
    assert sum(it.numel() for it in model.internvl.parameters()) == (
        parts["vision_model"] + parts["language_model"] + parts["mlp1"]
    )
