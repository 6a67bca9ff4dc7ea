"""Questions to the grounded model, as it was taught to read them.

UniBiomed marks turns with words that are plain text to its tokenizer. ``Turns`` holds the two ways
in which its code puts them: published training and published evaluation differ by newlines.
Axes: R regions, h w image tokens of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "DISEASE",
    "END",
    "EVALUATION",
    "REGION",
    "REGION_REPORT",
    "REPORT",
    "SEG",
    "TRAINING",
    "GroundedTokenizer",
    "Turns",
    "anatomy_question",
    "check_question",
    "segment_answer",
    "segment_question",
    "visual_prompt",
]

IMAGE, IMAGE_END, CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
SEG = "[SEG]"
ADDED = (SEG, "<p>", "</p>", "<vp>", "</vp>")
"""Tokens the model adds to those of InternVL2.5."""
USER, END, ASSISTANT = "<|user|>", "<|end|>", "<|assistant|>"
RESERVED = (IMAGE, IMAGE_END, CONTEXT, SEG, USER, END, ASSISTANT, "<image>")
"""What no question may hold: it would be read as an image, an answer, or the end of a turn."""

RESPOND = "Please respond with interleaved segmentation masks for the corresponding parts."
DISEASE = f"Can we observe any signs of abnormality? {RESPOND}"
REPORT = (
    "Could you describe the abnormality in this image?"
    " Please highlight the region with interleaved segmentation masks."
)
REGION = "\nWhat is the <region> in the picture?"
"""Asked of an image with a box drawn on it; the newline belongs to it."""
REGION_REPORT = f"{REGION} Could you describe the abnormality with details?"


def segment_question(phrase: str) -> str:
    """Asks for the mask of a phrase, which is put in lower case and loses its full stop."""
    return f"Please segment {phrase.strip().removesuffix('.').lower()}."


def segment_answer() -> str:
    """The model's answer to it, up to the token whose state becomes the mask."""
    return f"Sure, it is {SEG}"


def anatomy_question(anatomy: str) -> str:
    """Asks for what is wrong with a part of the body."""
    return f"Can we observe any signs of abnormality in {anatomy}? {RESPOND}"


def check_question(text: object) -> str:
    """The text, if it can be a question.

    Raises:
        DataError: No text, empty, or with a mark that the model would take for something else.
    """
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"a question must be a text of at least one word, got {text!r}")
    marks = [mark for mark in RESERVED if mark in text]
    if marks:
        raise DataError(f"a question must not hold {', '.join(marks)}, got {text!r}; leave it out")
    return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """How the turns of a conversation are marked."""

    newline_after_image: bool = False
    """Before every question, as in the published training."""
    newline_before_answer: bool = True
    """Between ``<|end|>`` and ``<|assistant|>``, as in the published evaluation."""

    def before(self, image_tokens: int) -> str:
        """Everything up to the end of an image. Without an image, the mark of the user."""
        image = f"{IMAGE}{CONTEXT * image_tokens}{IMAGE_END}" if image_tokens else ""
        return f"{USER}\n{image}"

    def after(self, question: str) -> str:
        """Everything from the image to where the answer begins."""
        first = "\n" if self.newline_after_image and not question.startswith("\n") else ""
        last = "\n" if self.newline_before_answer else ""
        return f"{first}{question}{END}{last}{ASSISTANT}\n"


EVALUATION = Turns()
TRAINING = Turns(newline_after_image=True, newline_before_answer=False)


def visual_prompt(regions: NDArray[np.bool_]) -> str:
    """Names regions of the image, to be put before a question: "region1", "region2" ...

    Args:
        regions: ``(R, h, w)``, True at the image tokens of the last tile that belong to a region.

    Raises:
        DataError: No region, or an empty one.
    """
    counts = np.asarray(regions, np.bool_).sum(axis=(-2, -1)).tolist()
    if not counts or 0 in counts:
        raise DataError(f"every region must hold an image token, got counts {counts}")
    named = ", ".join(f"region{k}<vp>{CONTEXT * n}</vp>" for k, n in enumerate(counts, start=1))
    return f"\nThere are {len(counts)} part regions in the picture: {named}.\n"


class GroundedTokenizer:
    """The tokenizer of the weights, with the ids that mean something to the model.

    Args:
        tokenizer: A tokenizer of transformers that knows all special tokens.

    Raises:
        CheckpointError: It lacks some; all are named.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.hf = tokenizer
        vocabulary = tokenizer.get_vocab()
        missing = [mark for mark in (IMAGE, IMAGE_END, CONTEXT, *ADDED) if mark not in vocabulary]
        if missing:
            raise CheckpointError(
                f"the tokenizer lacks {', '.join(missing)}; take the one that lies beside the"
                " weights"
            )
        self.context = int(vocabulary[CONTEXT])
        self.seg = int(vocabulary[SEG])
        self.stop = int(vocabulary["<|im_end|>"])
        self.pad = int(vocabulary["<|endoftext|>"])
        self.size = max(vocabulary.values()) + 1

    @classmethod
    def from_folder(cls, folder: Path) -> GroundedTokenizer:
        """Reads ``tokenizer.json``, or else ``vocab.json``, ``merges.txt`` and what goes with them.

        The class is given, so no code that lies in the folder is ever run.

        Raises:
            CheckpointError: There is none, it is damaged, or it lacks special tokens.
        """
        from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

        file, older = folder / "tokenizer.json", folder / "vocab.json"
        if not file.is_file() and not older.is_file():
            raise CheckpointError(f"{folder} holds no tokenizer: no {file.name} or {older.name}")
        fast: Any = PreTrainedTokenizerFast  # untyped
        try:
            if file.is_file():
                read = fast(tokenizer_file=str(file))
            else:
                read = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the readers raise whatever a damaged file leads to
            raise CheckpointError(f"the tokenizer in {folder} cannot be read: {error}") from error
        return cls(read)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, special tokens in it included, none added."""
        return list(self.hf.encode(text, add_special_tokens=False))

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens included."""
        return str(
            self.hf.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )

    def save(self, path: Path) -> None:
        """Writes ``tokenizer.json``."""
        self.hf.backend_tokenizer.save(str(path))
