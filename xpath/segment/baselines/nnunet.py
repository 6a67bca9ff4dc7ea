"""nnU-Net (Isensee et al. 2021), run as its own programs on exported images.

It lives in whatever environment ``nnUNetv2_train`` is found in, for its dependencies are many and
its timm is an older one.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xpath.errors import CheckpointError, ConfigError, DataError, StoreError
from xpath.pathseg.image_files import write_png
from xpath.pathseg.reading import read_image
from xpath.segment.baselines.class_predictor import class_of
from xpath.segment.baselines.nnunet_labels import LabelValues, dataset_json, label_values
from xpath.store.schema import check_schema
from xpath.store.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from xpath.pathseg.record import SourceImage

__all__ = ["FACTS", "NnuNet", "NnuNetConfig", "find_nnunet"]

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
    """``cuda``, ``cpu`` or ``mps``. Of several GPUs ``CUDA_VISIBLE_DEVICES`` chooses."""
    processes: int = 2
    """That prepare, augment and write images."""


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
            words = [DATASET, "2d", FOLD, "-tr", TRAINER, "-device", _device(config)]
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
        words += ["-tr", TRAINER, "-chk", checkpoint, "-device", _device(config), "--disable_tta"]
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
            check_schema(path, facts["schema"], SCHEMA)
            combinations = tuple(frozenset(held) for held in facts["combinations"])
            return LabelValues(tuple(facts["labels"]), combinations)
        except (OSError, ValueError, KeyError, TypeError, StoreError) as error:
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
        shutil.rmtree(raw, ignore_errors=True)  # of a run that was stopped while it exported
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


def _device(config: NnuNetConfig) -> str:
    """The type of the device, as nnU-Net knows no numbers."""
    return config.device.partition(":")[0]


def _length(config: NnuNetConfig) -> dict[str, str]:
    """Steps as epochs: nnU-Net's 250 steps, fewer where the schedule is short."""
    steps = min(EPOCH_STEPS, max(1, config.steps // 100))
    return {
        "XPATH_EPOCHS": str(math.ceil(config.steps / steps)),
        "XPATH_EPOCH_STEPS": str(steps),
        "XPATH_MINUTES": str(config.minutes),
    }
