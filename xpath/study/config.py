"""Every setting of a study, written to ``run.json`` with the results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from xpath.errors import ConfigError
from xpath.explain.attribution import Method
from xpath.explain.perturbation import HideBy
from xpath.labels import importance_objects
from xpath.mil.classifier import ClassifierConfig
from xpath.mil.splits import SplitConfig
from xpath.objects.rule import ObjectConfig
from xpath.wsi.grid import GridConfig
from xpath.wsi.tissue import TissueConfig

__all__ = ["ExplainConfig", "ObjectsConfig", "StudyConfig"]


def _importance_ids() -> tuple[str, ...]:
    return tuple(label.id for label in importance_objects())


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectsConfig:
    """Which objects are segmented, and with which networks."""

    labels: tuple[str, ...] = ()
    """Labels that are asked for; empty for those of the paper's 21 breast objects (Table 20) that
    the segmentor's weights were taught on real images, or that something answers for (``parents``).
    Any other may be asked for and is marked as a guess. A label may carry words of one's own, with
    which it is always asked itself: ``breast-nuclei-lymphocyte=plump dark round cells``."""
    parents: bool = True
    """Answer a label that the weights never learnt with the nearest one they did, a lymphocyte with
    inflammatory cells (``nearest_taught``). All that get the same answer are one object, under the
    name of what answers, and everything that names it says for what it was asked."""
    segmentor: str = ""
    """Checkpoint folder or hub id, empty for the weights that ship."""
    encoder: str = "segmentor"
    """Patch encoder: ``segmentor`` for its own image encoder, ``conch`` (the paper's), otherwise a
    timm model: its name, ``hf-hub:owner/name`` or ``local-dir:folder``."""
    encoder_weights: str = ""
    """Local weights of a timm encoder, empty to let timm fetch its pretrained ones."""
    encoder_options: tuple[str, ...] = ()
    """Arguments a timm encoder is built with, such as ``init_values=1e-5``, as its card says."""
    encoder_size: int = 0
    """Side in pixels a timm encoder sees patches at, 0 for the one it was trained with."""
    encoder_precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Floating type a timm encoder computes in."""
    competition: Literal["exclusive", "independent"] = "exclusive"
    """``exclusive``: no pixel belongs to two labels of one structure; ``independent``: each label
    keeps its own mask, as in the paper (``SegmentConfig``)."""
    rim_um: float = 2.0
    """Microns on either side of the border of a tissue mask that are pooled into no object and not
    into "other": the segmentor decides by positions of 4 pixels, 2 microns, so a border is known to
    one of them."""
    min_coverage: float = 0.01
    """Smallest share of a patch an object must cover to count as present in it. 1 % of a patch of
    128 microns is 160 square microns: five nuclei of lymphocytes, or a speck of tissue 13 microns
    wide. What is smaller is mostly the neighbour's border."""
    overlap: int = 32
    """Pixels of its surroundings a patch is segmented with on every side (``SegmentConfig``)."""
    reduce: int = 1
    """Masks are stored at 1/1, 1/2 or 1/4 of the resolution of the patches."""
    batch: int = 8
    """Patches per forward pass."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Floating type the segmentor's products and convolutions are computed in: ``auto`` is ``bf16``
    where ``device`` is a GPU and ``fp32`` where it is the CPU. Part of what a run's masks depend
    on, and in them (``PredictorConfig``)."""
    compile: bool = False
    """Compile the segmentor when it is first used: minutes once, then faster."""
    channels_last: bool = False
    """Keep the channels of a pixel side by side in memory; faster on recent GPUs."""
    device: str = "cpu"
    """Where the networks run and the classifiers train: ``cpu`` or ``cuda``. On a machine without
    it, training and all after it take the CPU, with a warning."""

    @property
    def segmentor_precision(self) -> Literal["fp32", "tf32", "bf16"]:
        """``precision``, with ``auto`` decided by the device that is set, here or not."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if self.device.startswith("cuda") else "fp32"

    def __post_init__(self) -> None:
        """Makes the path of weights absolute, so that a run can be gone on with from anywhere."""
        if self.encoder_weights:
            absolute = str(Path(self.encoder_weights).absolute())
            object.__setattr__(self, "encoder_weights", absolute)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainConfig:
    """How predictions are explained."""

    labels: tuple[str, ...] = field(default_factory=_importance_ids)
    """Objects whose importance is measured. Those not segmented are left out."""
    splits: tuple[str, ...] = ("test",)
    """Splits that are explained. Importance on slides that chose the model flatters.
    Slides without a label are always explained."""
    methods: tuple[Method, ...] = ()
    """Attribution methods that are compared on the explained slides, beside the activation maps
    (``tables/faithfulness.csv``, ``slides/ID/attributions``)."""
    hide: HideBy = "blur"
    """How objects are hidden; ``blur`` is the paper's."""
    sigma_um: float = 8.0
    """Width of the blur on the tissue: wider than a nucleus, so that its texture is gone."""
    feather_um: float = 2.0
    """Width of the soft edge of the blurred region."""
    null: Literal["off_object", "shifted"] = "off_object"
    """Where the random masks lie: on the rest of the object's patches, the same share on tissue; or
    anywhere in them, the object and glass included."""
    null_draws: int = 2
    """Random masks per object and patch. From 19 on a slide by itself can be significant."""
    resamples: int = 2000
    """Exchanges of the slides' classes behind each p, and bootstrap samples of F1."""
    evidence_seeds: int = 5
    """First weights with which the object-aware classifier is trained again, to see whether an
    object's contribution depends on them; 0 for no such check, and no ``tables/evidence.csv``."""
    seed: int = 0
    """Seed of random masks and bootstrap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """A whole study."""

    tissue: TissueConfig = field(default_factory=TissueConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    objects: ObjectsConfig = field(default_factory=ObjectsConfig)
    counting: ObjectConfig = field(default_factory=ObjectConfig)
    """Which pixels of the masks are one object, wherever objects are counted."""
    split: SplitConfig = field(default_factory=SplitConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    explain: ExplainConfig = field(default_factory=ExplainConfig)
    default_mpp: float = 0.0
    """Microns per pixel of slides that store none. 0 refuses such slides."""
    memory_gb: float = 8.0
    """Most memory for features while the classifiers are trained. The rest is kept on disk."""
    drawn: bool = False
    """The slides are drawn: what the segmentor learnt from drawn tissue is no guess on them, and
    every page says that nothing on it is a finding."""

    @classmethod
    def paper(cls) -> StudyConfig:
        """The settings of the PathSegmentor paper, where it gives them (sections 4.3 and 4.4).

        Patches of 1024 pixels at level 0, of which the frozen CONCH sees 224; objects that overlap;
        Adam at 2e-4 on the plain cross-entropy of Eq. 11, slide by slide; importance (Eq. 12) on
        validation and test slides. The paper compares the two classifiers on one split.
        """
        return cls(
            grid=GridConfig(patch_px=1024),
            objects=ObjectsConfig(
                encoder="conch", encoder_size=224, competition="independent", rim_um=0.0
            ),
            classifier=ClassifierConfig.paper(),
            explain=ExplainConfig(splits=("validation", "test")),
        )

    def __post_init__(self) -> None:
        """Raises ConfigError for a resolution below 0, or no number."""
        if not self.default_mpp >= 0:
            raise ConfigError(
                f"default_mpp (--mpp) must be microns per pixel, often 0.25 (40x), got"
                f" {self.default_mpp}; 0 refuses slides that store none"
            )
