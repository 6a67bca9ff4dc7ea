import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)

from xpath.errors import ConfigError, DataError, ShapeError
from xpath.mil.bag import Bag, pack
from xpath.mil.estimator import (
    AttentionMILClassifier,
    ObjectAwareMILClassifier,
    PoolingMILClassifier,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
"""Slides are few and epochs fewer; ``test_a_fit_that_did_not_learn_warns`` looks at it."""

FAST = {"lr": 0.05, "epochs": 15}
KINDS = [AttentionMILClassifier, ObjectAwareMILClassifier, PoolingMILClassifier]


def slides(count, kind=AttentionMILClassifier):
    """Slides and their classes; in ILC the first feature (of object 1) is larger."""
    rng = np.random.default_rng(count)
    words = np.array(["IDC", "ILC"])[np.arange(count) % 2]
    arrays = []
    for number in range(count):
        shape = (2 + number % 4, 3) if kind is not ObjectAwareMILClassifier else (3, 2, 3)
        features = rng.normal(size=shape).astype(np.float32)
        features[..., -1, 0] += 3.0 * (number % 2)
        if features.ndim == 2:
            features[:, 0] += 3.0 * (number % 2)
        arrays.append(features)
    return arrays, words


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_words_and_scores(kind):
    model = kind(**FAST).fit(*slides(30, kind))
    x, y = slides(20, kind)

    probability = model.predict_proba(x)

    assert model.classes_.tolist() == ["IDC", "ILC"]
    assert model.n_features_in_ == 3
    assert probability.shape == (20, 2)
    assert probability.sum(axis=1) == pytest.approx(np.ones(20))
    assert (model.predict(x) == model.classes_[probability.argmax(axis=1)]).all()
    assert model.score(x, y) == np.mean(model.predict(x) == y) > 0.8
    assert model.model_.classes == ("IDC", "ILC")


@pytest.mark.parametrize("kind", KINDS)
def test_clones_have_the_settings_and_nothing_learned(kind):
    model = kind(lr=0.05, epochs=1, dropout=0.1).fit(*slides(8, kind))

    copy = clone(model)

    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "model_")
    with pytest.raises(NotFittedError):
        copy.predict(slides(4, kind)[0])
    assert is_classifier(copy)
    assert "epochs=1" in repr(model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_answers_the_same(kind):
    model = kind(**FAST).fit(*slides(8, kind))
    x = slides(6, kind)[0]

    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own

    assert (again.predict_proba(x) == model.predict_proba(x)).all()
    assert again.get_params() == model.get_params()


def test_scikit_learn_validates_and_searches():
    x, y = slides(18)
    folds = StratifiedKFold(3)

    found = cross_val_predict(
        AttentionMILClassifier(**FAST), x, y, cv=folds, method="predict_proba"
    )
    search = GridSearchCV(
        AttentionMILClassifier(epochs=15), {"lr": [1e-9, 0.05]}, cv=folds, error_score="raise"
    ).fit(x, y)

    assert np.mean(found.argmax(axis=1) == (y == "ILC")) > 0.8
    assert search.cv_results_["mean_test_score"][1] == pytest.approx(
        np.mean(found.argmax(axis=1) == (y == "ILC"))
    )
    assert search.best_estimator_.score(x, y) > 0.8


def test_the_random_state_decides_everything():
    x, y = slides(12)
    first, again, other = (
        AttentionMILClassifier(random_state=seed, **FAST).fit(x, y).predict_proba(x)
        for seed in (1, 1, 2)
    )

    assert (first == again).all()
    assert (first != other).any()


def test_three_classes_keep_their_columns():
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3 * 10
    x = [rng.normal(size=(4, 3)) + np.eye(3)[label // 10] * 4 for label in y]

    model = PoolingMILClassifier(**FAST).fit(x, y)

    assert model.classes_.tolist() == [0, 10, 20]
    assert model.score(x, y) > 0.9


def test_patients_are_not_divided_between_training_and_validation():
    x, y = slides(24)
    groups = [f"p{place // 4}" for place in range(24)]

    model = AttentionMILClassifier(validation=0.25, epochs=1).fit(x, y, groups=groups)

    seen = model.model_.metadata["training"]
    parts = [
        {groups[int(name[2:-1])] for name in seen[part]}
        for part in ("train_slides", "validation_slides")
    ]
    assert not parts[0] & parts[1]
    assert len(parts[1]) in (1, 2)


def test_without_validation_all_slides_train():
    x, y = slides(8)

    model = AttentionMILClassifier(validation=0, epochs=2).fit(x, y)

    assert len(model.model_.metadata["training"]["train_slides"]) == 8
    assert len(model.result_.history) == 2


def test_forms_of_a_slide_are_the_same_slide():
    x, y = slides(8, ObjectAwareMILClassifier)
    absent = x[0].copy()
    absent[1, 0] = np.nan
    there = ~np.isnan(absent).all(axis=-1)
    model = ObjectAwareMILClassifier(objects=("a", "b"), **FAST).fit([absent, *x[1:]], y)

    forms = [
        absent,
        (np.nan_to_num(absent), there),
        (np.nan_to_num(absent), there * 0.3),
        (torch.from_numpy(np.nan_to_num(absent)), torch.from_numpy(there)),
        Bag(torch.from_numpy(np.nan_to_num(absent)), torch.from_numpy(there), label=1),
    ]

    answers = model.predict_proba(forms)
    assert np.ptp(answers, axis=0) == pytest.approx([0, 0], abs=1e-7)
    assert model.model_.objects == ("a", "b")
    assert model.predict_proba([np.full((2, 2, 3), np.nan)])[0] == pytest.approx(
        torch.softmax(model.model_.classifier.bias, 0).detach().numpy()
    )


def test_probabilities_are_those_of_the_model():
    x, y = slides(8)
    model = AttentionMILClassifier(**FAST).fit(x, y)

    bags = pack([Bag(torch.from_numpy(array)) for array in x])
    logits = model.model_(bags).logits

    np.testing.assert_allclose(
        model.predict_proba(x), logits.double().softmax(dim=1).detach().numpy(), atol=1e-6
    )


def test_a_fit_that_did_not_learn_warns():
    x, y = slides(12)

    with pytest.warns(ConvergenceWarning, match="training slides themselves"):
        AttentionMILClassifier(epochs=1, lr=1e-12).fit([slide * 0 for slide in x], y)


@pytest.mark.parametrize(("count", "epochs"), [(12, 100), (60, 60)])
def test_few_slides_pass_more_often(count, epochs):
    """600 steps of 2 slides, and 60 epochs at least."""
    assert AttentionMILClassifier()._train_config(count).epochs == epochs


def test_what_cannot_be_fitted_is_refused():
    x, y = slides(8)
    with pytest.raises(DataError, match="2 classes"):
        AttentionMILClassifier().fit(x, ["a"] * 8)
    with pytest.raises(DataError, match="one class per slide"):
        AttentionMILClassifier().fit(x, y[:7])
    with pytest.raises(DataError, match="one class per slide"):
        AttentionMILClassifier().fit([], [])
    with pytest.raises(DataError, match=r"X\[2\].*NaN"):
        AttentionMILClassifier().fit([*x[:2], np.full((2, 3), np.nan), *x[3:]], y)
    with pytest.raises(DataError, match=r"X\[0\].*no patches"):
        AttentionMILClassifier().fit([np.zeros((0, 3)), *x[1:]], y)
    with pytest.raises(ConfigError, match="lr"):
        AttentionMILClassifier(lr=-1).fit(x, y)
    with pytest.raises(ConfigError, match="no \\['depth'\\]"):
        AttentionMILClassifier().set_params(depth=3)
    with pytest.raises(ConfigError, match="names 3 classes"):
        ObjectAwareMILClassifier(objects=("a", "b", "c")).fit(*slides(8, ObjectAwareMILClassifier))
    with pytest.raises(DataError, match="one group per label"):
        AttentionMILClassifier().fit(x, y, groups=["a"])
    with pytest.raises(ShapeError):
        AttentionMILClassifier(epochs=1).fit(x, y).predict([np.zeros((2, 4))])


@pytest.mark.parametrize("nothing", [None, np.nan])
def test_a_slide_without_a_class_is_refused(nothing):
    arrays, words = slides(6)

    with pytest.raises(DataError, match=r"without a class.*\[2\]"):
        AttentionMILClassifier(**FAST).fit(arrays, [*words[:2], nothing, *words[3:]])


def test_what_stands_where_an_object_is_absent_does_not_matter():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(3, 2, 3)).astype(np.float32) for _ in range(6)]
    for array in arrays:
        array[0, 1] = np.nan
    pairs = [(array, ~np.isnan(array).any(axis=-1)) for array in arrays]
    words = ["a", "b"] * 3

    bare = ObjectAwareMILClassifier(epochs=2).fit(arrays, words).predict_proba(arrays)
    paired = ObjectAwareMILClassifier(epochs=2).fit(pairs, words).predict_proba(pairs)

    np.testing.assert_array_equal(bare, paired)


@pytest.mark.parametrize("device", ["mps", "gpu", "xpu", "hpu", "vulkan", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_a_setting_that_cannot_be(device):
    with pytest.raises(ConfigError, match=f"device '{device}' cannot be used"):
        AttentionMILClassifier(device=device, epochs=1).fit(*slides(8))


@pytest.mark.parametrize(
    "form",
    [
        pd.DataFrame,
        lambda x: x.tolist(),
        lambda x: x[::-1][::-1],
        lambda x: x[::-1].copy()[::-1],
        lambda x: x.astype(">f4"),
        lambda x: x.astype(np.longdouble),
        lambda x: x.astype(object),
        lambda x: np.asfortranarray(x),
        torch.from_numpy,
    ],
)
def test_any_array_like_is_a_slide(form):
    x, y = slides(8)
    wanted = AttentionMILClassifier(epochs=2).fit(x, y).predict_proba(x)

    given = [form(one) for one in x]

    got = AttentionMILClassifier(epochs=2).fit(given, y).predict_proba(given)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_read_only_and_mapped_arrays_are_taken_without_a_warning(tmp_path):
    x, y = slides(8)
    for number, one in enumerate(x):
        np.save(tmp_path / f"{number}.npy", one)
    mapped = [np.load(tmp_path / f"{number}.npy", mmap_mode="r") for number in range(8)]

    AttentionMILClassifier(epochs=1).fit(mapped, y)


@pytest.mark.parametrize("form", [iter, tuple, lambda x: (one for one in x), pd.Series, np.stack])
def test_slides_classes_and_groups_come_in_anything_that_has_an_order(form):
    x, y = [np.full((3, 2), i % 2, np.float32) for i in range(8)], np.array(["a", "b"] * 4)
    settings = {"epochs": 2, "validation": 0.25}
    wanted = AttentionMILClassifier(**settings).fit(x, y, groups=range(8))

    got = AttentionMILClassifier(**settings).fit(form(x), iter(y), groups=(i for i in range(8)))

    np.testing.assert_array_equal(got.predict_proba(form(x)), wanted.predict_proba(x))
    assert got.score(form(x), iter(y)) == wanted.score(x, y)


@pytest.mark.parametrize("odd", [None, 5, np.array(3.0), {"a": 1}, {1, 2}, "ab", pd.DataFrame([1])])
def test_what_is_no_list_is_named_by_its_type(odd):
    x, y = slides(8)
    model = AttentionMILClassifier(epochs=1).fit(x, y)
    for call in (
        lambda: model.fit(odd, y),
        lambda: model.predict(odd),
        lambda: model.score(x, odd),
        lambda: model.fit(x, odd),
    ):
        with pytest.raises(DataError, match=f"must be a list .* got {type(odd).__name__}"):
            call()
    if odd is not None:
        with pytest.raises(DataError, match="groups must be a list"):
            model.fit(x, y, groups=odd)


@pytest.mark.parametrize("type_", [list, np.float32, np.float64, object])
def test_continuous_numbers_are_no_classes(type_):
    x, _ = slides(8)
    y = [0.0, 1.7] * 4
    with pytest.raises(DataError, match=r"y holds numbers such as 1\.7.*continuous"):
        AttentionMILClassifier(epochs=1).fit(x, y if type_ is list else np.array(y, type_))
    with pytest.raises(DataError, match="such as inf"):
        AttentionMILClassifier(epochs=1).fit(x, [0.0, np.inf] * 4)


@pytest.mark.parametrize("y", [[0.0, 1.0], [True, False], ["0.3", "1.7"], [np.int8(0), np.int8(1)]])
def test_whole_numbers_and_words_are_classes(y):
    x, _ = slides(8)

    model = AttentionMILClassifier(epochs=1).fit(x, y * 4)

    assert model.classes_.tolist() == sorted(y)


def test_classes_that_are_nearly_the_same_are_told(caplog):
    x, _ = slides(8)

    AttentionMILClassifier(epochs=1).fit(x, ["IDC", "idc"] * 4)

    assert "classes that are nearly the same: 'IDC', 'idc'" in caplog.text


@pytest.mark.parametrize(
    "y", [[[1], [1, 2]] * 4, ["a", "b"], np.array(["a", "b"] * 4)[:, None], [pd.NA, "a"] * 4]
)
def test_scores_take_one_class_a_slide(y):
    x, words = slides(8)
    model = AttentionMILClassifier(epochs=1).fit(x, words)

    for call in (model.score, model.fit):
        with pytest.raises(DataError, match=r"one class per slide|without a class"):
            call(x, y)


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": "3"},
        {"epochs": 1.5},
        {"epochs": True},
        {"lr": "1e-3"},
        {"lr": None},
        {"lr": np.nan},
        {"lr": np.inf},
        {"hidden": 1.5},
        {"dropout": "x"},
        {"validation": "x"},
        {"averaged": "x"},
        {"gated": 1},
        {"class_weight": {"a": 1}},
    ],
)
def test_settings_of_another_type_are_named(setting):
    (name,) = setting
    with pytest.raises(ConfigError, match=f"{name} must be"):
        AttentionMILClassifier(**({"epochs": 1} | setting)).fit(*slides(8))


def test_numbers_of_numpy_are_settings():
    model = AttentionMILClassifier(epochs=np.int64(1), lr=np.float32(0.01), gated=np.bool_(True))

    assert len(model.fit(*slides(8)).predict(slides(8)[0])) == 8


@pytest.mark.parametrize("count", [1, 3])
def test_a_tuple_is_a_pair(count):
    x, y = slides(8)
    with pytest.raises(DataError, match=rf"X\[0\] must be features, or a pair .* {count} items"):
        AttentionMILClassifier(epochs=1).fit([(one,) * count for one in x], y)


def test_masked_values_are_not_taken_for_values():
    x, y = slides(8)
    masked = np.ma.masked_array(x[3], x[3] > x[3].mean())
    with pytest.raises(DataError, match=r"X\[3\] has masked values"):
        AttentionMILClassifier(epochs=1).fit([*x[:3], masked, *x[4:]], y)


@pytest.mark.parametrize("slide", ["words", [["a", "b"]], [[1.0], [1.0, 2.0]], {"a": 1}])
def test_what_is_no_array_is_named(slide):
    x, y = slides(8)

    with pytest.raises(DataError, match=r"X\[3\] is no array of numbers"):
        AttentionMILClassifier(epochs=1).fit([*x[:3], slide, *x[4:]], y)


@pytest.mark.parametrize("form", [torch.Tensor.to_sparse, lambda x: x * 1j])
def test_what_is_no_dense_tensor_of_real_numbers_is_named(form):
    x, y = slides(8)
    odd = form(torch.tensor(x[3]))

    for slide in (odd, odd.numpy() if odd.is_complex() else odd):
        with pytest.raises(DataError, match=r"X\[3\] is no .*numbers"):
            AttentionMILClassifier(epochs=1).fit([*x[:3], slide, *x[4:]], y)


@pytest.mark.parametrize("gap", [None, float("nan"), pd.NA, pd.NaT])
def test_gaps_are_no_class_and_a_patient_of_its_own(gap):
    x, y = slides(8)
    with pytest.raises(DataError, match=r"without a class cannot train, those at \[2\]"):
        AttentionMILClassifier(epochs=1).fit(x, pd.array([*y[:2], gap, *y[3:]], dtype=object))

    AttentionMILClassifier(epochs=1, validation=0.25).fit(x, y, groups=[gap] * 8)


def test_classes_that_cannot_be_sorted_are_refused():
    x, _ = slides(4)
    with pytest.raises(DataError, match="cannot be sorted"):
        AttentionMILClassifier(epochs=1).fit(x, np.array(["a", 1, "b", 2], dtype=object))


@pytest.mark.parametrize("seed", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_any_integer_is_a_seed(seed):
    x, y = slides(8)

    same = [AttentionMILClassifier(epochs=1, random_state=s).fit(x, y) for s in (3, seed)]

    np.testing.assert_array_equal(*(model.predict_proba(x) for model in same))


def test_seeds_as_scikit_learn_has_them():
    x, y = slides(8)
    AttentionMILClassifier(epochs=1, random_state=None).fit(x, y)
    AttentionMILClassifier(epochs=1, random_state=np.random.RandomState(0)).fit(x, y)
    for seed in (-1, 2**64, 2.0):
        with pytest.raises(ConfigError, match="random_state must be"):
            AttentionMILClassifier(epochs=1, random_state=seed).fit(x, y)
    with pytest.raises(ConfigError, match="random_state must be"):
        AttentionMILClassifier(epochs=1, random_state=1.5).fit(x, y)


def test_groups_are_routed_to_fit(monkeypatch):
    x, y = slides(12)
    patients = np.arange(12) // 2
    given = []
    fit = AttentionMILClassifier.fit
    monkeypatch.setattr(
        AttentionMILClassifier,
        "fit",
        lambda self, X, y, groups=None: given.append(groups) or fit(self, X, y, groups),
    )

    with sklearn.config_context(enable_metadata_routing=True):
        model = AttentionMILClassifier(epochs=1).set_fit_request(groups=True)
        cross_val_score(clone(model), x, y, cv=GroupKFold(3), params={"groups": patients})

    assert [len(one) for one in given] == [8, 8, 8]
