import copy
import math
from dataclasses import replace

import pytest
import torch

from xpath.errors import ConfigError, DataError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.mil.prediction import evaluate
from xpath.mil.training import Epoch, TrainConfig, _score, class_weight, slide_order, train

DIM = 3


def patch_cohort(count, seed):
    """Class 1 has one patch with a large first feature."""
    generator = torch.Generator().manual_seed(seed)
    bags = []
    for number in range(count):
        features = torch.randn(3 + number % 5, DIM, generator=generator) * 0.3
        features[0, 0] += 3.0 * (number % 2)
        bags.append(Bag(features, label=number % 2, slide_id=f"s{number}"))
    return bags


def object_cohort(count, seed):
    """Class 1 differs in object 1 only; where that is absent its features say the opposite."""
    generator = torch.Generator().manual_seed(seed)
    bags = []
    for number in range(count):
        n = 3 + number % 5
        features = torch.randn(n, 3, DIM, generator=generator) * 0.3
        features[:, 1, 0] += 2.0 * (number % 2)
        present = torch.rand(n, 3, generator=generator) < 0.5
        present[0, 1] = True
        features[~present[:, 1], 1, 0] = 2.0 * (1 - number % 2)
        bags.append(Bag(features, present, label=number % 2, slide_id=f"s{number}"))
    return bags


def attention_mil(seed=0, **settings):
    torch.manual_seed(seed)
    return AttentionMIL(DIM, 2, **({"hidden": 8} | settings))


FAST = TrainConfig(lr=0.05, epochs=50)


@pytest.mark.parametrize("average", ["all", "present"])
def test_a_planted_object_is_learned(average):
    torch.manual_seed(0)
    model = ObjectAwareMIL(DIM, 3, 2, hidden=4, average=average)

    train(model, object_cohort(60, 1), object_cohort(12, 2), FAST)

    assert evaluate(model, object_cohort(20, 3)).auc == 1.0


def test_a_planted_patch_is_learned():
    model = attention_mil()

    result = train(model, patch_cohort(60, 1), patch_cohort(12, 2), FAST)

    scores = evaluate(model, patch_cohort(20, 3))
    assert scores.auc == 1.0
    assert scores.accuracy == 1.0
    assert result.history[-1].train_loss < 0.2 < result.history[0].train_loss
    assert not model.training


def test_the_best_weights_are_restored():
    wrong = [Bag(bag.features, label=1 - bag.label) for bag in patch_cohort(8, 2)]
    model = attention_mil()
    snapshots = []
    config = TrainConfig(lr=0.005, epochs=40, patience=4)

    result = train(
        model,
        patch_cohort(24, 1),
        wrong[:4] + patch_cohort(12, 5)[4:9],
        config,
        lambda _: snapshots.append(copy.deepcopy(model.state_dict())),
    )

    losses = [epoch.validation_loss for epoch in result.history]
    assert losses.index(min(losses)) == result.best_epoch
    assert len(result.history) == result.best_epoch + config.patience + 1 < config.epochs
    torch.testing.assert_close(model.state_dict(), snapshots[result.best_epoch], rtol=0, atol=0)
    assert not torch.equal(model.classifier.weight, snapshots[-1]["classifier.weight"])


def test_auc_can_decide_and_ties_go_to_the_lower_loss():
    config = TrainConfig(lr=0.05, epochs=30, patience=30, monitor="auc")

    result = train(attention_mil(), patch_cohort(40, 1), patch_cohort(12, 2), config)

    best = max(result.history, key=lambda epoch: (epoch.validation_auc, -epoch.validation_loss))
    assert best.validation_auc == 1.0
    assert result.best_epoch == best.number


def test_auc_and_loss_rank_epochs_differently():
    nan = math.nan
    low_loss, high_auc = Epoch(0, nan, 1.0, 0.8), Epoch(1, nan, 2.0, 0.9)

    assert _score(low_loss, "loss") > _score(high_auc, "loss")
    assert _score(low_loss, "auc") < _score(high_auc, "auc")
    assert _score(Epoch(2, nan, 1.9, 0.9), "auc") > _score(high_auc, "auc")
    assert _score(Epoch(0, nan, 1.0, nan), "auc") > _score(Epoch(1, nan, 2.0, nan), "auc")


@pytest.mark.parametrize("monitor", ["auc", "loss"])
def test_one_class_in_validation_has_no_auc_so_the_loss_decides(monitor):
    only = [bag for bag in patch_cohort(12, 2) if bag.label == 1]
    config = TrainConfig(lr=0.005, epochs=5, monitor=monitor)

    result = train(attention_mil(), patch_cohort(12, 1), only, config)

    losses = [epoch.validation_loss for epoch in result.history]
    assert all(math.isnan(epoch.validation_auc) for epoch in result.history)
    assert losses.index(min(losses)) == result.best_epoch


def test_without_validation_all_epochs_run_and_the_last_weights_stay():
    model, snapshots = attention_mil(), []
    config = TrainConfig(lr=0.02, epochs=7, patience=1)

    result = train(
        model,
        patch_cohort(8, 1),
        [],
        config,
        lambda _: snapshots.append(model.classifier.weight.detach().clone()),
    )

    assert result.best_epoch == 6
    assert len(result.history) == 7
    assert math.isnan(result.history[0].validation_loss)
    assert torch.equal(model.classifier.weight, snapshots[-1])


def trained(config, on_epoch=None):
    model = attention_mil(dropout=0.3, proj=5)
    train(model, patch_cohort(10, 1), patch_cohort(6, 2), config, on_epoch)
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def test_the_seed_decides_every_bit():
    config = TrainConfig(lr=0.01, epochs=4, bags_per_step=3)
    wanted = trained(config)

    assert torch.equal(trained(config), wanted)
    assert torch.equal(trained(config, lambda _: torch.rand(5)), wanted)  # a callback that draws
    other = TrainConfig(lr=0.01, epochs=4, bags_per_step=3, seed=1)
    assert not torch.equal(trained(other), wanted)


def test_the_weights_of_the_last_epochs_are_averaged_where_no_slides_choose():
    bags, after = patch_cohort(10, 1), []
    config = TrainConfig(lr=0.01, epochs=4, averaged=0.5)
    model = attention_mil(proj=5)

    def keep(_):
        after.append(copy.deepcopy(model.state_dict()))

    train(model, bags, [], config, keep)

    for name, value in model.state_dict().items():
        wanted = (after[2][name].double() + after[3][name].double()) / 2
        torch.testing.assert_close(value, wanted.to(value), atol=1e-7, rtol=0)
    chosen = attention_mil(proj=5)
    train(chosen, bags, patch_cohort(6, 2), config)
    plain = attention_mil(proj=5)
    train(plain, bags, patch_cohort(6, 2), replace(config, averaged=0.0))
    assert all(map(torch.equal, chosen.state_dict().values(), plain.state_dict().values()))
    with pytest.raises(ConfigError, match="averaged must be a share"):
        TrainConfig(averaged=1.5)


def test_the_global_random_state_is_left_alone():
    model = attention_mil(dropout=0.5)
    before = torch.get_rng_state()

    train(model, patch_cohort(6, 1), patch_cohort(4, 2), TrainConfig(epochs=2))

    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_on_for_training_and_off_for_validation():
    model, modes = attention_mil(dropout=0.5).eval(), []
    model.register_forward_hook(
        lambda module, *_: modes.append((module.training, torch.is_grad_enabled()))
    )

    train(model, patch_cohort(6, 1), patch_cohort(4, 2), TrainConfig(epochs=2, bags_per_step=3))

    learning, asked = (True, True), (False, False)
    assert modes == [learning, learning, asked] * 2 + [asked], "at the end on the training slides"


def test_a_model_that_has_not_learnt_is_warned_of(caplog):
    bags, model = patch_cohort(12, 1), attention_mil()
    torch.nn.init.zeros_(model.classifier.weight)

    result = train(model, bags, [], TrainConfig(epochs=1, lr=1e-12))

    assert 0 <= result.train_auc < 0.6
    assert f"training slides themselves is {result.train_auc:.2f}" in result.doubt
    assert result.doubt in caplog.text
    assert model.metadata["training"]["doubt"] == result.doubt


def test_a_first_epoch_that_was_the_best_is_warned_of():
    """Validation slides of the other classes: every step makes them worse."""
    bags = patch_cohort(12, 1)
    swapped = [replace(bag, label=1 - bag.label) for bag in bags]

    result = train(attention_mil(), bags, swapped, TrainConfig(epochs=40, lr=0.05, patience=2))

    assert result.best_epoch == 0
    assert "first epoch" in result.doubt


def test_a_class_without_a_training_slide_is_warned_of_and_the_model_can_be_saved(tmp_path):
    """As by a table of splits that leaves it to the test: there is no AUC, which JSON has not."""
    bags = [Bag(torch.randn(3, 4), None, label, f"s{label}") for label in (0, 2, 0, 2)]
    model = AttentionMIL(4, ("A", "B", "C"))

    result = train(model, bags, [], TrainConfig(epochs=1))
    model.save_pretrained(tmp_path / "model")

    assert math.isnan(result.train_auc)
    assert result.doubt.startswith("no training slide is of B;")
    kept = AttentionMIL.from_pretrained(tmp_path / "model").metadata["training"]
    assert kept["train_auc"] is None


def test_patience_waits_for_the_steps():
    bags = patch_cohort(12, 1)
    swapped = [replace(bag, label=1 - bag.label) for bag in bags]
    config = TrainConfig(epochs=40, lr=0.05, patience=2, bags_per_step=4, min_steps=30)

    result = train(attention_mil(), bags, swapped, config)

    assert len(result.history) == 10, "of three steps"


def test_the_scaler_is_fitted_on_training_slides_only():
    bags, far = patch_cohort(6, 1), [Bag(torch.full((2, DIM), 1e3), label=0)]
    fitted, left = attention_mil(), attention_mil()

    train(fitted, bags, far, TrainConfig(epochs=1))
    train(left, bags, far, TrainConfig(epochs=1, scale=False))

    rows = torch.cat([bag.features for bag in bags])
    torch.testing.assert_close(fitted.scaler.mean, rows.mean(dim=0))
    assert left.scaler.mean.tolist() == [0] * DIM


def test_class_weights_by_hand():
    bags = [Bag(torch.zeros(1, 1), label=label) for label in (0, 0, 0, 2)]

    assert class_weight(bags, 3, "balanced").tolist() == pytest.approx([4 / 6, 1, 2])
    assert class_weight(bags, 3, "none").tolist() == [1, 1, 1]


def test_class_weights_count_even_with_one_slide_per_step():
    """A loss divided by the weights of its slides would cancel them."""
    bags = [bag for bag in patch_cohort(16, 1) if bag.label == 0 or bag.slide_id == "s1"]
    weights = []
    for rule in ("balanced", "none"):
        model = attention_mil()
        train(model, bags, [], TrainConfig(epochs=3, bags_per_step=1, class_weight=rule, lr=0.01))
        weights.append(model.classifier.bias.detach())

    balanced, plain = weights
    assert balanced[1] - balanced[0] > plain[1] - plain[0] + 1e-3


def test_losses_by_hand():
    """With weights at zero every logit is 0 and every slide costs ln 2 times its class weight."""
    model = attention_mil()
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    bags = patch_cohort(3, 1)  # labels 0, 1, 0: weights 3/4, 3/2
    validation = [bag for bag in patch_cohort(4, 2) if bag.label == 1]

    result = train(model, bags, validation, TrainConfig(epochs=1, lr=1e-12, bags_per_step=2))

    assert result.history[0].train_loss == pytest.approx(math.log(2))
    assert result.history[0].validation_loss == pytest.approx(1.5 * math.log(2))


def test_slides_that_cannot_train_are_refused_by_name():
    good = patch_cohort(4, 1)
    unlabelled = Bag(torch.zeros(1, DIM), slide_id="slide-7")
    with pytest.raises(DataError, match="slide-7"):
        train(attention_mil(), [*good, unlabelled], [])
    with pytest.raises(DataError, match="slide-7"):
        train(attention_mil(), good, [unlabelled])
    with pytest.raises(DataError, match=r"0 to 1.*slide-8"):
        train(attention_mil(), [*good, Bag(torch.zeros(1, DIM), label=2, slide_id="slide-8")], [])
    with pytest.raises(DataError, match="no bags"):
        train(attention_mil(), [], good)


def test_a_loss_that_is_no_number_is_told():
    with pytest.raises(DataError, match="lower lr"):
        train(attention_mil(), patch_cohort(4, 1), patch_cohort(4, 2), TrainConfig(lr=1e37))


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0},
        {"epochs": 0},
        {"patience": 0},
        {"bags_per_step": 0},
        {"weight_decay": -1},
        {"class_weight": "rare"},
        {"monitor": "f1"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError):
        TrainConfig(**wrong)


def test_the_papers_settings_are_the_defaults():
    assert (TrainConfig().lr, TrainConfig().weight_decay) == (2e-4, 1e-5)


def test_balanced_sampling_draws_every_class_as_often():
    bags = [Bag(torch.zeros(1, 1), label=int(number >= 18)) for number in range(20)]
    generator = torch.Generator().manual_seed(0)

    drawn = [place for _ in range(100) for place in slide_order(bags, "balanced", generator)]

    assert len(drawn) == 2000
    assert sum(place >= 18 for place in drawn) == pytest.approx(1000, abs=80)
    assert set(drawn) == set(range(20))
    once = slide_order(bags, "shuffled", generator)
    assert sorted(once) == list(range(20)) != once


def test_balanced_sampling_lifts_the_rare_class():
    bags = [bag for bag in patch_cohort(32, 1) if bag.label == 0 or bag.slide_id in ("s1", "s3")]
    biases = []
    for sampling in ("balanced", "shuffled"):
        model = attention_mil()
        config = TrainConfig(epochs=5, class_weight="none", sampling=sampling, lr=0.02)
        train(model, bags, [], config)
        biases.append(float((model.classifier.bias[1] - model.classifier.bias[0]).detach()))

    assert biases[0] > biases[1] + 0.05


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_mixed_precision_learns_the_same(precision):
    torch.manual_seed(0)
    model = ObjectAwareMIL(DIM, 3, 2, hidden=4)

    train(
        model,
        object_cohort(40, 1),
        object_cohort(12, 2),
        TrainConfig(lr=0.05, epochs=40, precision=precision),
    )

    assert evaluate(model, object_cohort(20, 3)).auc == 1.0
    assert model.classifier.weight.dtype == torch.float32


def test_how_it_was_trained_is_kept_and_saved(tmp_path):
    model = attention_mil()
    result = train(model, patch_cohort(6, 1), patch_cohort(4, 2), TrainConfig(epochs=2, seed=5))

    model.save_pretrained(tmp_path / "model")
    kept = AttentionMIL.from_pretrained(tmp_path / "model").metadata["training"]

    assert kept["config"]["seed"] == 5
    assert kept["epochs"] == 2
    assert kept["best_epoch"] == result.best_epoch
    assert kept["train_slides"] == [f"s{number}" for number in range(6)]
    assert kept["validation_slides"] == [f"s{number}" for number in range(4)]


def test_two_ways_to_balance_at_once_are_refused():
    with pytest.raises(ConfigError, match=r"both.*class_weight='none'"):
        TrainConfig(sampling="balanced")
    for wrong in ({"sampling": "rare", "class_weight": "none"}, {"precision": "int8"}):
        with pytest.raises(ConfigError, match="must be one of"):
            TrainConfig(**wrong)


def test_one_patch_bags_and_slides_without_objects_train_to_numbers():
    bags = [
        Bag(torch.randn(1, 3, DIM), torch.zeros(1, 3, dtype=torch.bool), label=number % 2)
        for number in range(4)
    ]
    torch.manual_seed(0)
    model = ObjectAwareMIL(DIM, 3, 2, hidden=4)

    result = train(model, bags, bags, TrainConfig(epochs=3))

    assert all(math.isfinite(epoch.train_loss) for epoch in result.history)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert evaluate(model, bags).auc == 0.5


def test_large_slides_are_taken_in_chunks_to_the_same_end(monkeypatch):
    config = TrainConfig(lr=0.01, epochs=2, bags_per_step=4)
    states, packed = [], []
    monkeypatch.setattr(
        "xpath.mil.training.pack", lambda bags: packed.append(len(bags)) or pack(bags)
    )
    for most, sizes in ((2**27, {4}), (1, {1})):
        monkeypatch.setattr("xpath.mil.bag.AT_ONCE", most)
        packed.clear()
        model = attention_mil()
        train(model, patch_cohort(8, seed=1), patch_cohort(3, seed=2), config)
        states.append(model.state_dict())
        assert set(packed) == sizes

    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=1e-5, rtol=1e-4)
