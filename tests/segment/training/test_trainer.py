import pytest
import torch

from xpath.errors import DataError
from xpath.segment.model.variants import build_segmentor
from xpath.segment.training.losses import UNKNOWN
from xpath.segment.training.trainer import TrainBatch, TrainConfig, Trainer, learning_rate


@pytest.fixture
def batch(tokenizer):
    """A dark square is the tumour. There is no necrosis."""
    images = torch.full((2, 3, 64, 64), 230, dtype=torch.uint8)
    target = torch.zeros(2, 2, 64, 64, dtype=torch.uint8)
    for row, side in enumerate((slice(8, 40), slice(24, 56))):
        images[row, :, side, side] = 60
        target[row, 0, side, side] = 1
    tokens = tokenizer([
        "tissue-level tumor in breast pathology.",
        "tissue-level necrosis or debris in breast pathology.",
    ])
    expanded = (2, -1, -1)
    return TrainBatch(images, tokens.ids.expand(expanded), tokens.mask.expand(expanded), target)


def test_training_learns_what_is_there_and_what_is_not(model, batch):
    trainer = Trainer(model, TrainConfig(steps=60, lr=3e-3, warmup=5))

    losses = [float(trainer(batch).loss.total) for _ in range(60)]

    model.load_state_dict(trainer.averaged())
    answer = model.eval()(batch.images.float(), batch.ids[0], batch.mask[0])
    found = torch.nn.functional.interpolate(answer.logits, scale_factor=4, mode="bilinear") > 0
    truth = batch.target[:, 0].bool()
    overlap = (found[:, 0] & truth).sum() / (found[:, 0] | truth).sum()
    assert losses[-1] < 0.4 * losses[0]
    assert overlap > 0.7
    assert found[:, 1].float().mean() < 0.02


def test_the_rate_rises_then_falls_to_zero():
    config = TrainConfig(steps=100, lr=1.0, warmup=10)

    assert learning_rate(0, config) == pytest.approx(0.1)
    assert learning_rate(50, config) == pytest.approx(0.5)
    assert learning_rate(100, config) == pytest.approx(0.0)


def test_parts_learn_at_shares_of_the_rate(model, batch):
    """The first step of AdamW moves every weight by the rate, whatever its gradient."""
    config = TrainConfig(lr=1e-3, warmup=1, text_lr=0.25, weight_decay=0.0)
    before = {name: value.clone() for name, value in model.named_parameters()}

    Trainer(model, config)(batch)

    moved = {name: (p - before[name]).abs().max().item() for name, p in model.named_parameters()}
    text = [size for name, size in moved.items() if name.startswith("text_encoder.")]
    others = [size for name, size in moved.items() if name.startswith("decoder.layers.")]
    assert max(text) == pytest.approx(0.25e-3, rel=0.01)
    assert max(others) == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_a_resumed_training_is_the_undisturbed_one(config, batch, drop_path):
    settings = TrainConfig(steps=6, lr=1e-3, warmup=2)
    fresh = [same_start(config, settings, drop_path=drop_path) for _ in range(3)]
    whole, first, second = fresh

    for _ in range(6):
        whole(batch)
    for _ in range(3):
        first(batch)
    second.resume(first.state())
    torch.rand(7)  # as a validation in between would
    for _ in range(3):
        second(batch)

    for name, value in whole.averaged().items():
        assert torch.equal(value, second.averaged()[name]), name
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_what_is_dropped_follows_from_seed_step_and_process(config, batch):
    def losses(seed=0, rank=0):
        settings = TrainConfig(steps=9, lr=0.0, ema=0.0, seed=seed)  # the weights stay
        trainer = same_start(config, settings, drop_path=0.5)
        trainer._rank = rank
        return [float(trainer(batch).loss.total) for _ in range(4)]

    first = losses()
    assert len(set(first)) > 1
    assert first == losses()
    assert first != losses(seed=1)
    assert first != losses(rank=1)


def test_the_global_random_state_is_left_as_it_was(config, batch):
    trainer = same_start(config, TrainConfig(steps=5), drop_path=0.5)
    before = torch.get_rng_state()

    trainer(batch)

    assert torch.equal(torch.get_rng_state(), before)


def test_parts_of_a_batch_add_up_to_the_whole(config, batch):
    """Two halves one after the other: the same step up to rounding."""
    settings = TrainConfig(steps=5, lr=1e-3)
    whole = same_start(config, settings)
    halves = same_start(config, TrainConfig(steps=5, lr=1e-3, accumulate=2))

    one, two = whole(batch), halves(batch)

    assert float(one.loss.total) == pytest.approx(float(two.loss.total), rel=1e-5)
    assert float(one.gradient) == pytest.approx(float(two.gradient), rel=1e-4)


def test_a_batch_that_cannot_be_split_is_refused(config, batch):
    trainer = same_start(config, TrainConfig(steps=5, accumulate=3))

    with pytest.raises(DataError, match="3 equal parts"):
        trainer(batch)


def test_the_average_starts_with_the_weights_and_lags_behind(config, batch):
    """After the first step the decay is (1 + 1) / (10 + 1)."""
    trainer = same_start(config, TrainConfig(steps=5, lr=1e-2, warmup=0, ema=0.999))
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}

    trainer(batch)

    for name, now in trainer.model.named_parameters():
        wanted = before[name] * 2 / 11 + now * 9 / 11
        torch.testing.assert_close(trainer.average[name], wanted.detach(), atol=1e-6, rtol=1e-5)


def test_unknown_pixels_teach_nothing(config, batch):
    """Whatever is written under the unknown part, the step is the same."""
    part = batch.target.clone()
    part[..., :20] = UNKNOWN
    one, two = (same_start(config, TrainConfig(steps=5)) for _ in range(2))
    changed = batch.target.clone()
    changed[..., :20] = 1 - changed[..., :20]
    changed[..., :20] = UNKNOWN

    first, second = one(batch._replace(target=part)), two(batch._replace(target=changed))

    assert float(first.loss.total) == float(second.loss.total)
    assert float(first.loss.bce) != float(same_start(config, TrainConfig())(batch).loss.bce)


def test_bf16_trains(config, batch):
    trainer = same_start(config, TrainConfig(steps=30, lr=3e-3, warmup=3, precision="bf16"))

    losses = [float(trainer(batch).loss.total) for _ in range(30)]

    assert losses[-1] < 0.8 * losses[0]


def same_start(config, settings, *, drop_path=0.0, device="cpu"):
    torch.manual_seed(11)
    model = build_segmentor(config, drop_path=drop_path, layer_scale=1.0)
    return Trainer(model, settings, device=device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_trains_as_the_cpu_does(config, batch, precision):
    settings = TrainConfig(steps=5, lr=1e-3, warmup=1, precision=precision)
    on_cpu, on_cuda = (same_start(config, settings, device=name) for name in ("cpu", "cuda"))
    before = torch.cuda.get_rng_state()

    for _ in range(3):
        wanted, found = on_cpu(batch), on_cuda(batch)

    tolerance = {"fp32": 1e-3, "bf16": 5e-2}[precision]
    assert float(found.loss.total) == pytest.approx(float(wanted.loss.total), rel=tolerance)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_a_pretrained_encoder_learns_more_slowly(config):
    trainer = Trainer(build_segmentor(config), TrainConfig(lr=1e-3, encoder_lr=0.25, warmup=1))
    shares = {id(p): g["share"] for g in trainer.optimizer.param_groups for p in g["params"]}

    for name, parameter in trainer.model.named_parameters():
        inside = name.startswith("image_encoder.trunk.")
        assert shares[id(parameter)] == (0.25 if inside else 1.0), name
