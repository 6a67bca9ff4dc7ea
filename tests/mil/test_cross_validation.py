import numpy as np
import pytest
import torch

from xpath.errors import DataError
from xpath.metrics.calibration import scaled_probability
from xpath.metrics.classification import classification_metrics
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag
from xpath.mil.cross_validation import out_of_fold, seeded_build
from xpath.mil.prediction import predict
from xpath.mil.splits import Split, group_folds
from xpath.mil.training import TrainConfig, train

DIM = 3
FAST = TrainConfig(lr=0.05, epochs=8)


def cohort(count, classes=2):
    generator = torch.Generator().manual_seed(5)
    bags = []
    for number in range(count):
        features = torch.randn(2 + number % 3, DIM, generator=generator)
        features[:, 0] += 2.0 * (number % classes)
        bags.append(Bag(features, label=number % classes, slide_id=f"s{number}"))
    return bags


def build():
    return AttentionMIL(DIM, 2, hidden=4, dropout=0.2)


@pytest.fixture(scope="module")
def bags():
    return cohort(24)


@pytest.fixture(scope="module")
def splits(bags):
    return group_folds([bag.label for bag in bags], [f"p{i // 2}" for i in range(24)], folds=3)


def test_every_slide_is_predicted_by_the_model_that_did_not_see_it(bags, splits):
    models = {}
    pooled = out_of_fold(build, bags, splits, FAST, on_fold=models.__setitem__)

    assert pooled.predictions.slide_ids == tuple(bag.slide_id for bag in bags)
    assert pooled.bag_index.tolist() == list(range(24))
    assert pooled.predictions.label.tolist() == [bag.label for bag in bags]
    for number, split in enumerate(splits):
        assert (pooled.fold[split.test] == number).all()
        alone = predict(models[number], [bags[i] for i in split.test])
        np.testing.assert_allclose(pooled.predictions.logits[split.test], alone.logits, atol=1e-6)
        seen = models[number].metadata["training"]
        assert not {bags[i].slide_id for i in split.test} & {
            *seen["train_slides"],
            *seen["validation_slides"],
        }
    assert pooled.temperature.tolist() == [1, 1, 1]
    scores = classification_metrics(pooled.predictions.probability, pooled.predictions.label)
    assert scores.auc > 0.8


def test_a_fold_is_a_training_like_any_other(bags, splits):
    pooled = out_of_fold(build, bags, splits[:1], FAST)
    model = seeded_build(build, 0)
    train_bags, validation, tested = ([bags[i] for i in indices] for indices in splits[0])
    train(model, train_bags, validation, FAST)

    assert pooled.predictions.logits.tolist() == predict(model, tested).logits.tolist()
    assert pooled.bag_index.tolist() == splits[0].test.tolist()


def test_calibration_divides_the_logits_of_each_fold(bags, splits):
    plain = out_of_fold(build, bags, splits, FAST)
    mended = out_of_fold(build, bags, splits, FAST, calibrate=True)

    assert plain.predictions.logits.tolist() == mended.predictions.logits.tolist()
    for number, split in enumerate(splits):
        wanted = scaled_probability(
            plain.predictions.logits[split.test], mended.temperature[number]
        )
        np.testing.assert_allclose(mended.predictions.probability[split.test], wanted)
    assert (mended.temperature != 1).all()


def test_the_random_state_is_left_alone(bags, splits):
    before = torch.get_rng_state()

    out_of_fold(build, bags, splits[:1], TrainConfig(epochs=1))

    assert torch.equal(torch.get_rng_state(), before)


def test_a_class_only_the_test_has_is_scored_and_never_hidden():
    """No training slide shows class 2: the model can name it, so the score is defined, and low."""
    bags = cohort(12, classes=3)
    known = [i for i in range(12) if bags[i].label < 2]
    unknown = [i for i in range(12) if bags[i].label == 2]
    split = Split(np.array(known[:4]), np.array(known[4:6]), np.array(known[6:] + unknown))

    pooled = out_of_fold(lambda: AttentionMIL(DIM, 3, hidden=4), bags, [split], FAST)

    answers = pooled.predictions
    scores = classification_metrics(answers.probability, answers.label)
    assert np.isfinite([scores.auc, scores.balanced_accuracy, scores.f1]).all()
    assert scores.balanced_accuracy < 0.7
    with pytest.raises(DataError, match=r"classes 0 to 1.*s2"):
        out_of_fold(build, bags, [Split(np.arange(6), np.arange(0), np.arange(6, 12))], FAST)


def test_folds_that_cannot_be_pooled_are_refused(bags, splits):
    with pytest.raises(DataError, match="two of them"):
        out_of_fold(build, bags, [splits[0], splits[0]])
    with pytest.raises(DataError, match="there must be folds"):
        out_of_fold(build, bags, [])
    bare = [Split(np.arange(12), np.arange(0), np.arange(12, 24))]
    with pytest.raises(DataError, match=r"no validation slides to calibrate on"):
        out_of_fold(build, bags, bare, TrainConfig(epochs=1), calibrate=True)
