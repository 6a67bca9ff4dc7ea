"""Leave-one-out of any slide classifier: the model is asked again without each patch.

Nothing is presumed of how patches are pooled or classified, so it works for every
``SlideClassifier``; for attention models ``attention_pool`` gives the same from a single pass.
Axes: N patches, K classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from xpath.errors import DataError
from xpath.explain.attribution import Attribution
from xpath.explain.head import class_share, double_precision
from xpath.mil.bag import Bag, pack

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xpath.explain.head import Contrast
    from xpath.protocols import SlideClassifier

__all__ = ["leave_one_out"]

AT_ONCE = 2**24
"""Most numbers in the bags of one forward pass."""


def leave_one_out(
    model: SlideClassifier,
    bag: Bag,
    target: int | None = None,
    *,
    contrast: Contrast = "none",
) -> Attribution:
    """The logit of a class minus the logit without each patch, positive where it speaks for it.

    The model runs N times on N - 1 patches, in double precision, dropout off.

    Args:
        model: Any classifier.
        bag: The slide, of 2 patches or more.
        target: Class index; by default the predicted class.
        contrast: What the class is held against.

    Raises:
        ConfigError: No such contrast.
        DataError: No such class, a single patch, or anything but one bag.
    """
    if not isinstance(bag, Bag):
        raise DataError(f"wanted one Bag, got {type(bag).__name__}; a packed one is of many")
    count = len(bag.features)
    if count < 2:
        raise DataError("a slide of one patch cannot be asked about without it; take a larger one")
    present = None if bag.present is None else bag.present.cpu()
    exact = replace(bag, features=bag.features.cpu().double(), present=present)
    double = cast("SlideClassifier", double_precision(cast("nn.Module", model)))
    step = max(1, AT_ONCE // bag.features.numel())
    with torch.inference_mode():
        whole = double(pack([exact])).logits[0]
        rest = torch.cat([
            double(pack([_without(exact, int(i)) for i in indices])).logits
            for indices in torch.arange(count).split(step)
        ])
    target, share = class_share(whole, target, contrast)
    values: Tensor = (whole - rest) @ share
    return Attribution(
        method="leave_one_out",
        target=target,
        patches=np.asarray(values.numpy()),
        logit=float(share @ whole),
    )


def _without(bag: Bag, index: int) -> Bag:
    kept = torch.arange(len(bag.features)) != index
    present = None if bag.present is None else bag.present[kept]
    return replace(bag, features=bag.features[kept], present=present)
