"""The baseline anyone can check: a logistic regression on how much of each object a slide has.

What a deep model adds must be added to this. As a slide classifier it reads bags of coverage, one
row of area shares per patch, whose mean is the slide's area fractions.
Axes: S slides, N patches, M patches of all bags, L object classes, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
import torch

from xpath.errors import ConfigError, DataError
from xpath.mil.attention_mil import check_sizes, named
from xpath.mil.bag import check_packed
from xpath.mil.checkpoint import Pretrained
from xpath.mil.pool import segment_sum
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.mil.bag import PackedBags

__all__ = [
    "Coefficient",
    "FractionsOutput",
    "ObjectFractions",
    "ObjectFractionsConfig",
    "ObjectFractionsSettings",
    "object_fractions",
]


class Coefficient(NamedTuple):
    """Weight of one object for one class."""

    class_name: str
    object: str
    weight: float
    """Change of the class's logit per standard deviation of the fraction."""
    per_percent: float
    """Change of the class's logit per percent of the slide's area; 0 for a fraction that was the
    same on all training slides."""
    mean: float
    """Mean fraction of the training slides."""
    sd: float
    """Their standard deviation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectFractionsSettings:
    """Choices of an ``ObjectFractions`` that no cohort decides."""

    c: float = 1.0
    """Inverse strength of the penalty, as scikit-learn's ``C``."""
    class_weight: Literal["balanced"] | None = "balanced"
    """``balanced``: rare classes weigh more, inversely to their frequency."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a penalty that is not positive, or another class weight."""
        if not self.c > 0 or self.class_weight not in ("balanced", None):
            raise ConfigError(
                f"c must be positive and class_weight 'balanced' or None, got {self.c} and"
                f" {self.class_weight!r}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectFractionsConfig(ObjectFractionsSettings):
    """Everything an ``ObjectFractions`` is built from."""

    objects: tuple[str, ...]
    """Names of the L object classes, in the order of the fractions."""
    classes: tuple[str, ...]
    """Names of the K classes, in the order of the logits."""

    def __post_init__(self) -> None:
        """Raises ConfigError for fewer than 2 classes, or as for ``ObjectFractionsSettings``."""
        super(ObjectFractionsConfig, self).__post_init__()  # bare super() breaks under slots
        check_sizes(classes=self.classes)


class FractionsOutput(NamedTuple):
    """Logits, and the area fractions they come from."""

    logits: Tensor
    """``(B, K)``."""
    fractions: Tensor
    """``(B, L)``."""


def object_fractions(
    coverage: NDArray[np.floating], weight: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Share of a slide's area each object has, ``(L,)``.

    Args:
        coverage: ``(N, L)`` shares of each patch, as in ``features.h5``.
        weight: ``(N,)`` area of each patch, such as its share of tissue; by default all alike.

    Raises:
        DataError: No patches, weights that sum to 0, or values that are no numbers.
        ShapeError: Other axes.
    """
    count = check_shape("coverage", coverage, "N L")["N"]
    weights = np.ones(count) if weight is None else np.asarray(weight, np.float64)
    check_shape("weight", weights, "N", N=count)
    if not (np.isfinite(coverage).all() and np.isfinite(weights).all() and weights.sum() > 0):
        raise DataError(f"coverage of {count} patches must be finite, and weigh more than 0")
    return np.asarray(weights @ np.asarray(coverage, np.float64) / weights.sum())


class ObjectFractions(Pretrained):
    """Logistic regression on the area fractions of a slide's objects.

    Fractions are standardised with the training slides. The penalty is the ridge's, so that
    fractions that rise together share a weight. Follows scikit-learn's estimators: ``fit`` returns
    the model, ``get_params`` what it was built from, so that ``sklearn.base.clone`` works.

    Example::

        model = ObjectFractions(objects, classes).fit(fractions, labels)
        probability = model.predict_proba(fractions)
        for row in model.coefficients():
            ...

    Args:
        objects: Names of the L object classes.
        classes: Names of the K classes, or just how many.
        c, class_weight: See ``ObjectFractionsSettings``.

    Raises:
        ConfigError: A penalty that is not positive, or another class weight.
    """

    model_type = "object_fractions"
    config: ObjectFractionsConfig
    mean: Tensor
    """``(L,)`` fractions of the training slides; NaN until fitted, as all four."""
    sd: Tensor
    """``(L,)`` their standard deviations."""
    weight: Tensor
    """``(K, L)`` on standardised fractions."""
    bias: Tensor
    """``(K,)``."""

    def __init__(
        self,
        objects: Sequence[str],
        classes: Sequence[str] | int,
        *,
        c: float = 1.0,
        class_weight: Literal["balanced"] | None = "balanced",
    ) -> None:
        super().__init__()
        self.set_params(objects=objects, classes=classes, c=c, class_weight=class_weight)

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the L object classes, in the order of the fractions."""
        return self.config.objects

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002 - scikit-learn's signature
        """The arguments it was built from, as they were passed."""
        return dict(self._params)

    def set_params(self, **params: Any) -> Self:
        """Changes what it is built from, after which it must be fitted again.

        Raises:
            ConfigError: No such parameter, or one that cannot be.
        """
        known = getattr(self, "_params", params)
        unknown = params.keys() - known.keys()
        if unknown:
            raise ConfigError(f"there is no {sorted(unknown)}; known are {list(known)}")
        given = {**known, **params}
        self.config = ObjectFractionsConfig(
            objects=named(given["objects"], "object"),
            classes=named(given["classes"], "class"),
            c=given["c"],
            class_weight=given["class_weight"],
        )
        self._params = given
        count, classes = len(self.objects), len(self.classes)
        shapes = {"mean": (count,), "sd": (count,), "weight": (classes, count), "bias": (classes,)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.full(shape, torch.nan, dtype=torch.float64))
        return self

    def fit(self, fractions: NDArray[np.floating], labels: Sequence[int]) -> Self:
        """Learns the weights. A fraction that is the same on all slides gets none.

        Args:
            fractions: ``(S, L)``, rows from ``object_fractions``.
            labels: Class index of each slide.

        Raises:
            DataError: Values that are no numbers, labels that are no class, or one class only.
            ShapeError: Other axes.
        """
        from sklearn.linear_model import LogisticRegression

        rows, truth = self._checked(fractions), np.asarray(labels, np.int64)
        check_shape("labels", truth, "S", S=len(rows))
        there = np.unique(truth)
        if len(there) < 2 or there.min() < 0 or there.max() >= len(self.classes):
            raise DataError(
                f"labels must be of two of {len(self.classes)} classes, got {there.tolist()}"
            )
        self.mean, self.sd = rows.mean(dim=0), rows.std(dim=0, correction=0)
        model = LogisticRegression(
            C=self.config.c, class_weight=self.config.class_weight, max_iter=5000
        )
        model.fit(self._standard(rows).numpy(), truth)
        # a class without a slide must never be the answer, yet have a finite logit
        weight = np.zeros((len(self.classes), rows.shape[1]))
        bias = np.full(len(self.classes), -50.0)
        two = len(there) == 2
        weight[there] = np.vstack([-model.coef_ / 2, model.coef_ / 2]) if two else model.coef_
        first = model.intercept_
        bias[there] = np.concatenate([-first / 2, first / 2]) if two else first
        self.weight, self.bias = torch.from_numpy(weight), torch.from_numpy(bias)
        return self

    def forward(self, bags: PackedBags) -> FractionsOutput:
        """Logits of bags of coverage ``(M, L)``.

        Raises:
            DataError: Not fitted, or bags that are not packed.
            ShapeError: Rows of other objects.
        """
        check_packed(bags)
        check_shape("coverage", bags.features, "M L", L=len(self.objects))
        total = segment_sum(bags.features.double(), bags.index, bags.bags)
        fractions = total / bags.sizes.to(total)[:, None].clamp(min=1)
        return FractionsOutput(self._logits(fractions), fractions)

    def decision_function(self, fractions: NDArray[np.floating]) -> NDArray[np.float64]:
        """Logits ``(S, K)``. With two classes, one is minus the other.

        Raises:
            DataError: Not fitted, or values that are no numbers.
            ShapeError: Other axes.
        """
        return np.asarray(self._logits(self._checked(fractions)).numpy())

    def predict_proba(self, fractions: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probabilities ``(S, K)``. Raises as ``decision_function``."""
        return np.asarray(torch.from_numpy(self.decision_function(fractions)).softmax(1).numpy())

    def predict(self, fractions: NDArray[np.floating]) -> NDArray[np.int64]:
        """Class indices ``(S,)``. Raises as ``decision_function``."""
        return np.asarray(self.decision_function(fractions).argmax(axis=1), np.int64)

    def score(self, fractions: NDArray[np.floating], labels: Sequence[int]) -> float:
        """Share of slides that are right. Raises as ``decision_function``."""
        return float((self.predict(fractions) == np.asarray(labels)).mean())

    def coefficients(self) -> list[Coefficient]:
        """A row per class and object, classes in order, the largest weights of each first.

        Raises:
            DataError: Not fitted.
        """
        self._require_fit()
        mean, sd, weight = (t.cpu().numpy() for t in (self.mean, self.sd, self.weight))
        per = np.divide(weight, 100 * sd, out=np.zeros_like(weight), where=sd > 0)
        return [
            Coefficient(
                name, self.objects[j], *map(float, (weight[k, j], per[k, j], mean[j], sd[j]))
            )
            for k, name in enumerate(self.classes)
            for j in np.argsort(-np.abs(weight[k]), kind="stable")
        ]

    def save_pretrained(self, folder: str | Path, card: str | None = None) -> None:
        """Writes the checkpoint folder. See ``Pretrained.save_pretrained``.

        Raises:
            CheckpointError: The folder holds other files, or the metadata is not JSON.
            DataError: Not fitted.
        """
        self._require_fit()
        super().save_pretrained(folder, card)

    def _require_fit(self) -> None:
        if self.bias.isnan().any():
            raise DataError("this model is not fitted yet; call fit, or from_pretrained")

    def _standard(self, fractions: Tensor) -> Tensor:
        """Standardised ``(S, L)``, 0 where all training slides were alike."""
        return torch.where(self.sd > 0, (fractions - self.mean) / self.sd, 0.0)

    def _logits(self, fractions: Tensor) -> Tensor:
        self._require_fit()
        return self._standard(fractions) @ self.weight.T + self.bias

    def _checked(self, fractions: NDArray[np.floating]) -> Tensor:
        rows = np.asarray(fractions, np.float64)
        check_shape("fractions", rows, "S L", L=len(self.objects))
        if not np.isfinite(rows).all():
            raise DataError("fractions must be finite; leave out slides without a measurement")
        return torch.from_numpy(rows)
