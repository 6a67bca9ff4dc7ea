"""Class activation maps: what each patch and each object adds to the logit.

The classifier is linear on attention-pooled features, so its logit is a sum over patches, over
objects, and over patches times objects. Each function sums its terms up again and refuses to
answer if they do not give the logit. Axes: N patches, L object classes, K classes, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xpath.explain.head import check_sum, class_share, class_weights, forward, linear_head
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.explain.head import Contrast
    from xpath.mil.attention_mil import AttentionMIL
    from xpath.mil.bag import Bag
    from xpath.mil.object_aware import ObjectAwareMIL, ObjectMILOutput

__all__ = ["ObjectActivation", "PatchActivation", "object_activation", "patch_activation"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class PatchActivation:
    """The standard classifier's logit by patch: ``scores.sum() + bias == logit``."""

    target: int
    """The class explained."""
    scores: NDArray[np.float64]
    """``(N,)`` what each patch adds to the logit (paper, Eq. 14), painted over it in Eq. 15."""
    class_scores: NDArray[np.float64]
    """``(K, N)`` the same for every class, held against none."""
    attention: NDArray[np.float64]
    """``(N,)`` sums to one."""
    bias: float
    logit: float
    """The model's logit of the class, less what it is held against."""
    logits: NDArray[np.float64]
    """``(K,)`` the model's own, in double precision."""

    @property
    def delta(self) -> float:
        """Sum of the parts minus the logit: what rounding leaves unexplained."""
        return float(self.scores.sum()) + self.bias - self.logit


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class ObjectActivation:
    """The object-aware classifier's logit by object, and by object in each patch.

    ``contribution.sum() + bias == patch_contribution.sum() + bias == logit``.
    """

    target: int
    objects: tuple[str, ...]
    """Names of the L object classes."""
    activation: NDArray[np.float64]
    """``(L,)`` the paper's A_j (Eq. 16), before the average over objects, painted in Eq. 17."""
    contribution: NDArray[np.float64]
    """``(L,)`` what each object adds to the logit: A_j over the divisor, exactly 0 if absent."""
    patch_contribution: NDArray[np.float64]
    """``(N, L)`` what each object adds in each patch, exactly 0 where it is absent."""
    removal: NDArray[np.float64]
    """``(L,)`` fall of the logit if all of an object is taken out of the slide. That is its
    contribution where the classifier averages over all objects; where it averages over those
    present, the others then weigh more, and it is not."""
    class_contribution: NDArray[np.float64]
    """``(K, L)`` contributions to the logit of every class, held against none."""
    class_baseline: NDArray[np.float64]
    """``(K, L)`` their means over the training slides, absent objects counting 0; NaN where the
    classifier keeps none (trained by an older version)."""
    baseline_logits: NDArray[np.float64]
    """``(K,)`` means of the logits over the training slides, NaN in the same case."""
    share: NDArray[np.float64]
    """``(K,)`` how much each class counts in the logit that is explained: 1 for the target, less
    what it is held against."""
    present: NDArray[np.bool_]
    """``(L,)`` object classes the slide has."""
    divisor: float
    """Of the classifier's sum over objects: activation over contribution."""
    bias: float
    logit: float
    """The model's logit of the class, less what it is held against."""
    logits: NDArray[np.float64]
    """``(K,)`` the model's own, in double precision."""

    @property
    def centred(self) -> NDArray[np.float64]:
        """``(L,)`` contributions beyond their means over the training slides.

        They sum to ``logit - baseline_logit``. An object that every slide has carries an offset of
        the model, which says nothing of a slide; here it is gone. These are the interventional
        Shapley values with the training slides as background (Lundberg and Lee 2017; of a sum, the
        differences from the means). An absent object has minus its mean: its absence speaks too.
        """
        return np.asarray(self.contribution - self.share @ self.class_baseline)

    @property
    def bars(self) -> NDArray[np.float64]:
        """``(L,)`` as they are drawn: centred, or plain where the classifier keeps no baseline."""
        return self.contribution if np.isnan(self.baseline_logit) else self.centred

    @property
    def baseline_logit(self) -> float:
        """The logit of the average training slide, held against the same."""
        return float(self.share @ self.baseline_logits)

    @property
    def delta(self) -> float:
        """Sum of the contributions minus the logit: what rounding leaves unexplained."""
        return float(self.contribution.sum()) + self.bias - self.logit


def patch_activation(
    model: AttentionMIL, bag: Bag, target: int | None = None, *, contrast: Contrast = "none"
) -> PatchActivation:
    """Splits the logit of a class into what each patch adds (paper, Eq. 14).

    Args:
        model: The standard classifier.
        bag: Patch features ``(N, D)``.
        target: Class index; by default the predicted class.
        contrast: What the class is held against; the paper takes ``none``.

    Raises:
        DataError: The parts do not sum to the logit: the model is not additive. No such class.
    """
    output = forward(model, bag)
    target, weight, bias, logit = class_weights(model, output.logits[0], target, contrast)
    scores, *by_class = (
        output.attention * (output.instances @ each)
        for each in (weight, *linear_head(model).weight)
    )
    check_sum(float(scores.sum()) + bias, logit)
    return PatchActivation(
        target=target,
        scores=scores.numpy(),
        class_scores=torch.stack(by_class).numpy(),
        attention=output.attention.numpy(),
        bias=bias,
        logit=logit,
        logits=output.logits[0].numpy(),
    )


def object_activation(
    model: ObjectAwareMIL, bag: Bag, target: int | None = None, *, contrast: Contrast = "none"
) -> ObjectActivation:
    """Splits the logit of a class by object, and by object in each patch (paper, Eq. 16).

    Args:
        model: The object-aware classifier.
        bag: Object features ``(N, L, D)`` and their presence.
        target: Class index; by default the predicted class.
        contrast: What the class is held against; the paper takes ``none``.

    Raises:
        DataError: The parts do not sum to the logit: the model is not additive. The baseline is not
            that of the weights. No such class.
    """
    output = forward(model, bag)
    target, weight, bias, logit = class_weights(model, output.logits[0], target, contrast)
    share = class_share(output.logits[0], target, contrast)[1].numpy()
    divisor = float(output.divisor[0])
    activation = output.embedding[0] @ weight  # (L,)
    contribution = activation / divisor
    terms = output.attention * (output.instances @ weight) / divisor  # (N, L)
    check_sum(float(terms.sum()) + bias, logit)
    check_sum(float(contribution.sum()) + bias, logit)
    result = ObjectActivation(
        target=target,
        objects=model.objects,
        activation=activation.numpy(),
        contribution=contribution.numpy(),
        patch_contribution=terms.numpy(),
        removal=_removal(model, output, activation).numpy(),
        class_contribution=(linear_head(model).weight @ output.embedding[0].T / divisor).numpy(),
        **_baseline(model),
        share=share,
        present=output.present[0].numpy(),
        divisor=divisor,
        bias=bias,
        logit=logit,
        logits=output.logits[0].numpy(),
    )
    if not np.isnan(result.baseline_logit):
        check_sum(float(result.centred.sum()) + result.baseline_logit, logit)
    return result


def _removal(model: ObjectAwareMIL, output: ObjectMILOutput, activation: Tensor) -> Tensor:
    """Fall of the logit ``(L,)`` when each object is taken out, activations ``(L,)`` given."""
    divisor = float(output.divisor[0])
    if model.config.average == "all":
        return activation / divisor
    total, left = activation.sum(), max(divisor - 1, 1.0)
    return torch.where(output.present[0], total / divisor - (total - activation) / left, 0.0)


def _baseline(model: ObjectAwareMIL) -> dict[str, NDArray[np.float64]]:
    """Means over the training slides, NaN where the classifier keeps none."""
    kept = model.metadata.get("baseline")
    shape = len(model.classes), len(model.objects)
    if kept is None:
        missing = np.full(shape, np.nan)
        return {"class_baseline": missing, "baseline_logits": missing[:, 0]}
    contributions = np.array(kept["contributions"], np.float64)
    logits = np.array(kept["logits"], np.float64)
    check_shape("baseline", contributions, "K L", K=shape[0], L=shape[1])
    return {"class_baseline": contributions, "baseline_logits": logits}
