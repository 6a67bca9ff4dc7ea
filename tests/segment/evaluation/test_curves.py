"""Curves: the rows of the paper's Tables 8 to 10 must give its Table 7."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit, linprog

from xpath.segment.evaluation.curves import FORMS, best_curve, fit_curves

# MedSAM's mean trait and Dice, then PathSegmentor's, in every interval of the tables.
SHAPE = np.array((
    (0.141, 0.95, 0.137, 0.916),
    (0.19, 0.941, 0.186, 0.914),
    (0.218, 0.975, 0.218, 0.993),
    (0.272, 0.944, 0.272, 0.976),
    (0.325, 0.926, 0.324, 0.956),
    (0.376, 0.919, 0.375, 0.944),
    (0.425, 0.911, 0.425, 0.934),
    (0.475, 0.9, 0.475, 0.93),
    (0.525, 0.885, 0.525, 0.915),
    (0.575, 0.87, 0.575, 0.897),
    (0.625, 0.838, 0.626, 0.879),
    (0.675, 0.806, 0.676, 0.882),
    (0.725, 0.766, 0.726, 0.886),
    (0.774, 0.694, 0.775, 0.868),
    (0.825, 0.592, 0.825, 0.827),
    (0.876, 0.448, 0.875, 0.797),
    (0.928, 0.291, 0.928, 0.777),
    (0.979, 0.282, 0.978, 0.79),
))
SIZE = np.array((
    (0.993, 0.976, 0.993, 0.996),
    (0.929, 0.949, 0.929, 0.977),
    (0.877, 0.925, 0.877, 0.968),
    (0.826, 0.905, 0.827, 0.967),
    (0.776, 0.895, 0.776, 0.962),
    (0.725, 0.885, 0.725, 0.962),
    (0.676, 0.884, 0.675, 0.956),
    (0.625, 0.901, 0.624, 0.959),
    (0.573, 0.901, 0.574, 0.956),
    (0.523, 0.899, 0.524, 0.952),
    (0.471, 0.92, 0.471, 0.964),
    (0.425, 0.9, 0.425, 0.954),
    (0.376, 0.864, 0.375, 0.947),
    (0.325, 0.839, 0.325, 0.941),
    (0.273, 0.835, 0.273, 0.938),
    (0.225, 0.817, 0.224, 0.928),
    (0.174, 0.795, 0.173, 0.918),
    (0.123, 0.763, 0.123, 0.898),
    (0.072, 0.68, 0.072, 0.839),
    (0.004, 0.159, 0.007, 0.531),
))
DENSITY = np.array((
    (2.343, 0.492, 2.307, 0.813),
    (4.394, 0.218, 4.34, 0.719),
    (6.439, 0.116, 6.4, 0.68),
    (8.455, 0.077, 8.437, 0.66),
    (10.45, 0.065, 10.459, 0.656),
    (12.449, 0.065, 12.445, 0.674),
    (14.491, 0.07, 14.488, 0.696),
    (16.451, 0.076, 16.511, 0.71),
    (18.449, 0.09, 18.456, 0.741),
    (20.507, 0.089, 20.48, 0.734),
    (22.468, 0.102, 22.477, 0.754),
    (24.504, 0.098, 24.481, 0.745),
    (26.484, 0.098, 26.471, 0.734),
    (28.498, 0.105, 28.484, 0.756),
    (30.481, 0.112, 30.476, 0.755),
    (32.536, 0.117, 32.503, 0.758),
    (34.526, 0.123, 34.547, 0.767),
    (36.432, 0.122, 36.497, 0.759),
    (38.506, 0.136, 38.516, 0.763),
    (40.481, 0.15, 40.454, 0.769),
    (42.472, 0.136, 42.494, 0.769),
    (44.45, 0.148, 44.443, 0.748),
    (46.512, 0.155, 46.442, 0.762),
    (48.47, 0.172, 48.488, 0.758),
    (50.464, 0.155, 50.506, 0.752),
    (52.509, 0.148, 52.496, 0.743),
    (54.46, 0.173, 54.484, 0.75),
    (56.513, 0.175, 56.511, 0.747),
    (58.56, 0.223, 58.584, 0.786),
    (60.477, 0.217, 60.508, 0.77),
    (62.449, 0.192, 62.443, 0.764),
    (64.477, 0.183, 64.463, 0.745),
    (66.401, 0.181, 66.453, 0.698),
    (68.43, 0.185, 68.368, 0.71),
    (70.409, 0.184, 70.338, 0.704),
    (72.0, 0.192, 72.0, 0.674),
))


def points(rows, model):
    x, y = rows[:, 2 * model], rows[:, 2 * model + 1]
    return (1 - x if rows is SHAPE else x), y  # Table 7 fits over regularity


def fitted(x, y, form):
    return {curve.form: curve for curve in fit_curves(x, y)}[form]


def smallest(slopes, low, high):
    """The ``x`` with ``low <= slopes @ x <= high`` whose largest entry is smallest."""
    eye, size = np.eye(slopes.shape[1]), np.ones((slopes.shape[1], 1))
    found = linprog(
        [0.0] * len(eye) + [1.0],
        A_ub=np.block([
            [slopes, np.zeros((len(slopes), 1))],
            [-slopes, np.zeros((len(slopes), 1))],
            [eye, -size],
            [-eye, -size],
        ]),
        b_ub=np.concatenate((high, -low, np.zeros(2 * len(eye)))),
        bounds=(None, None),
    )
    return found.x[:-1]


TABLE7 = pytest.mark.parametrize(
    ("rows", "model", "form", "parameters", "mae", "rmse"),
    [
        (SHAPE, 0, "exponential", (-0.8436, -4.4946, 0.9802), 0.0217, 0.0305),
        (SHAPE, 1, "linear", (0.2085, 0.7998), 0.0231, 0.0279),
        (SIZE, 0, "exponential", (-0.7653, -14.1092, 0.8978), 0.0258, 0.0343),
        (SIZE, 1, "exponential", (-0.4800, -17.2893, 0.9586), 0.0103, 0.0135),
        (DENSITY, 0, "reciprocal", (93.4330 / 173.6386, 0.1192), 0.0512, 0.0609),
        (DENSITY, 1, "linear", (0.0003, 0.7240), 0.0280, 0.0355),
    ],
)


@TABLE7
def test_the_papers_rows_give_its_functions(rows, model, form, parameters, mae, rmse):
    """To 0.001, the coefficients of exponentials to 0.4 %: as near as three digits can tell."""
    curve = fitted(*points(rows, model), form)

    assert (curve.mae, curve.rmse) == pytest.approx((mae, rmse), abs=3e-4)
    for ours, printed in zip(curve.parameters, parameters, strict=True):
        assert ours == pytest.approx(printed, abs=1e-3, rel=4e-3)


@TABLE7
def test_rows_that_round_to_the_papers_give_every_digit(rows, model, form, parameters, mae, rmse):
    """What is left above is the rounding of the rows.

    They have three digits, so each of their numbers may be off by 0.0005. A linear programme over
    the derivatives by all of them finds a change within that, and the changed rows, which round to
    those of the paper, give all of Table 7: coefficients, MAE and RMSE.
    """
    start, printed = np.array(points(rows, model)), np.array((*parameters, mae, rmse))

    def numbers(some):
        curve = FORMS[form][0]
        values, _ = curve_fit(curve, *some, p0=parameters, ftol=1e-12, xtol=1e-12)
        left = curve(some[0], *values) - some[1]
        return np.array((*values, np.abs(left).mean(), np.sqrt(np.mean(left**2))))

    change = np.zeros(start.size)
    for _ in range(4):  # Newton's steps
        ours = numbers(start + change.reshape(start.shape))
        steps = 1e-5 * np.eye(start.size)
        near = [numbers(start + (change + step).reshape(start.shape)) - ours for step in steps]
        slopes = np.stack(near, axis=1) / 1e-5
        wanted = printed - ours + slopes @ change
        change = smallest(slopes, wanted - 4e-5, wanted + 4e-5)
    moved = start + change.reshape(start.shape)

    assert np.abs(moved - start).max() < 5e-4
    curve = fitted(*moved, form)
    assert (*curve.parameters, curve.mae, curve.rmse) == pytest.approx(printed, abs=5e-5, rel=1e-5)


def test_the_band_of_a_line_is_the_textbooks():
    """Half width t s sqrt(1 / n + (x - mean)^2 / Sxx) at the middle and one away from it."""
    x, y = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 1.2, 1.9, 3.1, 3.8])
    line = fit_curves(x, y)[0]
    spread = math.sqrt(((line.at(x) - y) ** 2).sum() / 3)
    wanted = [3.182446 * spread * math.sqrt(0.2 + d**2 / 10) for d in (0, 1)]

    assert line.band(np.array([2.0, 3.0])) == pytest.approx(wanted, rel=1e-5)
    assert np.isnan(fit_curves(x[:2], y[:2])[0].band(x)).all()


def test_an_exponential_is_met_again_and_must_earn_its_place():
    x = np.linspace(0.001, 0.9, 60)
    falling = fit_curves(x, -0.48 * np.exp(-17.3 * x) + 0.96)
    noise = np.random.default_rng(0).normal(0, 0.02, 60)

    assert best_curve(falling).parameters == pytest.approx((-0.48, -17.3, 0.96), rel=1e-4)
    assert best_curve(fit_curves(x, 0.3 * x + noise)).form == "linear"


def test_too_few_points_have_no_curve():
    assert fit_curves(np.zeros(0), np.zeros(0)) == ()
    assert fit_curves(np.array([0.5]), np.array([0.7])) == ()
    assert [c.form for c in fit_curves(np.array([0.0, 1.0]), np.array([1.0, 0.0]))] == ["linear"]
    assert best_curve(()) is None
