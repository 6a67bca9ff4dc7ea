"""The contracts between rooms that do not know each other: what a part of one's own must have.

Axes: B patches, images or bags, D features, H W pixels, h w positions of a feature map, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from xpath.mil.bag import PackedBags

__all__ = ["ClassifierOutput", "PatchEncoder", "SlideClassifier"]


class PatchEncoder(Protocol):
    """Anything that turns patches into feature maps."""

    name: str
    """For reports and file names."""
    digest: str
    """SHA-256 of all that decides the features, weights included."""
    dim: int
    """Features D."""

    def maps(self, images: Tensor) -> Tensor:
        """Maps ``(B, D, h, w)`` float32 on the CPU, of RGB images ``(B, 3, H, W)`` uint8."""
        ...


class ClassifierOutput(Protocol):
    """Answer of a slide classifier; whatever else it has is the model's own."""

    @property
    def logits(self) -> Tensor:
        """``(B, K)``."""
        ...


class SlideClassifier(Protocol):
    """Anything that classifies slides: a ``torch.nn.Module`` with ``classes`` and ``metadata``.

    ``train``, ``predict``, ``evaluate``, cross-validation and explanation by leave-one-out use
    these members and no others, so aggregation and head are free. Two things are optional:

    * a member ``scaler``, a ``FeatureScaler``, is fitted to the training slides before the first
      epoch, unless ``TrainConfig.scale`` is off;
    * a sub-class of ``xpath.mil.checkpoint.Pretrained`` is saved and loaded as a checkpoint, and
      with a row in ``xpath.mil.classifier.CLASSIFIERS`` runs and cohorts train it by name.

    Example::

        class MaxMeanMIL(nn.Module):
            classes = ("IDC", "ILC")

            def __init__(self, dim):
                super().__init__()
                self.metadata = {}
                self.head = nn.Sequential(nn.Linear(2 * dim, 32), nn.ReLU(), nn.Linear(32, 2))

            def forward(self, bags):
                largest = segment_max(bags.features, bags.index, bags.bags)
                total = segment_sum(bags.features, bags.index, bags.bags)
                return Output(self.head(torch.cat([largest, total / bags.sizes[:, None]], 1)))
    """

    metadata: dict[str, Any]
    """Anything JSON can hold; ``train`` adds how and on which slides it was trained."""
    training: bool
    """True while dropout is on; ``nn.Module`` has it."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the K classes, in the order of the logits."""
        ...

    def __call__(self, bags: PackedBags) -> ClassifierOutput:
        """Logits of packed bags, on the device and in the precision of the model's own tensors."""
        ...

    def parameters(self) -> Iterator[Any]:
        """Of ``nn.Module``: the tensors that Adam changes."""
        ...

    def buffers(self) -> Iterator[Any]:
        """Of ``nn.Module``: its other tensors."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Of ``nn.Module``: all tensors by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Of ``nn.Module``: puts tensors back."""
        ...

    def train(self, mode: bool = True) -> Any:  # noqa: FBT001, FBT002 - torch's signature
        """Of ``nn.Module``: dropout on, or off."""
        ...

    def eval(self) -> Any:
        """Of ``nn.Module``: dropout off."""
        ...

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Of ``nn.Module``: moves it to a device."""
        ...
