"""Slide classifiers as scikit-learn's estimators: ``fit``, ``predict_proba``, ``score``.

Axes: B slides, N patches, L object classes, D features, K classes.
"""

from __future__ import annotations

import math
import warnings
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from xpath.device import device_of
from xpath.errors import ConfigError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag
from xpath.mil.baseline import below_mean_pooling
from xpath.mil.cross_validation import seeded_build
from xpath.mil.given import (
    as_bag,
    as_groups,
    as_labels,
    as_list,
    as_seed,
    check_settings,
    classes_of,
)
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.mil.pooling_mil import PoolingMIL
from xpath.mil.prediction import predict
from xpath.mil.splits import hold_out
from xpath.mil.training import TrainConfig, TrainResult, train
from xpath.protocols import SlideClassifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike

__all__ = ["AttentionMILClassifier", "ObjectAwareMILClassifier", "PoolingMILClassifier", "Slide"]

Slide: TypeAlias = "ArrayLike | torch.Tensor | tuple[Any, Any] | Bag"
"""Patch features ``(N, D)``; object features ``(N, L, D)`` with NaN where an object is absent, or
a pair of them and their presence or coverage ``(N, L)``; or a ``Bag``, whose label is ignored."""


@dataclass(kw_only=True, eq=False)
class _Estimator:
    """Settings of the training and scikit-learn's methods, common to all estimators.

    The defaults were chosen on bags of 20 to 300 slides and 32 to 1,536 features
    (``benchmarks/mil_defaults.py``): all slides train, for a number of steps. The paper's are
    those of ``TrainConfig``, with ``proj=None``, ``dropout=0`` and ``validation=0.125``.
    """

    lr: float = 1e-3
    """Learning rate of Adam."""
    weight_decay: float = 1e-5
    """Weight decay of Adam."""
    epochs: int | None = None
    """Largest number of passes over the training slides; None: 60, and more where these are fewer
    than 600 optimiser steps."""
    patience: int = 15
    """Epochs without a better validation score before it stops, if slides are held out."""
    min_steps: int = 600
    """Optimiser steps before patience may end it."""
    monitor: Literal["loss", "auc"] = "loss"
    """The score that decides which epoch is best."""
    validation: float = 0.0
    """Share of the slides that chooses the epoch and does not train; 0 to run all epochs. Worth
    its slides only where there are hundreds: the choice of a handful is chance."""
    bags_per_step: int = 2
    """Slides per optimiser step."""
    averaged: float = 0.5
    """Share of the epochs whose weights are averaged, if no slides are held out."""
    class_weight: Literal["balanced", "none"] = "balanced"
    """``balanced``: rare classes weigh more in the loss."""
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """``balanced``: every class is drawn as often; with ``class_weight="none"``."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the matrix products while training."""
    random_state: Any = 0
    """Decides weights, order, dropout and validation slides: a whole number, numpy's
    ``RandomState``, or None for another one at every fit."""
    device: str = "cpu"
    """Where it trains and predicts."""

    classes_: NDArray[Any] = field(init=False, repr=False)
    """``(K,)`` class labels, sorted; the order of probabilities. Known once fitted."""
    model_: SlideClassifier = field(init=False, repr=False)
    """The trained model: save it, or explain it with ``xpath.explain``."""
    result_: TrainResult = field(init=False, repr=False)
    """How the training went."""
    n_features_in_: int = field(init=False, repr=False)
    """Features of a patch D."""

    holds_objects: ClassVar[bool] = False

    def fit(
        self, X: Iterable[Slide], y: Iterable[Any], groups: Iterable[Any] | None = None
    ) -> Self:
        """Trains on slides.

        Args:
            X: Slides, B of them.
            y: Their classes: numbers or words.
            groups: Patient of each slide: none is in both training and validation. A slide without
                one (None, NaN) is a patient of its own.

        Warns:
            ConvergenceWarning: The model may not have learnt; ``result_.doubt`` says why. Or it is
                worse on its validation slides than logistic regression on mean features.

        Raises:
            ConfigError: A setting that cannot be.
            DataError: Nothing to train on, no list of slides, a single class, numbers that are
                no classes (0.3), lists of unequal length, a slide without a class (None, NaN), or
                one that cannot be used, named by its index.
            ShapeError: Slides of other axes or of different widths.
        """
        from sklearn.exceptions import ConvergenceWarning

        check_settings(self, given=("random_state", "device"))
        device, seed = device_of(self.device), as_seed(self.random_state)
        slides = as_list(X)
        classes, index = classes_of(y, len(slides))
        bags = self._bags(slides, index.tolist())
        words = [str(classes[i]) for i in index]
        held_out = hold_out(words, as_groups(groups, len(bags)), self.validation, seed)
        width = int(bags[0].features.shape[-1])
        names = tuple(map(str, classes))
        model = seeded_build(lambda: self._build(width, names, bags[0]), seed).to(device)
        train_bags, held = ([bags[i] for i in indices] for indices in held_out)
        self.result_ = train(model, train_bags, held, self._train_config(len(train_bags), seed))
        doubts = self.result_.doubt, below_mean_pooling(model, train_bags, held)
        for doubt in filter(None, doubts):
            warnings.warn(doubt, ConvergenceWarning, stacklevel=2)
        self.classes_, self.model_, self.n_features_in_ = classes, model, width
        return self

    def predict_proba(self, X: Iterable[Slide]) -> NDArray[np.float64]:
        """Probabilities ``(B, K)``, columns in the order of ``classes_``.

        Raises:
            NotFittedError: ``fit`` was not called; scikit-learn's error.
            DataError: No slides, or one that cannot be used.
            ShapeError: Other features than it was trained on.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        slides = as_list(X)
        return predict(self.model_, self._bags(slides, [None] * len(slides))).probability

    def predict(self, X: Iterable[Slide]) -> NDArray[Any]:
        """Most probable class ``(B,)``, raising as ``predict_proba`` does."""
        best = self.predict_proba(X).argmax(axis=1)
        classes: NDArray[Any] = self.classes_[best]
        return classes

    def score(self, X: Iterable[Slide], y: Iterable[Any]) -> float:
        """Share of slides that are right, raising as ``predict_proba`` does."""
        predicted = self.predict(X)
        return float(np.mean(predicted == as_labels(y, len(predicted))))

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002 - scikit-learn's
        """Settings by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.init}

    def set_params(self, **settings: Any) -> Self:
        """Changes settings, from the next ``fit`` on.

        Raises:
            ConfigError: An unknown name.
        """
        unknown = settings.keys() - self.get_params().keys()
        if unknown:
            name, known = type(self).__name__, sorted(self.get_params())
            raise ConfigError(f"{name} has no {sorted(unknown)}; its settings are {known}")
        for name, value in settings.items():
            setattr(self, name, value)
        return self

    def set_fit_request(self, *, groups: bool | str | None) -> Self:
        """Asks scikit-learn's meta-estimators to pass ``groups`` on to ``fit``, or not to.

        Args:
            groups: True, False, the name under which they are passed, or None to refuse them.
        """
        self._metadata_request = self.get_metadata_routing()
        self._metadata_request.fit.add_request(param="groups", alias=groups)
        return self

    def get_metadata_routing(self) -> Any:
        """Which metadata ``fit`` asks for. Scikit-learn's ``MetadataRequest``."""
        from sklearn.utils.metadata_routing import MetadataRequest

        if not hasattr(self, "_metadata_request"):
            self._metadata_request = MetadataRequest(owner=self)
            self._metadata_request.fit.add_request(param="groups", alias=None)
        return deepcopy(self._metadata_request)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False),
        )

    def _build(self, dim: int, classes: tuple[str, ...], like: Bag) -> SlideClassifier:
        """An untrained model for bags like this one."""
        raise NotImplementedError

    def _train_config(self, slides: int, seed: int = 0) -> TrainConfig:
        names = {part.name for part in fields(TrainConfig)} & self.get_params().keys()
        settings = {name: getattr(self, name) for name in names}
        if self.epochs is None:
            settings["epochs"] = max(60, math.ceil(600 * self.bags_per_step / slides))
        return TrainConfig(seed=seed, **settings)

    def _bags(self, slides: Sequence[Slide], labels: Sequence[int | None]) -> list[Bag]:
        return [
            as_bag(slide, label, f"X[{index}]", objects=self.holds_objects)
            for index, (slide, label) in enumerate(zip(slides, labels, strict=True))
        ]


@dataclass(kw_only=True, eq=False)
class AttentionMILClassifier(_Estimator):
    """``AttentionMIL`` on slides of patch features ``(N, D)``.

    Example::

        model = AttentionMILClassifier(epochs=50).fit(slides, ["IDC", "ILC", ...])
        model.predict_proba(others)
    """

    hidden: int = 128
    """Width of the attention network."""
    gated: bool = True
    """Gated attention; False for the plain form."""
    proj: int | None = 256
    """Width of a linear layer with ReLU before pooling; None for none."""
    dropout: float = 0.25
    """Rate while training."""

    def _build(self, dim: int, classes: tuple[str, ...], like: Bag) -> SlideClassifier:
        del like
        return AttentionMIL(
            dim,
            classes,
            hidden=self.hidden,
            gated=self.gated,
            proj=self.proj,
            dropout=self.dropout,
        )


@dataclass(kw_only=True, eq=False)
class ObjectAwareMILClassifier(_Estimator):
    """``ObjectAwareMIL`` on slides of object features ``(N, L, D)``.

    Example::

        pairs = [(features, coverage) for ...]  # (N, L, D) and (N, L)
        model = ObjectAwareMILClassifier(objects=("tumor", "stroma")).fit(pairs, labels)
    """

    objects: tuple[str, ...] | None = None
    """Names of the L object classes; None to number them."""
    hidden: int = 64
    """Width of each attention network."""
    gated: bool = True
    """Gated attention; False for the plain form."""
    proj: int | None = 256
    """Width of a linear layer with ReLU before pooling, shared by all objects; None for none."""
    dropout: float = 0.25
    """Rate while training."""
    average: Literal["all", "present"] = "all"
    """Mean over all objects (the paper), or over those a slide has."""

    holds_objects: ClassVar[bool] = True

    def _build(self, dim: int, classes: tuple[str, ...], like: Bag) -> SlideClassifier:
        count = int(like.features.shape[1])
        if self.objects is not None and len(self.objects) != count:
            raise ConfigError(f"objects names {len(self.objects)} classes, the slides have {count}")
        return ObjectAwareMIL(
            dim,
            self.objects or count,
            classes,
            hidden=self.hidden,
            gated=self.gated,
            proj=self.proj,
            dropout=self.dropout,
            average=self.average,
        )


@dataclass(kw_only=True, eq=False)
class PoolingMILClassifier(_Estimator):
    """``PoolingMIL``, the baseline without attention, on slides of patch features ``(N, D)``."""

    pool: Literal["mean", "max"] = "mean"
    """Mean of the patches' logits, or their largest."""
    proj: int | None = None
    """Width of a linear layer with ReLU before the classifier; None for none."""
    dropout: float = 0.0
    """Rate on the projection while training."""

    def _build(self, dim: int, classes: tuple[str, ...], like: Bag) -> SlideClassifier:
        del like
        return PoolingMIL(dim, classes, pool=self.pool, proj=self.proj, dropout=self.dropout)
