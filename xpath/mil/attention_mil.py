"""The standard slide classifier: attention pooling of patches, then one linear layer.

Axes: M patches of all bags, B bags, K classes, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from xpath.errors import ConfigError
from xpath.mil.bag import check_packed, check_precision
from xpath.mil.checkpoint import Pretrained
from xpath.mil.pool import (
    GatedAttention,
    PlainAttention,
    full_precision,
    segment_softmax,
    segment_weighted_sum,
)
from xpath.mil.scaler import FeatureScaler
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from xpath.mil.bag import PackedBags

__all__ = [
    "AttentionMIL",
    "AttentionMILConfig",
    "AttentionMILSettings",
    "MILOutput",
    "check_sizes",
    "named",
    "projection",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionMILSettings:
    """Choices of an ``AttentionMIL`` that no cohort decides."""

    hidden: int = 128
    """Width of the attention network."""
    gated: bool = True
    """Gated attention; False for the plain form."""
    proj: int | None = None
    """Width of a linear layer with ReLU before pooling; None pools the features themselves, as the
    paper's Eq. 14 does."""
    dropout: float = 0.0
    """Rate while training, on projection and attention."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a width below 1, or a rate not in 0..1."""
        check_sizes(hidden=self.hidden, proj=self.proj, dropout=self.dropout)


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionMILConfig(AttentionMILSettings):
    """Everything an ``AttentionMIL`` is built from."""

    dim: int
    """Features of a patch D."""
    classes: tuple[str, ...]
    """Names of the K classes, in the order of the logits."""

    def __post_init__(self) -> None:
        """Raises ConfigError for fewer than 2 classes, or as for ``AttentionMILSettings``."""
        super(AttentionMILConfig, self).__post_init__()  # bare super() breaks under slots
        check_sizes(dim=self.dim, classes=self.classes)


class MILOutput(NamedTuple):
    """``logits[b, k] = Σ_i attention[i] · W[k]·instances[i] + bias[k]``, i the patches of b."""

    logits: Tensor
    """``(B, K)``."""
    attention: Tensor
    """``(M,)`` after the softmax: sums to one within each bag."""
    embedding: Tensor
    """``(B, D)`` slide features."""
    instances: Tensor
    """``(M, D)`` what the classifier's weights act on: scaled, projected if there is one."""


class AttentionMIL(Pretrained):
    """Attention-based multiple instance learning (Ilse et al. 2018, paper Fig. 11a).

    Example::

        model = AttentionMIL(512, classes=["IDC", "ILC"])
        logits = model(pack([Bag(torch.randn(120, 512))])).logits

    Args:
        dim: Features of a patch.
        classes: Names of the K classes, or just how many.
        hidden, gated, proj, dropout: See ``AttentionMILSettings``.

    Raises:
        ConfigError: A number that cannot be.
    """

    model_type = "attention"
    config: AttentionMILConfig

    def __init__(
        self,
        dim: int,
        classes: Sequence[str] | int,
        *,
        hidden: int = 128,
        gated: bool = True,
        proj: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = AttentionMILConfig(
            dim=dim,
            classes=named(classes, "class"),
            hidden=hidden,
            gated=gated,
            proj=proj,
            dropout=dropout,
        )
        width = proj or dim
        self.scaler = FeatureScaler(dim)
        self.projection = projection(dim, proj, dropout)
        self.attention = (GatedAttention if gated else PlainAttention)(width, hidden, dropout)
        self.classifier = nn.Linear(width, len(self.classes))

    def forward(self, bags: PackedBags) -> MILOutput:
        """Logits of bags with patch features ``(M, D)``.

        Raises:
            DataError: Bags that are not packed, or of another precision than the model.
            ShapeError: Features of another width, or object features.
        """
        check_packed(bags)
        check_shape("patch features", bags.features, "M D", D=self.config.dim)
        check_precision(bags, next(self.parameters()))
        instances = self.projection(self.scaler(bags.features))
        scores = self.attention(instances[:, None])[:, 0]
        with full_precision(scores):
            attention = segment_softmax(scores, bags.index, bags.bags)
            embedding = segment_weighted_sum(attention, instances, bags.index, bags.sizes)
            logits = self.classifier(embedding)
        return MILOutput(logits, attention, embedding, instances)


def check_sizes(
    *,
    dim: int = 1,
    hidden: int = 1,
    proj: int | None = None,
    dropout: float = 0.0,
    classes: Sequence[str] | None = None,
) -> None:
    """Refuses the numbers of a classifier that cannot be.

    Raises:
        ConfigError: A width below 1, a rate not in 0..1, or fewer than 2 classes.
    """
    if min(dim, hidden, 1 if proj is None else proj) < 1:
        raise ConfigError(
            f"dim, hidden and proj must be 1 or more (proj may be None), got {dim}, {hidden}"
            f" and {proj}"
        )
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout must be at least 0 and below 1, got {dropout}")
    if classes is not None and len(classes) < 2:
        raise ConfigError(f"there must be 2 classes at least, got {tuple(classes)}")


def projection(dim: int, proj: int | None, dropout: float) -> nn.Module:
    """Linear, ReLU and dropout, or the identity."""
    if proj is None:
        return nn.Identity()
    return nn.Sequential(nn.Linear(dim, proj), nn.ReLU(), nn.Dropout(dropout))


def named(names: Sequence[str] | int, what: str) -> tuple[str, ...]:
    """The names, or that many numbered ones: ``class 0``, ``class 1``.

    Raises:
        ConfigError: One string instead of several, or a name twice.
    """
    if isinstance(names, int):
        return tuple(f"{what} {i}" for i in range(names))
    if isinstance(names, str):
        raise ConfigError(f"{what} names must be a sequence of strings, got only {names!r}")
    if len(set(names)) < len(names):
        raise ConfigError(f"{what} names must differ, got {list(names)}")
    return tuple(names)
