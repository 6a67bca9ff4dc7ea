"""Class activation maps: what each patch and each object adds to the logit.

The classifier is linear on attention-pooled features, so its logit is a sum over patches, over
objects, and over patches times objects. Each function sums its terms up again and refuses to
answer if they do not give the logit. Axes: N patches, L object kinds, K classes, D features.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from xpath.errors import DataError
from xpath.mil.bag import pack

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.mil.attention_mil import AttentionMIL
    from xpath.mil.bag import Bag
    from xpath.mil.object_aware import ObjectAwareMIL

__all__ = ["ObjectActivation", "PatchActivation", "object_activation", "patch_activation"]

TOLERANCE = 1e-5

Contrast = Literal["none", "mean"]
"""``none``: the class's own weights, as in the paper. ``mean``: minus the mean over classes, which
is all that a softmax can see; adding one vector to every class's weights then changes nothing."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class PatchActivation:
    """``scores.sum() + bias == logit``."""

    target: int
    """The class explained."""
    scores: NDArray[np.float64]
    """``(N,)`` what each patch adds to the logit (paper, Eq. 14); painted over it in Eq. 15."""
    attention: NDArray[np.float64]
    """``(N,)`` sums to one."""
    bias: float
    logit: float
    """The model's logit of the class, minus the mean logit if contrasted."""
    delta: float
    """Sum of the parts minus the logit: what rounding leaves unexplained."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class ObjectActivation:
    """``contribution.sum() + bias == patch_contribution.sum() + bias == logit``."""

    target: int
    objects: tuple[str, ...]
    """Names of the L kinds."""
    activation: NDArray[np.float64]
    """``(L,)`` the paper's A_j (Eq. 16), before the average over objects; painted in Eq. 17."""
    contribution: NDArray[np.float64]
    """``(L,)`` what each object adds to the logit: A_j over the divisor; exactly 0 if absent."""
    patch_contribution: NDArray[np.float64]
    """``(N, L)`` what each object adds in each patch; exactly 0 where it is absent."""
    present: NDArray[np.bool_]
    """``(L,)`` kinds the slide has."""
    divisor: float
    """What the classifier divides the sum over kinds by: activation over contribution."""
    bias: float
    logit: float
    """The model's logit of the class, minus the mean logit if contrasted."""
    delta: float
    """Sum of the contributions minus the logit: what rounding leaves unexplained."""


def patch_activation(
    model: AttentionMIL, bag: Bag, target: int | None = None, *, contrast: Contrast = "none"
) -> PatchActivation:
    """What each patch adds to the logit of a class (paper, Eq. 14).

    Args:
        model: The standard classifier.
        bag: Patch features ``(N, D)``.
        target: Class index; by default the predicted class.
        contrast: Plain or contrasted class weights.

    Raises:
        DataError: The parts do not sum to the logit: the model is not additive. No such class.
    """
    output = _evaluate(model, bag)
    logits = output.logits[0]
    target = int(logits.argmax()) if target is None else target
    weight, bias, logit = _class_weights(model, logits, target, contrast)
    scores = output.attention * (output.instances @ weight)
    return PatchActivation(
        target=target,
        scores=scores.numpy(),
        attention=output.attention.numpy(),
        bias=bias,
        logit=logit,
        delta=_checked(float(scores.sum()) + bias, logit),
    )


def object_activation(
    model: ObjectAwareMIL, bag: Bag, target: int | None = None, *, contrast: Contrast = "none"
) -> ObjectActivation:
    """What each object adds to the logit of a class (paper, Eq. 16), in all and in each patch.

    Args:
        model: The object-aware classifier.
        bag: Object features ``(N, L, D)`` and their presence.
        target: Class index; by default the predicted class.
        contrast: Plain or contrasted class weights.

    Raises:
        DataError: The parts do not sum to the logit: the model is not additive. No such class.
    """
    output = _evaluate(model, bag)
    logits = output.logits[0]
    target = int(logits.argmax()) if target is None else target
    weight, bias, logit = _class_weights(model, logits, target, contrast)
    divisor = float(output.divisor[0])
    activation = output.embedding[0] @ weight  # (L,)
    terms = output.attention * (output.instances @ weight) / divisor  # (N, L)
    _checked(float(terms.sum()) + bias, logit)
    return ObjectActivation(
        target=target,
        objects=model.objects,
        activation=activation.numpy(),
        contribution=(activation / divisor).numpy(),
        patch_contribution=terms.numpy(),
        present=output.present[0].numpy(),
        divisor=divisor,
        bias=bias,
        logit=logit,
        delta=_checked(float((activation / divisor).sum()) + bias, logit),
    )


@torch.inference_mode()
def _evaluate(model: AttentionMIL | ObjectAwareMIL, bag: Bag) -> Any:  # either model's output
    """The model's answer in double precision, dropout off; the model is left as it was."""
    double = copy.deepcopy(model).cpu().double().eval()
    present = None if bag.present is None else bag.present.cpu()
    return double(pack([replace(bag, features=bag.features.cpu().double(), present=present)]))


def _class_weights(
    model: AttentionMIL | ObjectAwareMIL, logits: Tensor, target: int, contrast: Contrast
) -> tuple[Tensor, float, float]:
    """Weights, bias and logit of a class, or of its contrast."""
    head: Any = model.classifier
    if not isinstance(head, nn.Linear):
        raise DataError(
            f"the classifier must be one linear layer, got {type(head).__name__}: its logit is no"
            " sum over patches; ask captum_bridge instead"
        )
    weight, bias = head.weight.detach().cpu().double(), head.bias.detach().cpu().double()
    if not 0 <= target < len(bias):
        raise DataError(f"target must be a class 0 to {len(bias) - 1}, got {target}")
    if contrast == "mean":
        weight, bias = weight - weight.mean(dim=0), bias - bias.mean()
        logits = logits - logits.mean()
    return weight[target], float(bias[target]), float(logits[target])


def _checked(total: float, logit: float) -> float:
    """How far a sum is from the logit; raises if it is far."""
    delta = total - logit
    if not abs(delta) <= TOLERANCE * max(1.0, abs(logit)):
        raise DataError(
            f"the parts sum to {total:.6g}, but the logit is {logit:.6g}: this model's logit is no"
            " sum over patches (is there anything but one linear layer after the pooling?)"
        )
    return delta
