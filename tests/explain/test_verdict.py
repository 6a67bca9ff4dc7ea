import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from xpath.errors import ShapeError
from xpath.explain.verdict import area_alone, evidence, leave_object_out
from xpath.metrics.intervals import MetricInterval
from xpath.mil.splits import Split

CHANCE = MetricInterval(0.55, 0.3, 0.8)


def pooled(rng, labels, *, twice=False):
    """Slide features ``(S, 3, 4)``: the first object (and the second, if ``twice``) has the class.

    The third is the same on all slides, but for noise.
    """
    features = rng.normal(0, 0.3, (len(labels), 3, 4))
    features[:, 0, 0] += 3 * labels
    if twice:
        features[:, 1, 0] += 3 * labels
    features[:, 2] += 5
    return features


@pytest.fixture
def slides():
    rng = np.random.default_rng(0)
    return rng, np.arange(30) % 2, np.arange(14) % 2


def test_a_loss_beyond_rounding_stays_finite():
    """The probability of the true class is below the smallest double; of three classes likewise."""
    labels = np.array([0, 1] * 4)
    apart = np.where(labels, 1.0, -1.0)[:, None, None] * np.ones((1, 1, 2))
    wrong = np.array([[[1e6, 1e6]]])

    assert np.isfinite(leave_object_out(apart, labels, wrong, np.array([0]))).all()
    three = np.array([0, 1, 2] * 3)
    spread = np.eye(3)[three][:, None]
    assert np.isfinite(leave_object_out(spread, three, 1e6 * spread[:1], np.array([1]))).all()


def test_without_the_planted_object_the_loss_rises_and_without_others_it_does_not(slides):
    rng, train, test = slides

    rise = leave_object_out(pooled(rng, train), train, pooled(rng, test), test)

    assert rise.shape == (14, 3)
    assert (rise[:, 0] > 0.1).all()
    assert np.abs(rise[:, 1:].mean(axis=0)).max() < 0.05


def test_an_object_that_another_stands_in_for_is_not_missed(slides):
    rng, train, test = slides

    alone = leave_object_out(pooled(rng, train), train, pooled(rng, test), test)[:, 0].mean()
    twin = leave_object_out(
        pooled(rng, train, twice=True), train, pooled(rng, test, twice=True), test
    )[:, :2].mean(axis=0)

    assert (np.abs(twin) < 0.3 * alone).all()


def test_the_rise_is_that_of_two_regressions_by_hand(slides):
    rng, train, test = slides
    one, two = pooled(rng, train), pooled(rng, test)

    def loss(first, second):
        mean, sd = first.mean(axis=0), first.std(axis=0)
        model = LogisticRegression(C=1 / 4, class_weight="balanced", max_iter=5000)
        model.fit((first - mean) / sd, train)
        probability = model.predict_proba((second - mean) / sd)
        return -np.log(probability[np.arange(14), test])

    wanted = loss(one[:, [0, 2]].sum(axis=1), two[:, [0, 2]].sum(axis=1)) - loss(
        one.sum(axis=1), two.sum(axis=1)
    )
    rise = leave_object_out(one, train, two, test)

    np.testing.assert_allclose(rise[:, 1], wanted, atol=1e-3)


def test_other_axes_are_refused(slides):
    rng, train, test = slides

    with pytest.raises(ShapeError, match="test"):
        leave_object_out(pooled(rng, train), train, pooled(rng, test)[:, :2], test)


def test_area_alone_tells_the_class_only_of_an_object_of_another_size(slides):
    rng, train, test = slides

    labels = np.concatenate((train, test))
    split = Split(np.arange(30), np.arange(0), np.arange(30, 44))

    def fractions(labels):
        same = rng.uniform(0.1, 0.3, len(labels))
        return np.stack([0.2 * labels + same, same, np.full(len(labels), 0.4)], axis=1)

    larger, same, constant = area_alone(
        fractions(labels),
        labels,
        [split],
        classes=("A", "B"),
        patients=[f"p{i}" for i in range(44)],
    )

    assert larger.value == 1
    assert 0.7 < larger.low < 0.8  # of 7 and 7 slides
    assert same.low < 0.5
    assert constant.value == 0.5


@pytest.mark.parametrize(
    ("q", "rise", "area", "held", "verdict", "speaking"),
    [
        (0.01, 1.0, CHANCE, [True] * 5, "supported", "hiding, left out, not its area, seeds"),
        (0.01, 1.0, MetricInterval(1, 0.7, 1), [True] * 5, "supported", "hiding, left out, seeds"),
        (0.01, 0.0, MetricInterval(1, 0.7, 1), [True] * 5, "suggestive", "hiding, seeds"),
        (0.20, 1.0, MetricInterval(1, 0.7, 1), [True] * 5, "suggestive", "left out, seeds"),
        (np.nan, 1.0, CHANCE, [True] * 4 + [False], "suggestive", "left out, not its area"),
        (0.20, 0.0, CHANCE, [False] * 5, "not distinguishable", "not its area"),
        (0.20, -1.0, MetricInterval(1, 0.7, 1), [], "not distinguishable", ""),
    ],
)
def test_a_verdict_says_which_checks_speak_for_it(q, rise, area, held, verdict, speaking):
    values = rise + 0.1 * np.array([-1.0, 1.0, 0.5, -0.5, 0.0])

    result = evidence(
        "a", hiding_q=q, needed=True, rise=values, area=area, held=held,
        patients=[f"p{i}" for i in range(5)],
    )  # fmt: skip

    assert (result.verdict, result.speaking) == (verdict, speaking)
    assert (result.seeds, result.seeds_held) == (len(held), sum(held))
    assert result.loss_without == pytest.approx(rise)
    assert result.loss_low < rise < result.loss_high


def test_hiding_does_not_speak_for_what_no_class_needs():
    result = evidence(
        "a", hiding_q=0.01, needed=False, rise=np.ones(5), area=CHANCE, held=[True],
        patients=[f"p{i}" for i in range(5)],
    )  # fmt: skip

    assert result.speaking == "left out, not its area, seeds"


def test_an_area_that_was_not_asked_about_speaks_for_nothing():
    """Of three classes one may have no test slide: the AUC of the area is then not defined."""
    unknown = MetricInterval(np.nan, np.nan, np.nan)

    result = evidence(
        "tumour", hiding_q=0.01, needed=True, rise=np.zeros(4), area=unknown, held=[True],
        patients=list("abcd"),
    )  # fmt: skip

    assert result.speaking == "hiding, seeds"
    assert result.verdict == "suggestive"
    assert result.verdict == "suggestive"


def test_area_alone_tests_each_slide_by_the_fold_that_did_not_see_it():
    labels = np.arange(24) % 2
    area = np.where(np.arange(24) < 12, labels, 1 - labels)[:, None] * 0.2 + 0.1
    halves = np.arange(12), np.arange(12, 24)
    none = np.arange(0)
    folds = [Split(halves[0], none, halves[1]), Split(halves[1], none, halves[0])]

    (interval,) = area_alone(
        area, labels, folds, classes=("A", "B"), patients=[f"p{i}" for i in range(24)]
    )

    assert interval.value == 0  # each half is taught the opposite by the other
