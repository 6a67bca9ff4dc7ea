"""Slide classifiers without attention: what every attention model must beat.

Axes: M patches of all bags, B bags, K classes, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import nn

from xpath.errors import ConfigError
from xpath.mil.attention_mil import check_sizes, named, projection
from xpath.mil.bag import check_packed, check_precision
from xpath.mil.checkpoint import Pretrained
from xpath.mil.pool import full_precision, segment_max, segment_sum
from xpath.mil.scaler import FeatureScaler
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from xpath.mil.bag import PackedBags

__all__ = ["PoolingMIL", "PoolingMILConfig", "PoolingMILSettings", "PoolingOutput"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolingMILSettings:
    """Choices of a ``PoolingMIL`` that no cohort decides."""

    proj: int | None = None
    """Width of a linear layer with ReLU before the classifier; None for none."""
    dropout: float = 0.0
    """Rate on the projection while training."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a width below 1, or a rate not in 0..1."""
        check_sizes(proj=self.proj, dropout=self.dropout)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolingMILConfig(PoolingMILSettings):
    """Everything a ``PoolingMIL`` is built from."""

    dim: int
    """Features of a patch D."""
    classes: tuple[str, ...]
    """Names of the K classes, in the order of the logits."""
    pool: Literal["mean", "max"] = "mean"
    """``mean`` of the patches' logits; ``max``: their largest, for each class its own."""

    def __post_init__(self) -> None:
        """Raises ConfigError for another pool, one class, or as for ``PoolingMILSettings``."""
        super(PoolingMILConfig, self).__post_init__()  # bare super() breaks under slots
        check_sizes(dim=self.dim, classes=self.classes)
        if self.pool not in ("mean", "max"):
            raise ConfigError(f"pool must be 'mean' or 'max', got {self.pool!r}")


class PoolingOutput(NamedTuple):
    """Logits, and those of every patch."""

    logits: Tensor
    """``(B, K)``: mean or largest of the patches' logits; the bias alone for an empty bag."""
    patch_logits: Tensor
    """``(M, K)``."""
    instances: Tensor
    """``(M, D)`` what the classifier's weights act on: scaled, projected if there is one."""


class PoolingMIL(Pretrained):
    """Mean or maximum over patches of the logits of a linear classifier.

    Example::

        model = PoolingMIL(512, classes=["IDC", "ILC"], pool="mean")
        logits = model(pack([Bag(torch.randn(120, 512))])).logits

    Args:
        dim: Features of a patch.
        classes: Names of the K classes, or just how many.
        pool: ``mean``: all patches count the same; ``max``: the one that speaks most for a class.
            It learns from that one alone, so it can get stuck: compare several seeds.
        proj, dropout: See ``PoolingMILSettings``.

    Raises:
        ConfigError: A number that cannot be.
    """

    model_type = "pooling"
    config: PoolingMILConfig

    def __init__(
        self,
        dim: int,
        classes: Sequence[str] | int,
        *,
        pool: Literal["mean", "max"] = "mean",
        proj: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = PoolingMILConfig(
            dim=dim, classes=named(classes, "class"), pool=pool, proj=proj, dropout=dropout
        )
        self.scaler = FeatureScaler(dim)
        self.projection = projection(dim, proj, dropout)
        self.classifier = nn.Linear(proj or dim, len(self.classes))

    def forward(self, bags: PackedBags) -> PoolingOutput:
        """Logits of bags with patch features ``(M, D)``.

        Raises:
            DataError: Bags that are not packed, or of another precision than the model.
            ShapeError: Features of another width, or object features.
        """
        check_packed(bags)
        check_shape("patch features", bags.features, "M D", D=self.config.dim)
        check_precision(bags, next(self.parameters()))
        instances = self.projection(self.scaler(bags.features))
        scores = self.classifier(instances)
        with full_precision(scores):
            if self.config.pool == "mean":
                total = segment_sum(scores, bags.index, bags.bags)
                logits = total / bags.sizes.to(total)[:, None].clamp(min=1)
            else:
                logits = segment_max(scores, bags.index, bags.bags)
            empty = (bags.sizes == 0)[:, None]
            logits = torch.where(empty, self.classifier.bias, logits)
        return PoolingOutput(logits, scores, instances)
