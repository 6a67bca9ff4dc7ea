"""Captum's attribution methods, on named objects and on patches.

Captum perturbs numbers, so every object is a number: 1 shown, 0 hidden. What that means for the
slide is decided by the caller, overlaps included. What each patch adds comes from gradients, on
features as the model's scaler gives them: zero is then the mean of the training slides, whatever
the encoder's offset. Axes: B coalitions or steps, N patches, L objects, K classes, D features.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from xpath.errors import DataError
from xpath.explain.attribution import Attribution
from xpath.explain.head import (
    check_sum,
    class_share,
    class_weights,
    double_precision,
    forward,
)
from xpath.mil.bag import Bag, PackedBags, pack
from xpath.mil.object_aware import ObjectMILOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.explain.attribution import Method
    from xpath.explain.head import AttentionClassifier, Contrast
    from xpath.mil.object_aware import ObjectAwareMIL

__all__ = [
    "attribute_objects",
    "coalition_logits",
    "gradient_x_input",
    "integrated_gradients",
    "layerwise_relevance",
]

NUMBERS_AT_ONCE = 8_000_000
"""Features that go through the model at a time: more would only fill the memory."""


def attribute_objects(
    logits: Callable[[Tensor], Tensor],
    objects: int,
    target: int,
    *,
    method: Literal["ablation", "shapley"] = "ablation",
    samples: int = 25,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Attributes the logit of a class to objects ``(L,)``, for any model.

    Args:
        logits: Logits ``(B, K)`` of coalitions ``(B, L)`` of zeros and ones.
        objects: Number of objects L.
        target: Class index.
        method: ``ablation``: the logit minus the logit without the object; ``shapley``: the mean
            over random orders in which objects join (captum's ``ShapleyValueSampling``).
        samples: Orders drawn for ``shapley``.
        seed: Of the orders; the global random state does not change.

    Raises:
        DataError: No objects, no orders, or no such method.
    """
    from captum.attr import FeatureAblation, ShapleyValueSampling

    if objects < 1 or samples < 1 or method not in ("ablation", "shapley"):
        raise DataError(
            f"wanted at least one object and one order, and ablation or shapley; got {objects}"
            f" objects, {samples} orders, {method!r}"
        )
    shown = torch.ones(1, objects, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if method == "ablation":
            result = FeatureAblation(logits).attribute(shown, target=target)
        else:
            sampling = ShapleyValueSampling(logits)
            result = sampling.attribute(shown, target=target, n_samples=samples)
    values: NDArray[np.float64] = result[0].detach().double().numpy()
    return values


def coalition_logits(model: ObjectAwareMIL, bag: Bag) -> Callable[[Tensor], Tensor]:
    """Logits ``(B, K)`` as a function of coalitions ``(B, L)`` of objects left on the slide.

    Raises:
        DataError: A bag of patches, without objects.
    """
    present = bag.present
    if present is None:
        raise DataError(f"bag {bag.slide_id!r} has no objects; pass object features (N, L, D)")

    exact, features = double_precision(model), bag.features.cpu().double()

    @torch.inference_mode()
    def logits(shown: Tensor) -> Tensor:
        bags = [Bag(features, present.cpu() & (row > 0.5)) for row in shown]
        coalitions: Tensor = exact(pack(bags)).logits
        return coalitions

    return logits


def gradient_x_input(
    model: AttentionClassifier,
    bag: Bag,
    target: int | None = None,
    *,
    contrast: Contrast = "none",
) -> Attribution:
    """Gradient of the logit times the features (captum's ``InputXGradient``).

    Attention is differentiated as well, so no sum is promised.

    Args:
        model: The standard or the object-aware classifier; any head.
        bag: The slide.
        target: Class index; by default the predicted class.
        contrast: What the class is held against.

    Raises:
        DataError: No such class.
    """
    from captum.attr import InputXGradient

    scaled = _ScaledFeatures(model, bag, target, contrast)
    relevance = InputXGradient(scaled.logit).attribute(scaled.features.requires_grad_())
    return scaled.attribution("gradient_x_input", relevance)


def integrated_gradients(
    model: AttentionClassifier,
    bag: Bag,
    target: int | None = None,
    *,
    contrast: Contrast = "none",
    steps: int = 64,
) -> Attribution:
    """Gradients along the way from a slide of mean patches (Sundararajan et al. 2017).

    The values sum to the logit less that of the mean patches; ``delta`` shows how well the steps
    resolve the way. With a projection, whose ReLU has kinks, take more.

    Args:
        model: The standard or the object-aware classifier; any head.
        bag: The slide.
        target: Class index; by default the predicted class.
        contrast: What the class is held against.
        steps: Points on the way (captum's ``n_steps``), each a pass and its gradient.

    Raises:
        DataError: No such class, or no steps.
    """
    from captum.attr import IntegratedGradients

    if steps < 1:
        raise DataError(f"steps must be 1 or more, got {steps}")
    scaled = _ScaledFeatures(model, bag, target, contrast)
    at_once = max(1, NUMBERS_AT_ONCE // scaled.features.numel())
    relevance = IntegratedGradients(scaled.logit).attribute(
        scaled.features, n_steps=steps, internal_batch_size=at_once
    )
    with torch.inference_mode():
        reference = float(scaled.logit(torch.zeros_like(scaled.features)))
    return scaled.attribution("integrated_gradients", relevance, reference)


def layerwise_relevance(
    model: AttentionClassifier,
    bag: Bag,
    target: int | None = None,
    *,
    contrast: Contrast = "none",
    epsilon: float = 1e-9,
) -> Attribution:
    """Layer-wise relevance propagation, attention taken as given (Bach 2015, xMIL 2024).

    The pool hands each patch ``α_i W·h_i`` of the logit, and the epsilon rule (captum's ``LRP``)
    carries that through the projection to the features. What the projection's bias holds is lost
    on the way: ``delta``. Without a projection this is the class activation, and delta 0.

    Args:
        model: The standard or the object-aware classifier.
        bag: The slide.
        target: Class index; by default the predicted class.
        contrast: What the class is held against.
        epsilon: Of the rule; larger ones quench what is near zero.

    Raises:
        DataError: No such class, a head that is not one linear layer, or a logit that is no sum
            over patches.
    """
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    output = forward(model, bag)
    chosen = class_weights(model, output.logits[0], target, contrast)
    divisor = float(output.divisor[0]) if isinstance(output, ObjectMILOutput) else 1.0
    share = output.attention / divisor  # of each patch, or object in it, in the pooled features
    check_sum(float((share * (output.instances @ chosen.weight)).sum()) + chosen.bias, chosen.logit)
    layers = [double_precision(layer) for layer in _layers(model)]
    last = nn.Linear(len(chosen.weight), 1, bias=False, dtype=torch.float64)
    last.weight.data.copy_(chosen.weight[None])
    network = nn.Sequential(*layers, last)
    for layer in network:
        if isinstance(layer, nn.Linear):
            layer.rule = EpsilonRule(epsilon)
    scaled = _ScaledFeatures(model, bag, target, contrast)
    rows = scaled.features[0].flatten(0, -2).requires_grad_()
    relevance = LRP(network).attribute(rows, target=0).view_as(scaled.features)
    return scaled.attribution("lrp", relevance * share[None, ..., None], chosen.bias)


def _layers(model: AttentionClassifier) -> list[nn.Module]:
    """The layers between the scaled features and the pool."""
    layers = model.projection.children() if isinstance(model.projection, nn.Sequential) else ()
    return [layer for layer in layers if not isinstance(layer, nn.Dropout)]


class _ScaledFeatures:
    """A slide's scaled features, and the logit as a function of them."""

    def __init__(
        self, model: AttentionClassifier, bag: Bag, target: int | None, contrast: Contrast
    ) -> None:
        logits = forward(model, bag).logits[0]
        self.target, self.share = class_share(logits, target, contrast)
        self.total = float(self.share @ logits)
        self.model = double_precision(model).requires_grad_(requires_grad=False)
        with torch.no_grad():
            self.features = self.model.scaler(bag.features.cpu().double())[None]
        self.model.scaler = cast("Any", nn.Identity())
        self.present = None if bag.present is None else bag.present.cpu()

    def logit(self, features: Tensor) -> Tensor:
        """Logits ``(B,)`` of scaled features ``(B, N, ...)``."""
        bags, patches = features.shape[:2]
        output = self.model(
            PackedBags(
                features.flatten(0, 1),
                None if self.present is None else self.present.repeat(bags, 1),
                torch.full((bags,), patches),
                torch.arange(bags).repeat_interleave(patches),
                torch.full((bags,), -1),
            )
        )
        logit: Tensor = output.logits @ self.share
        return logit

    def attribution(
        self, method: Method, relevance: Tensor, reference: float = math.nan
    ) -> Attribution:
        """The attribution with the relevance ``(1, N, ..., D)`` of each feature summed up."""
        values = relevance[0].detach().sum(dim=-1)
        if self.present is not None:
            values = values.masked_fill(~self.present, 0.0)
        return Attribution.of_values(
            method, self.target, values.numpy(), logit=self.total, reference=reference
        )
