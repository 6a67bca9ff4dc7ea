import json

import numpy as np
import pytest
from scipy import stats

from xpath.errors import CheckpointError, DataError, ShapeError
from xpath.segment.predict.calibration import PresenceCalibration, fit_calibration, presence_report
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.segment.predict.presence import (
    MaskStatistics,
    PresenceModel,
    biomedparse_pathology,
    fit_presence,
    mask_statistics,
    mean_probability,
)

NEOPLASTIC = "breast-nuclei-neoplastic"


def one(probability, colour, area=9):
    """Statistics of a single mask."""
    return MaskStatistics(
        np.array([probability]), np.array([colour]), np.array([probability]), np.array([area])
    )


def test_statistics_by_hand():
    probability = np.array([[[[0.9, 0.501, 0.1], [0.6, 0.0, 128 / 255]]]], np.float32)
    image = np.arange(18, dtype=np.uint8).reshape(1, 2, 3, 3)

    found = mask_statistics(probability, image)

    # 0.501 is over one half, but not over 128 of 255
    assert found.area.tolist() == [[3]]
    np.testing.assert_allclose(found.probability, (0.9 * 255 + 0.6 * 255 + 128) / 3 / 256, 1e-6)
    np.testing.assert_allclose(found.colour, [[np.array([0 + 9 + 15, 27, 30]) / 3 / 256]])
    np.testing.assert_allclose(found.peak, 0.9)
    np.testing.assert_allclose(mean_probability(found, ["x"]), (0.9 + 0.6 + 128 / 255) / 3, 1e-6)


def test_statistics_of_many_are_those_of_each(rng):
    probability = rng.random((2, 3, 8, 9), np.float32)
    probability[1, 2] = 0.4
    images = rng.integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)

    found = mask_statistics(probability, images)

    for b, p in np.ndindex(2, 3):
        inside = probability[b, p] * 255 >= 128
        wanted = images[b][inside].mean(axis=0) / 256 if inside.any() else np.zeros(3)
        np.testing.assert_allclose(found.colour[b, p], wanted, rtol=1e-9)
        assert found.area[b, p] == inside.sum()
    assert found.probability[1, 2] == 0


def test_p_values_are_those_of_a_kolmogorov_smirnov_test(rng):
    model = biomedparse_pathology()
    for label, betas in model.betas.items():
        values = rng.random(4)
        found = model.tests(one(values[0], values[1:]), [f"colon-{label}"])
        wanted = [
            stats.ks_1samp([value], stats.beta(*pair).cdf).pvalue
            for value, pair in zip(values, betas, strict=True)
        ]
        np.testing.assert_allclose(
            found.each[0], wanted, rtol=1e-9, atol=1e-14
        )  # scipy's 1 - F rounds
        np.testing.assert_allclose(found.product[0], found.each[0].prod())
        np.testing.assert_allclose(found.geometric_mean[0], found.each[0].prod() ** 0.25)
        assert found.known.all()


def test_p_values_by_hand():
    """Beta(1, 1) is flat: F(x) = x."""
    flat = PresenceModel(
        betas={"x-nuclei-y": ((1.0, 1.0),) * 4}, pooled=((2.0, 2.0),) * 4, source=""
    )
    found = flat.tests(one(0.5, [0.25, 0.9, 0.0]), ["x-nuclei-y"])

    np.testing.assert_allclose(found.each[0], [1.0, 0.5, 0.2, 0.0])
    assert found.product.tolist() == [0.0]
    found = flat.tests(one(0.5, [0.25, 0.9, 0.125]), ["x-nuclei-y"])
    np.testing.assert_allclose(flat.product(one(0.5, [0.25, 0.9, 0.125]), ["x-nuclei-y"]), 0.025)
    np.testing.assert_allclose(found.geometric_mean, 0.025**0.25)


def test_an_empty_mask_is_absent():
    statistics = mask_statistics(
        np.full((1, 2, 4, 4), 0.5, np.float32), np.ones((1, 4, 4, 3), np.uint8)
    )
    found = biomedparse_pathology().tests(statistics, [NEOPLASTIC, "breast-tissue-fat"])

    assert not found.product.any()
    assert not found.geometric_mean.any()


def test_an_unknown_label_is_judged_by_the_pooled_and_says_so(caplog):
    found = biomedparse_pathology().tests(one(0.9, [0.4, 0.2, 0.45]), ["moon-tissue-cheese"])

    assert found.known.tolist() == [False]
    assert found.product[0] > 0
    assert "moon-tissue-cheese" in caplog.text


def test_the_published_numbers_are_those_published(shared):
    path = shared / "reference" / "target_dist_pathology.json"
    published = json.loads(path.read_text())["Pathology"]
    ours = biomedparse_pathology().betas

    assert len(published) == len(ours) == 4
    for target, rows in published.items():
        object_type = target.split()[0]
        np.testing.assert_array_equal(ours[f"nuclei-{object_type}"], rows)


@pytest.mark.parametrize(
    ("probability", "images", "error"),
    [
        (np.zeros((1, 2, 8, 8), np.float32), np.zeros((1, 8, 9, 3), np.uint8), ShapeError),
        (np.zeros((2, 2, 8, 8), np.float32), np.zeros((1, 8, 8, 3), np.uint8), ShapeError),
        (np.zeros((1, 2, 8, 8), np.float32), np.zeros((1, 8, 8, 3), np.float32), DataError),
    ],
)
def test_images_that_do_not_fit_are_refused(probability, images, error):
    with pytest.raises(error):
        mask_statistics(probability, images)


def test_labels_must_be_as_many_as_masks():
    with pytest.raises(DataError, match="labels"):
        biomedparse_pathology().tests(one(0.9, [0.4, 0.2, 0.45]), [NEOPLASTIC] * 2)


def test_a_fit_finds_the_distributions_back(rng):
    true = {"a-nuclei-b": ((80, 8), (10, 15), (5, 20), (11, 13)), "c-tissue-d": ((40, 3),) * 4}
    samples = {
        label: np.stack([rng.beta(*pair, 4000) for pair in pairs], axis=1)
        for label, pairs in true.items()
    }
    fitted = fit_presence(samples)

    for label, pairs in true.items():
        np.testing.assert_allclose(fitted.betas[label], pairs, rtol=0.1)


def test_few_samples_borrow_the_spread_of_the_others(rng):
    samples = {
        "a-nuclei-b": rng.beta(20, 20, (500, 4)),
        "a-nuclei-once": np.full((1, 4), 0.3),
        "a-nuclei-alike": np.full((7, 4), 0.6),
        "a-nuclei-never": np.zeros((3, 4)),  # always empty
    }
    fitted = fit_presence(samples)

    assert set(fitted.betas) == {"a-nuclei-b", "a-nuclei-once", "a-nuclei-alike"}
    for label, mean in (("a-nuclei-once", 0.3), ("a-nuclei-alike", 0.6)):
        for alpha, beta in fitted.betas[label]:
            known = stats.beta(alpha, beta)
            np.testing.assert_allclose(known.mean(), mean)
            assert 0.02 < known.std() < 0.1


def test_a_fit_on_one_sample_still_answers():
    fitted = fit_presence({"a-nuclei-b": np.array([[1.0, 0.0, 0.5, 0.2]])})
    found = fitted.tests(one(0.99, [0.01, 0.5, 0.2]), ["a-nuclei-b"])

    assert np.isfinite(found.each).all()
    assert (found.each >= 0).all()


def test_samples_that_cannot_be_are_refused():
    with pytest.raises(DataError):
        fit_presence({})
    with pytest.raises(DataError, match="must lie in"):
        fit_presence({"a-nuclei-b": np.array([[200.0, 1, 1, 1]])})
    with pytest.raises(DataError, match="must lie in"):
        fit_presence({"a-nuclei-b": np.array([[np.nan, 1, 1, 1]])})


def test_a_model_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "presence.json"
    model = biomedparse_pathology()
    model.save(path)

    assert PresenceModel.load(path) == model


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "xpath.presence/1", "betas": {}}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    path = tmp_path / "presence.json"
    path.write_text(text)
    with pytest.raises(CheckpointError):
        PresenceModel.load(path)
    with pytest.raises(CheckpointError):
        PresenceCalibration.load(path)


# --- calibration


def drawn(rng, count, *, similarity=True):
    """Masks of two labels. What is there is surer and larger, and label b is rarer."""
    labels = np.where(np.arange(count) % 2, "x-nuclei-a", "x-nuclei-b")
    present = rng.random(count) < np.where(labels == "x-nuclei-a", 0.8, 0.2)
    shift = np.where(present, 0.15, 0.0)
    probability = 0.65 + shift + rng.uniform(0, 0.15, count)
    area = (10 ** rng.normal(2 + present, 0.5)).astype(np.int64)
    area[:20] = 0
    probability[:20] = 0
    statistics = MaskStatistics(
        probability,
        np.zeros((count, 3)),
        np.clip(probability + 0.1, 0, 1),
        area,
        rng.normal(0.3 * present, 0.2) if similarity else None,
    )
    return statistics, labels.tolist(), present


@pytest.mark.parametrize("similarity", [True, False])
def test_calibrated_scores_are_frequencies(rng, similarity):
    fitted = fit_calibration(*drawn(rng, 4000, similarity=similarity))
    statistics, labels, present = drawn(rng, 4000, similarity=similarity)
    scores = fitted(statistics, labels)

    for low in (0.0, 0.25, 0.5, 0.75):
        chosen = (scores > low) & (scores <= low + 0.25) & (statistics.area > 0)
        if chosen.sum() > 50:
            assert abs(scores[chosen].mean() - present[chosen].mean()) < 0.1
    report = presence_report(scores, present, fitted.threshold)
    assert report.precision > 0.85
    assert abs(report.precision - fitted.precision) < 0.05
    assert abs(report.recall - fitted.recall) < 0.05
    assert report.present + report.absent == 4000


def test_an_empty_mask_is_absent_whatever_the_label(rng):
    fitted = fit_calibration(*drawn(rng, 400, similarity=False))

    assert fitted(one(0.0, [0, 0, 0], area=0), ["x-nuclei-a"]).tolist() == [0.0]


def test_a_label_without_samples_gets_the_pooled_answer(rng, caplog):
    fitted = fit_calibration(*drawn(rng, 1000, similarity=False))
    mask = one(0.8, [0, 0, 0])
    often, rare, new = (fitted(mask, [f"x-nuclei-{object_type}"])[0] for object_type in "abz")

    assert rare < new < often
    assert "x-nuclei-z" in caplog.text
    assert fitted.knows("x-nuclei-a")
    assert not fitted.knows("x-nuclei-z")


def test_a_calibration_is_read_as_it_was_written(rng, tmp_path):
    fitted = fit_calibration(*drawn(rng, 400))
    fitted.save(tmp_path / "presence.json")

    assert PresenceCalibration.load(tmp_path / "presence.json") == fitted


def test_a_calibration_needs_both_answers_and_its_cosines(rng):
    statistics, labels, present = drawn(rng, 100)
    with pytest.raises(DataError, match="present and absent"):
        fit_calibration(statistics, labels, np.ones_like(present))
    with pytest.raises(DataError, match="one of each"):
        fit_calibration(statistics, labels[1:], present)
    fitted = fit_calibration(statistics, labels, present)
    with pytest.raises(DataError, match="cosine"):
        fitted(one(0.8, [0, 0, 0]), ["x-nuclei-a"])


def test_precision_and_recall_by_hand():
    report = presence_report(
        np.array([0.9, 0.6, 0.4, 0.1, 0.5]), np.array([True, False, True, False, True]), 0.5
    )

    assert report.precision == pytest.approx(2 / 3)
    assert report.recall == pytest.approx(2 / 3)
    assert (report.present, report.absent) == (3, 2)
    assert np.isnan(presence_report(np.zeros(1), np.ones(1, bool), 0.5).precision)


def test_words_of_nothing_and_pictures_of_nothing_are_not_present():
    """Of the weights that ship. Masks of the black image cover most of it."""
    predictor = SegmentPredictor.from_pretrained()
    words = ["lymphocyte nuclei in breast pathology", "xyzzy", "nuclei", "not nuclei", "background"]

    for grey in (0, 255):
        image = np.full((256, 256, 3), grey, np.uint8)
        found = predictor.masks(predictor.encode(image, mpp=0.5), words)

        assert not found.present.any()
