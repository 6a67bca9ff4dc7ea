"""Equality with the published architecture, tensor by tensor.

    python benchmarks/parity_seem.py --weights W.safetensors --config C.json --io IO.safetensors

Loads a reference model saved under BiomedParse's names, sizes from the configuration, feeds it the
image and the prompts of the io file and compares every other tensor in it: feature maps, text
embeddings, and per prompt alone (``single0.*``, ``single1.*``, ...) and for all together
(``joint.*``, decoded as the reference's demo does) the masks and class embeddings of all queries,
similarities and the selected query. Last line: JSON. Exit code 1 if anything is off by 1e-3 or
more, or cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from xpath.errors import XPathError
from xpath.segment.checkpoints.biomedparse import config_from_reference, load_biomedparse
from xpath.segment.checkpoints.checkpoint import read_safetensors
from xpath.segment.model.decoder import mask_logits
from xpath.segment.model.text_encoder import TextFeatures

if TYPE_CHECKING:
    from torch import Tensor

    from xpath.segment.model.decoder import ImageMemory
    from xpath.segment.model.segmentor import PathSegmentor

LIMIT = 1e-3
INPUTS = ("image", "input_ids", "attention_mask")


class Parity(NamedTuple):
    """How far we are from the reference."""

    max_abs_diff: dict[str, float]
    """Largest difference of each real-valued tensor."""
    selected_query_equal: bool
    """True if every prompt is answered by the same query."""
    problems: list[str]
    """Tensors that could not be compared, and why."""

    @property
    def ok(self) -> bool:
        """True if everything was compared and is close."""
        close = all(value < LIMIT for value in self.max_abs_diff.values())
        return close and self.selected_query_equal and not self.problems


def main() -> None:
    """From arguments to one JSON line and an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True, help="state dict of the reference")
    parser.add_argument("--config", type=Path, required=True, help="JSON in the reference's names")
    parser.add_argument("--io", type=Path, required=True, help="inputs and outputs")
    args = parser.parse_args()
    try:
        parity = measure(args.weights, args.config, args.io)
    except (XPathError, OSError, ValueError) as error:
        parity = Parity({}, selected_query_equal=False, problems=[str(error)])
    answer = {
        "max_abs_diff": parity.max_abs_diff,
        "selected_query_equal": parity.selected_query_equal,
        "ok": parity.ok,
    }
    print(json.dumps(answer | ({"problems": parity.problems} if parity.problems else {})))
    sys.exit(0 if parity.ok else 1)


@torch.inference_mode()
def measure(weights: Path, config: Path, io: Path) -> Parity:
    """Runs the model of two files on the inputs of the third and compares."""
    model = load_biomedparse(
        weights, config=config_from_reference(json.loads(config.read_text()))
    ).model
    wanted = read_safetensors(io)
    missing = [name for name in INPUTS if name not in wanted]
    if missing:
        return Parity({}, selected_query_equal=False, problems=[f"no {name}" for name in missing])
    prompts = len(wanted["input_ids"])
    joint = any(name.startswith("joint.") for name in wanted)
    found = outputs(model, *(wanted.pop(name) for name in INPUTS), joint=joint)
    asked = {int(hit[1]) for name in wanted if (hit := re.match(r"single(\d+)\.", name))}
    problems = [f"single{p}: there are {prompts} prompts" for p in asked if p >= prompts]
    return compare(found, wanted, problems)


def outputs(
    model: PathSegmentor, image: Tensor, ids: Tensor, mask: Tensor, *, joint: bool
) -> dict[str, Tensor]:
    """Everything the io file may hold, under its names. Image tensors have a batch axis."""
    batch = image if image.ndim == 4 else image[None]
    maps = model.image_encoder(model.normalise(batch))
    pixels = model.pixel_decoder(maps)
    memory = model.decoder.prepare(pixels)
    text = model.encode_text(ids, mask.bool())
    found = {f"res{stride}": x for stride, x in enumerate(maps, start=2)}
    found |= {f"ms{level}": x for level, x in enumerate(pixels.scales)}
    found |= {
        "mask_features": pixels.mask_features,
        "token_emb": text.tokens,
        "class_emb": text.sentence,
    }
    # All prompts in one call: that none of them sees another is part of what is compared.
    found |= answers(model, memory, text, "single{}.")
    return found | (answers(model, memory, text, "joint.") if joint else {})


def answers(
    model: PathSegmentor, memory: ImageMemory, text: TextFeatures, name: str
) -> dict[str, Tensor]:
    """Masks, classes and choices of every prompt alone, or of all of them if ``name`` is joint."""
    coupled = name == "joint."
    heads = model.decoder(memory, text, coupled=coupled)[-1]
    decoded = model.decode(memory, text, coupled=coupled)
    every = mask_logits(heads.masks, memory.mask_features)
    similarity = decoded.similarity * model.logit_scale.exp().clamp(max=100)
    found = {}
    prompts = len(text.sentence)
    for row, asked in enumerate([slice(None)] if coupled else [[p] for p in range(prompts)]):
        parts = {
            "all_mask_logits": every[:, row],
            "query_class_emb": heads.classes[:, row],
            "similarity": similarity[:, asked].transpose(1, 2),
            "selected_query": decoded.query[:, asked],
            "selected_mask_logits": decoded.logits[:, asked],
        }
        found |= {name.format(row) + part: value for part, value in parts.items()}
    return found


def compare(found: dict[str, Tensor], wanted: dict[str, Tensor], problems: list[str]) -> Parity:
    """Differences of all wanted tensors."""
    differences: dict[str, float] = {}
    equal = True
    problems = list(problems)
    for name, target in sorted(wanted.items()):
        value = found.get(name)
        if value is not None and value.ndim == target.ndim + 1 and len(value) == 1:
            value = value[0]  # the io file leaves out the batch axis of a single image
        if value is None or value.shape != target.shape:
            have = "nothing" if value is None else tuple(value.shape)
            problems.append(f"{name}: wanted {tuple(target.shape)}, have {have}")
        elif name.endswith("selected_query"):
            equal = equal and torch.equal(value, target.to(value.dtype))
        else:
            differences[name] = float((value.double() - target.double()).abs().max())
            if not isfinite(differences[name]):
                problems.append(f"{name}: not finite")
                del differences[name]  # JSON has no such number
    return Parity(differences, equal, problems)


if __name__ == "__main__":
    main()
