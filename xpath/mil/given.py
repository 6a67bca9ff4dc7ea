"""Slides, classes, groups and a seed in any of the forms that users hand to an estimator.

Axes: B slides, N patches, L object classes, D features, K classes.
"""

from __future__ import annotations

import logging
import math
import operator
import typing
from collections.abc import Mapping, Set
from dataclasses import fields
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xpath.config import as_type
from xpath.errors import ConfigError, DataError
from xpath.mil.bag import Bag
from xpath.store.names import alike

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from numpy.typing import NDArray

__all__ = [
    "as_bag",
    "as_groups",
    "as_labels",
    "as_list",
    "as_seed",
    "check_settings",
    "classes_of",
]

logger = logging.getLogger(__name__)


def check_settings(settings: Any, *, given: Container[str] = ()) -> None:
    """Refuses settings of another type than their field, such as ``epochs="3"``.

    Args:
        settings: A dataclass; numpy's scalars in it count as Python's.
        given: Fields that take more than their type says.

    Raises:
        ConfigError: A setting is of the wrong type, or a number that is not finite.
    """
    hints = typing.get_type_hints(type(settings))
    for name in (field.name for field in fields(settings) if field.init):
        value = getattr(settings, name)
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} must be finite, got {value}")
        if name not in given:
            as_type(hints[name], value, name)


def as_list(slides: Iterable[Any], what: str = "X must be a list of slides (N, D)") -> list[Any]:
    """Any iterable that has an order as a list.

    Args:
        slides: A list, array, column or generator of slides.
        what: What is wanted, for the message.

    Raises:
        DataError: Something that is none, or a table, which is one slide at most.
    """
    unordered = isinstance(slides, str | bytes | Mapping | Set | Bag) or hasattr(slides, "columns")
    try:
        if not unordered:
            return list(slides)
    except TypeError:  # it cannot be walked through
        pass
    raise DataError(f"{what}, got {type(slides).__name__}; put it in a list")


def as_bag(slide: Any, label: int | None, name: str, *, objects: bool) -> Bag:
    """A slide in any of its forms as a bag, without the label it may bring.

    Args:
        slide: Features ``(N, D)`` or ``(N, L, D)``, a pair of these and presence ``(N, L)``, or a
            bag.
        label: Index of its class.
        name: Of the slide in messages, where it has none.
        objects: Features of NaN are of absent objects.

    Raises:
        DataError: No array of real numbers.
        ShapeError: Of other axes.
    """
    if isinstance(slide, Bag):
        return Bag(slide.features, slide.present, label, slide.slide_id or name)
    if isinstance(slide, tuple) and len(slide) != 2:
        raise DataError(f"{name} must be features, or a pair with presence, got {len(slide)} items")
    given, present = slide if isinstance(slide, tuple) else (slide, None)
    features = _tensor(given, name)
    if not features.is_floating_point():
        features = features.float()
    if present is not None:
        there = _tensor(present, name) > 0
        if features.ndim == 3 and there.shape == features.shape[:2]:
            features = features.masked_fill(~there[..., None], 0.0)  # nothing is there: NaN, maybe
        return Bag(features, there, label, name)
    if objects and features.ndim == 3:
        there = ~features.isnan().all(dim=-1)
        return Bag(features.masked_fill(~there[..., None], 0.0), there, label, name)
    return Bag(features, None, label, name)


def classes_of(y: Any, count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The classes ``(K,)``, sorted, and the index of each slide's ``(B,)``.

    Raises:
        DataError: Not one class per slide, a slide without one, numbers between whole ones, or a
            single class.
    """
    labels = as_labels(y, count)
    between = [label for label in labels.tolist() if isinstance(label, Real) and label % 1 != 0]
    if between:
        raise DataError(
            f"y holds numbers such as {between[0]}, which are continuous and no classes; cut them"
            " into classes first"
        )
    try:
        classes, index = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise DataError(f"y mixes classes that cannot be sorted ({error})") from error
    if names := alike(map(str, classes)):
        logger.warning("y has classes that are nearly the same: %s; are they one?", names)
    if len(classes) < 2:
        raise DataError(f"a classifier needs slides of 2 classes, got only {classes.tolist()}")
    return classes, index.astype(np.int64)


def as_labels(y: Any, count: int) -> NDArray[Any]:
    """Labels ``(B,)`` of slides.

    Raises:
        DataError: Not one label per slide, or a slide without one.
    """
    listed = as_list(y, "y must be a list of classes")
    try:
        labels = np.asarray(y if hasattr(y, "__array__") else listed)
    except ValueError as error:
        raise DataError(f"y must hold one class per slide ({error})") from error
    if labels.shape != (count,) or not count:
        raise DataError(f"wanted one class per slide, got {count} slides and y {labels.shape}")
    missing = [index for index, label in enumerate(listed) if _is_missing(label)]
    if missing:
        raise DataError(f"slides without a class cannot train, those at {missing[:5]}")
    return labels


def as_groups(given: Iterable[Any] | None, count: int) -> list[str]:
    """A group for each slide. Those without one are groups of their own.

    Raises:
        DataError: No list.
    """
    groups = [None] * count if given is None else as_list(given, "groups must be a list of names")
    return [f"\0{i}" if _is_missing(group) else str(group) for i, group in enumerate(groups)]


def as_seed(random_state: Any) -> int:
    """The seed of any integer-like, as scikit-learn takes it.

    Raises:
        ConfigError: It is none.
    """
    if random_state is None or isinstance(random_state, np.random.RandomState):
        from sklearn.utils import check_random_state

        return int(check_random_state(random_state).randint(2**31 - 1))
    try:
        seed = operator.index(random_state)
    except TypeError:
        seed = -1
    if 0 <= seed < 2**63:
        return seed
    raise ConfigError(f"random_state must be a whole number >= 0 or None, got {random_state!r}")


def _tensor(given: Any, name: str) -> torch.Tensor:
    """A tensor of any array-like: frames, lists, mapped files, other byte orders and strides."""
    if isinstance(given, torch.Tensor):
        if given.layout == torch.strided and not given.is_complex():
            return given
        raise DataError(f"{name} is no dense tensor of real numbers; wanted (N, D)")
    if np.ma.is_masked(given):
        raise DataError(f"{name} has masked values; fill them, or leave out their patches")
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            array = array.astype(
                np.float64, casting="safe" if array.dtype.kind == "c" else "unsafe"
            )
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is no array of numbers ({error}); wanted (N, D)") from error
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.require(native, requirements=["C", "W"]))  # a copy only if need be


def _is_missing(value: Any) -> bool:
    """None, NaN, masked, and pandas' NA and NaT, which do not say whether they equal themselves."""
    try:
        return value is None or value is np.ma.masked or bool(value != value)
    except TypeError:
        return True
