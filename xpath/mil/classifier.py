"""The slide classifiers a cohort can train, by name: how each is built, fitted and read.

Axes: N patches, L object classes, D features, K classes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from xpath.errors import CheckpointError, ConfigError
from xpath.mil.attention_mil import AttentionMIL, AttentionMILSettings
from xpath.mil.checkpoint import Pretrained, read_model_type
from xpath.mil.controls import capacity_matched, without_names, without_objects
from xpath.mil.fractions import ObjectFractions, ObjectFractionsSettings, object_fractions
from xpath.mil.object_aware import ObjectAwareMIL, ObjectAwareMILSettings
from xpath.mil.pooling_mil import PoolingMIL, PoolingMILSettings
from xpath.mil.training import TrainConfig, train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xpath.mil.bag import Bag

__all__ = [
    "CLASSIFIERS",
    "CONTROLS",
    "ClassifierConfig",
    "ClassifierType",
    "FeatureSizes",
    "fit_fractions",
    "load_classifier",
]

View = Literal["patches", "objects", "coverage"]
"""Bags of patch features ``(N, D)``, of object features ``(N, L, D)`` with what is present, or of
the area share of each object ``(N, L)``."""


class FeatureSizes(NamedTuple):
    """Sizes and names in the features of a cohort."""

    dim: int
    """Features of a patch or object D."""
    objects: tuple[str, ...]
    """Names of the L object classes; empty where the files hold none."""
    classes: tuple[str, ...]
    """Names of the K classes, sorted."""


class ClassifierType(NamedTuple):
    """A row of ``CLASSIFIERS``."""

    model: type[Pretrained]
    """Class of the checkpoint."""
    reads: View
    """The bags it reads."""
    build: Callable[[FeatureSizes, dict[str, Any]], Pretrained]
    """Makes an untrained model from sizes and the classifier's own settings."""
    fit: Callable[..., Any] = train
    """Trains a model in place; called as ``train`` is."""
    sees: Callable[[Bag, FeatureSizes], Bag] = lambda bag, _: bag
    """What becomes of a bag before the model sees it, in training and ever after."""
    settings: str = ""
    """Name of the classifier whose settings it has; empty for its own."""


def fit_fractions(
    model: ObjectFractions,
    train_bags: Sequence[Bag],
    validation_bags: Sequence[Bag],
    config: TrainConfig | None = None,
    on_epoch: Callable[[Any], None] | None = None,
) -> None:
    """Fits an ``ObjectFractions`` to bags of coverage. There are no epochs to choose from.

    Raises:
        DataError: Slides of one class only.
    """
    del validation_bags, config, on_epoch
    rows = [object_fractions(bag.features.cpu().numpy()) for bag in train_bags]
    model.fit(np.stack(rows), [-1 if bag.label is None else bag.label for bag in train_bags])
    model.metadata["training"] = {"train_slides": [bag.slide_id for bag in train_bags]}


def _generator(name: str) -> torch.Generator:
    """Random numbers that the name of a slide decides, so that it always looks the same."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


CLASSIFIERS: dict[str, ClassifierType] = {
    "attention": ClassifierType(
        AttentionMIL,
        "patches",
        lambda sizes, settings: AttentionMIL(sizes.dim, sizes.classes, **settings),
    ),
    "object_aware": ClassifierType(
        ObjectAwareMIL,
        "objects",
        lambda sizes, settings: ObjectAwareMIL(sizes.dim, sizes.objects, sizes.classes, **settings),
    ),
    "mean": ClassifierType(
        PoolingMIL,
        "patches",
        lambda sizes, settings: PoolingMIL(sizes.dim, sizes.classes, pool="mean", **settings),
    ),
    "max": ClassifierType(
        PoolingMIL,
        "patches",
        lambda sizes, settings: PoolingMIL(sizes.dim, sizes.classes, pool="max", **settings),
    ),
    "object_fractions": ClassifierType(
        ObjectFractions,
        "coverage",
        lambda sizes, settings: ObjectFractions(sizes.objects, sizes.classes, **settings),
        fit_fractions,
    ),
    "without_names": ClassifierType(
        ObjectAwareMIL,
        "objects",
        lambda sizes, settings: ObjectAwareMIL(sizes.dim, sizes.objects, sizes.classes, **settings),
        sees=lambda bag, _: without_names(bag, _generator(bag.slide_id)),
        settings="object_aware",
    ),
    "without_objects": ClassifierType(
        ObjectAwareMIL,
        "patches",
        lambda sizes, settings: ObjectAwareMIL(sizes.dim, sizes.objects, sizes.classes, **settings),
        sees=lambda bag, sizes: without_objects(bag, len(sizes.objects)),
        settings="object_aware",
    ),
    "capacity_matched": ClassifierType(
        AttentionMIL,
        "patches",
        lambda sizes, settings: capacity_matched(
            ObjectAwareMIL(sizes.dim, sizes.objects, sizes.classes, **settings)
        ),
        settings="object_aware",
    ),
}
"""Every classifier by its name in the settings, in folders and in tables. One of your own takes a
sub-class of ``Pretrained`` and a row here."""

CONTROLS = ("without_names", "without_objects", "capacity_matched")
"""Classifiers that tell whether the object-aware one gains by its objects (``mil.controls``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig:
    """Which classifiers are trained, and how."""

    models: tuple[str, ...] = ("attention", "object_aware", "mean", "object_fractions")
    """Names from ``CLASSIFIERS``. Those that read objects are left out, with a line that says so,
    where feature files hold none."""
    attention: AttentionMILSettings = field(
        default_factory=lambda: AttentionMILSettings(proj=256, dropout=0.25)
    )
    """The standard classifier. Without a projection it does not learn from a hundred slides of
    features as wide as an encoder's (``benchmarks/mil_defaults.py``)."""
    object_aware: ObjectAwareMILSettings = field(default_factory=ObjectAwareMILSettings)
    """The object-aware classifier."""
    mean: PoolingMILSettings = field(default_factory=PoolingMILSettings)
    """The baseline without attention."""
    max: PoolingMILSettings = field(default_factory=PoolingMILSettings)
    """The baseline of the one patch that counts most."""
    object_fractions: ObjectFractionsSettings = field(default_factory=ObjectFractionsSettings)
    """The baseline of area fractions."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(lr=1e-3, bags_per_step=4, min_steps=300)
    )
    """How those that learn by gradient are trained."""
    other: bool = False
    """The rest of each patch, under no mask, counts as an object. It is no named tissue, and holds
    what the masks missed, so it competes with the objects by their own pixels."""
    seeds: int = 1
    """How often each classifier is trained, from other first weights: ``tables/table19.csv`` has
    mean and deviation over folds and seeds. All other tables are of the first."""
    calibrate: bool = False
    """Predictions are softened by a temperature fitted on the validation slides."""

    def __post_init__(self) -> None:
        """Raises ConfigError for no models, an unknown one, one twice, or no seeds."""
        if self.seeds < 1:
            raise ConfigError(f"classifier.seeds must be 1 or more, got {self.seeds}")
        unknown = [name for name in self.models if name not in CLASSIFIERS]
        if unknown or not self.models or len(set(self.models)) < len(self.models):
            raise ConfigError(
                f"classifier.models must name each classifier once, one at least, of"
                f" {', '.join(CLASSIFIERS)}; got {list(self.models)}"
            )

    @classmethod
    def paper(cls) -> ClassifierConfig:
        """The paper's settings (section 4.4): the plain cross-entropy of Eq. 11 and Adam at 2e-4.

        Features are taken as the encoder gives them, without scaling or projection, and a step is
        one slide.
        """
        plain = TrainConfig(bags_per_step=1, class_weight="none", scale=False)
        return cls(attention=AttentionMILSettings(), train=plain)

    def with_controls(self) -> ClassifierConfig:
        """The same with all ``CONTROLS`` trained beside the others."""
        return replace(self, models=tuple(dict.fromkeys((*self.models, *CONTROLS))))

    def settings_of(self, name: str) -> dict[str, Any]:
        """Own settings of a classifier, none for one that was added to ``CLASSIFIERS``."""
        settings = getattr(self, CLASSIFIERS[name].settings or name, None)
        return {} if settings is None else asdict(settings)


def load_classifier(folder: str | Path) -> Pretrained:
    """The model of a checkpoint folder of any type, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: A file is missing or unreadable, of another schema or an unknown type, or
            the weights do not fit the config.
    """
    model_type = read_model_type(Path(folder))
    known = {row.model.model_type: row.model for row in CLASSIFIERS.values()}
    if model_type not in known:
        raise CheckpointError(
            f"{folder} holds a classifier of type {model_type!r}; known are {list(known)}"
        )
    return known[model_type].from_pretrained(folder)
