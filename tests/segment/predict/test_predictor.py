import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from xpath.device import tf32
from xpath.errors import CheckpointError, ConfigError, DataError, ResolutionError
from xpath.labels import load_labels
from xpath.segment.checkpoints.checkpoint import save_segmentor
from xpath.segment.model.variants import build_segmentor
from xpath.segment.predict.images import working_size
from xpath.segment.predict.memory import GIB, WorkingSet, chunks, working_set
from xpath.segment.predict.patch_features import SegmentorEncoder
from xpath.segment.predict.predictor import PredictorConfig, SegmentPredictor
from xpath.segment.predict.recognition import recognise

PROMPTS = [
    "nuclei-level lymphocyte in breast pathology.",
    "tissue-level tumor in breast pathology.",
    "tissue-level necrosis or debris in breast pathology.",
]


def probability(predictor, embedding, prompts, **options):
    return predictor.masks(embedding, prompts, probability=True, **options).probability


def test_prompts_do_not_know_of_each_other(predictor, image):
    embedding = predictor.encode(image)
    together = probability(predictor, embedding, PROMPTS)

    shuffled = probability(predictor, embedding, PROMPTS[::-1])[:, ::-1]
    chunked = probability(predictor, embedding, PROMPTS, chunk=2)
    twice = probability(predictor, embedding, PROMPTS[1:2] * 2)
    np.testing.assert_allclose(shuffled, together, atol=1e-4)
    np.testing.assert_allclose(chunked, together, atol=1e-4)
    np.testing.assert_allclose(twice, together[:, [1, 1]], atol=1e-4)
    assert not np.allclose(together[:, 0], together[:, 1], atol=1e-3)  # words do matter


def test_images_do_not_know_of_each_other(predictor, image):
    other = np.ascontiguousarray(image[::-1])
    pair = probability(predictor, predictor.encode(np.stack([image, other])), PROMPTS)

    for row, single in enumerate((image, other)):
        alone = probability(predictor, predictor.encode(single), PROMPTS)
        np.testing.assert_allclose(pair[row], alone[0], atol=1e-4)


def test_a_small_budget_changes_no_mask(model, tokenizer, info, rng, monkeypatch):
    """With next to no memory: image by image, prompt by prompt, map by map."""
    images = rng.integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    wide = SegmentPredictor(model, tokenizer, info)
    wanted = wide.masks(wide.encode(images), PROMPTS, probability=True)
    small = SegmentPredictor(model, tokenizer, info, config=PredictorConfig(memory_gb=1e-9))
    monkeypatch.setattr("xpath.segment.predict.predictor.PIXELS_ON_CPU", 1)

    found = small.masks(small.encode(images), PROMPTS, probability=True)

    np.testing.assert_allclose(found.probability, wanted.probability, atol=1e-4)
    np.testing.assert_allclose(found.presence, wanted.presence, atol=1e-4)


def test_maps_made_a_few_at_once_land_in_their_places(predictor, rng, monkeypatch):
    """Five images in tiles that do not divide them."""
    images = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    embedding = predictor.encode(images)
    wanted = probability(predictor, embedding, PROMPTS)
    monkeypatch.setattr("xpath.segment.predict.predictor.PIXELS_ON_CPU", 32 * 32 * 6)

    found = probability(predictor, embedding, PROMPTS)

    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_predictor_equals_the_module_called_by_hand(predictor, model, image):
    found = predictor.masks(predictor.encode(image), PROMPTS[:1], probability=True)

    tokens = predictor.tokenizer(PROMPTS[:1])
    with torch.no_grad():
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        logits = model(x, tokens.ids, tokens.mask).logits
        wanted = torch.nn.functional.interpolate(logits, size=(64, 96), mode="bilinear").sigmoid()
    np.testing.assert_allclose(found.probability, wanted.numpy(), atol=1e-5)
    np.testing.assert_array_equal(found.masks, found.probability > 0.5)


def test_logits_are_what_masks_are_made_of(predictor, image):
    embedding = predictor.encode(image)

    logits = predictor.logits(embedding, PROMPTS, chunk=2)

    assert logits.shape == (1, 3, 16, 24)
    masks = predictor.masks(embedding, PROMPTS).masks
    np.testing.assert_array_equal(embedding.enlarge(logits).sigmoid().numpy() > 0.5, masks)


def test_presence_is_the_mean_probability_inside_the_mask(predictor, image):
    found = predictor.masks(predictor.encode(image), PROMPTS, probability=True)

    for p in range(3):
        inside = found.probability[0, p][found.masks[0, p]]
        wanted = inside.mean() if inside.size else 0.0
        assert found.presence[0, p] == pytest.approx(wanted, abs=1e-5)


def test_a_higher_threshold_cuts_at_that_probability(predictor, image):
    embedding = predictor.encode(image)
    values = probability(predictor, embedding, PROMPTS)
    threshold = float(np.median(values))

    found = predictor.masks(embedding, PROMPTS, threshold=threshold)

    np.testing.assert_array_equal(found.masks, values > threshold)
    assert found.probability is None  # only on request: it is large


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (33, 95), (1, 40), (40, 1)])
def test_any_image_size_comes_back_at_its_size(predictor, rng, size):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)

    found = predictor.masks(predictor.encode(image), PROMPTS[:2])

    assert found.masks.shape == (1, 2, *size)


def test_one_pixel_is_an_image(config, tokenizer, info):
    """Group norm wants two values per group: at least two channels where there is one position."""
    model = build_segmentor(replace(config, dim=64))
    predictor = SegmentPredictor(model, tokenizer, info)

    found = predictor.masks(predictor.encode(np.zeros((1, 1, 3), np.uint8)), PROMPTS)

    assert found.masks.shape == (1, 3, 1, 1)


def test_a_blank_patch_is_answered(predictor):
    found = predictor.masks(predictor.encode(np.full((64, 64, 3), 255, np.uint8)), PROMPTS)

    assert np.isfinite(found.presence).all()


def test_no_prompts_give_no_masks(predictor, image):
    found = predictor.masks(predictor.encode(image), [], probability=True)

    assert found.masks.shape == found.probability.shape == (1, 0, 64, 96)
    assert found.presence.shape == (1, 0)
    assert predictor.logits(predictor.encode(image), []).shape == (1, 0, 16, 24)


@pytest.mark.parametrize("mpp", [0.25, 0.7])
def test_images_of_another_resolution_are_resampled(predictor, rng, mpp):
    """The same as resampling by hand, and masks as large as the image."""
    image = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    size = round(90 * mpp / 0.5), round(120 * mpp / 0.5)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    by_hand = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    with torch.inference_mode():
        wanted = predictor.model.encode_image(by_hand).mask_features

    embedding = predictor.encode(image, mpp=mpp)

    assert (embedding.size, embedding.model_size) == ((90, 120), size)
    torch.testing.assert_close(embedding.memory.mask_features, wanted, atol=1e-4, rtol=0)
    assert predictor.masks(embedding, PROMPTS).masks.shape == (1, 3, 90, 120)


def test_the_right_resolution_and_none_leave_pixels_alone():
    assert working_size((50, 70), None, 0.5) == (50, 70)
    assert working_size((50, 70), 0.5, 0.5) == (50, 70)
    assert working_size((50, 70), 0.5003, 0.5) == (50, 70)
    assert working_size((50, 1), 0.25, 0.5) == (25, 1)


@pytest.mark.parametrize("mpp", [40.0, 0.0, -0.5, float("nan"), float("inf")])
def test_a_resolution_that_is_none_is_refused(predictor, image, mpp):
    with pytest.raises(ResolutionError, match="microns per pixel"):
        predictor.encode(image, mpp=mpp)


@pytest.mark.parametrize(
    ("bad", "hint"),
    [
        (np.zeros((64, 64, 3), np.float32), r"uint8.*those in 0\.\.255 with image\.round"),
        (torch.zeros(64, 64, 3), r"uint8.*those in 0\.\.255 with images\.round"),
        (np.full((64, 64, 3), np.nan), "NaN"),
        (np.zeros((64, 64, 4), np.uint8), "images must be"),
        (np.zeros((64, 64), np.uint8), "images must be"),
        (np.zeros((0, 64, 3), np.uint8), "at least one pixel"),
        ([[0, 0, 0]], "uint8 array"),
        ("a.png", r"got str; convert with .*PIL\.Image\.open"),
        (Path("a.png"), r"Path; convert with .*PIL\.Image\.open"),
        (np.ma.masked_equal(np.zeros((8, 8, 3), np.uint8), 0), "masked values"),
        (np.zeros((8, 8), [("r", "u1"), ("g", "u1")]), r"numpy\.stack"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8).to_sparse(), "must be dense"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8, device="meta"), "must be dense"),
    ],
)
def test_images_of_another_kind_are_refused(predictor, bad, hint):
    with pytest.raises(DataError, match=hint):
        predictor.encode(bad)


def test_read_only_and_reversed_arrays_will_do(predictor, image):
    locked = image[:, ::-1]
    locked.flags.writeable = False

    found = predictor.masks(predictor.encode(locked), PROMPTS)

    wanted = predictor.masks(predictor.encode(image[:, ::-1].copy()), PROMPTS)
    np.testing.assert_array_equal(found.masks, wanted.masks)


@pytest.mark.parametrize(
    ("prompts", "hint"), [(["  "], "at least one word"), ("tumor", "list of sentences")]
)
def test_prompts_that_are_none_are_refused(predictor, image, prompts, hint):
    with pytest.raises(DataError, match=hint):
        predictor.masks(predictor.encode(image), prompts)


@pytest.mark.parametrize("options", [{"threshold": 0}, {"threshold": 1.5}, {"chunk": 0}])
def test_requests_that_cannot_be_are_refused(predictor, image, options):
    with pytest.raises(ConfigError):
        predictor.masks(predictor.encode(image), PROMPTS, **options)


@pytest.mark.parametrize("settings", [{"precision": "int8"}, {"memory_gb": 0}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ConfigError):
        PredictorConfig(**settings)


def test_new_words_are_allowed_and_marked(predictor, image, caplog):
    """The weights were taught tumor only. Lymphocyte is published, unicorn is neither."""
    prompts = ["Tissue-level tumor in  breast pathology.", PROMPTS[0], "a unicorn"]
    embedding = predictor.encode(image)

    with caplog.at_level(logging.WARNING):
        found = predictor.masks(embedding, prompts)
        predictor.masks(embedding, prompts)

    assert found.published == (True, True, False)
    assert len(caplog.records) == 1
    assert "not trained on 2 of the prompts" in caplog.text


def test_coupled_prompts_do_know_of_each_other(predictor, image):
    """All at once whatever the chunk, and with one prompt there is nothing to couple."""
    embedding = predictor.encode(image)
    alone = probability(predictor, embedding, PROMPTS[:1])

    coupled = probability(predictor, embedding, PROMPTS, coupled=True, chunk=1)

    assert not np.allclose(coupled[:, 0], alone[:, 0], atol=1e-4)
    single = probability(predictor, embedding, PROMPTS[:1], coupled=True)
    np.testing.assert_allclose(single, alone, atol=1e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.05), ("fp16", 0.005)])
def test_half_precision_gives_nearly_the_same(model, tokenizer, info, image, precision, tolerance):
    """Share of mask pixels that differ: where a query looks next is cut at one half as well."""
    exact = SegmentPredictor(model, tokenizer, info)
    wanted = exact.masks(exact.encode(image), PROMPTS).masks
    half = SegmentPredictor(model, tokenizer, info, config=PredictorConfig(precision=precision))

    embedding = half.encode(image)
    found = half.masks(embedding, PROMPTS).masks

    assert embedding.memory.mask_features.itemsize == 2
    assert half.text(PROMPTS).tokens.dtype == half.logits(embedding, PROMPTS).dtype == torch.float32
    assert (found != wanted).mean() <= tolerance


def test_values_that_are_not_finite_are_never_a_mask(predictor, image):
    with torch.no_grad():
        predictor.model.decoder.mask_projector[-1].bias.fill_(torch.inf)

    with pytest.raises(DataError, match="not finite at fp32"):
        predictor.masks(predictor.encode(image), PROMPTS)


def test_a_recognition_of_no_numbers_is_refused(predictor, image):
    with torch.no_grad():
        predictor.model.decoder.mask_projector[-1].bias.fill_(torch.nan)

    with pytest.raises(DataError, match="not finite at fp32"):
        recognise(predictor, image, region="breast")


def test_images_may_be_tensors(predictor, image):
    wanted = predictor.masks(predictor.encode(image), PROMPTS)
    found = predictor.masks(predictor.encode(torch.from_numpy(image)), PROMPTS)

    np.testing.assert_array_equal(found.masks, wanted.masks)
    with pytest.raises(DataError, match="uint8"):
        predictor.encode(torch.zeros(64, 64, 3))


def test_memory_that_others_hold_is_left_to_them(predictor, image, monkeypatch):
    """Half of it reserved, half as many prompts are decoded at once; all of it, one by one."""
    asked = [f"{word} in breast pathology." for word in "abcdefgh"]
    embedding = predictor.encode(image)
    need = working_set(predictor.model, image.shape[:2], 4).prompt
    monkeypatch.setattr(predictor, "config", PredictorConfig(memory_gb=4.5 * need / GIB))
    sizes = []
    decode = predictor._decode

    def spied(memory, text, **options):
        sizes.append(len(text.sentence))
        return decode(memory, text, **options)

    monkeypatch.setattr(predictor, "_decode", spied)
    wanted = predictor.logits(embedding, asked)
    for reserved in (2.25 * need, 9 * need):
        with predictor.reserving(int(reserved)):
            assert torch.allclose(predictor.logits(embedding, asked), wanted, atol=1e-5)
    predictor.logits(embedding, asked)

    assert sizes == [4, 4] + [2] * 4 + [1] * 8 + [4, 4]


@pytest.mark.parametrize("wanted", [True, False])
def test_float32_is_rounded_on_a_gpu_only_where_it_is_asked_for(wanted):
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrices.allow_tf32, convolutions.allow_tf32
    with tf32(wanted):
        assert (matrices.allow_tf32, convolutions.allow_tf32) == (wanted, wanted)
    assert (matrices.allow_tf32, convolutions.allow_tf32) == before


def test_channels_last_and_compile_change_no_mask(model, tokenizer, info, image, monkeypatch):
    plain = SegmentPredictor(model, tokenizer, info)
    wanted = probability(plain, plain.encode(image), PROMPTS)
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda f: compiled.append(f.__name__) or f)
    config = PredictorConfig(channels_last=True, compile=True)

    fast = SegmentPredictor(model, tokenizer, info, config=config)

    found = probability(fast, fast.encode(image), PROMPTS)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert compiled == ["encode_image", "decode"]
    weight = model.pixel_decoder.mask_features.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def folder(tmp_path, model, config, tokenizer, info):
    save_segmentor(tmp_path / "weights", model, config, tokenizer, info, card="#", half=False)
    return tmp_path / "weights"


def test_prompts_are_encoded_once_ever(folder, image, tmp_path, monkeypatch):
    """A second predictor of the same weights finds them on the disk and needs no text encoder."""
    monkeypatch.setenv("XPATH_CACHE", str(tmp_path / "cache"))
    first = SegmentPredictor.from_pretrained(folder)
    wanted = first.text(PROMPTS)
    second = SegmentPredictor.from_pretrained(folder)
    monkeypatch.setattr(second.model, "encode_text", None)

    found = second.text(PROMPTS)

    for name in ("tokens", "mask", "sentence"):
        assert torch.equal(getattr(found, name), getattr(wanted, name))
    assert len(list((tmp_path / "cache" / "text").rglob("*.safetensors"))) == len(PROMPTS)


def test_the_cache_on_disk_can_be_switched_off(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XPATH_CACHE", str(tmp_path / "cache"))

    SegmentPredictor.from_pretrained(folder, config=PredictorConfig(text_cache=False)).text(PROMPTS)

    assert not (tmp_path / "cache").exists()


def test_a_missing_checkpoint_says_what_is_wanted(tmp_path):
    with pytest.raises(CheckpointError, match="no folder"):
        SegmentPredictor.from_pretrained(tmp_path / "nowhere")


def test_chunks_by_hand():
    """One GiB holds four images of 256 MiB, and at least one of any size."""
    assert chunks(WorkingSet(2**28, 2**20), 1.0) == (4, 1024)
    assert chunks(WorkingSet(2**40, 2**40), 1.0) == (1, 1)


def test_memory_grows_with_the_image_and_shrinks_with_the_type(model):
    small, large = working_set(model, (64, 64), 4), working_set(model, (128, 128), 4)

    assert large.image == pytest.approx(4 * small.image, abs=4)
    assert large.prompt == pytest.approx(4 * small.prompt, abs=4)
    assert working_set(model, (64, 64), 2).image < small.image
    assert working_set(model, (33, 64), 4) == small  # padded


def test_the_encoder_sees_where_things_are(predictor):
    """A change in one corner moves the features there more than far away."""
    images = torch.full((2, 3, 128, 128), 200, dtype=torch.uint8)
    images[1, :, :32, :32] = 20

    maps = SegmentorEncoder(predictor).maps(images)

    assert maps.shape == (2, SegmentorEncoder(predictor).dim, 16, 16)
    change = (maps[1] - maps[0]).norm(dim=0)
    assert change[:4, :4].mean() > 3 * change[12:, 12:].mean()


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 0.005), ("bf16", 0.05), ("fp16", 0.02)]
)
def test_cuda_gives_what_the_cpu_gives(model, tokenizer, info, rng, precision, tolerance):
    """Share of mask pixels that differ. Batches, odd sizes and resampling included."""
    images = rng.integers(0, 256, (2, 90, 70, 3), dtype=np.uint8)
    cpu = SegmentPredictor(model, tokenizer, info)
    wanted = cpu.masks(cpu.encode(images, mpp=0.4), PROMPTS).masks

    config = PredictorConfig(precision=precision, channels_last=True)
    cuda = SegmentPredictor(model, tokenizer, info, device="cuda", config=config)
    found = cuda.masks(cuda.encode(images, mpp=0.4), PROMPTS).masks

    assert (found != wanted).mean() <= tolerance


@pytest.mark.gpu
def test_compiled_gives_what_eager_gives(model, tokenizer, info, image):
    eager = SegmentPredictor(model, tokenizer, info, device="cuda")
    wanted = eager.logits(eager.encode(image), PROMPTS)

    config = PredictorConfig(compile=True)
    compiled = SegmentPredictor(model, tokenizer, info, device="cuda", config=config)

    torch.testing.assert_close(
        compiled.logits(compiled.encode(image), PROMPTS), wanted, atol=2e-3, rtol=1e-3
    )


def test_questions_that_only_look_like_one_are_refused(predictor, image):
    with pytest.raises(DataError, match=r"got ndarray; pass encode\(image\)"):
        predictor.masks(image, PROMPTS)
    embedding = predictor.encode(image)
    label = load_labels().parse("breast stroma")
    with pytest.raises(DataError, match=r"of a label pass \.prompt"):
        predictor.masks(embedding, [label])
    with pytest.raises(DataError, match="sentences, got 3"):
        predictor.logits(embedding, [3])


def test_a_device_that_is_none_is_told():
    with pytest.raises(ConfigError, match=r"device 'gpu' cannot be used .*cpu, cuda"):
        SegmentPredictor.from_pretrained(device="gpu")


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([10_000, 30_000, 65_535], np.uint16), [39, 117, 255]),
        (np.array([0.0, 0.5, 1.0], np.float32), [0, 128, 255]),
        (np.array([False, True, True]), [0, 255, 255]),
    ],
)
def test_the_advice_on_images_of_another_type_is_right_when_followed(predictor, values, wanted):
    image = np.broadcast_to(values, (64, 64, 3))
    with pytest.raises(DataError, match="convert") as refused:
        predictor.encode(image)

    advice = re.search(r"with (.*?)(, those|$)", str(refused.value)).group(1)
    followed = eval(advice, {"image": image, "numpy": np})

    assert followed[0, 0].tolist() == wanted
    predictor.encode(followed)
