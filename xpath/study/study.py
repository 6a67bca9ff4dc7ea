"""A study: slides, settings, tools, and what each output depends on."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.batch.done import content_of, is_done, read_key
from xpath.batch.fingerprint import fingerprint
from xpath.batch.ledger import Ledger
from xpath.batch.slides import SlideEntry
from xpath.config import from_dict
from xpath.device import device_of
from xpath.errors import CheckpointError, ConfigError, LabelError, SlideError, StoreError
from xpath.features.encoders import TimmEncoder, check_encoder
from xpath.features.options import model_options
from xpath.labels import Label, activation_objects, load_labels, parse_object
from xpath.mil.cohort_training import model_name
from xpath.segment.checkpoints.checkpoint import SegmentorInfo, locate, read_info
from xpath.segment.predict.calibration import PRESENCE
from xpath.segment.predict.competition import siblings
from xpath.segment.predict.patch_features import SegmentorEncoder
from xpath.segment.predict.predictor import PredictorConfig, SegmentPredictor
from xpath.segment.predict.whole_slide import SegmentConfig
from xpath.store.schema import atomic, check_schema, sha256_of
from xpath.store.tables import read_table
from xpath.study.asked_objects import AskedObjects, asked_objects
from xpath.study.config import StudyConfig
from xpath.study.folder import RunFolder, slide_splits
from xpath.study.keys import stage_key
from xpath.wsi.probe import probe
from xpath.wsi.slide import Slide

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch

    from xpath.protocols import PatchEncoder

__all__ = ["EncoderInfo", "Study", "new_study", "open_study", "save_study"]

logger = logging.getLogger(__name__)

RUN = "xpath.run/2"
FIRST_RUN = "xpath.run/1"
"""Its keys held every setting and no numbers of stages."""


class EncoderInfo(NamedTuple):
    """Name and digest of a patch encoder, for keys and reports."""

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
        """Facts about the segmentor, its weights read but not built.

        Raises:
            CheckpointError: There are no such weights.
        """
        info = read_info(locate(self.config.objects.segmentor or None))
        return info.on_drawn_tissue() if self.config.drawn else info

    @cached_property
    def predictor(self) -> SegmentPredictor:
        """The segmentor, loaded when it is first needed."""
        objects = self.config.objects
        return SegmentPredictor.from_pretrained(
            objects.segmentor or None,
            device=str(self.device),
            drawn=self.config.drawn,
            config=PredictorConfig(
                precision=objects.segmentor_precision,
                compile=objects.compile,
                channels_last=objects.channels_last,
            ),
        )

    @property
    def encoder_info(self) -> EncoderInfo:
        """Facts about the patch encoder, of the segmentor's own without building it."""
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
            size=objects.encoder_size or None,
            kwargs=model_options(objects.encoder_options),
            precision=objects.encoder_precision,
        )

    @cached_property
    def asked(self) -> AskedObjects:
        """Labels that are asked for, and those that are segmented for them.

        Raises:
            LabelError: No such label, none that the weights were taught, or one twice.
        """
        objects, taught = self.config.objects, self.segmentor.labels
        named = tuple(map(parse_object, objects.labels))
        asked = asked_objects(
            named or activation_objects(), taught, parents=objects.parents, guesses=bool(named)
        )
        if not asked.labels:
            raise LabelError(
                f"{self.segmentor.name} was taught none of the paper's objects; name some to look"
                " for (--objects)"
            )
        if asked.summary:
            logger.info("%s", asked.summary)
        return asked

    @property
    def labels(self) -> tuple[Label, ...]:
        """Labels that are segmented (``asked``)."""
        return self.asked.labels

    def require_tools(self, *, encoder: bool = False) -> None:
        """Loads what work on slides needs, because an error in it is no fault of a slide.

        Args:
            encoder: The patch encoder too.

        Raises:
            CheckpointError: There are no such weights.
            ConfigError: No such device, or a number that cannot be.
            LabelError: No such label.
        """
        device_of(self.config.objects.device)
        if self.config.objects.encoder != "segmentor":
            check_encoder(self.config.objects.encoder)  # not in hours, when features are due
        for tool in ("labels", "segment_config", "predictor", *(["encoder"] if encoder else [])):
            getattr(self, tool)  # a property; the first use loads it

    @property
    def segment_config(self) -> SegmentConfig:
        """How slides are segmented."""
        objects = self.config.objects
        return SegmentConfig(
            overlap=objects.overlap,
            reduce=objects.reduce,
            batch=objects.batch,
            competition=objects.competition,
        )

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
        """The slide of an entry."""
        return Slide.open(entry.path, mpp=self.mpp_of(entry))

    def mpp_of(self, entry: SlideEntry) -> float | None:
        """Microns per pixel a slide is opened with, None where its own hold.

        Its own give way to those of its entry, but not to the default of the run.
        """
        if entry.mpp is not None or not self.config.default_mpp:
            return entry.mpp
        if entry.path not in self._stores_mpp:
            try:
                self._stores_mpp[entry.path] = probe(entry.path).mpp is not None
            except SlideError:  # whoever works on the slide will hear of it
                return None
        return None if self._stores_mpp[entry.path] else self.config.default_mpp

    @cached_property
    def _stores_mpp(self) -> dict[Path, bool]:
        """Slides that were opened to see whether they store a resolution."""
        return {}

    def masks_key(self, entry: SlideEntry) -> str:
        """Key of the masks of a slide.

        Raises:
            SlideError: The slide is not there.
        """
        try:
            content = fingerprint(entry.path)
        except OSError as error:
            raise SlideError(f"{entry.path} cannot be read: {error}") from error
        return stage_key(
            "masks",
            self.config,
            [entry.path.name, content, self.mpp_of(entry)],
            [label.setting if label.sentence else label.prompt for label in self.labels],
            [self.segmentor.digest, self._presence_digest],
            *self._further_inputs(),
        )

    def _further_inputs(self) -> Iterator[object]:
        """Inputs of the masks of few runs: left out elsewhere, so that keys stay as they were."""
        objects = self.config.objects
        if objects.segmentor_precision != "fp32":
            yield objects.segmentor_precision
        if self.asked.answers:
            yield self.asked.answers
        groups = siblings(self.labels) if objects.competition == "exclusive" else ()
        mixed = [
            it.indices for it in groups if len({self.labels[i].region for i in it.indices}) > 1
        ]
        if mixed:
            yield mixed

    @cached_property
    def _presence_digest(self) -> str:
        """SHA-256 of the calibration that decides what is on a slide, empty without one."""
        learnt = locate(self.config.objects.segmentor or None) / PRESENCE
        return sha256_of(learnt) if learnt.exists() else ""

    def objects_key(self, entry: SlideEntry) -> str:
        """Key of the table of a slide's objects: of the masks and the rule.

        Raises:
            StoreError: The slide has no finished masks.
        """
        masks = content_of(self.folder.masks(entry.slide_id))
        return stage_key("objects", self.config, masks)

    def features_key(self, entry: SlideEntry) -> str:
        """Key of the features of a slide."""
        return stage_key("features", self.config, self.masks_key(entry), self.encoder_info.digest)

    def slides_to_explain(self) -> list[SlideEntry]:
        """Slides of the chosen splits, or of all if nothing was held out. Those without label."""
        splits = slide_splits(self.folder)
        chosen = set(self.config.explain.splits) & set(splits.values()) or set(splits.values())
        return [
            entry
            for entry in self.slides
            if splits.get(entry.slide_id) in chosen or not entry.label
        ]

    def fold_of(self, entry: SlideEntry) -> int:
        """The fold whose models never saw a slide, 0 without folds, and for a slide of none."""
        if self.config.split.folds == 1:
            return 0
        about = self.folder.split.stat() if self.folder.split.exists() else None
        stamp = (about.st_ino, about.st_mtime_ns) if about else (0, 0)
        return _folds(self.folder.split, stamp).get(entry.slide_id, 0)

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


@lru_cache(maxsize=1)
def _folds(table: Path, _: tuple[int, int]) -> dict[str, int]:
    """Fold of every slide in ``tables/split.csv``, read again when it was changed."""
    return {row["slide_id"]: row["fold"] for row in read_table(table, fold=int)}


def save_study(study: Study) -> None:
    """Writes ``run.json``: settings, slides and versions, but no times, so equal runs are equal.

    A file with these settings and slides is left as it is, even if an earlier version wrote it.
    """
    with suppress(StoreError):
        if open_study(study.folder.root) == study:
            return
    content = {
        "schema": RUN,
        "xpath": version("xpath-pathology"),
        "labels_sha256": load_labels().digest,
        "config": asdict(study.config),
        "slides": [{**asdict(entry), "path": str(entry.path)} for entry in study.slides],
    }
    with atomic(study.folder.settings) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n")


def open_study(root: Path) -> Study:
    """The study of a run folder.

    Raises:
        StoreError: There is none, ``run.json`` is damaged, or another version wrote it.
    """
    folder = RunFolder(root)
    try:
        content: dict[str, Any] = dict(json.loads(folder.settings.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(
            f"{root} is no run folder ({error}); start one with `xpath segment SLIDES --out {root}`"
        ) from error
    if content.get("schema") == FIRST_RUN:
        raise StoreError(
            f"{root} was made by an earlier version of xpath, and this one cannot tell which of its"
            " results still hold; start again with `xpath segment SLIDES --out NEW_FOLDER`"
        )
    check_schema(folder.settings, content.get("schema"), RUN)
    try:
        settings = {"objects": {}, **content["config"]}
        before = {"parents": False}  # what a run did before it was a setting
        config = from_dict(StudyConfig, settings | {"objects": before | settings["objects"]})
        rows = enumerate(content["slides"])
        slides = [from_dict(SlideEntry, row, f"slides[{number}].") for number, row in rows]
    except (ConfigError, KeyError, TypeError) as error:
        raise StoreError(
            f"{folder.settings}: {error}; if a newer version of xpath wrote it, use that version;"
            " of an older one take the setting out, or run `xpath segment SLIDES` into a new folder"
        ) from error
    return Study(folder, config, tuple(slides))


def new_study(root: Path, config: StudyConfig, slides: Sequence[SlideEntry]) -> Study:
    """A study, written down."""
    study = Study(RunFolder(root), config, tuple(slides))
    save_study(study)
    return study
