import csv

import pytest
import torch
import torch.multiprocessing as mp

from xpath.errors import CheckpointError, DataError
from xpath.segment.model.tokenizer import fit_tokenizer
from xpath.segment.model.variants import build_segmentor, tiny_config
from xpath.segment.training.run import RunConfig, TrainingRun
from xpath.segment.training.trainer import TrainBatch, TrainConfig, Trainer

FACTS = {"seed": "0"}


@pytest.fixture
def batches(tokenizer):
    return make_batches(tokenizer)


def make_batches(tokenizer):
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
    return lambda: make_trainer(config)


def make_trainer(config):
    torch.manual_seed(5)
    model = build_segmentor(config, drop_path=0.3, layer_scale=1.0)
    return Trainer(model, TrainConfig(steps=6, lr=1e-3))


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
    assert (rows[0]["object_class"], rows[0]["images"], rows[0]["dice"]) == (
        "tissue-gland",
        "4",
        "0.5",
    )


def test_divergence_is_told(tmp_path, trainer, batches):
    made = trainer()
    with torch.no_grad():
        made.model.logit_scale.fill_(float("nan"))

    with pytest.raises(DataError, match="diverged"):
        TrainingRun(tmp_path, made, FACTS).run(batches, RunConfig(log_steps=1))


@pytest.mark.parametrize("save_minutes", [0.0, 5.0])
def test_what_diverged_is_never_saved(tmp_path, trainer, batches, save_minutes):
    """Neither every few minutes nor at the end. The last good state stays."""
    made = trainer()
    run = TrainingRun(tmp_path, made, FACTS)
    run.run(batches[:2], RunConfig())
    good = (tmp_path / "state.pt").read_bytes()
    with torch.no_grad():
        made.model.logit_scale.fill_(float("nan"))

    with pytest.raises(DataError, match=r"diverged.*smaller lr"):
        run.run(batches[2:4], RunConfig(save_minutes=save_minutes, log_steps=100))

    assert (tmp_path / "state.pt").read_bytes() == good


def test_a_gradient_without_end_is_divergence_too(tmp_path, trainer, batches):
    """The loss of the step is finite still, the weights after it are not."""
    made = trainer()
    made.model.logit_scale.register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(DataError, match="gradient is no finite number by step 1"):
        TrainingRun(tmp_path, made, FACTS).run(batches[:1], RunConfig())

    assert not (tmp_path / "state.pt").exists()


def test_a_setting_that_an_older_state_does_not_know_is_not_compared(tmp_path, trainer, batches):
    old = {"shapes": "((1, 64),)", "train": '{"lr":0.1,"steps":1}'}
    new = old | {"train": '{"lr":0.1,"seed":3,"steps":1}', "drop_path": "0.1"}
    TrainingRun(tmp_path, trainer(), old).run(batches[:1], RunConfig())

    again = trainer()
    TrainingRun(tmp_path, again, new).run(batches[1:2], RunConfig())

    assert again.step == 2
    changed = new | {"train": '{"lr":0.2,"seed":4,"steps":1}', "drop_path": "0.2"}
    with pytest.raises(CheckpointError, match="another training") as refused:
        TrainingRun(tmp_path, trainer(), changed)
    for told in ("'train.lr': (0.1, 0.2)", "'train.seed': (3, 4)", "'drop_path': ('0.1', '0.2')"):
        assert told in str(refused.value)
    assert "shapes" not in str(refused.value)


def one_of_two(rank, folder):
    """Twice: the other's clock has run out, then the lead's. Notes steps and validations."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    tokenizer = fit_tokenizer(["tissue-level tumor in breast pathology."], vocabulary=300)
    trainer, batches = make_trainer(tiny_config(tokenizer.vocabulary)), make_batches(tokenizer)
    run = TrainingRun(folder, trainer, FACTS, lead=rank == 0)
    asked = []

    def validate():
        asked.append(trainer.step)
        return {"tissue-gland": (4, 0.5)}

    seen = []
    for minutes in ((1e6, 0.0), (0.0, 1e6)):
        config = RunConfig(minutes=minutes[rank], validate_steps=2)
        run.run(batches[trainer.step : trainer.step + 2], config, validate=validate)
        seen.append(trainer.step)
    (folder / f"{rank}.txt").write_text(f"{seen} {asked}")
    torch.distributed.destroy_process_group()


def test_the_lead_alone_decides_when_to_stop_and_validates(tmp_path):
    mp.spawn(one_of_two, (tmp_path,), nprocs=2)

    assert (tmp_path / "0.txt").read_text() == "[2, 3] [2]"
    assert (tmp_path / "1.txt").read_text() == "[2, 3] []"
