"""A classifier's output in double precision, and the weights that speak for one class.

Axes: K classes, D features.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    overload,
)

import numpy as np
import torch
from torch import nn

from xpath.errors import ConfigError, DataError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.object_aware import ObjectAwareMIL

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.mil.attention_mil import MILOutput
    from xpath.mil.object_aware import ObjectMILOutput

__all__ = [
    "AttentionClassifier",
    "ClassWeights",
    "Contrast",
    "LinearHead",
    "check_sum",
    "class_share",
    "class_weights",
    "double_precision",
    "forward",
    "linear_head",
    "log_odds",
]

Module = TypeVar("Module", bound=nn.Module)

AttentionClassifier: TypeAlias = AttentionMIL | ObjectAwareMIL
"""The classifiers whose logits are a sum over patches."""

Contrast: TypeAlias = Literal["none", "mean", "runner_up"] | int
"""The class, or classes, one is held against. ``none``: nothing, the class's own weights, as in the
paper; they are not identifiable, for one vector added to every class's weights changes no
probability but all contributions. ``mean``: the mean over classes. ``runner_up``: the most probable
other class; with two classes that is the log-odds. A number: the class of that index."""


TOLERANCE = 1e-5
"""Of sums that should be the logit, relative to it."""


class LinearHead(NamedTuple):
    """The last layer of a classifier, in double precision."""

    weight: Tensor
    """``(K, D)``."""
    bias: Tensor
    """``(K,)``."""


class ClassWeights(NamedTuple):
    """The linear function whose value is explained."""

    target: int
    weight: Tensor
    """``(D,)``."""
    bias: float
    logit: float
    """The model's own logit of the class, less what it is held against."""


def double_precision(model: Module) -> Module:
    """A copy of the model on the CPU, in double precision, dropout off."""
    return copy.deepcopy(model).cpu().double().eval()


@overload
def forward(model: AttentionMIL, bag: Bag) -> MILOutput: ...
@overload
def forward(model: ObjectAwareMIL, bag: Bag) -> ObjectMILOutput: ...
def forward(model: AttentionClassifier, bag: Bag) -> MILOutput | ObjectMILOutput:
    """The output for one slide of a copy of the model in double precision, dropout off.

    Raises:
        DataError: A classifier without attention, or anything but one bag.
    """
    if not isinstance(model, AttentionMIL | ObjectAwareMIL):
        raise DataError(
            f"{type(model).__name__} has no attention to explain; pass AttentionMIL or"
            " ObjectAwareMIL (what a mean or maximum is made of, its patch logits say)"
        )
    if not isinstance(bag, Bag):
        raise DataError(f"wanted one Bag, got {type(bag).__name__}; a packed one is of many")
    present = None if bag.present is None else bag.present.cpu()
    exact = replace(bag, features=bag.features.cpu().double(), present=present)
    with torch.inference_mode():
        output: MILOutput | ObjectMILOutput = double_precision(model)(pack([exact]))
    return output


def linear_head(model: AttentionClassifier) -> LinearHead:
    """The last layer of a classifier, in double precision.

    Raises:
        DataError: It is not one linear layer.
    """
    head: Any = model.classifier
    if not isinstance(head, nn.Linear):
        raise DataError(
            f"the classifier must be one linear layer, got {type(head).__name__}: its logit is no"
            " sum over patches; ask captum_bridge instead"
        )
    weight = head.weight.detach().cpu().double()
    bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach().cpu().double()
    return LinearHead(weight, bias)


def class_weights(
    model: AttentionClassifier, logits: Tensor, target: int | None, contrast: Contrast
) -> ClassWeights:
    """Weights, bias and logit of a class, or of its contrast.

    Args:
        model: The classifier.
        logits: ``(K,)`` from ``forward``.
        target: Class index; None for the predicted class.
        contrast: What the class is held against.

    Raises:
        ConfigError: No such contrast.
        DataError: The head is not one linear layer, or no such class.
    """
    weight, bias = linear_head(model)
    target, share = class_share(logits, target, contrast)
    return ClassWeights(
        target, share @ weight, float(share @ bias), float(share @ logits.cpu().double())
    )


def class_share(logits: Tensor, target: int | None, contrast: Contrast) -> tuple[int, Tensor]:
    """The sum of logits that is explained: the class, and how much each logit counts.

    Args:
        logits: ``(K,)``.
        target: Class index; None for the predicted class.
        contrast: What the class is held against.

    Returns:
        The class, and ``(K,)`` 1 for it less a share of those it is held against; the latter sums
        to zero unless the contrast is ``none``.

    Raises:
        ConfigError: No such contrast.
        DataError: No such class, or a class held against itself.
    """
    count = len(logits)
    target = int(logits.argmax()) if target is None else target
    if not isinstance(target, SupportsIndex) or not 0 <= target < count:
        raise DataError(
            f"target must be a class 0 to {count - 1}, got {target!r}; of a name,"
            " model.classes.index(name)"
        )
    share = torch.zeros(count, dtype=torch.float64)
    if contrast == "mean":
        share -= 1 / count
    elif contrast == "runner_up":
        others = logits.clone()
        others[target] = -torch.inf
        share[int(others.argmax())] -= 1
    elif isinstance(contrast, int):
        if not 0 <= contrast < count or contrast == target:
            raise DataError(
                f"contrast must be another class than {target}, 0 to {count - 1}, got {contrast}"
            )
        share[contrast] -= 1
    elif contrast != "none":
        raise ConfigError(
            f"contrast must be 'none', 'mean', 'runner_up' or a class index, got {contrast!r}"
        )
    share[target] += 1
    return target, share


def check_sum(total: float, logit: float) -> float:
    """How far a sum of parts is from the logit they should give.

    Raises:
        DataError: Too far for rounding.
    """
    delta = total - logit
    if not abs(delta) <= TOLERANCE * max(1.0, abs(logit)):
        raise DataError(
            f"the parts sum to {total:.6g}, but the logit is {logit:.6g}: this model's logit is no"
            " sum over patches (is there anything but one linear layer after the pooling?)"
        )
    return delta


def log_odds(logits: NDArray[np.floating], target: int) -> NDArray[np.float64]:
    """Log of p / (1 - p) of a class, with two classes the difference of their logits.

    From logits, in double precision: a probability in single precision is 1 from a margin of 17
    on, and its odds are lost.

    Args:
        logits: ``(..., K)``.
        target: Class index.

    Raises:
        DataError: No such class, or a single one.
    """
    wide = np.asarray(logits, np.float64)
    count = wide.shape[-1]
    if count < 2 or not 0 <= target < count:
        raise DataError(f"target must be one of 2 or more classes, got {target} of {count}")
    rest = np.delete(wide, target, axis=-1)
    return np.asarray(wide[..., target] - np.logaddexp.reduce(rest, axis=-1))
