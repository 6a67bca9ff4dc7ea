"""Grounded interpretation of images: the practical side of the model.

An image is encoded once: its tokens run through the language model up to the end of the image, and
SAM2's maps are made. Every question goes on from there. Pure segmentation needs no generation: the
answer "Sure, it is [SEG]" is known, so one pass gives the state that becomes the mask.

Axes: B images, P prompts, N masks, R regions, L tokens, W features, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from xpath.device import device_of
from xpath.errors import ConfigError, DataError
from xpath.grounded.answers import Answer, spans_of
from xpath.grounded.boxes import draw_box
from xpath.grounded.checkpoint import load_grounded
from xpath.grounded.embedding import Embedding, EncodedImage
from xpath.grounded.inference import GroundedInference, InterpreterConfig
from xpath.grounded.prompts import (
    END,
    REGION,
    check_question,
    segment_answer,
    segment_question,
    visual_prompt,
)
from xpath.grounded.tiles import as_images

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.grounded.checkpoint import GroundedInfo
    from xpath.grounded.model import GroundedModel
    from xpath.grounded.prompts import GroundedTokenizer

__all__ = ["GroundedInterpreter", "GroundedMasks"]


class GroundedMasks(NamedTuple):
    """Masks of B images for P prompts."""

    masks: NDArray[np.bool_]
    """``(B, P, H, W)``: where the object is, if it is there at all."""
    presence: NDArray[np.float32]
    """``(B, P)`` mean probability inside the mask, 0.5 to 1; 0 where the mask is empty."""
    peak: NDArray[np.float32]
    """``(B, P)`` highest probability of any pixel."""
    present: NDArray[np.bool_]
    """``(B, P)`` is it there at all? As the interpreter's judge has it; without one, wherever the
    mask is not empty, which means little: the model answers for what is absent, too."""
    probability: NDArray[np.float32] | None = None
    """``(B, P, H, W)`` per pixel, if it was asked for."""
    score: NDArray[np.float64] | None = None
    """``(B, P)`` by which presence was judged; None where that is ``presence``."""


class GroundedInterpreter:
    """Answers questions about images in words, with a mask for everything it points at.

    Example::

        interpreter = GroundedInterpreter.from_pretrained("path/to/UniBiomed")
        embedding = interpreter.encode(image)  # (H, W, 3) uint8
        result = interpreter.masks(embedding, ["tumor in breast pathology"])
        print(interpreter.answer(embedding, prompts.REPORT))

    Args:
        model: The module; it is moved to the device.
        tokenizer: That of the weights.
        info: What must be known of the weights.
        device: ``cpu``, ``cuda``, ``cuda:1`` ...
        config: How questions are put and answered.
        judge: Decides from masks and their prompts which objects are there at all, ``(B, P)``; a
            fitted presence calibration, for example.
    """

    def __init__(
        self,
        model: GroundedModel,
        tokenizer: GroundedTokenizer,
        info: GroundedInfo,
        *,
        device: str = "cpu",
        config: InterpreterConfig | None = None,
        judge: Callable[[GroundedMasks, Sequence[str]], NDArray[np.bool_]] | None = None,
    ) -> None:
        self.device = device_of(device)
        self.model = model.to(self.device).eval()
        self.tokenizer = tokenizer
        self.info = info
        self.config = config or InterpreterConfig()
        self.judge = judge
        self._run = GroundedInference(self.model, tokenizer, self.config, self.device)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str = "cpu",
        config: InterpreterConfig | None = None,
    ) -> GroundedInterpreter:
        """An interpreter from a folder or hub id with weights under the published names.

        The licence that the model card states is shown in the log.

        Raises:
            CheckpointError: The checkpoint is missing or does not fit; every mismatch is named.
            ConfigError: There is no such device.
        """
        return cls(*load_grounded(path), device=device, config=config)

    @torch.inference_mode()
    def encode(self, images: NDArray[np.uint8]) -> Embedding:
        """Everything about images that does not depend on a question.

        Args:
            images: RGB ``(H, W, 3)`` or ``(B, H, W, 3)``, uint8; any size. The model sees each at
                sizes of its own, so their resolution is not asked for.

        Raises:
            DataError: Not uint8, or of another shape.
        """
        batch = as_images(images)
        items = tuple(
            self._run.encoded(image, self.config.max_tiles, mapped=True) for image in batch
        )
        return Embedding(items, (batch.shape[1], batch.shape[2]))

    @torch.inference_mode()
    def masks(
        self,
        embedding: Embedding,
        prompts: Sequence[str],
        *,
        chunk: int | None = None,
        threshold: float = 0.5,
        probability: bool = False,
    ) -> GroundedMasks:
        """Masks of the encoded images, each prompt on its own and without generation.

        Args:
            embedding: From ``encode``.
            prompts: Phrases such as "tumor in breast pathology"; put in lower case, and a full stop
                at the end is left out.
            chunk: Prompts answered at once; ``config.chunk`` if None. Changes no mask.
            threshold: A pixel belongs to the object above this probability.
            probability: Return the probability of every pixel too: four bytes for each.

        Raises:
            DataError: Not what ``encode`` gave, or a prompt that cannot be asked.
            ConfigError: A threshold that is no probability, or an empty chunk.
        """
        tails = self._segment_tails(embedding, prompts)
        step = self.config.chunk if chunk is None else chunk
        if not 0 < threshold < 1 or step < 1:
            raise ConfigError(
                f"threshold must be between 0 and 1 and chunk at least 1, got {threshold}, {step}"
            )
        shape = (embedding.images, len(prompts))
        result = GroundedMasks(
            np.zeros((*shape, *embedding.size), np.bool_),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.bool_),
            np.zeros((*shape, *embedding.size), np.float32) if probability else None,
        )
        for row, image in enumerate(embedding.items):
            for start in range(0, len(tails), step):
                columns = slice(start, start + step)
                values = self._run.probabilities(image, self._run.pointed(image, tails[columns]))
                result.masks[row, columns] = inside = values > threshold
                result.presence[row, columns] = _mean_inside(values, inside)
                result.peak[row, columns] = values.max(axis=(1, 2))
                if result.probability is not None:
                    result.probability[row, columns] = values
        result.present[:] = result.masks.any(axis=(2, 3))
        if self.judge and result.present.any():
            result.present[:] &= self.judge(result, prompts)
        return result

    @torch.inference_mode()
    def answer(
        self,
        embedding: Embedding | None,
        question: str,
        *,
        regions: NDArray[np.bool_] | None = None,
    ) -> Answer:
        """The answer to a question about one image, generated greedily.

        ``xpath.grounded.prompts`` has the questions it was taught: ``DISEASE``, ``REPORT``,
        ``anatomy_question``; any other may be asked.

        Args:
            embedding: One image, from ``encode``; None to ask about nothing seen.
            question: In words.
            regions: ``(R, h, w)`` masks of parts the question calls "region1", "region2" ...

        Raises:
            DataError: Several images, a question that cannot be asked, an empty region, or one of
                no image.
        """
        image = None if embedding is None else _only(embedding)
        text = self.config.turns.after(check_question(question))
        if regions is None:
            return self._answered(image, question, self._run.embed(image, text))
        if image is None:
            raise DataError("regions are parts of an image, but there is none; pass encode(image)")
        side = round(self.model.config.vision.tokens**0.5)
        given = torch.from_numpy(np.asarray(regions, np.float32))[:, None]
        grid = functional.interpolate(given, (side, side), mode="nearest")[:, 0] > 0
        tail = self._run.embed(image, visual_prompt(grid.numpy()) + text, grid)
        return self._answered(image, question, tail)

    @torch.inference_mode()
    def regions(
        self,
        embedding: Embedding,
        boxes: Sequence[tuple[int, int, int, int]],
        *,
        question: str = REGION,
        max_tiles: int | None = None,
    ) -> tuple[Answer, ...]:
        """Describes each box of one image: the box is drawn on the image and asked for.

        Args:
            embedding: One image, from ``encode``.
            boxes: x, y, width, height in pixels of the image.
            question: ``prompts.REGION`` for a class, ``prompts.REGION_REPORT`` for a description.
            max_tiles: ``config.max_tiles`` if None, as in the published evaluation; 1 shows the
                image as the published training did.

        Raises:
            DataError: Several images, a box outside the image, or a question that cannot be asked.
        """
        image = _only(embedding)
        text = self.config.turns.after(check_question(question))
        tiles = self.config.max_tiles if max_tiles is None else max_tiles
        answers = []
        for box in boxes:
            boxed = self._run.encoded(draw_box(image.image, box), tiles, mapped=False)
            answers.append(self._answered(boxed, question, self._run.embed(boxed, text)))
        return tuple(answers)

    def _segment_tails(self, embedding: object, prompts: object) -> list[list[int]]:
        """Token ids of each prompt from the end of the image to ``[SEG]``."""
        if not isinstance(embedding, Embedding):
            raise DataError(
                f"wanted an encoded image, got {type(embedding).__name__}; pass encode(image)"
            )
        if isinstance(prompts, str):
            raise DataError(f"prompts must be a list of phrases, got one text: [{prompts!r}]")
        phrases = [check_question(phrase) for phrase in prompts]  # type: ignore[attr-defined]
        turns = self.config.turns
        texts = [turns.after(segment_question(one)) + segment_answer() for one in phrases]
        return [self.tokenizer.ids(text) for text in texts]

    def _answered(self, image: EncodedImage | None, question: str, tail: Tensor) -> Answer:
        ids = self._run.generated(image, tail)
        text, ended, _ = self.tokenizer.text(ids.tolist()).partition(END)
        complete = bool(ended) or int(ids[-1]) == self.tokenizer.stop
        text = text.removesuffix("<|im_end|>").strip()
        masks, presence = self._answer_masks(image, tail, ids)
        return Answer(
            question=question,
            text=text,
            spans=spans_of(text, len(masks)),
            masks=masks,
            presence=presence,
            complete=complete,
            model=self.info.name,
            digest=self.info.digest,
        )

    def _answer_masks(
        self, image: EncodedImage | None, tail: Tensor, ids: Tensor
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Masks and mean probabilities of the ``[SEG]`` tokens of an answer.

        One that is the very last token has no state, and so no mask.
        """
        where = (ids[:-1] == self.tokenizer.seg).nonzero()[:, 0]
        if image is None or not len(where):
            size = image.image.shape[:2] if image else (0, 0)
            return np.zeros((0, *size), np.bool_), np.zeros(0, np.float32)
        whole = torch.cat((tail, self.model.embed(ids[None, :-1])), dim=1)
        states = self._run.states(image, whole)[0, tail.shape[1] + where]
        values = self._run.probabilities(image, states)
        inside = values > 0.5
        return inside, _mean_inside(values, inside)


def _mean_inside(values: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean of values ``(N, H, W)`` inside masks. 0 where a mask is empty."""
    area = inside.sum(axis=(1, 2)).clip(min=1)
    mean: NDArray[np.float32] = ((values * inside).sum(axis=(1, 2)) / area).astype(np.float32)
    return mean


def _only(embedding: object) -> EncodedImage:
    """The one image of an embedding."""
    if not isinstance(embedding, Embedding):
        raise DataError(
            f"wanted an encoded image, got {type(embedding).__name__}; pass encode(image)"
        )
    if embedding.images != 1:
        raise DataError(
            f"a question is put to one image, got {embedding.images};"
            " take embedding.rows(slice(0, 1))"
        )
    return embedding.items[0]
