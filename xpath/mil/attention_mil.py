"""The standard slide classifier: attention pooling of patches, then one linear layer.

Axes: M patches of all bags, B bags, K classes, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from xpath.errors import ShapeError
from xpath.mil.pool import AttentionScore, segment_softmax, segment_sum
from xpath.mil.scaler import FeatureScaler
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from torch import Tensor

    from xpath.mil.bag import PackedBags

__all__ = ["AttentionMIL", "MILOutput"]


class MILOutput(NamedTuple):
    """``logits[b, k] = Σ_i attention[i] · W[k]·instances[i] + bias[k]``, i the patches of b."""

    logits: Tensor
    """``(B, K)``."""
    attention: Tensor
    """``(M,)``; sums to one within each bag."""
    embedding: Tensor
    """``(B, D)`` slide features."""
    instances: Tensor
    """``(M, D)`` what the classifier's weights act on."""


class AttentionMIL(nn.Module):
    """Attention-based multiple instance learning (Ilse et al. 2018; paper, Fig. 11a).

    Example::

        model = AttentionMIL(512, classes=2)
        logits = model(pack([Bag(torch.randn(120, 512))])).logits

    Args:
        dim: Features of a patch.
        classes: Number of classes K.
        hidden: Width of the attention network.
        gated: Gated attention; False for the plain form.
        proj: Width of a linear layer with ReLU before pooling; None pools the features
            themselves, as the paper's Eq. 14 does.
        dropout: Rate while training, on projection and attention.
    """

    kind = "attention"

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        hidden: int = 128,
        gated: bool = True,
        proj: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.settings = {
            "dim": dim,
            "classes": classes,
            "hidden": hidden,
            "gated": gated,
            "proj": proj,
            "dropout": dropout,
        }
        self.dim = dim
        self.scaler = FeatureScaler(dim)
        self.projection = projection(dim, proj, dropout)
        width = proj or dim
        self.attention = AttentionScore(width, hidden, gated=gated, dropout=dropout)
        self.classifier = nn.Linear(width, classes)

    def forward(self, bags: PackedBags) -> MILOutput:
        """Logits of bags with patch features ``(M, D)``.

        Raises:
            ShapeError: Features of another width, or object features.
        """
        check_shape("features", bags.features, "M D", D=self.dim)
        instances = self.projection(self.scaler(bags.features))
        scores = self.attention(instances[:, None])[:, 0]
        attention = segment_softmax(scores, bags.index, bags.count)
        embedding = segment_sum(attention[:, None] * instances, bags.index, bags.count)
        return MILOutput(self.classifier(embedding), attention, embedding, instances)


def projection(dim: int, proj: int | None, dropout: float) -> nn.Module:
    """Linear, ReLU, dropout; or nothing."""
    if proj is None:
        return nn.Identity()
    if proj < 1:
        raise ShapeError(f"proj must be a width or None, got {proj}")
    return nn.Sequential(nn.Linear(dim, proj), nn.ReLU(), nn.Dropout(dropout))
