"""nnU-Net (Isensee et al. 2021), run as its own programs on exported images.

It lives in whatever environment ``nnUNetv2_train`` is found in, for its dependencies are many and
its timm is an older one. Labels may overlap: each combination of labels on a pixel has a value of
its own, and nnU-Net learns the labels as regions. Axes: H W pixels.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import CheckpointError, ConfigError, DataError
from xpath.pathseg.image_files import write_png
from xpath.pathseg.reading import read_image
from xpath.segment.baselines.class_predictor import class_of
from xpath.store.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.pathseg.record import Annotated, SourceImage

__all__ = ["LabelValues", "NnuNet", "NnuNetConfig", "find_nnunet", "label_values"]

logger = logging.getLogger(__name__)

DATASET = "Dataset001_xpath"
TRAINER, PLANS, FOLD = "XPathTrainer", "nnUNetPlans", "all"
EPOCHS, EPOCH_STEPS = 1000, 250
"""nnU-Net's own schedule."""
FACTS = "nnunet.json"
SCHEMA = "xpath.nnunet/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class NnuNetConfig:
    """How long and where nnU-Net trains."""

    steps: int = EPOCHS * EPOCH_STEPS
    """Length of its schedule."""
    minutes: float = math.inf
    """Wall time of its training after which it stops, ready to go on."""
    device: str = "cuda"
    """``cuda``, ``cpu`` or ``mps``."""
    processes: int = 2
    """That prepare, augment and write images."""


@dataclass(frozen=True, slots=True)
class LabelValues:
    """How overlapping labels become one value per pixel."""

    labels: tuple[str, ...]
    """In nnU-Net's order: a label after those that hold all of it, small ones after large ones."""
    combinations: tuple[frozenset[str], ...]
    """Labels of value 1, 2 and so on."""

    def values(self, label: str) -> list[int]:
        """All values of pixels that are of a label."""
        return [n for n, held in enumerate(self.combinations, start=1) if label in held]

    def painted(self, label: str) -> int:
        """The value nnU-Net paints for a label: that of the fewest labels with it."""
        fewest = min((held for held in self.combinations if label in held), key=len)
        return self.combinations.index(fewest) + 1

    @property
    def overlap(self) -> bool:
        """Whether some pixel is of several labels."""
        return any(len(held) > 1 for held in self.combinations)

    def paint(self, annotated: Annotated) -> NDArray[np.uint8]:
        """The label map ``(H, W)``, one more than the last value where nothing is known."""
        shape = annotated.image.shape[:2]
        held = np.zeros(shape, np.uint64)
        for label, mask in annotated.masks:
            held[mask] |= np.uint64(1 << self.labels.index(label))
        painted = np.zeros(shape, np.uint8)
        for value, combination in enumerate(self.combinations, start=1):
            painted[held == _bits(combination, self.labels)] = value
        if annotated.ignore is not None:
            painted[annotated.ignore & (held == 0)] = len(self.combinations) + 1
        return painted


def label_values(images: Iterable[SourceImage]) -> LabelValues:
    """Values for all combinations of labels in images, each of which is decoded.

    Raises:
        DataError: No label, more than 63, or more combinations than a label map can hold.
    """
    area: dict[str, int] = {}
    seen: dict[frozenset[str], int] = {}
    for image in images:
        masks = image.read().masks
        for label, mask in masks:
            area[label] = area.get(label, 0) + int(mask.sum())
        for combination, pixels in _combinations(masks):
            seen[combination] = seen.get(combination, 0) + pixels
    labels = tuple(sorted(area, key=lambda label: (-area[label], label)))
    if not labels or len(labels) > 63:
        raise DataError(f"nnU-Net needs 1 to 63 labels in a data set, got {len(labels)}")
    for label in labels:  # the value that stands for the label alone, if it ever is alone
        holders = [held for held in seen if label in held]
        seen.setdefault(frozenset.intersection(*holders), 0)
    order = sorted(seen, key=lambda held: (len(held), sorted(labels.index(one) for one in held)))
    if len(order) > 253:
        raise DataError(f"labels overlap in {len(order)} ways, a label map holds 253 at most")
    return LabelValues(labels, tuple(order))


def _combinations(masks: Sequence[Any]) -> list[tuple[frozenset[str], int]]:
    """Labels that share a pixel, and how many pixels."""
    if not masks:
        return []
    held = np.zeros(masks[0].mask.shape, np.uint64)
    for bit, (_, mask) in enumerate(masks):
        held[mask] |= np.uint64(1 << bit)
    values, counts = np.unique(held[held > 0], return_counts=True)
    return [
        (frozenset(m.label for bit, m in enumerate(masks) if int(value) >> bit & 1), int(count))
        for value, count in zip(values, counts, strict=True)
    ]


def _bits(combination: frozenset[str], labels: Sequence[str]) -> np.uint64:
    return np.uint64(sum(1 << labels.index(label) for label in combination))


class NnuNet:
    """nnU-Net in a folder: exported images, plans, weights.

    Args:
        folder: Made if need be.
        programs: Folder of ``nnUNetv2_train`` and its kin; found on the path if not given.

    Raises:
        ConfigError: nnU-Net is not installed.
    """

    def __init__(self, folder: Path, programs: Path | None = None) -> None:
        self.folder = folder.resolve()
        self._programs = find_nnunet(programs)

    def train(
        self,
        images: Sequence[SourceImage],
        config: NnuNetConfig,
        *,
        on_image: Callable[[], object] | None = None,
    ) -> bool:
        """Exports, plans and trains, or goes on where it stopped.

        Args:
            images: Of one data set.
            config: How long and where.
            on_image: Called after each exported image.

        Returns:
            Whether the schedule is finished.

        Raises:
            DataError: An image is broken, or nnU-Net failed; its last words are given.
            CheckpointError: The folder holds another training.
        """
        self._prepare(images, config, on_image)
        if not self._finished():
            length = _length(config)
            words = [DATASET, "2d", FOLD, "-tr", TRAINER, "-device", config.device]
            go_on = ["--c"] if self._checkpoint() else []
            self._run("nnUNetv2_train", *words, *go_on, config=config, extra=length)
        return self._finished()

    def predict(self, images: Sequence[Path], out: Path, config: NnuNetConfig) -> None:
        """Writes a label map ``NAME.png`` for each image, and ``labels.csv``.

        Args:
            images: Named differently from each other.
            out: Folder of the label maps.
            config: Where it runs.

        Raises:
            CheckpointError: Nothing was trained here.
            DataError: Two images have one name, or nnU-Net failed.
        """
        checkpoint = self._checkpoint()
        if checkpoint is None:
            raise CheckpointError(
                f"{self.folder} holds no trained nnU-Net; train it by"
                " pipelines/train_baseline.py --model nnunet"
            )
        if len({path.stem for path in images}) < len(images):
            raise DataError("two of the images have one name; evaluate their folders separately")
        inputs = out / "images"
        inputs.mkdir(parents=True, exist_ok=True)
        for path in images:
            write_png(inputs / f"{path.stem}_0000.png", read_image(path))
        words = ["-i", str(inputs), "-o", str(out), "-d", DATASET, "-c", "2d", "-f", FOLD]
        words += ["-tr", TRAINER, "-chk", checkpoint, "-device", config.device, "--disable_tta"]
        workers = ["-npp", "1", "-nps", "1"]
        self._run("nnUNetv2_predict", *words, *workers, config=config, extra=_length(config))
        shutil.rmtree(inputs)

    def write_labels(self, out: Path, asked: Iterable[str]) -> None:
        """Writes ``labels.csv``: which values of the label maps answer a label.

        Args:
            out: Folder of the label maps.
            asked: Label ids; one that was never taught is answered by that of its object type.
        """
        values = self.values()
        rows = [
            {"value": value, "label": label}
            for label in dict.fromkeys(asked)
            if (index := class_of(label, values.labels)) is not None
            for value in values.values(values.labels[index])
        ]
        write_table(out / "labels.csv", rows, ("value", "label"))

    def values(self) -> LabelValues:
        """The labels and values of the training.

        Raises:
            CheckpointError: Nothing was exported here, or the file is damaged.
        """
        path = self.folder / FACTS
        try:
            facts = json.loads(path.read_text())
            combinations = tuple(frozenset(held) for held in facts["combinations"])
            return LabelValues(tuple(facts["labels"]), combinations)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error

    def _prepare(
        self,
        images: Sequence[SourceImage],
        config: NnuNetConfig,
        on_image: Callable[[], object] | None,
    ) -> None:
        """Exports images and lets nnU-Net plan, unless that was done with the same images."""
        names = [image.name for image in images]
        path = self.folder / FACTS
        if path.is_file():
            known = json.loads(path.read_text()).get("images")
            if known != names:
                raise CheckpointError(
                    f"{self.folder} was trained on {len(known)} other images than these"
                    f" {len(names)}; train in another folder"
                )
            return
        values = label_values(images)
        self._export(images, values, on_image)
        words = ["-d", "1", "-c", "2d", "-npfp", str(config.processes), "-np"]
        self._run(
            "nnUNetv2_plan_and_preprocess", *words, str(config.processes), config=config, extra={}
        )
        facts = {
            "schema": SCHEMA,
            "source": images[0].source,
            "labels": values.labels,
            "combinations": [sorted(held) for held in values.combinations],
            "images": names,
        }
        path.write_text(json.dumps(facts, indent=2) + "\n")

    def _export(
        self,
        images: Sequence[SourceImage],
        values: LabelValues,
        on_image: Callable[[], object] | None,
    ) -> None:
        raw = self.folder / "nnUNet_raw" / DATASET
        for part in ("imagesTr", "labelsTr"):
            (raw / part).mkdir(parents=True, exist_ok=True)
        ignored = False
        for image in images:
            annotated = image.read()
            painted = values.paint(annotated)
            ignored |= bool((painted > len(values.combinations)).any())
            write_png(raw / "imagesTr" / f"{image.name}_0000.png", annotated.image)
            write_png(raw / "labelsTr" / f"{image.name}.png", painted)
            if on_image:
                on_image()
        about = dataset_json(values, len(images), ignored=ignored)
        (raw / "dataset.json").write_text(json.dumps(about, indent=2))

    def _results(self) -> Path:
        model = f"{TRAINER}__{PLANS}__2d"
        return self.folder / "nnUNet_results" / DATASET / model / f"fold_{FOLD}"

    def _finished(self) -> bool:
        return (self._results() / "checkpoint_final.pth").is_file()

    def _checkpoint(self) -> str | None:
        names = ("checkpoint_final.pth", "checkpoint_latest.pth")
        return next((name for name in names if (self._results() / name).is_file()), None)

    def _run(
        self, program: str, *words: str, config: NnuNetConfig, extra: Mapping[str, str]
    ) -> None:
        """Runs a program of nnU-Net, whose words go to a log and whose last words are told."""
        folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        environment = os.environ | {name: str(self.folder / name) for name in folders}
        environment |= dict(extra) | {
            "nnUNet_extTrainer": str(Path(__file__).parent / "nnunet_trainer"),
            "nnUNet_n_proc_DA": str(config.processes),  # 0 would crash the planner
            "nnUNet_def_n_proc": str(config.processes),
            "nnUNet_compile": "f",
        }
        environment.pop("PYTHONPATH", None)  # it has an environment of its own
        for name in folders:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{program}.log"
        with log.open("a") as file:
            done = subprocess.run(
                [str(self._programs / program), *words],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            lines = log.read_text(errors="replace").splitlines()
            last = [line.strip() for line in lines if any(map(str.isalpha, line))][-2:]
            raise DataError(
                f"{program} failed with {done.returncode}: {' ... '.join(last)} (see {log})"
            )


def dataset_json(values: LabelValues, images: int, *, ignored: bool) -> dict[str, Any]:
    """Description of exported images as nnU-Net reads it."""
    labels: dict[str, int | list[int]] = {"background": 0}
    for label in values.labels:
        labels[label] = values.values(label) if values.overlap else values.painted(label)
    if ignored:
        labels["ignore"] = len(values.combinations) + 1
    about: dict[str, Any] = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": labels,
        "numTraining": images,
        "file_ending": ".png",
    }
    if values.overlap:
        about["regions_class_order"] = [values.painted(label) for label in values.labels]
    return about


def find_nnunet(programs: Path | None = None) -> Path:
    """The folder of nnU-Net's programs: the one given, beside this Python, or on the path.

    Raises:
        ConfigError: They are in none of them.
    """
    beside = Path(sys.executable).parent
    path = shutil.which("nnUNetv2_train", path=str(programs or beside))
    path = path or (None if programs else shutil.which("nnUNetv2_train"))
    if path is None:
        raise ConfigError(
            f"nnUNetv2_train is not in {programs or 'any folder of the path'};"
            " pip install nnunetv2 in an environment of its own, and say where with --nnunet BIN"
        )
    return Path(path).parent


def _length(config: NnuNetConfig) -> dict[str, str]:
    """Steps as epochs: nnU-Net's 250 steps, fewer where the schedule is short."""
    steps = min(EPOCH_STEPS, max(1, config.steps // 100))
    return {
        "XPATH_EPOCHS": str(math.ceil(config.steps / steps)),
        "XPATH_EPOCH_STEPS": str(steps),
        "XPATH_MINUTES": str(config.minutes),
    }
