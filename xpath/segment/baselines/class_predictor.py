"""A specialised model behind the face of a segmentor, and its folder on disk.

``config.json`` (model, labels, resolution), ``model.safetensors`` and ``README.md``. Axes: B
images, P prompts, K labels, H W pixels, h w places of stride 4.
"""

from __future__ import annotations

import dataclasses
import json
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from xpath.device import device_of
from xpath.errors import CheckpointError
from xpath.pathseg.sentences import guess_label
from xpath.protocols import STRIDE as LOGIT_STRIDE
from xpath.protocols import Segmentation
from xpath.segment.baselines.class_models import STRIDE, ClassConfig, build_class_model
from xpath.segment.baselines.sam_weights import load_fitting
from xpath.segment.evaluation.mapping import label_of, nearest_label
from xpath.segment.predict.images import as_batch, as_pixels, resized, working_size
from xpath.store.checkpoints import read_model_config, read_safetensors
from xpath.store.schema import atomic, sha256_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from xpath.segment.baselines.class_models import ClassModel

__all__ = [
    "FILES",
    "ClassInfo",
    "ClassPredictor",
    "class_of",
    "read_class_config",
    "save_class_model",
]

SCHEMA = "xpath.class-model/1"
FILES = ("config.json", "model.safetensors", "README.md")
"""All that is ever fetched of a hub repository."""
NOWHERE = -20.0
"""Logit of a label that no output stands for."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClassInfo:
    """Facts about the weights, as ``SegmentorFacts``."""

    name: str
    digest: str
    mpp: float
    mpp_range: tuple[float, float] | None
    labels: tuple[str, ...]


class ClassEmbedding(NamedTuple):
    """The answers of a model to images."""

    logits: Tensor
    """``(B, K, H, W)`` at the resolution the model saw."""
    size: tuple[int, int]
    """Height and width given."""


class ClassPredictor:
    """Answers prompts with the output of their label.

    A label that was not taught is answered by the output of its object type, as the paper scores
    specialised models on external data (Table 16), or by an empty mask. Labels may overlap, so each
    output is cut at 0.5 for itself.

    Args:
        model: A ``ClassModel``; moved to the device.
        config: What it was built from.
        digest: SHA-256 of config and weights.
        device: ``cpu``, ``cuda``, ``cuda:1`` ...
    """

    stride = LOGIT_STRIDE

    def __init__(
        self, model: nn.Module, config: ClassConfig, *, digest: str = "", device: str = "cpu"
    ) -> None:
        self.device = device_of(device)
        self.info = ClassInfo(
            name=f"{config.model} of {config.source}",
            digest=digest,
            mpp=0.25,
            mpp_range=config.mpp_range,
            labels=config.labels,
        )
        self._model = cast("ClassModel", model.to(self.device).eval())

    @classmethod
    def from_pretrained(cls, folder: Path, *, device: str = "cpu") -> ClassPredictor:
        """Reads a folder that ``save_class_model`` wrote.

        Raises:
            CheckpointError: A file is missing, damaged, or of another model.
        """
        config = read_class_config(folder)
        model = build_class_model(config)
        weights = folder / "model.safetensors"
        load_fitting(model, read_safetensors(weights), weights, f"{config.model} of its config")
        files = [sha256_of(folder / name) for name in ("config.json", "model.safetensors")]
        digest = sha256("".join(files).encode()).hexdigest()
        return cls(model, config, digest=digest, device=device)

    @torch.inference_mode()
    def encode(self, images: NDArray[np.uint8], *, mpp: float | None = None) -> ClassEmbedding:
        """Answers of all outputs to images ``(B, H, W, 3)`` or ``(H, W, 3)``.

        Args:
            images: RGB, uint8.
            mpp: Their resolution, microns per pixel. Beyond the range of training they are shown at
                its nearer end; None takes the pixels as they are.
        """
        batch = as_batch(images)
        size = (batch.shape[1], batch.shape[2])
        wanted = mpp
        if mpp is not None and self.info.mpp_range:
            wanted = min(max(mpp, self.info.mpp_range[0]), self.info.mpp_range[1])
        height, width = working_size(size, mpp, wanted or 1.0)
        pixels = as_pixels(batch, (height, width), self.device)
        padded = functional.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        return ClassEmbedding(self._model(padded).logits[..., :height, :width].float(), size)

    @torch.inference_mode()
    def masks(self, embedding: ClassEmbedding, prompts: Sequence[str]) -> Segmentation:
        """Masks ``(B, P, H, W)``, one per prompt."""
        logits = resized(self._chosen(embedding, prompts), embedding.size)
        masks = logits > 0
        chance = logits.sigmoid()
        inside = (chance * masks).sum(dim=(2, 3)) / masks.sum(dim=(2, 3)).clamp(min=1)
        cut = masks.cpu().numpy()
        return Segmentation(
            cut,
            inside.float().cpu().numpy(),
            chance.amax(dim=(2, 3)).cpu().numpy(),
            np.asarray(cut.any(axis=(2, 3))),
        )

    @torch.inference_mode()
    def logits(self, embedding: ClassEmbedding, prompts: Sequence[str]) -> Tensor:
        """Logits ``(B, P, h, w)``, means over positions of stride 4."""
        full = resized(self._chosen(embedding, prompts), embedding.size)
        return functional.avg_pool2d(full, self.stride, ceil_mode=True)

    def _chosen(self, embedding: ClassEmbedding, prompts: Sequence[str]) -> Tensor:
        """Logits ``(B, P, ., .)`` of the outputs that answer the prompts."""
        outputs = [class_of(prompt, self.info.labels) for prompt in prompts]
        nothing = torch.full_like(embedding.logits[:, 0], NOWHERE)
        chosen = [nothing if k is None else embedding.logits[:, k] for k in outputs]
        return torch.stack(chosen, dim=1)


def class_of(words: str, labels: Sequence[str]) -> int | None:
    """Index of the label that answers a sentence or label id, or None if none does.

    Args:
        words: A sentence, or a label id.
        labels: Ids of the labels that were taught.
    """
    label = label_of(guess_label(words)) or label_of(words)
    if label is None:
        return None
    if label.id in labels:
        return labels.index(label.id)
    nearest = nearest_label(label, labels)
    return labels.index(nearest.id) if nearest and nearest.id in labels else None


def save_class_model(folder: Path, model: nn.Module, config: ClassConfig, *, card: str) -> None:
    """Writes a checkpoint folder, all of it or nothing.

    Args:
        folder: Replaced if it exists.
        model: The module.
        config: What it was built from.
        card: The model card, Markdown.
    """
    values = model.state_dict().items()
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in values
    }
    text = json.dumps({"schema": SCHEMA} | dataclasses.asdict(config), indent=2)
    with atomic(folder) as draft:
        draft.mkdir()
        (draft / "config.json").write_text(text + "\n")
        (draft / "README.md").write_text(card)
        save_file(state, draft / "model.safetensors")


def read_class_config(folder: Path) -> ClassConfig:
    """The config of the model in a folder.

    Raises:
        CheckpointError: ``config.json`` is missing, damaged, or of another schema.
    """
    wanted = "pipelines/train_baseline.py writes such folders"
    content = read_model_config(folder, SCHEMA, wanted=wanted)
    try:
        span = content.pop("mpp_range")
        labels = tuple(content.pop("labels"))
        return ClassConfig(labels=labels, mpp_range=tuple(span) if span else None, **content)
    except (KeyError, TypeError) as error:
        path = folder / "config.json"
        raise CheckpointError(f"{path} lacks or has too many settings: {error}") from error
