"""Published weights as a checkpoint folder, with all that is needed to use them as trained."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from xpath.errors import CheckpointError, ConfigError
from xpath.labels import PAPER_TEMPLATE
from xpath.segment.checkpoints.biomedparse import load_biomedparse
from xpath.segment.checkpoints.checkpoint import SegmentorInfo, save_segmentor
from xpath.segment.model.bert_encoder import read_bert, read_bert_tokenizer
from xpath.segment.model.tokenizer import PromptTokenizer
from xpath.segment.model.variants import build_segmentor

if TYPE_CHECKING:
    from xpath.segment.model.segmentor import PathSegmentor
    from xpath.segment.model.variants import SegmentorConfig

__all__ = ["BIOMEDPARSE_TEMPLATE", "TEMPLATES", "ImportConfig", "import_weights"]

logger = logging.getLogger(__name__)

BIOMEDPARSE_TEMPLATE = "{object} in {region} pathology"
"""Zhao et al. 2024: without the structure, without a full stop."""
TEMPLATES = {"pathsegmentor": PAPER_TEMPLATE, "biomedparse": BIOMEDPARSE_TEMPLATE}
CLIP = "openai/clip-vit-base-patch32"
"""Hub id of the tokenizer that BiomedParse's causal text encoder was trained with."""
BERT_CONTEXT = 256
"""Longest prompt for BERT, as in ``large_config``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportConfig:
    """Facts a file of weights does not hold itself."""

    tokenizer: Path | None = None
    """``tokenizer.json``, or a folder that holds it; None for CLIP's, fetched from the hub."""
    bert: Path | None = None
    """Folder of a BERT in the layout of transformers, such as PubMedBERT. It takes the place of the
    text encoder, and brings its tokenizer."""
    template: str = BIOMEDPARSE_TEMPLATE
    """Sentence the weights were trained with, see ``SegmentorInfo.template``."""
    square: bool = True
    """Show images as they were shown in training: as squares of ``image_size``."""
    image_size: int = 1024
    """Side of the images it was trained on, pixels."""
    name: str = ""
    """Name of the weights, for reports; the file's if empty."""
    licence: str = "as published"
    """Licence of the weights."""
    heads: int = 8
    """Attention heads of pixel and joint decoder, which no tensor tells."""
    text_heads: int | None = None
    """Those of the text encoder; one per 64 features if not given."""

    def __post_init__(self) -> None:
        """Refuses a sentence that names no object."""
        try:
            said = self.template.format(structure="", object="object", region="")
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"template {self.template!r} may have the blanks {{structure}}, {{object}} and"
                f" {{region}}, not {error}"
            ) from error
        if "object" not in said:
            raise ConfigError(f"template {self.template!r} needs the blank {{object}}")


def import_weights(path: Path, out: Path, config: ImportConfig | None = None) -> SegmentorInfo:
    """Writes a checkpoint folder from weights under BiomedParse's names, not a bit changed.

    Args:
        path: ``.pt`` or ``.safetensors`` of BiomedParse, or of a PathSegmentor saved by the same
            code, with either text encoder.
        out: The folder to write; replaced if it exists.
        config: What the file does not say.

    Raises:
        CheckpointError: The file does not fit (every difference is named), or there is no
            tokenizer.
    """
    config = config or ImportConfig()
    model, sizes = load_biomedparse(path, heads=config.heads, text_heads=config.text_heads)
    if config.bert:
        model, sizes = _with_bert(model, sizes, config.bert)
    tokenizer = _tokenizer(config, sizes)
    if tokenizer.vocabulary > sizes.vocabulary:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocabulary} token ids, the text encoder of {path} knows"
            f" {sizes.vocabulary}; give the one it was trained with by --tokenizer"
        )
    info = SegmentorInfo(
        name=config.name or path.stem,
        mpp=0.25,
        mpp_range=(0.0625, 0.25) if config.square else None,
        image_size=config.image_size,
        labels=(),
        licence=config.licence,
        synthetic_only=False,
        template=config.template,
        square=config.square,
    )
    save_segmentor(out, model, sizes, tokenizer, info, card=_card(path, info, config), half=False)
    return info


class _Replaced(NamedTuple):
    model: PathSegmentor
    config: SegmentorConfig


def _with_bert(model: PathSegmentor, config: SegmentorConfig, folder: Path) -> _Replaced:
    """The model with another text encoder, whose projection into the joint space is still random.

    So BiomedParse's image side and PubMedBERT become the start of PathSegmentor's training
    (section 4.1): no published file holds both.
    """
    bert = read_bert(folder)
    sizes = bert.config
    config = replace(
        config,
        text_encoder="bert",
        vocabulary=sizes.vocab_size,
        context=BERT_CONTEXT,
        text_width=sizes.hidden_size,
        text_depth=sizes.num_hidden_layers,
        text_heads=sizes.num_attention_heads,
    )
    torch.manual_seed(0)
    renewed = build_segmentor(config)
    state = renewed.state_dict()
    state |= {k: v for k, v in model.state_dict().items() if not k.startswith("text_encoder.")}
    theirs = bert.state_dict()
    prefix = "text_encoder.bert."
    missing = {name for name in state if name.startswith(prefix)} - {prefix + n for n in theirs}
    if missing:
        raise CheckpointError(f"{folder} is another BERT: it lacks {sorted(missing)[:3]}")
    state |= {prefix + name: value.float() for name, value in theirs.items()}
    renewed.load_state_dict(state)
    logger.warning("the projection of %s into the joint space is random: train it", folder)
    return _Replaced(renewed.eval(), config)


def _tokenizer(config: ImportConfig, sizes: SegmentorConfig) -> PromptTokenizer:
    """The tokenizer given, BERT's own, or CLIP's from the hub."""
    given = config.tokenizer or config.bert
    if given is None and sizes.text_encoder == "bert":
        raise CheckpointError("the text encoder is a BERT: give its folder or --tokenizer")
    if given is None:
        return PromptTokenizer.from_file(_fetched(CLIP))
    if given.is_dir() and not (given / "tokenizer.json").exists():
        return PromptTokenizer(read_bert_tokenizer(given))
    return PromptTokenizer.from_file(given / "tokenizer.json" if given.is_dir() else given)


def _fetched(hub_id: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(hub_id, "tokenizer.json"))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"the tokenizer of {hub_id} could not be fetched ({error}); without a network, give"
            " the file tokenizer.json of that repository by --tokenizer"
        ) from error


def _card(path: Path, info: SegmentorInfo, config: ImportConfig) -> str:
    shown = (
        f"as squares of {info.image_size} pixels, bicubic, whatever their resolution"
        if info.square
        else f"at {info.mpp} microns per pixel"
    )
    text = f"Its text encoder is that of `{config.bert.name}`.\n" if config.bert else ""
    return (
        f"# {info.name}\n\nMade from `{path.name}` by `xpath weights import`, no number"
        f" changed. {text}\n- asked in the sentence `{info.template}`\n- images are shown {shown}"
        f"\n- licence: {info.licence}\n"
    )
