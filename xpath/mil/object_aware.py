"""The object-aware slide classifier: one attention pool per object class.

Axes: M patches of all bags, B bags, L object classes, K classes, D features.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import nn

from xpath.errors import ConfigError, ShapeError
from xpath.mil.attention_mil import AttentionMILSettings, check_sizes, named, projection
from xpath.mil.bag import check_packed, check_precision, chunks, pack
from xpath.mil.checkpoint import Pretrained
from xpath.mil.pool import (
    GatedAttention,
    PlainAttention,
    full_precision,
    segment_softmax,
    segment_sum,
    segment_weighted_sum,
)
from xpath.mil.scaler import FeatureScaler
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from xpath.mil.bag import Bag, PackedBags

__all__ = ["ObjectAwareMIL", "ObjectAwareMILConfig", "ObjectAwareMILSettings", "ObjectMILOutput"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectAwareMILSettings(AttentionMILSettings):
    """Choices of an ``ObjectAwareMIL`` that no cohort decides."""

    hidden: int = 64
    """Width of each attention network."""
    average: Literal["all", "present"] = "all"
    """``all``: mean over all L objects (the paper); ``present``: over those the slide has, so that
    adding one that no slide has changes nothing."""

    def __post_init__(self) -> None:
        """Raises ConfigError for another average, or as for ``AttentionMILSettings``."""
        super(ObjectAwareMILSettings, self).__post_init__()  # bare super() breaks under slots
        if self.average not in ("all", "present"):
            raise ConfigError(f"average must be 'all' or 'present', got {self.average!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectAwareMILConfig(ObjectAwareMILSettings):
    """Everything an ``ObjectAwareMIL`` is built from."""

    dim: int
    """Features of an object D."""
    classes: tuple[str, ...]
    """Names of the K classes, in the order of the logits."""
    objects: tuple[str, ...]
    """Names of the L object classes, in the order of the features."""

    def __post_init__(self) -> None:
        """Raises ConfigError for no objects, one class, or as for ``ObjectAwareMILSettings``."""
        super(ObjectAwareMILConfig, self).__post_init__()
        check_sizes(dim=self.dim, classes=self.classes)
        if not self.objects:
            raise ConfigError("objects must name one object class at least")


class ObjectMILOutput(NamedTuple):
    """``logits[b, k] = Σ_ij attention[i, j] · W[k]·instances[i, j] / divisor[b] + bias[k]``."""

    logits: Tensor
    """``(B, K)``."""
    attention: Tensor
    """``(M, L)``; sums to one within each bag for every object there, 0 where absent."""
    embedding: Tensor
    """``(B, L, D)`` slide-level object features S_j; exactly 0 for those the slide has not."""
    present: Tensor
    """``(B, L)`` object classes the slide has."""
    divisor: Tensor
    """``(B,)`` what the sum over objects is divided by: L, or how many are present (at least 1)."""
    instances: Tensor
    """``(M, L, D)`` what the classifier's weights act on; 0 where absent."""


class ObjectAwareMIL(Pretrained):
    """Parallel aggregators, one per object, averaged and classified (paper, section 4.3.3).

    A patch without an object takes no part in that object's attention. An object that a slide does
    not have contributes exactly 0 to its logits; a slide with no object at all gets the bias.

    Example::

        model = ObjectAwareMIL(512, objects=["breast-tissue-tumor", "other"], classes=2)
        bag = Bag(features, coverage > 0)  # (N, L, D) and (N, L)
        logits = model(pack([bag])).logits

    Args:
        dim: Features of an object.
        objects: Names of the L object classes, or just how many.
        classes: Names of the K classes, or just how many.
        hidden, gated, proj, dropout, average: See ``ObjectAwareMILSettings``; ``proj`` is shared by
            all objects.

    Raises:
        ConfigError: A number that cannot be.
    """

    model_type = "object_aware"
    config: ObjectAwareMILConfig

    def __init__(  # noqa: PLR0913 - the model's own numbers, all but three with a default
        self,
        dim: int,
        objects: Sequence[str] | int,
        classes: Sequence[str] | int,
        *,
        hidden: int = 64,
        gated: bool = True,
        proj: int | None = None,
        dropout: float = 0.0,
        average: Literal["all", "present"] = "all",
    ) -> None:
        super().__init__()
        self.config = ObjectAwareMILConfig(
            dim=dim,
            objects=named(objects, "object"),
            classes=named(classes, "class"),
            hidden=hidden,
            gated=gated,
            proj=proj,
            dropout=dropout,
            average=average,
        )
        width = proj or dim
        attention = GatedAttention if gated else PlainAttention
        self.scaler = FeatureScaler(dim)
        self.projection = projection(dim, proj, dropout)
        self.attention = attention(width, hidden, dropout, pools=len(self.objects))
        self.classifier = nn.Linear(width, len(self.classes))

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the L object classes, in the order of the features."""
        return self.config.objects

    def fit_baseline(self, bags: Sequence[Bag]) -> None:
        """Keeps the mean over slides of what each object adds, in ``metadata["baseline"]``.

        In double precision. Training does so with its slides: then an explanation can say what an
        object adds beyond its mean. ``contributions`` are ``(K, L)`` means of W_k·S_j over the
        divisor, absent objects counting 0, ``logits`` ``(K,)`` means of the logits, and ``slides``
        how many.
        """
        exact = copy.deepcopy(self).double().eval()
        weight = exact.classifier.weight
        added = weight.new_zeros(len(self.classes), len(self.objects))
        logits = weight.new_zeros(len(self.classes))
        with torch.inference_mode():
            for chunk in chunks(bags):
                output = exact(pack(chunk).like(weight))
                shares = output.embedding / output.divisor[:, None, None]
                added += torch.einsum("kd,bld->kl", weight, shares)
                logits += output.logits.sum(dim=0)
        self.metadata["baseline"] = {
            "slides": len(bags),
            "contributions": (added / len(bags)).tolist(),
            "logits": (logits / len(bags)).tolist(),
        }

    def forward(self, bags: PackedBags) -> ObjectMILOutput:
        """Logits of bags with object features ``(M, L, D)`` and their presence ``(M, L)``.

        Raises:
            DataError: Bags that are not packed, or of another precision than the model.
            ShapeError: Other features, other objects, or presence missing.
        """
        check_packed(bags)
        count = len(self.objects)
        sizes = check_shape("object features", bags.features, "M L D", L=count, D=self.config.dim)
        if bags.present is None:
            raise ShapeError(f"object features need `present` (M, L) with L={count}, got None")
        check_shape("present", bags.present, "M L", M=sizes["M"], L=count)
        check_precision(bags, next(self.parameters()))
        instances = self.projection(self.scaler(bags.features))
        # Scaler and projection turn the zeros of an absent object into something; nothing it is.
        instances = instances.masked_fill(~bags.present[..., None], 0.0)
        scores = self.attention(instances)
        with full_precision(scores):
            attention = segment_softmax(scores, bags.index, bags.bags, bags.present)
            embedding = segment_weighted_sum(attention, instances, bags.index, bags.sizes)
            present = segment_sum(bags.present.to(embedding.dtype), bags.index, bags.bags) > 0
            divisor = embedding.new_full((bags.bags,), count)
            if self.config.average == "present":
                divisor = present.sum(dim=1).clamp(min=1).to(embedding.dtype)
            logits = self.classifier(embedding.sum(dim=1) / divisor[:, None])
        return ObjectMILOutput(logits, attention, embedding, present, divisor, instances)
