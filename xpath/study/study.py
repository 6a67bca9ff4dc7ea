"""A study: slides, settings, tools, and what each output depends on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.batch.done import is_done, key_of, read_key
from xpath.batch.ledger import Ledger
from xpath.batch.slides import SlideEntry
from xpath.config import from_dict
from xpath.device import device_of
from xpath.errors import CheckpointError, LabelError, SlideError, StoreError
from xpath.export.overlay import short_name
from xpath.features.encoders import TimmEncoder
from xpath.features.model_options import model_options
from xpath.labels import Label, load_labels
from xpath.mil.cohort_training import model_name
from xpath.segment.checkpoints.checkpoint import SegmentorInfo, locate, read_info
from xpath.segment.predict.known_prompts import untaught
from xpath.segment.predict.patch_features import SegmentorEncoder
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.segment.predict.whole_slide import SegmentConfig
from xpath.store.schema import atomic, check_schema
from xpath.store.tables import read_table
from xpath.study.config import StudyConfig
from xpath.study.folder import RunFolder
from xpath.wsi.slide import Slide

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

    from xpath.protocols import PatchEncoder

__all__ = ["EncoderInfo", "Study", "new_study", "open_study", "save_study"]

RUN = "xpath.run/1"


class EncoderInfo(NamedTuple):
    """What keys and reports say of a patch encoder."""

    name: str
    digest: str
    """SHA-256 of all that decides the features."""


@dataclass(frozen=True)
class Study:
    """Everything the stages need to know."""

    folder: RunFolder
    config: StudyConfig
    slides: tuple[SlideEntry, ...]

    @cached_property
    def device(self) -> torch.device:
        """Where networks run: ``objects.device``, or the CPU where this machine has no such device.

        So a run that was begun on a GPU can be explained on a laptop. ``require_tools`` is strict.

        Raises:
            ConfigError: No name of a device.
        """
        return device_of(self.config.objects.device, else_cpu=True)

    @cached_property
    def segmentor(self) -> SegmentorInfo:
        """What is known of the segmentor, its weights read but not built.

        Raises:
            CheckpointError: There are no such weights.
        """
        return read_info(locate(self.config.objects.segmentor or None))

    @cached_property
    def predictor(self) -> SegmentPredictor:
        """The segmentor, loaded when it is first needed."""
        return SegmentPredictor.from_pretrained(
            self.config.objects.segmentor or None, device=str(self.device)
        )

    @property
    def encoder_info(self) -> EncoderInfo:
        """What is known of the patch encoder; of the segmentor's own without building it."""
        if self.config.objects.encoder == "segmentor":
            return EncoderInfo(f"{self.segmentor.name}-encoder", self.segmentor.digest)
        return EncoderInfo(self.encoder.name, self.encoder.digest)

    @cached_property
    def encoder(self) -> PatchEncoder:
        """The patch encoder, loaded when it is first needed."""
        objects = self.config.objects
        if objects.encoder == "segmentor":
            return SegmentorEncoder(self.predictor)
        weights = Path(objects.encoder_weights) if objects.encoder_weights else None
        return TimmEncoder(
            objects.encoder,
            weights=weights,
            pretrained=weights is None,
            device=str(self.device),
            kwargs=model_options(objects.encoder_options),
            precision=objects.encoder_precision,
        )

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """What is segmented.

        Raises:
            LabelError: No such label, none at all, or one twice.
        """
        tree = load_labels()
        found = tuple(tree.parse(text, allow_new=True) for text in self.config.objects.labels)
        names = [label.id for label in found]
        if not names or len(set(names)) < len(names):
            raise LabelError(f"objects must name each label once, and one at least, got {names}")
        return found

    @property
    def untaught(self) -> tuple[str, ...]:
        """Names of objects the segmentor's weights never learnt; its masks of them are guesses."""
        unknown = untaught([label.prompt for label in self.labels], self.segmentor.labels)
        return tuple(short_name(label.id) for label in self.labels if label.prompt in unknown)

    def require_tools(self, *, encoder: bool = False) -> None:
        """Loads what work on slides needs: what is wrong with it is no fault of a slide.

        Args:
            encoder: The patch encoder too.

        Raises:
            CheckpointError: There are no such weights.
            ConfigError: No such device, or a number that cannot be.
            LabelError: No such label.
        """
        device_of(self.config.objects.device)
        _ = self.labels, self.segment_config, self.predictor
        if encoder:
            _ = self.encoder

    @property
    def segment_config(self) -> SegmentConfig:
        """How slides are segmented."""
        objects = self.config.objects
        return SegmentConfig(overlap=objects.overlap, reduce=objects.reduce, batch=objects.batch)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits.

        Those of the trained classifiers; before the training those of all labels, sorted. Not
        every label need have a class: its slides may have failed.

        Raises:
            CheckpointError: The classifier in the run cannot be read.
        """
        trained = self.model_folder(self.config.classifier.models[0]) / "config.json"
        if not trained.exists():
            return tuple(sorted({slide.label for slide in self.slides if slide.label}))
        try:
            return tuple(json.loads(trained.read_text(encoding="utf-8"))["config"]["classes"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{trained} cannot be read ({error!r}); train again") from error

    @cached_property
    def ledger(self) -> Ledger:
        """``slides.csv``."""
        return Ledger(self.folder.ledger, self.folder.logs)

    def open_slide(self, entry: SlideEntry) -> Slide:
        """The slide of an entry; the default resolution only where it has no other."""
        slide = Slide.open(entry.path, mpp=entry.mpp)
        if slide.mpp_or_none is not None or not self.config.default_mpp:
            return slide
        slide.close()
        return Slide.open(entry.path, mpp=self.config.default_mpp)

    def masks_key(self, entry: SlideEntry) -> str:
        """What the masks of a slide depend on.

        Raises:
            SlideError: The slide is not there.
        """
        try:
            size = entry.path.stat().st_size
        except OSError as error:
            raise SlideError(f"{entry.path} cannot be read: {error}") from error
        return key_of(
            "masks",
            [entry.path.name, size, entry.mpp, self.config.default_mpp],
            asdict(self.config.tissue),
            asdict(self.config.grid),
            [label.prompt for label in self.labels],
            [self.config.objects.overlap, self.config.objects.reduce],
            self.segmentor.digest,
        )

    def features_key(self, entry: SlideEntry) -> str:
        """What the features of a slide depend on."""
        return key_of("features", self.masks_key(entry), self.encoder_info.digest)

    def fold_of(self, entry: SlideEntry) -> int:
        """The fold whose models never saw a slide; 0 without folds, and for a slide of none."""
        if self.config.split.folds == 1:
            return 0
        rows = read_table(self.folder.split, fold=int)
        return next((row["fold"] for row in rows if row["slide_id"] == entry.slide_id), 0)

    def model_folder(self, name: str, fold: int = 0) -> Path:
        """Checkpoint of a classifier."""
        return self.folder.model(model_name(name, fold, self.config.split.folds))

    def require(self, output: Path, key: str, stage: str) -> None:
        """Refuses to go on without an output of an earlier stage.

        Raises:
            StoreError: It is not done, or was made with other settings.
        """
        if not is_done(output, key):
            why = "was made with other settings" if read_key(output) else "is not done"
            raise StoreError(f"{output.name} {why}; run `xpath {stage}` first")

    def with_features(self, slides: Iterable[SlideEntry] | None = None) -> list[SlideEntry]:
        """Those slides, of all or of some, whose features are done: whose bytes were looked at."""
        return [
            entry
            for entry in (self.slides if slides is None else slides)
            if entry.path.exists()
            and is_done(self.folder.features(entry.slide_id), self.features_key(entry))
        ]


def save_study(study: Study) -> None:
    """Writes ``run.json``: settings, slides and versions; no times, so equal runs are equal."""
    content = {
        "schema": RUN,
        "xpath": version("xpath-pathology"),
        "labels_sha256": load_labels().digest,
        "config": asdict(study.config),
        "slides": [{**asdict(entry), "path": str(entry.path.resolve())} for entry in study.slides],
    }
    with atomic(study.folder.settings) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n")


def open_study(root: Path) -> Study:
    """The study of a run folder.

    Raises:
        StoreError: There is none, or ``run.json`` is damaged.
    """
    folder = RunFolder(root)
    try:
        content: dict[str, Any] = json.loads(folder.settings.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{root} is no run folder ({error}); start one with `xpath segment SLIDES --out {root}`"
        ) from error
    check_schema(folder.settings, content.get("schema"), RUN)
    slides = [SlideEntry(**{**row, "path": Path(row["path"])}) for row in content["slides"]]
    return Study(folder, from_dict(StudyConfig, content["config"]), tuple(slides))


def new_study(root: Path, config: StudyConfig, slides: Sequence[SlideEntry]) -> Study:
    """A study, written down."""
    study = Study(RunFolder(root), config, tuple(slides))
    save_study(study)
    return study
