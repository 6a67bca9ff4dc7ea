import pytest
import torch

from xpath.segment.train import TrainBatch, TrainConfig, learning_rate, train_segmentor


@pytest.fixture
def batch(tokenizer):
    """A dark square is the tumour; there is no necrosis."""
    images = torch.full((2, 3, 64, 64), 230, dtype=torch.uint8)
    target = torch.zeros(2, 2, 64, 64, dtype=torch.bool)
    for row, place in enumerate((slice(8, 40), slice(24, 56))):
        images[row, :, place, place] = 60
        target[row, 0, place, place] = True
    tokens = tokenizer([
        "tissue-level tumor in breast pathology.",
        "tissue-level necrosis or debris in breast pathology.",
    ])
    expanded = (2, -1, -1)
    return TrainBatch(images, tokens.ids.expand(expanded), tokens.mask.expand(expanded), target)


def test_training_learns_what_is_there_and_what_is_not(model, batch):
    losses = []
    config = TrainConfig(steps=60, lr=3e-3, warmup=5)

    train_segmentor(
        model, [batch] * 60, config, on_step=lambda s: losses.append(float(s.loss.total))
    )

    answer = model(batch.images.float(), batch.ids[0], batch.mask[0])
    found = torch.nn.functional.interpolate(answer.logits, scale_factor=4, mode="bilinear") > 0
    overlap = (found[:, 0] & batch.target[:, 0]).sum() / (found[:, 0] | batch.target[:, 0]).sum()
    assert losses[-1] < 0.4 * losses[0]
    assert overlap > 0.7
    assert found[:, 1].float().mean() < 0.02


def test_the_rate_rises_then_falls_to_zero():
    config = TrainConfig(steps=100, lr=1.0, warmup=10)

    assert learning_rate(0, 0.0, config) == pytest.approx(0.1)
    assert learning_rate(49, 0.5, config) == pytest.approx(0.5)
    assert learning_rate(99, 1.0, config) == pytest.approx(0.0)


def test_minutes_end_the_training(model, batch):
    steps = []

    train_segmentor(model, [batch] * 3, TrainConfig(steps=3, minutes=1e-9), on_step=steps.append)

    assert steps == []
