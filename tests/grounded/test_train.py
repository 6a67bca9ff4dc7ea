import copy
import dataclasses
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from xpath.errors import CheckpointError, ConfigError, MissingDependencyError
from xpath.grounded.config import GroundedConfig
from xpath.grounded.lora import LoraSizes, add_lora, merged_state, trained
from xpath.grounded.model import empty_grounded
from xpath.grounded.samples import GroundedSamples, SampleConfig, batches
from xpath.grounded.tasks import Annotation
from xpath.grounded.train import GroundedTrainConfig, GroundedTrainer, learning_rate

from .conftest import tiny_model

LORA = LoraSizes(rank=4, alpha=8)
CONFIG = GroundedTrainConfig(steps=50, lr=5e-3)


@pytest.fixture(scope="module")
def samples(tokenizer, image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotated")
    mask = np.zeros(image.shape[:2], np.uint8)
    rows, columns = np.ogrid[:100, :140]
    mask[(rows - 50) ** 2 + (columns - 60) ** 2 < 400] = 255
    Image.fromarray(image).save(folder / "a.png")
    Image.fromarray(mask).save(folder / "m.png")
    disc = Annotation(folder / "a.png", folder / "m.png", ("disc",))
    shown = [("segment", disc), ("disease", disc), ("region", disc)]
    config = SampleConfig(max_tiles=1, repeat=False)
    return GroundedSamples(shown, tiny_model(tokenizer).config, tokenizer, config)


@pytest.fixture
def trainer(tokenizer):
    return GroundedTrainer(tiny_model(tokenizer), tokenizer.seg, CONFIG, lora=LORA)


def steps(samples, numbers, tokenizer, accumulate=1):
    return batches(samples, numbers, size=3, accumulate=accumulate, pad=tokenizer.pad)


def test_fifty_steps_lower_the_loss_in_all_its_parts(trainer, samples, tokenizer):
    losses = [torch.stack(trainer(batch).loss) for batch in steps(samples, range(50), tokenizer)]

    early, late = torch.stack(losses[:5]).mean(dim=0), torch.stack(losses[-5:]).mean(dim=0)
    assert (late < 0.7 * early).all(), (early, late)
    assert trainer.step == 50


def test_a_resumed_training_is_the_same_to_the_bit(trainer, samples, tokenizer):
    todo = list(steps(samples, range(6), tokenizer))
    for batch in todo[:3]:
        trainer(batch)
    state = copy.deepcopy(trainer.state())
    wanted = [trainer(batch).loss.total for batch in todo[3:]]

    again = GroundedTrainer(tiny_model(tokenizer), tokenizer.seg, CONFIG, lora=LORA)
    again.resume(state)
    found = [again(batch).loss.total for batch in todo[3:]]

    assert found == wanted
    ours, theirs = trained(trainer.model), trained(again.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_frozen_stays(trainer, samples, tokenizer):
    before = copy.deepcopy(trainer.model.state_dict())
    for batch in steps(samples, range(2), tokenizer):
        trainer(batch)

    changed = {
        name for name, it in trainer.model.state_dict().items() if not torch.equal(it, before[name])
    }
    assert not [name for name in changed if "vision_tower" in name or "vision_encoder" in name]
    assert not [name for name in changed if "base_layer" in name]
    for part in ("lora_A", "lora_B", "lm_head", "embed_tokens", "projector", "projection.2"):
        assert any(part in name for name in changed), part
    assert any(name.startswith("sam.mask_decoder.") for name in changed)
    assert any(name.startswith("sam.prompt_encoder.") for name in changed)


def test_accumulated_batches_count_alike(tokenizer, samples):
    """The gradient of two equal batches is that of one; without dropout and points at random."""
    lora = dataclasses.replace(LORA, dropout=0.0)
    [[batch]] = steps(samples, range(1), tokenizer)
    batch = batch._replace(labels=torch.where(batch.labels == tokenizer.seg, -100, batch.labels))
    once = GroundedTrainer(tiny_model(tokenizer), tokenizer.seg, CONFIG, lora=lora)
    twice = GroundedTrainer(tiny_model(tokenizer), tokenizer.seg, CONFIG, lora=lora)

    one, two = once([batch]), twice([batch, batch])

    assert float(one.loss.total) == pytest.approx(float(two.loss.total))
    assert float(one.gradient) == pytest.approx(float(two.gradient), rel=1e-4)
    assert float(one.loss.bce) == 0


def test_adapters_change_nothing_until_they_are_trained(tokenizer, samples, trainer):
    state, plain = merged_state(trainer.model), tiny_model(tokenizer).state_dict()

    assert state.keys() == plain.keys()
    assert all(torch.equal(state[name], it) for name, it in plain.items())


def test_merged_weights_answer_as_the_model_with_adapters(trainer, samples, tokenizer):
    for batch in steps(samples, range(3), tokenizer):
        trainer(batch)
    merged = tiny_model(tokenizer)
    merged.load_state_dict(merged_state(trainer.model))
    adapted = trainer.model.eval()
    embeds = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        found = merged.states(embeds).last_hidden_state
        wanted = adapted.states(embeds).last_hidden_state
        plain = tiny_model(tokenizer).states(embeds).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (plain - wanted).abs().max() > 1e-3


def test_adapters_of_the_full_size_have_the_published_number_of_parameters():
    model = empty_grounded(GroundedConfig(), image_token=151667)
    with torch.device("meta"):
        add_lora(model, LoraSizes())

    adapters = [it.numel() for name, it in trained(model).items() if ".lora_" in name]
    assert sum(adapters) == 70_385_664


def test_the_rate_rises_linearly_and_falls_as_a_cosine():
    config = GroundedTrainConfig(steps=100, lr=1.0, warmup=0.1)

    rates = [learning_rate(step, config) for step in range(101)]

    assert rates[0] == pytest.approx(1e-5)
    assert rates[5] == pytest.approx(0.5, abs=1e-5)
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


def test_a_step_in_bf16_is_near_one_in_fp32(tokenizer, samples):
    [batch] = steps(samples, range(1), tokenizer)
    losses = {}
    for precision in ("fp32", "bf16"):
        config = dataclasses.replace(CONFIG, precision=precision)
        trainer = GroundedTrainer(tiny_model(tokenizer), tokenizer.seg, config, lora=LORA)
        losses[precision] = float(trainer(batch).loss.language)

    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


def test_without_peft_it_says_what_to_install(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match=r"xpath-pathology\[grounded\]"):
        add_lora(tiny_model(tokenizer), LORA)


def test_refusals(trainer):
    state = trainer.state()
    with pytest.raises(CheckpointError, match="other trained parameters"):
        trainer.resume(state | {"trained": {}})
    with pytest.raises(ConfigError, match="at least 1 step"):
        GroundedTrainConfig(steps=0)
    with pytest.raises(ConfigError, match="fp32 or bf16"):
        GroundedTrainConfig(precision="fp16")
