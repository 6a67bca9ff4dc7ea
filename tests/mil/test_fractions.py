import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xpath.errors import ConfigError, DataError, ShapeError
from xpath.mil.bag import Bag
from xpath.mil.classifier import load_classifier
from xpath.mil.fractions import ObjectFractions, object_fractions
from xpath.mil.prediction import predict

OBJECTS = ("tumour", "fat", "stroma")


@pytest.fixture
def cohort():
    """Tumour decides, fat and stroma do not; ten slides of class 0, thirty of class 1."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [10, 30])
    fractions = rng.uniform(0.1, 0.3, (40, 3))
    fractions[:, 0] += 0.15 * labels
    return fractions, labels


def test_fractions_by_hand():
    coverage = np.array([[0.5, 0.0], [0.1, 0.2]])

    np.testing.assert_allclose(object_fractions(coverage), [0.3, 0.1])
    np.testing.assert_allclose(object_fractions(coverage, np.array([3.0, 1.0])), [0.4, 0.05])


@pytest.mark.parametrize("class_weight", ["balanced", None])
def test_it_is_the_regression_of_scikit_learn(cohort, class_weight):
    fractions, labels = cohort

    model = ObjectFractions(OBJECTS, 2, c=0.7, class_weight=class_weight).fit(fractions, labels)

    wanted = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.7, class_weight=class_weight, max_iter=5000)
    ).fit(fractions, labels)
    np.testing.assert_allclose(
        model.predict_proba(fractions), wanted.predict_proba(fractions), atol=1e-12
    )
    assert model.score(fractions, labels) == wanted.score(fractions, labels)


def test_three_classes_and_one_nobody_has():
    rng = np.random.default_rng(1)
    labels = np.array([0, 1, 3] * 10)
    fractions = rng.uniform(0, 0.1, (30, 3))
    fractions[np.arange(30), np.searchsorted([0, 1, 3], labels)] += 0.5

    model = ObjectFractions(OBJECTS, ["a", "b", "none", "c"]).fit(fractions, labels)

    chance = model.predict_proba(fractions)
    np.testing.assert_allclose(chance.sum(axis=1), 1)
    assert (chance[:, 2] < 1e-9).all()
    assert (model.predict(fractions) == labels).all()


def test_the_table_tells_which_object_decides(cohort):
    fractions, labels = cohort
    model = ObjectFractions(OBJECTS, ["benign", "malignant"]).fit(fractions, labels)

    rows = model.coefficients()

    assert [(row.class_name, row.object) for row in rows[::3]] == [
        ("benign", "tumour"),
        ("malignant", "tumour"),
    ]
    top = rows[3]
    assert top.weight > 0
    assert rows[0].weight == -top.weight
    assert top.mean == pytest.approx(fractions[:, 0].mean())
    # one percent more tumour moves the logit by as much as the table says
    more = fractions + np.array([0.01, 0, 0])
    moved = model.decision_function(more) - model.decision_function(fractions)
    np.testing.assert_allclose(moved[:, 1], top.per_percent, rtol=1e-6)


def test_an_object_no_slide_has_gets_no_weight(cohort):
    fractions, labels = cohort
    fractions[:, 1] = 0.0

    model = ObjectFractions(OBJECTS, 2).fit(fractions, labels)

    found = {row.object: row for row in model.coefficients()}
    assert (found["fat"].weight, found["fat"].per_percent) == (0, 0)
    odd = fractions + np.array([0, 0.5, 0])
    np.testing.assert_array_equal(model.predict_proba(odd), model.predict_proba(fractions))


def test_a_checkpoint_holds_everything(cohort, tmp_path):
    fractions, labels = cohort
    model = ObjectFractions(OBJECTS, ["benign", "malignant"], c=2.0).fit(fractions, labels)

    model.save_pretrained(tmp_path / "fractions")
    again = load_classifier(tmp_path / "fractions")

    np.testing.assert_array_equal(again.predict_proba(fractions), model.predict_proba(fractions))
    assert again.coefficients() == model.coefficients()
    assert again.config == model.config


def test_what_is_not_fitted_is_not_saved(tmp_path):
    with pytest.raises(DataError, match="not fitted"):
        ObjectFractions(OBJECTS, 2).save_pretrained(tmp_path / "fractions")
    assert not (tmp_path / "fractions").exists()


def test_bags_of_coverage_give_what_their_fractions_give(cohort):
    fractions, labels = cohort
    model = ObjectFractions(OBJECTS, 2).fit(fractions, labels)
    rng = np.random.default_rng(2)
    coverage = [rng.uniform(0, 0.5, (n, 3)).astype(np.float32) for n in (1, 4, 9)]

    predictions = predict(model, [Bag(torch.from_numpy(rows)) for rows in coverage])

    wanted = model.decision_function(np.stack([object_fractions(rows) for rows in coverage]))
    np.testing.assert_allclose(predictions.logits, wanted, atol=1e-12)
    with pytest.raises(ShapeError, match="coverage"):
        predict(model, [Bag(torch.zeros(2, 4))])


def test_scikit_learn_can_clone_it(cohort):
    model = ObjectFractions(OBJECTS, 2, c=3.0).fit(*cohort)

    copy = clone(model)

    assert copy.get_params() == model.get_params()
    with pytest.raises(DataError, match="not fitted"):
        copy.predict(cohort[0])
    assert copy.set_params(c=1.0).config.c == 1.0
    with pytest.raises(ConfigError, match="gamma"):
        copy.set_params(gamma=1)


def test_what_cannot_be_learnt_is_refused(cohort):
    fractions, labels = cohort
    model = ObjectFractions(OBJECTS, 2)

    with pytest.raises(DataError, match="two of 2"):
        model.fit(fractions, np.zeros(40, int))
    with pytest.raises(DataError, match="two of 2"):
        model.fit(fractions, labels + 1)
    with pytest.raises(ShapeError, match="fractions"):
        model.fit(fractions[:, :2], labels)
    with pytest.raises(ShapeError, match="labels"):
        model.fit(fractions, labels[:3])
    with pytest.raises(ConfigError, match="positive"):
        ObjectFractions(OBJECTS, 2, c=0.0).fit(fractions, labels)
    with pytest.raises(DataError, match="finite"):
        model.fit(np.where(fractions > 0.4, np.nan, fractions), labels)
    with pytest.raises(DataError, match="0 patches"):
        object_fractions(np.zeros((0, 3)))
