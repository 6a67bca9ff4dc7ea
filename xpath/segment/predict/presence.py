"""Is it there at all? The four tests of BiomedParse (Zhao et al. 2024, Methods), in closed form.

Of the pixels in a mask, four means are compared with those of training images that did hold the
object: probability, red, green and blue. Each mean was fitted with a Beta distribution, and a
one-sample Kolmogorov-Smirnov test of a single value x against it has the p-value
``2 min(F(x), 1 - F(x))``. The paper multiplies the four, its code takes their geometric mean.

``xpath.segment.predict.calibration`` makes a score from such means of masks of known presence.

Axes: B images, P prompts, H W pixels; ... any axes.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np

from xpath.errors import CheckpointError, DataError
from xpath.shapes import check_shape
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "PEAK",
    "MaskStatistics",
    "PresenceModel",
    "PresenceScore",
    "PresenceTests",
    "biomedparse_pathology",
    "channel_planes",
    "fit_presence",
    "mask_statistics",
    "mean_probability",
    "plane_sums",
    "read_record",
    "stacked",
]

SCHEMA = "xpath.presence/1"
"""Of the tests; that of the calibration is another."""
LEVEL = np.float32(128)
"""A pixel counts from here on, of 255: a probability of 0.502, not of one half."""
PEAK = 4
"""Column of the peak in a row of ``plane_sums``; before it sums, after it the area."""
logger = logging.getLogger(__name__)

Betas = tuple[tuple[float, float], ...]
"""Alpha and beta of the four means: probability, red, green, blue."""


class MaskStatistics(NamedTuple):
    """Measurements of masks ``(...)``, from which to decide whether their objects are there.

    Means are over pixels with a probability of 128 / 255 or more, and scaled to 0..255 / 256 as
    in BiomedParse. All are 0 where no pixel is sure enough.
    """

    probability: NDArray[np.float64]
    """``(...)``, mean probability times 255 / 256."""
    colour: NDArray[np.float64]
    """``(..., 3)``, mean red, green and blue, over 256."""
    peak: NDArray[np.float64]
    """``(...)``, the highest probability of any pixel, in the mask or not, 0..1."""
    area: NDArray[np.int64]
    """``(...)``, pixels that count."""
    similarity: NDArray[np.float64] | None = None
    """``(...)``, cosine of prompt and selected query, -1..1, where the segmentor tells."""


class PresenceScore(Protocol):
    """Any score of presence: high where the object is there, 0 for an empty mask."""

    def __call__(self, statistics: MaskStatistics, labels: Sequence[str]) -> NDArray[np.float64]:
        """Scores ``(..., P)`` of masks for P labels, by id."""


def mask_statistics(
    probability: NDArray[np.float32],
    images: NDArray[np.uint8],
    similarity: NDArray[np.floating] | None = None,
) -> MaskStatistics:
    """Statistics of masks.

    Args:
        probability: ``(B, P, H, W)`` in 0..1.
        images: ``(B, H, W, 3)`` uint8, the images the masks were found in, of the same size.
        similarity: ``(B, P)`` cosines of prompts and the queries that answered, if known.

    Raises:
        ShapeError: Images and masks of different size or number.
        DataError: Images that are not uint8.
    """
    sizes = check_shape("probability", probability, "B P H W")
    known = {axis: sizes[axis] for axis in "BHW"}
    check_shape("images", images, "B H W 3", **known)
    if images.dtype != np.uint8:
        raise DataError(f"images must be uint8 in 0..255, got {images.dtype}; do not normalise")
    rows = [
        plane_sums(plane, channels)
        for planes, channels in zip(probability, channel_planes(images), strict=True)
        for plane in planes
    ]
    return stacked(rows, (sizes["B"], sizes["P"]), similarity)


def plane_sums(
    probability: NDArray[np.float32], channels: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Of one mask ``(H, W)`` on an image ``(3, H, W)``: its row for ``stacked``.

    That is the sums of probability, red, green and blue in the mask, all of 0..255; the peak of
    the probability anywhere; the area. But for the peak, those of parts of an image add up.
    """
    import cv2

    scaled = probability * np.float32(255)
    inside = (scaled >= LEVEL).view(np.uint8)
    area, peak = cv2.countNonZero(inside), probability.max(initial=0)
    if not area:
        return np.array([0, 0, 0, 0, peak, 0], np.float64)
    # a norm is a sum of what is not negative; under a mask it is a hundred times faster than mean
    sums = [cv2.norm(plane, cv2.NORM_L1, inside) for plane in (scaled, *channels)]
    return np.array([*sums, peak, area])


def channel_planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images ``(..., H, W, 3)`` as ``(..., 3, H, W)``, each channel in one piece."""
    return np.ascontiguousarray(np.moveaxis(images, -1, -3))


def stacked(
    rows: Sequence[NDArray[np.float64]] | NDArray[np.float64],
    shape: tuple[int, ...],
    similarity: NDArray[np.floating] | None = None,
) -> MaskStatistics:
    """Rows of ``plane_sums`` as one record of masks ``shape``."""
    table = np.asarray(rows, np.float64).reshape(*shape, 6)
    means = table[..., :4] / np.maximum(table[..., 5:], 1) / 256
    cosine = None if similarity is None else np.asarray(similarity, np.float64).reshape(shape)
    area = table[..., 5].astype(np.int64)
    return MaskStatistics(means[..., 0], means[..., 1:], table[..., 4], area, cosine)


def mean_probability(
    statistics: MaskStatistics,
    labels: Sequence[str],  # noqa: ARG001  the same for every label
) -> NDArray[np.float64]:
    """The simplest ``PresenceScore``: mean probability in the mask, 0.502 to 1, or 0."""
    return statistics.probability * (256 / 255)


class PresenceTests(NamedTuple):
    """P-values of masks. Small ones speak against the object."""

    each: NDArray[np.float64]
    """``(..., P, 4)``: of the mean probability, red, green and blue."""
    product: NDArray[np.float64]
    """``(..., P)``, of the four; the paper's. Below 0.01 the paper takes a prompt as invalid."""
    geometric_mean: NDArray[np.float64]
    """``(..., P)``, of the four; what the paper's code computes."""
    known: NDArray[np.bool_]
    """``(P,)``, False where the label has no distributions of its own and the pooled ones were
    used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PresenceModel:
    """Beta distributions of the four means, per label."""

    betas: Mapping[str, Betas]
    """By label id, or by ``structure-object type`` for every region."""
    pooled: Betas
    """For labels that are not among them."""
    source: str
    """Where the numbers come from."""
    threshold: float = 0.01
    """Product of the four p-values from which on an object is taken as present (the paper's)."""

    def __call__(self, statistics: MaskStatistics, labels: Sequence[str]) -> NDArray[np.float64]:
        """The paper's ``PresenceScore``: the product of the four p-values."""
        return self.tests(statistics, labels).product

    def tests(self, statistics: MaskStatistics, labels: Sequence[str]) -> PresenceTests:
        """P-values of masks for P labels, 0 where a mask is empty.

        Args:
            statistics: Of masks ``(..., P)``.
            labels: P label ids.

        Raises:
            DataError: More or fewer labels than masks.
        """
        from scipy.special import betainc, betaincc

        values = np.concatenate((statistics.probability[..., None], statistics.colour), axis=-1)
        if values.shape[-2] != len(labels):
            raise DataError(f"{values.shape[-2]} masks, but {len(labels)} labels; give one each")
        own = [self._betas(label) for label in labels]
        chosen = np.array([betas or self.pooled for betas in own]).reshape(-1, 4, 2)
        alpha, beta = chosen[..., 0], chosen[..., 1]
        each = 2 * np.minimum(betainc(alpha, beta, values), betaincc(alpha, beta, values))
        each *= (statistics.area > 0)[..., None]
        product = each.prod(axis=-1)
        known = np.array([betas is not None for betas in own], np.bool_)
        return PresenceTests(each, product, product**0.25, known)

    def product(self, statistics: MaskStatistics, labels: Sequence[str]) -> NDArray[np.float64]:
        """The paper's ``PresenceScore``."""
        return self.tests(statistics, labels).product

    def geometric_mean(
        self, statistics: MaskStatistics, labels: Sequence[str]
    ) -> NDArray[np.float64]:
        """The ``PresenceScore`` of the paper's code."""
        return self.tests(statistics, labels).geometric_mean

    def save(self, path: Path) -> None:
        """Writes the distributions as JSON."""
        record = {
            "schema": SCHEMA,
            "source": self.source,
            "threshold": self.threshold,
            "pooled": self.pooled,
        }
        with atomic(path) as draft:
            text = json.dumps(record | {"betas": dict(self.betas)}, indent=2)
            draft.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what ``save`` wrote.

        Raises:
            CheckpointError: Missing, or something else.
        """
        record = read_record(path, SCHEMA)
        try:
            betas = {label: _betas(rows) for label, rows in record["betas"].items()}
            threshold = float(record.get("threshold", 0.01))
            pooled, source = _betas(record["pooled"]), record["source"]
            return cls(betas=betas, pooled=pooled, source=source, threshold=threshold)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{path} is damaged ({error!r}); fit and save it again"
            ) from error

    def _betas(self, label: str) -> Betas | None:
        _, _, object_class = label.partition("-")
        betas = self.betas.get(label) or self.betas.get(object_class)
        if not betas:
            _say_pooled(label, self.source)
        return betas


def fit_presence(
    samples: Mapping[str, NDArray[np.floating]], *, prior: float = 5.0, source: str = "fitted"
) -> PresenceModel:
    """Distributions of the four means, for own labels.

    Moments are matched, for they exist for any sample. Few samples tell little of a variance, so
    each is pulled towards that of the other labels, as if ``prior`` more samples had been seen
    with the mean variance; a label seen once gets that one, around its own value.

    Args:
        samples: Label id to ``(n, 4)``: mean probability, red, green and blue of the masks of
            images that hold the object, as ``mask_statistics`` scales them. Rows of zeros are
            empty masks and tell nothing.
        prior: Weight of the other labels, in samples; positive.
        source: What to say of the numbers.

    Raises:
        DataError: No samples of any label, or values outside 0..1.
    """
    rows = {label: _usable(label, values) for label, values in samples.items()}
    rows = {label: values for label, values in rows.items() if len(values)}
    if not rows or prior <= 0:
        raise DataError(
            f"{len(rows)} labels with samples and a prior of {prior}; need one label and prior > 0"
        )
    squares = np.sum([((it - it.mean(axis=0)) ** 2).sum(axis=0) for it in rows.values()], axis=0)
    freedom = sum(len(values) - 1 for values in rows.values())
    # where each label was seen once, or always alike, nothing tells the spread: take 0.05
    within = squares / freedom if freedom else np.zeros(4)
    within = np.where(within > 0, within, 0.05**2)
    betas = {}
    for label, values in rows.items():
        spread = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
        variance = (spread + prior * within) / (len(values) - 1 + prior)
        betas[label] = _matched(values.mean(axis=0), variance)
    return PresenceModel(betas=betas, pooled=_pooled(betas), source=source)


def biomedparse_pathology() -> PresenceModel:
    """The four targets that BiomedParse published for pathology.

    They were fitted on PanNuke for BiomedParse's own probabilities: for another segmentor they are
    a first guess.
    """
    return PresenceModel(
        betas=PUBLISHED,
        pooled=_pooled(PUBLISHED),
        source="BiomedParse, inference_utils/target_dist.json, Pathology",
    )


def read_record(path: Path, schema: str) -> dict[str, Any]:
    """A JSON record of this schema.

    Raises:
        CheckpointError: Missing, no JSON, or of another schema.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    written = record.get("schema") if isinstance(record, dict) else None
    if written != schema:
        raise CheckpointError(f"{path} says schema {written!r}, not {schema!r}; check the path")
    return dict(record)


def _usable(label: str, values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Samples of masks that are not empty."""
    table = np.asarray(values, np.float64)
    check_shape(f"samples of {label}", table, "n 4")
    if not ((table >= 0) & (table <= 1)).all():  # NaN is neither
        raise DataError(f"samples of {label} must lie in 0..1, see mask_statistics for the scale")
    return table[table[:, 0] > 0]


def _matched(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> Betas:
    """Beta distributions with these moments. A variance that no Beta has is made smaller."""
    mean = mean.clip(1e-3, 1 - 1e-3)
    size = mean * (1 - mean) / np.minimum(variance, 0.9 * mean * (1 - mean)) - 1
    return tuple((float(m * n), float((1 - m) * n)) for m, n in zip(mean, size, strict=True))


def _pooled(betas: Mapping[str, Betas]) -> Betas:
    """Beta distributions with the moments of all labels together, each counting the same."""
    alpha, beta = np.moveaxis(np.array(list(betas.values())), -1, 0)  # (labels, 4) each
    size, mean = alpha + beta, alpha / (alpha + beta)
    within = mean * (1 - mean) / (size + 1)
    return _matched(mean.mean(axis=0), within.mean(axis=0) + mean.var(axis=0))


def _betas(rows: Any) -> Betas:
    """Four pairs of positive numbers, as read from JSON."""
    table = np.array(rows, np.float64)
    if table.shape != (4, 2) or not (table > 0).all():
        raise ValueError(f"not four pairs of positive numbers: {rows}")
    return tuple((float(alpha), float(beta)) for alpha, beta in table)


@cache
def _say_pooled(label: str, source: str) -> None:
    """Says once what was not known."""
    logger.warning(
        "presence of %s is judged by what all labels have in common: %s has no numbers for it",
        label,
        source,
    )


PUBLISHED: dict[str, Betas] = {
    "nuclei-connective": (  # "connective tissue cells"
        (46.71165884847293, 4.997126203483956),
        (9.942495884846476, 15.700775443760845),
        (4.328453739888501, 18.42621798468577),
        (9.798096322131162, 11.920352021312304),
    ),
    "nuclei-inflammatory": (  # "inflammatory cells"
        (39.600337990197595, 3.1848025413959706),
        (6.287418328538852, 20.538379638162322),
        (2.9521703595392146, 25.264465092284006),
        (6.559595490616054, 12.004686961917436),
    ),
    "nuclei-neoplastic": (  # "neoplastic cells"
        (82.29374052289526, 8.22429924322936),
        (9.592296798563375, 14.818916788142138),
        (4.948629785308088, 19.78516221506478),
        (10.729094314024243, 12.934345198477494),
    ),
    "nuclei-epithelial": (  # "epithelial cells"
        (91.75183574899573, 9.577544361042948),
        (13.469843493323452, 27.305962287612964),
        (4.696928248406198, 25.254143364646463),
        (11.077634907582583, 13.487595094752443),
    ),
}
"""BiomedParse's targets under the names of PathSeg's tree, for any region."""
