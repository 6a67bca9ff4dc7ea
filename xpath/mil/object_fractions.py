"""The baseline that anyone can check: how much of each object a slide has, and nothing else.

A logistic regression on area fractions. What a deep model adds must be added to this.
Axes: S slides, N patches, L object kinds, K classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from xpath.errors import CheckpointError, ConfigError, DataError
from xpath.mil.attention_mil import named
from xpath.shapes import check_shape
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Coefficient", "ObjectFractions", "object_fractions"]

SCHEMA = "xpath.object-fractions/1"


class Coefficient(NamedTuple):
    """What one object says for one class."""

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


@dataclass(frozen=True, slots=True, eq=False)  # arrays do not compare to one bool
class _Fitted:
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    weight: NDArray[np.float64]
    """``(K, L)`` on standardised fractions."""
    bias: NDArray[np.float64]


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


class ObjectFractions:
    """Logistic regression on the area fractions of a slide's objects.

    Fractions are standardised with the training slides; the penalty is the ridge's, so that
    fractions that rise together share a weight. Follows scikit-learn's estimators: ``fit`` returns
    the model, ``get_params`` what it was built from, so that ``sklearn.base.clone`` works.

    Example::

        model = ObjectFractions(objects, classes).fit(fractions, labels)
        probability = model.predict_proba(fractions)
        for row in model.coefficients():
            ...

    Args:
        objects: Names of the L kinds.
        classes: Names of the K classes, or just how many.
        c: Inverse strength of the penalty, as scikit-learn's ``C``.
        class_weight: ``balanced``: rare classes weigh more, inversely to their frequency.
    """

    def __init__(
        self,
        objects: Sequence[str],
        classes: Sequence[str] | int,
        *,
        c: float = 1.0,
        class_weight: str | None = "balanced",
    ) -> None:
        self.objects = objects
        self.classes = classes
        self.c = c
        self.class_weight = class_weight
        self._fitted: _Fitted | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return named(self.classes, "class")

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002 - scikit-learn's signature
        """What it was built from."""
        names = ("objects", "classes", "c", "class_weight")
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Self:
        """Changes what it is built from; it must then be fitted again.

        Raises:
            ConfigError: No such parameter.
        """
        unknown = params.keys() - self.get_params().keys()
        if unknown:
            raise ConfigError(f"there is no {sorted(unknown)}; known are {list(self.get_params())}")
        for name, value in params.items():
            setattr(self, name, value)
        self._fitted = None
        return self

    def fit(self, fractions: NDArray[np.floating], labels: Sequence[int]) -> Self:
        """Learns the weights; a fraction that is the same on all slides gets none.

        Args:
            fractions: ``(S, L)``, rows from ``object_fractions``.
            labels: Class index of each slide.

        Raises:
            ConfigError: A penalty that is not positive, or another class weight.
            DataError: Values that are no numbers, labels that are no class, or one class only.
            ShapeError: Other axes.
        """
        from sklearn.linear_model import LogisticRegression

        if not self.c > 0 or self.class_weight not in ("balanced", None):
            raise ConfigError(
                f"c must be positive and class_weight 'balanced' or None: {self.get_params()}"
            )
        rows, truth = self._checked(fractions), np.asarray(labels, np.int64)
        check_shape("labels", truth, "S", S=len(rows))
        known = np.unique(truth)
        if len(known) < 2 or known.min() < 0 or known.max() >= len(self.class_names):
            raise DataError(
                f"labels must be of two of {len(self.class_names)} classes, got {known.tolist()}"
            )
        mean, sd = rows.mean(axis=0), rows.std(axis=0)
        model = LogisticRegression(C=self.c, class_weight=self.class_weight, max_iter=5000)
        model.fit(_standard(rows, mean, sd), truth)
        # a class without a slide must never be the answer, yet have a finite logit
        weight = np.zeros((len(self.class_names), rows.shape[1]))
        bias = np.full(len(self.class_names), -50.0)
        two = len(known) == 2
        weight[known] = np.vstack([-model.coef_ / 2, model.coef_ / 2]) if two else model.coef_
        found = model.intercept_
        bias[known] = np.concatenate([-found / 2, found / 2]) if two else found
        self._fitted = _Fitted(mean, sd, weight, bias)
        return self

    def decision_function(self, fractions: NDArray[np.floating]) -> NDArray[np.float64]:
        """Logits ``(S, K)``; with two classes, one is minus the other.

        Raises:
            DataError: Not fitted, or values that are no numbers.
            ShapeError: Other axes.
        """
        known = self._known()
        rows = _standard(self._checked(fractions), known.mean, known.sd)
        return np.asarray(rows @ known.weight.T + known.bias)

    def predict_proba(self, fractions: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probabilities ``(S, K)``; raises as ``decision_function``."""
        logits = self.decision_function(fractions)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def predict(self, fractions: NDArray[np.floating]) -> NDArray[np.int64]:
        """Class indices ``(S,)``; raises as ``decision_function``."""
        return np.asarray(self.decision_function(fractions).argmax(axis=1), np.int64)

    def score(self, fractions: NDArray[np.floating], labels: Sequence[int]) -> float:
        """Share of slides that are right; raises as ``decision_function``."""
        return float((self.predict(fractions) == np.asarray(labels)).mean())

    def coefficients(self) -> list[Coefficient]:
        """A row per class and object, classes in order, the largest weights of each first.

        Raises:
            DataError: Not fitted.
        """
        known, rows = self._known(), []
        per = np.divide(known.weight, 100 * known.sd, out=np.zeros_like(known.weight),
                        where=known.sd > 0)  # fmt: skip
        for k, name in enumerate(self.class_names):
            rows += [
                Coefficient(
                    name,
                    self.objects[int(j)],
                    float(known.weight[k, j]),
                    float(per[k, j]),
                    float(known.mean[j]),
                    float(known.sd[j]),
                )
                for j in np.argsort(-np.abs(known.weight[k]), kind="stable")
            ]
        return rows

    def save_pretrained(self, path: str | Path) -> None:
        """Writes one JSON file with all numbers in it.

        Raises:
            DataError: Not fitted.
        """
        known = self._known()
        content = {
            "schema": SCHEMA,
            **self.get_params(),
            "objects": list(self.objects),
            "classes": list(self.class_names),
            **{name: getattr(known, name).tolist() for name in ("mean", "sd", "weight", "bias")},
        }
        with atomic(Path(path)) as draft:
            draft.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """The model of a JSON file.

        Raises:
            CheckpointError: Missing, unreadable, of another schema, or with numbers missing.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content.get("schema") != SCHEMA:
                raise CheckpointError(f"{path} has schema {content.get('schema')!r}, not {SCHEMA}")
            model = cls(
                content["objects"],
                content["classes"],
                c=content["c"],
                class_weight=content["class_weight"],
            )
            fitted = _Fitted(
                *(np.array(content[name], np.float64) for name in ("mean", "sd", "weight", "bias"))
            )
            kinds, classes = len(model.objects), len(model.class_names)
            check_shape("weight", fitted.weight, "K L", K=classes, L=kinds)
            check_shape("bias", fitted.bias, "K", K=classes)
            check_shape("mean", fitted.mean, "L", L=kinds)
            check_shape("sd", fitted.sd, "L", L=kinds)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error!r}); wanted what save_pretrained wrote"
            ) from error
        model._fitted = fitted
        return model

    def _known(self) -> _Fitted:
        if self._fitted is None:
            raise DataError("this model is not fitted yet; call fit, or from_pretrained")
        return self._fitted

    def _checked(self, fractions: NDArray[np.floating]) -> NDArray[np.float64]:
        rows = np.asarray(fractions, np.float64)
        check_shape("fractions", rows, "S L", L=len(self.objects))
        if not np.isfinite(rows).all():
            raise DataError("fractions must be finite; leave out slides without a measurement")
        return rows


def _standard(
    rows: NDArray[np.float64], mean: NDArray[np.float64], sd: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Standardised; 0 where all training slides were alike."""
    return np.divide(rows - mean, sd, out=np.zeros_like(rows), where=sd > 0)
