"""The object-aware slide classifier: one attention pool per kind of object.

Axes: M patches of all bags, B bags, L object kinds, K classes, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import nn

from xpath.errors import ConfigError, ShapeError
from xpath.mil.attention_mil import projection
from xpath.mil.pool import AttentionScore, segment_softmax, segment_sum
from xpath.mil.scaler import FeatureScaler
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from xpath.mil.bag import PackedBags

__all__ = ["ObjectAwareMIL", "ObjectMILOutput"]


class ObjectMILOutput(NamedTuple):
    """``logits[b, k] = Σ_ij attention[i, j] · W[k]·instances[i, j] / divisor[b] + bias[k]``."""

    logits: Tensor
    """``(B, K)``."""
    attention: Tensor
    """``(M, L)``; sums to one within each bag for every present kind, 0 where absent."""
    embedding: Tensor
    """``(B, L, D)`` slide-level object features; 0 for kinds the slide does not have."""
    present: Tensor
    """``(B, L)`` kinds the slide has."""
    divisor: Tensor
    """``(B,)`` what the sum over kinds is divided by."""
    instances: Tensor
    """``(M, L, D)`` what the classifier's weights act on."""


class ObjectAwareMIL(nn.Module):
    """Parallel aggregators, one per object, averaged and classified (paper, section 4.3.3).

    A patch without an object takes no part in that object's attention. A kind that a slide does
    not have contributes exactly 0 to its logits.

    Example::

        model = ObjectAwareMIL(512, objects=["breast-tissue-tumor", "other"], classes=2)
        bag = Bag(features, coverage > 0)  # (N, L, D) and (N, L)
        logits = model(pack([bag])).logits

    Args:
        dim: Features of an object.
        objects: Names of the L kinds, or just how many.
        classes: Number of classes K.
        hidden: Width of each attention network.
        gated: Gated attention; False for the plain form.
        proj: Width of a linear layer with ReLU before pooling, shared by all kinds; None as in
            the paper.
        dropout: Rate while training, on projection and attention.
        average: ``all``: mean over all L kinds (the paper); ``present``: over those there, so that
            adding a kind no slide has changes nothing.
    """

    kind = "object_aware"

    def __init__(  # noqa: PLR0913 - the model's own numbers, all but three with a default
        self,
        dim: int,
        objects: Sequence[str] | int,
        classes: int,
        *,
        hidden: int = 64,
        gated: bool = True,
        proj: int | None = None,
        dropout: float = 0.0,
        average: Literal["all", "present"] = "all",
    ) -> None:
        super().__init__()
        if average not in ("all", "present"):
            raise ConfigError(f"average must be 'all' or 'present', got {average!r}")
        names = [f"object {j}" for j in range(objects)] if isinstance(objects, int) else objects
        if not names:
            raise ConfigError("objects must name at least one kind")
        self.objects = tuple(names)
        self.average = average
        self.settings = {
            "dim": dim,
            "objects": list(names),
            "classes": classes,
            "hidden": hidden,
            "gated": gated,
            "proj": proj,
            "dropout": dropout,
            "average": average,
        }
        self.dim = dim
        self.scaler = FeatureScaler(dim)
        self.projection = projection(dim, proj, dropout)
        width = proj or dim
        self.attention = AttentionScore(
            width, hidden, kinds=len(names), gated=gated, dropout=dropout
        )
        self.classifier = nn.Linear(width, classes)

    def forward(self, bags: PackedBags) -> ObjectMILOutput:
        """Logits of bags with object features ``(M, L, D)`` and their presence ``(M, L)``.

        Raises:
            ShapeError: Other features, other kinds, or presence missing.
        """
        kinds = len(self.objects)
        check_shape("features", bags.features, "M L D", L=kinds, D=self.dim)
        if bags.present is None:
            raise ShapeError(f"object features need `present` (M, L) with L={kinds}, got None")
        instances = self.projection(self.scaler(bags.features))
        # Whatever stands in the features of an absent object must not reach the sum, NaN neither.
        instances = instances.masked_fill(~bags.present[..., None], 0.0)
        attention = segment_softmax(self.attention(instances), bags.index, bags.count, bags.present)
        embedding = segment_sum(attention[..., None] * instances, bags.index, bags.count)
        present = segment_sum(bags.present.to(embedding.dtype), bags.index, bags.count) > 0
        divisor = present.sum(dim=1).clamp(min=1).to(embedding.dtype)
        if self.average == "all":
            divisor = divisor.new_full((bags.count,), kinds)
        slide = embedding.sum(dim=1) / divisor[:, None]
        logits = self.classifier(slide)
        return ObjectMILOutput(logits, attention, embedding, present, divisor, instances)
