"""The key of an output: equal while the output need not be made again.

A key is made of the stage's number, the settings it depends on that differ from their defaults, and
the keys or contents of its inputs. So a setting that is added with a default, or one that the stage
does not read, leaves everything that is done as it is.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from xpath.batch.done import key_of

if TYPE_CHECKING:
    from xpath.study.config import StudyConfig

__all__ = [
    "STAGE_SETTINGS",
    "STAGE_VERSIONS",
    "changed_settings",
    "settings_that_differ",
    "stage_key",
]

STAGE_VERSIONS = {
    "masks": 2,
    "objects": 1,
    "features": 2,
    "models": 5,
    "explanation": 3,
    "export": 6,
    "attributions": 1,
    "pyramids": 1,
    "dicom-seg": 2,
}
"""The number of each stage. Raise it when the same slides and settings give another output: an
algorithm, a constant, a file format or the page was changed, a mistake was mended, or a setting has
another default. All outputs with a lower number, and those made from them, are then made again.
Leave it when a setting is added whose default does what was done before, or when only the speed
changed.
"""

STAGE_SETTINGS: dict[str, tuple[str, ...]] = {
    "masks": (
        "tissue",
        "grid",
        "objects.overlap",
        "objects.reduce",
        "objects.competition",
        "drawn",
    ),
    "objects": ("counting",),
    "features": ("objects.rim_um",),
    "models": (
        "classifier.attention",
        "classifier.object_aware",
        "classifier.mean",
        "classifier.max",
        "classifier.object_fractions",
        "classifier.other",
        "classifier.train",
        "objects.min_coverage",
    ),
    "explanation": (
        "explain.hide",
        "explain.sigma_um",
        "explain.feather_um",
        "explain.null",
        "explain.null_draws",
        "explain.seed",
        "objects.min_coverage",
    ),
    "export": ("drawn",),
    "attributions": ("explain.methods", "explain.seed"),
    "pyramids": (),
    "dicom-seg": (),
}
"""The settings each stage depends on, as in ``--set``, or whole tables. Labels, weights, resolution
and splits are inputs of the keys instead. Devices and sizes of batches change no result."""

DECIDE_NOTHING = (
    "objects.device",
    "objects.batch",
    "objects.compile",
    "objects.channels_last",
    "memory_gb",
    "explain.splits",
    "explain.methods",
)
"""Settings that change how fast, for how many slides or by how many methods results are made, but
no result that is there."""


def stage_key(stage: str, config: StudyConfig, *inputs: object) -> str:
    """The key of an output of a stage.

    Args:
        stage: One of ``STAGE_VERSIONS``.
        config: The settings of the run; only those of the stage count.
        inputs: Anything else the output depends on, of types JSON knows: keys of earlier stages,
            prompts, digests of weights.
    """
    return key_of(stage, STAGE_VERSIONS[stage], changed_settings(config, stage), *inputs)


def changed_settings(config: StudyConfig, stage: str) -> dict[str, Any]:
    """Settings of a stage that differ from their defaults, by dotted name."""
    values, defaults = _flat(asdict(config)), _flat(asdict(type(config)()))
    return {
        name: value
        for name, value in values.items()
        if value != defaults[name]
        and any(name == chosen or name.startswith(f"{chosen}.") for chosen in STAGE_SETTINGS[stage])
    }


def settings_that_differ(
    before: StudyConfig, after: StudyConfig
) -> dict[str, tuple[object, object]]:
    """Settings that decide a result and have another value, before and after, by dotted name.

    Where the resolution of slides that store none was not given before, none of them is finished,
    so giving it decides nothing that was made. A precision is compared by what it comes to: on
    another device ``auto`` is another.
    """
    old, new = (
        _flat(asdict(it)) | {"objects.precision": it.objects.segmentor_precision}
        for it in (before, after)
    )
    free = {*DECIDE_NOTHING, *([] if before.default_mpp else ["default_mpp"])}
    return {
        name: (old[name], value)
        for name, value in new.items()
        if old[name] != value and name not in free
    }


def _flat(settings: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Settings of nested tables by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{path}{name}.") if isinstance(value, dict) else {path + name: value}
    return flat
