import csv

import pytest
import torch

from xpath.errors import CheckpointError, DataError
from xpath.segment.train import TrainBatch, TrainConfig, Trainer
from xpath.segment.training_run import RunConfig, TrainingRun
from xpath.segment.variants import build_segmentor

FACTS = {"seed": "0"}


@pytest.fixture
def batches(tokenizer):
    tokens = tokenizer(["tissue-level tumor in breast pathology."])
    generator = torch.Generator().manual_seed(0)
    return [
        TrainBatch(
            torch.randint(0, 256, (1, 3, 64, 64), generator=generator, dtype=torch.uint8),
            tokens.ids[None],
            tokens.mask[None],
            torch.randint(0, 2, (1, 1, 64, 64), generator=generator, dtype=torch.uint8),
        )
        for _ in range(6)
    ]


@pytest.fixture
def trainer(config):
    def make():
        torch.manual_seed(5)
        return Trainer(build_segmentor(config, layer_scale=1.0), TrainConfig(steps=6, lr=1e-3))

    return make


def test_killed_and_resumed_from_disk_equals_undisturbed(tmp_path, trainer, batches):
    whole = trainer()
    assert TrainingRun(tmp_path / "whole", whole, FACTS).run(batches, RunConfig())

    first = trainer()
    run = TrainingRun(tmp_path / "cut", first, FACTS)
    assert not run.run(batches[:2], RunConfig())
    first(batches[2])  # made, but not saved: lost when the process is killed
    second = trainer()
    again = TrainingRun(tmp_path / "cut", second, FACTS)
    assert second.step == 2
    assert again.run(batches[second.step :], RunConfig())

    for name, value in whole.averaged().items():
        assert torch.equal(value, second.averaged()[name]), name


def test_minutes_stop_a_training_that_can_go_on(tmp_path, trainer, batches):
    made = trainer()

    finished = TrainingRun(tmp_path, made, FACTS).run(batches, RunConfig(minutes=0))

    assert (finished, made.step) == (False, 1)
    assert (tmp_path / "state.pt").exists()


def test_another_trainings_state_is_refused(tmp_path, trainer, batches):
    TrainingRun(tmp_path, trainer(), FACTS).run(batches[:1], RunConfig())

    with pytest.raises(CheckpointError, match=r"'seed': \('0', '1'\)"):
        TrainingRun(tmp_path, trainer(), {"seed": "1"})


def test_a_truncated_state_is_refused_by_name(tmp_path, trainer, batches):
    TrainingRun(tmp_path, trainer(), FACTS).run(batches[:1], RunConfig())
    state = tmp_path / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])

    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read"):
        TrainingRun(tmp_path, trainer(), FACTS)


def test_the_log_and_validations_are_tables(tmp_path, trainer, batches):
    run = TrainingRun(tmp_path, trainer(), FACTS)
    run.run(
        batches,
        RunConfig(log_steps=2, validate_steps=3),
        validate=lambda: {"tissue-gland": (4, 0.5)},
    )

    with (tmp_path / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4", "6"]
    with (tmp_path / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "6"]
    assert (rows[0]["kind"], rows[0]["images"], rows[0]["dice"]) == ("tissue-gland", "4", "0.5")


def test_divergence_is_told(tmp_path, trainer, batches):
    made = trainer()
    with torch.no_grad():
        made.model.logit_scale.fill_(float("nan"))

    with pytest.raises(DataError, match="diverged"):
        TrainingRun(tmp_path, made, FACTS).run(batches, RunConfig(log_steps=1))
