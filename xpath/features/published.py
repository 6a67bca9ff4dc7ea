"""Patch encoders that are asked for by the name they were published under.

timm builds the network; here stands how, and where the weights lie.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.errors import CheckpointError
from xpath.store.schema import first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PUBLISHED", "PublishedEncoder", "fetch_weights", "trunk_state"]

TRUNK = "visual.trunk."
"""Where a vision-language model (CoCa of open_clip) keeps the image encoder that timm built."""


class PublishedEncoder(NamedTuple):
    """Architecture and home of published weights."""

    architecture: str
    """timm's name."""
    options: Mapping[str, Any]
    """What it is built with, and how images are normalised."""
    repository: str
    """On the Hugging Face hub."""
    file: str
    """Of the repository."""


PUBLISHED: dict[str, PublishedEncoder] = {
    "conch": PublishedEncoder(
        "vit_base_patch16_224",
        {
            "img_size": 448,
            "mean": (0.48145466, 0.4578275, 0.40821073),
            "std": (0.26862954, 0.26130258, 0.27577711),
        },
        "MahmoodLab/CONCH",
        "pytorch_model.bin",
    ),
}
"""CONCH (Lu et al., Nature Medicine 2024), the encoder of the PathSegmentor paper (section 4.4):
normalised like CLIP, trained at 448 pixels."""


def fetch_weights(encoder: PublishedEncoder) -> Path:
    """The weights from the hub, or from its cache on this machine.

    Raises:
        CheckpointError: They cannot be fetched: no network, or the conditions were not accepted.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(encoder.repository, encoder.file))
    except (OSError, ValueError) as error:  # of the hub, the network, or the disk
        raise CheckpointError(
            f"{encoder.repository} cannot be fetched: {first_line(error)}; accept the"
            f" conditions on https://huggingface.co/{encoder.repository}, log in with `hf auth"
            " login`, or pass the downloaded file (weights=, objects.encoder_weights)"
        ) from error


def trunk_state(state: dict[str, Any]) -> dict[str, Any]:
    """The image encoder's part of a vision-language model's weights, or the weights as they are."""
    trunk = {
        key.removeprefix(TRUNK): value for key, value in state.items() if key.startswith(TRUNK)
    }
    return trunk or state
