"""Masks for images and words: the practical side of the segmentor.

An image is encoded once; prompts are a batch, each answered on its own. For every prompt the query
is chosen first and only its mask is computed.

Axes: B images, P prompts, H W pixels, h w positions of the logits.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from xpath.device import device_of, tf32
from xpath.errors import ConfigError, DataError
from xpath.protocols import STRIDE, Segmentation
from xpath.segment.checkpoints.checkpoint import load_segmentor, locate, text_digest
from xpath.segment.model.text_encoder import TextFeatures
from xpath.segment.predict.asked import AskedSentences, check_question
from xpath.segment.predict.calibration import PRESENCE, load_presence, mask_facts
from xpath.segment.predict.embedding import Embedding, joined
from xpath.segment.predict.images import as_batch, as_pixels, as_square, working_size
from xpath.segment.predict.known_prompts import (
    in_template,
    nearest_labels,
    published,
    taught_labels,
    untaught,
)
from xpath.segment.predict.mask_colours import MaskColours
from xpath.segment.predict.memory import GIB, chunks, shifted, tiles, working_set
from xpath.segment.predict.prompt_features import PromptFeatures
from xpath.segment.predict.text_cache import TextCache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.segment.checkpoints.checkpoint import SegmentorInfo
    from xpath.segment.model.segmentor import PathSegmentor
    from xpath.segment.model.tokenizer import PromptTokenizer
    from xpath.segment.predict.calibration import PresenceCalibration
    from xpath.segment.predict.memory import Chunks
    from xpath.segment.predict.presence import PresenceModel

__all__ = ["PredictorConfig", "SegmentPredictor"]

logger = logging.getLogger(__name__)

PIXELS_ON_CPU, PIXELS_ON_GPU = 2**21, 2**24
"""Pixels of full-size maps made at once: a loop costs a CPU nothing, but a GPU its launches."""
SINGLE = dict.fromkeys(("fp32", "tf32"), torch.float32)
DTYPES = {**SINGLE, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorConfig:
    """How masks are computed. Only ``parents`` changes what they mean."""

    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Type of matrix products and convolutions; ``tf32`` is float32 rounded to ten bits on the way
    into them, which GPUs do fast and a CPU does not. Prompts, cosines, resizing and probabilities
    are float32 in any case."""
    channels_last: bool = False
    """Keep the channels of a pixel side by side in memory; faster on recent GPUs."""
    compile: bool = False
    """Compile the model when it is first used: minutes once, then faster."""
    memory_gb: float = 4.0
    """Working memory beyond weights, embedding and result, GiB: bounds how many images are encoded
    and how many prompts decoded at once. An estimate; changes no mask."""
    parents: bool = False
    """Answer a label the weights never learnt as the nearest one they did, a lymphocyte as an
    inflammatory cell (``parents.toml``). Otherwise it is asked as it is, and what comes is a guess.
    """
    text_cache: bool = True
    """Keep encoded prompts on disk, in ``XPATH_CACHE`` or the platform's cache folder."""

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: Another precision, or no memory.
        """
        if self.precision not in DTYPES:
            raise ConfigError(
                f"precision must be one of {', '.join(DTYPES)}, got {self.precision!r}"
            )
        if not self.memory_gb > 0:
            raise ConfigError(f"memory_gb must be above 0, got {self.memory_gb}; 4 suits most")


class SegmentPredictor:
    """Segments images with words. An image is encoded once for any number of prompts.

    Example::

        predictor = SegmentPredictor.from_pretrained()
        embedding = predictor.encode(image)  # (H, W, 3) uint8 at predictor.info.mpp
        answer = predictor.masks(embedding, ["nuclei-level lymphocyte in breast pathology."])

    Args:
        model: The module; it is moved to the device.
        tokenizer: What turns prompts into its ids.
        info: What must be known of the weights.
        device: ``cpu``, ``cuda``, ``cuda:1`` ...
        config: How masks are computed.
        texts: Where encoded prompts are kept beyond this process; None for nowhere, as fits
            weights that still change.
        calibration: Decides from a mask whether its object is there at all.
    """

    stride = STRIDE

    def __init__(
        self,
        model: PathSegmentor,
        tokenizer: PromptTokenizer,
        info: SegmentorInfo,
        *,
        device: str = "cpu",
        config: PredictorConfig = PredictorConfig(),
        texts: TextCache | None = None,
        calibration: PresenceCalibration | PresenceModel | None = None,
    ) -> None:
        self.device = device_of(device)
        self.model = model.to(self.device).eval()
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.tokenizer = tokenizer
        self.info = info
        self.config = config
        self.calibration = calibration
        self._prompts = PromptFeatures(self.model, tokenizer, texts)
        self._warned: set[str] = set()
        self._reserved = 0
        self._encode_image, self._decode = model.encode_image, model.decode
        if config.compile:
            self._encode_image = torch.compile(model.encode_image)
            self._decode = torch.compile(model.decode)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        *,
        device: str = "cpu",
        config: PredictorConfig = PredictorConfig(),
        drawn: bool = False,
    ) -> SegmentPredictor:
        """A predictor from a checkpoint folder or hub id, or from the weights that ship.

        Args:
            path: Checkpoint folder or hub id, None for the weights that ship.
            device: ``cpu``, ``cuda``, ``cuda:1`` ...
            config: How masks are computed.
            drawn: It is shown drawn tissue only, so labels learnt from such are no guesses.

        Raises:
            CheckpointError: The checkpoint is missing or does not fit.
            ConfigError: There is no such device.
        """
        model, tokenizer, info = load_segmentor(path)
        texts = TextCache(text_digest(model, tokenizer)) if config.text_cache else None
        learnt = locate(path) / PRESENCE
        return cls(
            model,
            tokenizer,
            info.on_drawn_tissue() if drawn else info,
            device=device,
            config=config,
            texts=texts,
            calibration=load_presence(learnt) if learnt.exists() else None,
        )

    @contextmanager
    def reserving(self, memory: int) -> Iterator[None]:
        """Leaves so many bytes of ``config.memory_gb`` to someone else for a while."""
        self._reserved += memory
        try:
            yield
        finally:
            self._reserved -= memory

    @torch.inference_mode()
    def encode(self, images: NDArray[np.uint8] | Tensor, *, mpp: float | None = None) -> Embedding:
        """Everything about images that does not depend on a prompt.

        Args:
            images: RGB ``(H, W, 3)`` or ``(B, H, W, 3)``, uint8; any size. A tensor may be on
                the device already.
            mpp: Their resolution, microns per pixel: they are resampled to ``info.mpp``, and masks
                come back at the size given. None takes the pixels as they are. Weights trained on
                squares (``info.square``) are shown the image as one, whatever its resolution.

        Raises:
            DataError: Not uint8, or of another shape.
            ResolutionError: A resolution that is none.
        """
        batch = as_batch(images)
        size = (batch.shape[1], batch.shape[2])
        side = self.info.image_size
        square = self.info.square
        model_size = (side, side) if square else working_size(size, mpp, self.info.mpp)
        step = self._at_once(model_size).encoded
        memories = []
        for start in range(0, len(batch), step):
            some = batch[start : start + step]
            if square:
                pixels = as_square(some, side, self.device)
            else:
                pixels = as_pixels(some, model_size, self.device)
            if not self.config.channels_last:
                pixels = pixels.contiguous()
            with self._precision():
                memories.append(self._encode_image(pixels))
        return Embedding(joined(memories), size, model_size, square, batch)

    @torch.inference_mode()
    def masks(
        self,
        embedding: Embedding,
        prompts: Sequence[str],
        *,
        chunk: int | None = None,
        threshold: float = 0.5,
        probability: bool = False,
        coupled: bool = False,
    ) -> Segmentation:
        """Masks of the encoded images, each prompt on its own.

        Args:
            embedding: From ``encode``.
            prompts: Sentences; the paper's template is ``Label.prompt``. Any other words may be
                asked for; the answer is then marked as outside the published labels.
            chunk: Prompts decoded at once; None for what fits into ``config.memory_gb``. Changes no
                mask.
            threshold: A pixel belongs to the object above this probability.
            probability: Return the probability of every pixel too: four bytes for each.
            coupled: Decode all prompts together, as the published code does when it is given
                several in one call: a mask then depends on the other prompts. For comparison only.

        Raises:
            DataError: Not what ``encode`` gave; a prompt that is no sentence, without a word or
                too long; or values that are not finite.
            ConfigError: A threshold that is no probability, or an empty chunk.
        """
        check_question(embedding, prompts)
        if not 0 < threshold < 1:
            raise ConfigError(f"threshold must be between 0 and 1, got {threshold}; 0.5 is usual")
        shape = (embedding.images, len(prompts))
        masks = np.zeros((*shape, *embedding.size), np.bool_)
        presence, peak = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        values = np.zeros(masks.shape, np.float32) if probability else None
        colours = MaskColours.of(self.calibration, embedding, shape)
        for rows, columns, chances in self._enlarged(embedding, prompts, chunk, coupled=coupled):
            inside = chances > threshold
            area = inside.sum(dim=(2, 3)).clamp(min=1)
            masks[rows, columns] = inside.cpu().numpy()
            presence[rows, columns] = ((chances * inside).sum(dim=(2, 3)) / area).cpu().numpy()
            peak[rows, columns] = chances.amax(dim=(2, 3)).cpu().numpy()
            if values is not None:
                values[rows, columns] = chances.cpu().numpy()
            if colours is not None:
                colours.add(rows, columns, chances)
        present, score = np.asarray(masks.any(axis=(2, 3))), None
        if self.calibration:
            statistics = colours.statistics if colours else mask_facts(masks, presence, peak)
            score = self.calibration(statistics, self.labels_of(prompts))
            present &= score >= self.calibration.threshold
        known, near = published(prompts), self._nearest(prompts)
        return Segmentation(masks, presence, peak, present, values, known, near, score)

    @torch.inference_mode()
    def logits(
        self, embedding: Embedding, prompts: Sequence[str], *, chunk: int | None = None
    ) -> Tensor:
        """Logits ``(B, P, h, w)`` float32 of the masks, before ``Embedding.enlarge``.

        One value for four by four pixels of the image the model saw, its padding included; on the
        device. Above 0 lies what belongs to the object. Raises as ``masks``, but does not wait for
        a GPU to see whether all of them are finite: ``check_finite`` does.
        """
        check_question(embedding, prompts)
        shape = (embedding.images, len(prompts), *embedding.positions)
        out = torch.empty(shape, device=self.device)
        for rows, columns, logits in self._decoded(embedding, prompts, chunk, coupled=False):
            out[rows, columns] = embedding.at_stride(logits)
        return out

    def check_finite(self, logits: Tensor) -> None:
        """Refuses logits that are no numbers, once the device has them.

        Raises:
            DataError: NaN or infinity.
        """
        if not logits.isfinite().all():
            raise DataError(
                f"the model gave values that are not finite at {self.config.precision}; fp16 ends"
                " at 65504: use bf16 or fp32. If it is fp32, the weights are damaged"
            )

    def text(self, prompts: Sequence[str]) -> TextFeatures:
        """Features of prompts, float32 on the device. Each prompt is encoded once.

        A label's sentence is put into the words the weights were trained with.
        """
        return self._prompts([in_template(prompt, self.info.template) for prompt in prompts])

    def labels_of(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """For each prompt the id of the taught label that answers, ``UNTAUGHT`` for a guess.

        Of several that answer together the first.
        """
        own, near = taught_labels(prompts, self.info.labels), self._nearest(prompts)
        return tuple(ids[0] if ids else name for name, ids in zip(own, near, strict=True))

    def _nearest(self, prompts: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        if self.config.parents:
            return nearest_labels(prompts, self.info.labels)
        return ((),) * len(prompts)

    def _decoded(
        self, embedding: Embedding, prompts: Sequence[str], chunk: int | None, *, coupled: bool
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Which images, which prompts, and their logits, as many at once as fit."""
        if chunk is not None and chunk < 1:
            raise ConfigError(f"chunk must be at least 1 prompt, got {chunk}; None picks one")
        self._warn(prompts)
        asked = AskedSentences(prompts, self._nearest(prompts), self.info.cuts)
        text = self.text(asked.sentences)
        fits = self._at_once(embedding.model_size).decoded
        wide = len(prompts) if coupled else chunk
        for rows, columns in tiles(embedding.images, len(prompts), fits, wide):
            questions = TextFeatures(*(part[asked.of(columns)] for part in text))
            with self._precision():
                memory = embedding.rows(rows).memory
                logits = self._decode(memory, questions, coupled=coupled).logits.float()
            yield rows, columns, asked.joined(logits, columns)

    def _enlarged(
        self, embedding: Embedding, prompts: Sequence[str], chunk: int | None, *, coupled: bool
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Which images, which prompts, and their probabilities at full size, a few maps at once."""
        pixels = PIXELS_ON_CPU if self.device.type == "cpu" else PIXELS_ON_GPU
        fits = max(1, pixels // (embedding.size[0] * embedding.size[1]))
        for rows, columns, logits in self._decoded(embedding, prompts, chunk, coupled=coupled):
            self.check_finite(logits)
            for r, c in tiles(len(logits), logits.shape[1], fits):
                chances = embedding.enlarge(logits[r, c]).sigmoid()
                yield shifted(r, rows.start), shifted(c, columns.start), chances

    def _precision(self) -> AbstractContextManager[object]:
        dtype = DTYPES[self.config.precision]
        if dtype != torch.float32:
            return torch.autocast(self.device.type, dtype)
        cuda = self.device.type == "cuda"
        return tf32(self.config.precision == "tf32") if cuda else nullcontext()

    def _at_once(self, model_size: tuple[int, int]) -> Chunks:
        needs = working_set(self.model, model_size, DTYPES[self.config.precision].itemsize)
        return chunks(needs, self.config.memory_gb - self._reserved / GIB)

    def _warn(self, prompts: Sequence[str]) -> None:
        """Says once which prompts the weights were never taught, and what answers for them."""
        new = [p for p in untaught(prompts, self.info.labels) if p not in self._warned]
        self._warned.update(new)
        near = dict(zip(new, self._nearest(new), strict=True))
        for prompt, ids in near.items():
            if ids:
                logger.warning(
                    "%r is answered as %s, the nearest that %s was taught",
                    prompt,
                    " or ".join(ids),
                    self.info.name,
                )
        new = [prompt for prompt, ids in near.items() if not ids]
        if new:
            logger.warning(
                "%s was not trained on %d of the prompts, such as %r: what it finds is a guess",
                self.info.name,
                len(new),
                new[0],
            )
