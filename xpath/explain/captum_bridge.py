"""Captum's attribution methods, on named objects and on patches.

Captum perturbs numbers, so every object is a number: 1 shown, 0 hidden. What that means for the
slide is decided by the caller, overlaps included. What each patch says is asked by gradients, on
features as the model's scaler gives them: zero is then the mean of the training slides, whatever
the encoder's offset. Axes: B coalitions or steps, N patches, L objects, K classes, D features.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
from torch import nn

from xpath.errors import DataError
from xpath.explain.head import check_sum, class_share, class_weights, evaluate
from xpath.mil.bag import Bag, PackedBags, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.explain.head import AttentionClassifier, Contrast
    from xpath.mil.object_aware import ObjectAwareMIL

__all__ = [
    "FeatureAttribution",
    "attribute_objects",
    "gradient_x_input",
    "integrated_gradients",
    "layerwise_relevance",
    "without_objects",
]

NUMBERS_AT_ONCE = 8_000_000
"""Numbers of features that go through the model at a time: more would only fill the memory."""


class FeatureAttribution(NamedTuple):
    """What the features say, summed over D."""

    target: int
    values: NDArray[np.float64]
    """``(N,)`` of patches, ``(N, L)`` of the objects in them; exactly 0 where one is not."""
    reference: float
    """What the method counts from: the logit that no value at all would leave."""
    logit: float
    """The model's own, less what the class is held against."""

    @property
    def delta(self) -> float:
        """What the sum of the values misses: captum's convergence delta."""
        return float(self.values.sum()) - (self.logit - self.reference)


def attribute_objects(
    logits: Callable[[Tensor], Tensor],
    objects: int,
    target: int,
    *,
    method: Literal["ablation", "shapley"] = "ablation",
    samples: int = 25,
    seed: int = 0,
) -> NDArray[np.float64]:
    """What each object adds to the logit of a class, ``(L,)``.

    Args:
        logits: Logits ``(B, K)`` of coalitions ``(B, L)`` of zeros and ones.
        objects: Number of objects L.
        target: Class index.
        method: ``ablation``: the logit minus the logit without the object; ``shapley``: the mean
            over random orders in which objects join (captum's ``ShapleyValueSampling``).
        samples: Orders drawn for ``shapley``.
        seed: Which orders; the global random state is left as it was.

    Raises:
        DataError: No objects, no orders, or no such method.
    """
    from captum.attr import FeatureAblation, ShapleyValueSampling

    if objects < 1 or samples < 1 or method not in ("ablation", "shapley"):
        raise DataError(f"nothing to do for {objects} objects, {samples} orders, {method!r}")
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


def without_objects(model: ObjectAwareMIL, bag: Bag) -> Callable[[Tensor], Tensor]:
    """Logits ``(B, K)`` of coalitions ``(B, L)``: an object at 0 is struck from the whole slide.

    Raises:
        DataError: A bag of patches, without objects.
    """
    present = bag.present
    if present is None:
        raise DataError(f"bag {bag.slide_id!r} has no objects; pass object features (N, L, D)")

    exact = copy.deepcopy(model).cpu().double().eval()
    features = bag.features.cpu().double()

    @torch.inference_mode()
    def logits(shown: Tensor) -> Tensor:
        bags = [Bag(features, present.cpu() & (row > 0.5)) for row in shown]
        found: Tensor = exact(pack(bags)).logits
        return found

    return logits


def gradient_x_input(
    model: AttentionClassifier,
    bag: Bag,
    target: int | None = None,
    *,
    contrast: Contrast = "none",
) -> FeatureAttribution:
    """Gradient of the logit times the features (captum's ``InputXGradient``).

    Attention is differentiated as well, so the sum is not the logit: ``delta`` tells by how much.

    Args:
        model: The standard or the object-aware classifier; any head.
        bag: What it is asked about.
        target: Class index; by default the predicted class.
        contrast: What the class is held against.

    Raises:
        DataError: No such class.
    """
    from captum.attr import InputXGradient

    game = _Features(model, bag, target, contrast)
    found = InputXGradient(game.logit).attribute(game.features.requires_grad_())
    return game.told(found, reference=0.0)


def integrated_gradients(
    model: AttentionClassifier,
    bag: Bag,
    target: int | None = None,
    *,
    contrast: Contrast = "none",
    steps: int = 64,
) -> FeatureAttribution:
    """Gradients along the way from a slide of mean patches (Sundararajan et al. 2017).

    The values sum to the logit less that of the mean patches; ``delta`` tells how well the steps
    resolve the way. With a projection, whose ReLU has kinks, take more.

    Args:
        model: The standard or the object-aware classifier; any head.
        bag: What it is asked about.
        target: Class index; by default the predicted class.
        contrast: What the class is held against.
        steps: Points on the way (captum's ``n_steps``), each a pass and its gradient.

    Raises:
        DataError: No such class, or no steps.
    """
    from captum.attr import IntegratedGradients

    if steps < 1:
        raise DataError(f"steps must be 1 or more, got {steps}")
    game = _Features(model, bag, target, contrast)
    at_once = max(1, NUMBERS_AT_ONCE // game.features.numel())
    found = IntegratedGradients(game.logit).attribute(
        game.features, n_steps=steps, internal_batch_size=at_once
    )
    with torch.inference_mode():
        reference = float(game.logit(torch.zeros_like(game.features)))
    return game.told(found, reference=reference)


def layerwise_relevance(
    model: AttentionClassifier,
    bag: Bag,
    target: int | None = None,
    *,
    contrast: Contrast = "none",
    epsilon: float = 1e-9,
) -> FeatureAttribution:
    """Layer-wise relevance propagation, attention taken as given (Bach 2015; xMIL 2024).

    The pool hands each patch ``α_i W·h_i`` of the logit, and the epsilon rule (captum's ``LRP``)
    carries that through the projection to the features. What the projection's bias holds is lost
    on the way: ``delta``. Without a projection this is the class activation, and delta 0.

    Args:
        model: The standard or the object-aware classifier.
        bag: What it is asked about.
        target: Class index; by default the predicted class.
        contrast: What the class is held against.
        epsilon: Of the rule; larger ones quench what is near zero.

    Raises:
        DataError: No such class, a head that is not one linear layer, or a logit that is no sum
            over patches.
    """
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    output = evaluate(model, bag)
    chosen = class_weights(model, output.logits[0], target, contrast)
    divisor = float(output.divisor[0]) if bag.present is not None else 1.0
    share = output.attention / divisor  # of each patch, or object in it, in the pooled features
    check_sum(float((share * (output.instances @ chosen.weight)).sum()) + chosen.bias, chosen.logit)
    layers = [copy.deepcopy(part).cpu().double().eval() for part in _layers(model)]
    last = nn.Linear(len(chosen.weight), 1, bias=False, dtype=torch.float64)
    last.weight.data.copy_(chosen.weight[None])
    network = nn.Sequential(*layers, last)
    for layer in network:
        if isinstance(layer, nn.Linear):
            layer.rule = EpsilonRule(epsilon)
    game = _Features(model, bag, target, contrast)
    rows = game.features[0].flatten(0, -2).requires_grad_()
    relevance = LRP(network).attribute(rows, target=0).view_as(game.features)
    return game.told(relevance * share[None, ..., None], reference=chosen.bias)


def _layers(model: AttentionClassifier) -> list[nn.Module]:
    """What turns scaled features into those that are pooled."""
    parts = model.projection.children() if isinstance(model.projection, nn.Sequential) else ()
    return [part for part in parts if not isinstance(part, nn.Dropout)]


class _Features:
    """A slide's scaled features, and the logit as a function of them."""

    def __init__(
        self, model: AttentionClassifier, bag: Bag, target: int | None, contrast: Contrast
    ) -> None:
        logits = evaluate(model, bag).logits[0]
        self.target, self.share = class_share(logits, target, contrast)
        self.total = float(self.share @ logits)
        self.model = copy.deepcopy(model).cpu().double().eval().requires_grad_(requires_grad=False)
        with torch.no_grad():
            self.features = self.model.scaler(bag.features.cpu().double())[None]
        self.model.scaler = cast("Any", nn.Identity())
        self.present = None if bag.present is None else bag.present.cpu()

    def logit(self, features: Tensor) -> Tensor:
        """Logits ``(B,)`` of scaled features ``(B, N, ...)``."""
        bags, patches = features.shape[:2]
        found = self.model(
            PackedBags(
                features.flatten(0, 1),
                None if self.present is None else self.present.repeat(bags, 1),
                torch.full((bags,), patches),
                torch.arange(bags).repeat_interleave(patches),
                torch.full((bags,), -1),
            )
        )
        logit: Tensor = found.logits @ self.share
        return logit

    def told(self, attribution: Tensor, *, reference: float) -> FeatureAttribution:
        """The answer, of attributions ``(1, N, ..., D)``."""
        values = attribution[0].detach().sum(dim=-1)
        if self.present is not None:
            values = values.masked_fill(~self.present, 0.0)
        return FeatureAttribution(self.target, values.numpy(), reference, self.total)
