"""From scores to the probability that an object is there, learnt from masks of known presence.

A logistic regression on what is measured of a mask, with a shrunken intercept for every label; a
label it never saw gets none, which is the pooled answer. A probability from here is right for the
mix of present and absent prompts it was fitted on.

Axes: n samples, P prompts; ... any axes.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from xpath.errors import CheckpointError, DataError
from xpath.segment.predict.known_prompts import UNTAUGHT
from xpath.segment.predict.presence import SCHEMA as TESTS
from xpath.segment.predict.presence import MaskStatistics, PresenceModel, read_record
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "PRESENCE",
    "PresenceCalibration",
    "PresenceReport",
    "fit_calibration",
    "load_presence",
    "mask_facts",
    "presence_report",
    "with_untaught",
]

SCHEMA = "xpath.presence-calibration/1"
PRESENCE = "presence.json"
"""Lies beside the weights it was fitted for."""
FEATURES = ("probability", "peak", "log_area", "similarity")
FALSE_CALLS = 0.05
"""Share of untaught labels that may pass on the images of the calibration: half of the one in ten
that is promised on others."""
logger = logging.getLogger(__name__)


class PresenceReport(NamedTuple):
    """How well a score tells present from absent at a threshold."""

    threshold: float
    """An object is taken as present from here on."""
    precision: float
    """Share of those taken as present that are; NaN if none is taken."""
    recall: float
    """Share of those present that are taken; NaN if none is present."""
    present: int
    """Masks whose object is there."""
    absent: int
    """Masks whose object is not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PresenceCalibration:
    """P(present) of a mask, a ``PresenceScore``."""

    coefficients: tuple[float, ...]
    """Of log-odds of the mean probability, log-odds of the peak, log10(1 + area), cosine."""
    intercept: float
    """For a label that is not known."""
    offsets: Mapping[str, float]
    """Label id to what its intercept differs by; ``UNTAUGHT`` is for labels the weights never
    learnt."""
    threshold: float
    """From here on an object is taken as present."""
    precision: float
    """At the threshold, on the masks it was fitted on."""
    recall: float
    """At the threshold, on the masks it was fitted on; an empty mask is never recalled."""
    similarity: bool
    """Whether it was fitted with cosines; if so it needs them."""

    def __call__(self, statistics: MaskStatistics, labels: Sequence[str]) -> NDArray[np.float64]:
        """P(present) ``(..., P)`` of masks for P label ids, 0 for an empty mask.

        Raises:
            DataError: More or fewer labels than masks, or no cosines where they are needed.
        """
        if statistics.area.shape[-1] != len(labels):
            raise DataError(
                f"{statistics.area.shape[-1]} masks, but {len(labels)} labels; give one each"
            )
        if self.similarity and statistics.similarity is None:
            raise DataError("the calibration needs the cosine of prompt and query; pass similarity")
        logit = features(statistics) @ np.array(self.coefficients) + self.intercept
        logit += np.array([self._offset(label) for label in labels])
        probability: NDArray[np.float64] = _sigmoid(logit) * (statistics.area > 0)
        return probability

    def knows(self, label: str) -> bool:
        """Whether the label had samples of its own."""
        return label in self.offsets

    def save(self, path: Path) -> None:
        """Writes it as JSON."""
        with atomic(path) as draft:
            record = {"schema": SCHEMA, "features": FEATURES, **asdict(self)}
            draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what ``save`` wrote.

        Raises:
            CheckpointError: Missing, something else, or of other features.
        """
        record = read_record(path, SCHEMA)
        if tuple(record.pop("features", ())) != FEATURES:
            raise CheckpointError(f"{path} was fitted on other features; fit it again")
        del record["schema"]
        try:
            record["coefficients"] = tuple(map(float, record["coefficients"]))
            return cls(**record)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} is damaged ({error!r}); fit and save it again"
            ) from error

    def _offset(self, label: str) -> float:
        if label not in self.offsets:
            _say_pooled(label)
        return self.offsets.get(label, 0.0)


def fit_calibration(
    statistics: MaskStatistics,
    labels: Sequence[str],
    present: NDArray[np.bool_],
    *,
    threshold: float = 0.5,
) -> PresenceCalibration:
    """Fits P(present) on masks whose object is known to be there or not.

    Args:
        statistics: Of n masks, ``(n,)``; empty masks may be among them and stay empty.
        labels: n label ids.
        present: ``(n,)`` True where the object is in the image.
        threshold: For the reported precision and recall, and for users.

    Raises:
        DataError: Sizes that differ, values that are not finite, or masks that are not empty
            neither of which has, or all of which have, their object.
    """
    from sklearn.linear_model import LogisticRegression

    truth = np.asarray(present, np.bool_)
    if not len(labels) == len(truth) == len(statistics.area):
        raise DataError(
            f"{len(statistics.area)} masks, {len(labels)} labels and {len(truth)} answers;"
            " give one of each per mask"
        )
    filled = statistics.area > 0
    if len(np.unique(truth[filled])) < 2:
        raise DataError(
            "masks that are not empty must include present and absent objects, got"
            f" {int(truth[filled].sum())} present of {int(filled.sum())}; add prompts of the others"
        )
    table = features(statistics)[filled]
    if not np.isfinite(table).all():
        raise DataError("statistics of some masks are not finite; leave those masks out")
    names = np.asarray(labels)[filled]
    known = np.unique(names)
    mean, scale = table.mean(axis=0), table.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    # a column per label: the penalty pulls its weight, the label's offset, to the pooled zero
    columns = np.hstack(((table - mean) / scale, names[:, None] == known))
    model = LogisticRegression(C=1.0, max_iter=1000).fit(columns, truth[filled])
    weights = model.coef_[0, : len(mean)] / scale
    fitted = PresenceCalibration(
        coefficients=tuple(map(float, weights)),
        intercept=float(model.intercept_[0] - weights @ mean),
        offsets=dict(zip(known.tolist(), model.coef_[0, len(mean) :].tolist(), strict=True)),
        threshold=threshold,
        precision=float("nan"),
        recall=float("nan"),
        similarity=statistics.similarity is not None,
    )
    report = presence_report(fitted(statistics, labels), truth, threshold)
    return replace(fitted, precision=report.precision, recall=report.recall)


def with_untaught(
    calibration: PresenceCalibration,
    statistics: MaskStatistics,
    *,
    share: float = FALSE_CALLS,
) -> PresenceCalibration:
    """The calibration with an offset for labels the weights never learnt.

    The offset is the largest at which at most ``share`` of their masks is taken as present. It is
    the only number that such masks decide: the answers to taught labels stay as they are.

    Args:
        calibration: Fitted on labels that were taught.
        statistics: Of n masks ``(n,)`` of untaught labels.
        share: Of all n, empty masks included.
    """
    logit = features(statistics) @ np.array(calibration.coefficients) + calibration.intercept
    logit = np.sort(np.where(statistics.area > 0, logit, -np.inf))[::-1]
    passing = int(share * len(logit))
    highest = float(logit[passing]) if passing < len(logit) else -np.inf
    if not np.isfinite(highest):  # so few are filled that no offset is needed
        return replace(calibration, offsets={**calibration.offsets, UNTAUGHT: 0.0})
    level = float(_log_odds(np.float64(calibration.threshold)))
    offset = min(0.0, level - highest - 1e-6)
    return replace(calibration, offsets={**calibration.offsets, UNTAUGHT: offset})


def load_presence(path: Path) -> PresenceCalibration | PresenceModel:
    """Whatever decides about presence: a calibration, or the four tests of BiomedParse.

    Raises:
        CheckpointError: Missing, or something else.
    """
    try:
        schema = json.loads(path.read_text(encoding="utf-8")).get("schema")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    return PresenceModel.load(path) if schema == TESTS else PresenceCalibration.load(path)


def mask_facts(
    masks: NDArray[np.bool_], presence: NDArray[np.floating], peak: NDArray[np.floating]
) -> MaskStatistics:
    """Statistics of masks ``(..., H, W)`` for a calibration, without the colours under them.

    Args:
        masks: Any number of them.
        presence: ``(...)`` mean probability inside, 0 where empty.
        peak: ``(...)`` highest probability of any pixel.
    """
    colour = np.zeros((*masks.shape[:-2], 3))
    area = np.count_nonzero(masks, axis=(-2, -1)).astype(np.int64)
    mean = presence.astype(np.float64) * (255 / 256)
    return MaskStatistics(mean, colour, peak.astype(np.float64), area)


def presence_report(
    scores: NDArray[np.floating], present: NDArray[np.bool_], threshold: float
) -> PresenceReport:
    """Precision and recall of scores ``(n,)`` at a threshold, for masks not fitted on."""
    taken, truth = np.asarray(scores) >= threshold, np.asarray(present, np.bool_)
    right, many, there = int((taken & truth).sum()), int(taken.sum()), int(truth.sum())
    precision = right / many if many else float("nan")
    recall = right / there if there else float("nan")
    return PresenceReport(threshold, precision, recall, there, len(truth) - there)


def features(statistics: MaskStatistics) -> NDArray[np.float64]:
    """``(..., 4)``, in the order of ``FEATURES``."""
    area = np.log10(1.0 + statistics.area)
    cosine = np.zeros(area.shape) if statistics.similarity is None else statistics.similarity
    odds = (_log_odds(statistics.probability * (256 / 255)), _log_odds(statistics.peak))
    return np.stack((*odds, area, cosine), axis=-1)


def _log_odds(probability: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    """Limited to 0.0001 and 0.9999, beyond which half precision says nothing."""
    clipped = np.clip(probability, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(logit / 2)))


@cache
def _say_pooled(label: str) -> None:
    """Says once what was not known."""
    logger.warning("presence of %s is judged without samples of its own", label)
