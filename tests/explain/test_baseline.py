"""Contributions beyond those of the average training slide."""

import numpy as np
import pytest
import torch

from xpath.errors import DataError
from xpath.explain.activation import object_activation
from xpath.explain.attention_pool import attention_pools, leave_out_objects
from xpath.mil.bag import Bag, pack
from xpath.mil.cross_validation import seeded_build
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.mil.training import TrainConfig, train

OBJECTS = ("planted", "always", "sometimes", "never")


def cohort(seed, count, *, dim=8, classes=2):
    """Bags in which only the last class has object 0; every slide has object 1, some object 2."""
    rng = np.random.default_rng(seed)
    direction = np.random.default_rng(99).normal(size=(len(OBJECTS), dim))
    bags = []
    for i in range(count):
        label = i % classes
        features = direction + rng.normal(0, 1, (12, len(OBJECTS), dim))
        present = rng.random((12, len(OBJECTS))) < 0.6
        present[:, 0] &= label == classes - 1
        present[:, 2] &= rng.random() < 0.5
        present[:, 3] = False
        present[0, 1] = True
        bags.append(
            Bag(
                torch.tensor(features, dtype=torch.float32),
                torch.tensor(present),
                label,
                f"s{seed}-{i}",
            )
        )
    return bags


def trained(seed=0, *, classes=2, average="all", epochs=25, count=40, weight_decay=1e-3):
    model = seeded_build(
        lambda: ObjectAwareMIL(8, OBJECTS, classes, hidden=8, average=average), seed
    )
    bags = cohort(seed, count, classes=classes)
    train(
        model, bags, [], TrainConfig(lr=5e-3, epochs=epochs, weight_decay=weight_decay, seed=seed)
    )
    return model, bags


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("average", ["all", "present"])
def test_centred_contributions_sum_to_the_logit_less_that_of_the_average_slide(classes, average):
    model, bags = trained(classes=classes, average=average, epochs=3)
    logits = model(pack(bags)).logits.detach().double().numpy().mean(axis=0)

    for bag in cohort(7, 6, classes=classes):
        result = object_activation(model, bag, contrast="runner_up")

        runner_up = np.argsort(result.logits)[-2]
        baseline = logits[result.target] - logits[runner_up]
        assert result.baseline_logit == pytest.approx(baseline, abs=1e-5)
        assert result.centred.sum() == pytest.approx(result.logit - baseline, abs=1e-5)


def test_the_baseline_by_hand():
    """Means of what objects add to each class, by asking for every training slide."""
    model, bags = trained(classes=3, epochs=2)

    each = [
        [object_activation(model, bag, k, contrast="none").contribution for k in range(3)]
        for bag in bags
    ]

    result = object_activation(model, bags[0], 1, contrast="none")
    np.testing.assert_allclose(result.class_baseline, np.mean(each, axis=0), atol=1e-9)
    np.testing.assert_allclose(result.class_contribution, each[0], atol=1e-12)
    np.testing.assert_allclose(
        result.centred, result.contribution - np.mean(each, axis=0)[1], atol=1e-9
    )
    assert model.metadata["baseline"]["slides"] == 40


def test_an_absent_object_has_minus_its_mean_and_one_that_no_slide_has_nothing():
    model, _ = trained()

    result = object_activation(model, cohort(5, 2)[0], 1, contrast="runner_up")

    assert not result.present[0]
    assert result.contribution[0] == 0
    assert result.centred[0] == -(result.share @ result.class_baseline)[0] != 0
    assert result.centred[3] == 0


def test_the_baseline_is_kept_in_the_checkpoint_and_an_older_one_says_so(tmp_path):
    model, bags = trained(epochs=1)
    model.save_pretrained(tmp_path / "new")
    del model.metadata["baseline"]
    model.save_pretrained(tmp_path / "old")

    new, old = (
        object_activation(ObjectAwareMIL.from_pretrained(tmp_path / name), bags[0])
        for name in ("new", "old")
    )

    assert np.isfinite(new.centred).all()
    assert "baseline" not in (tmp_path / "new/README.md").read_text()
    assert np.isnan(old.centred).all()
    assert np.isnan(old.baseline_logit)
    np.testing.assert_array_equal(old.contribution, new.contribution)


def test_a_baseline_of_other_weights_is_refused():
    model, bags = trained(epochs=1)
    model.metadata["baseline"]["logits"][0] += 0.01

    with pytest.raises(DataError, match="sum to"):
        object_activation(model, bags[0], 0)


@pytest.mark.parametrize("average", ["all", "present"])
def test_removal_is_what_the_model_says_without_the_object(average):
    model, _ = trained(average=average, epochs=3)
    bag = cohort(3, 2)[1]

    result = object_activation(model, bag, 1, contrast="runner_up")

    def margin(present):
        logits = model.double()(pack([Bag(bag.features.double(), present)])).logits[0]
        return float((logits[1] - logits[0]).detach())

    for j in range(len(OBJECTS)):
        without = bag.present.clone()
        without[:, j] = False
        assert result.removal[j] == pytest.approx(margin(bag.present) - margin(without), abs=1e-9)
    pools = attention_pools(model.float(), bag, 1, contrast="runner_up")
    np.testing.assert_allclose(result.removal, leave_out_objects(pools), atol=1e-9)
    same = np.allclose(result.removal, result.contribution)
    assert same == (average == "all")


def test_an_object_every_slide_has_adds_nothing_on_average():
    """Five seeds: raw, the offset it carries is a large bar; centred, it is gone."""
    for seed in range(5):
        model, _ = trained(seed, count=160, epochs=30, weight_decay=1e-2)
        test = [
            object_activation(model, bag, 1, contrast="runner_up")
            for bag in cohort(100 + seed, 200)
            if bag.label == 1
        ]

        raw = np.mean([one.contribution for one in test], axis=0)
        centred = np.mean([one.centred for one in test], axis=0)
        assert abs(centred[1]) < 0.05 * centred[0], seed
        assert abs(raw[1]) > 0.2 * raw[0]
