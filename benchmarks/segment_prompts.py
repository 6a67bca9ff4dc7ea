"""Many prompts on one image: encode once and decode together, against one call per prompt.

    python benchmarks/segment_prompts.py --model mini --size 512 --prompts 1 4 22
    python benchmarks/segment_prompts.py --model large --size 1024 --prompts 22 160 --flops-only

The naive way does for every prompt what the published code does: encodes the image and the prompt
(padded to the longest allowed), projects keys and values again, computes the masks of all queries
at full mask resolution before and after every layer and keeps them, and shrinks them to see where
a query may look next. It is written below in the model's own modules, so both ways have the same
weights, and it is checked that both give the same masks. In one thing it is kinder than the
published code: attention weights are not stored.

Random weights; both ways in turns in one process, so the ratio holds on a noisy machine. Memory is
what is needed beyond weights and library, measured in a fresh process for each way. FLOPs are
counted, a multiply-add as two, without prompts that are cached. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from xpath.labels import load_labels
from xpath.segment.checkpoints.checkpoint import SegmentorInfo
from xpath.segment.model.attention import sine_positions
from xpath.segment.model.segmentor import similarity
from xpath.segment.model.tokenizer import fit_tokenizer
from xpath.segment.model.variants import build_segmentor, large_config, mini_config, tiny_config
from xpath.segment.predict.predictor import PredictorConfig, SegmentPredictor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from xpath.segment.model.segmentor import PathSegmentor
    from xpath.segment.model.tokenizer import PromptTokenizer
    from xpath.segment.model.variants import SegmentorConfig

NAIVE_CALLS = 22
"""The naive way is timed for at most so many prompts and scaled up: its calls are all alike."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIB = 2**20


class Setup(NamedTuple):
    """A model with random weights and something to ask it."""

    model: PathSegmentor
    config: SegmentorConfig
    tokenizer: PromptTokenizer
    predictor: SegmentPredictor
    image: np.ndarray
    """``(H, W, 3)``."""


class NaiveAnswer(NamedTuple):
    """The naive answer to one prompt."""

    logits: Tensor
    """``(H / 4, W / 4)``."""
    query: int


class Row(NamedTuple):
    """Measurements for one number of prompts, None where there is none."""

    prompts: int
    naive_s: float | None
    ours_s: float | None
    naive_mib: float | None
    ours_mib: float | None
    naive_tflop: float
    ours_tflop: float

    @property
    def ratios(self) -> dict[str, float | None]:
        """The naive way over ours: time, FLOPs, memory."""
        pairs = {
            "time_ratio": (self.naive_s, self.ours_s),
            "flop_ratio": (self.naive_tflop, self.ours_tflop),
            "memory_ratio": (self.naive_mib, self.ours_mib),
        }
        return {
            name: round(naive / ours, 2) if naive and ours else None
            for name, (naive, ours) in pairs.items()
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """From arguments to a table and one JSON line."""
    args = parse(arguments)
    if args.peak:
        return print(json.dumps(peak_of(args.peak, setup_of(args), args.prompts[0])))
    flops = count_flops(args.model, args.size, args.prompts)
    if args.flops_only:
        rows = [Row(p, None, None, None, None, *flops[p]) for p in args.prompts]
        about: dict[str, Any] = {}
    else:
        setup = setup_of(args)
        about = compare(setup, prompts_of(min(4, args.prompts[-1])))
        times = time_both(setup, args.prompts, args.repeats)
        peaks = {p: [memory(way, setup, args, p) for way in WAYS] for p in args.prompts}
        rows = [Row(p, *times[p], *peaks[p], *flops[p]) for p in args.prompts]
    print(table(rows))
    facts = {
        "benchmark": "segment_prompts",
        "model": args.model,
        "size": args.size,
        "precision": args.precision,
        "device": device_name(args.device),
        "threads": torch.get_num_threads(),
        "repeats": args.repeats,
    }
    print(json.dumps({**facts, **rounded(rows[-1]), **rows[-1].ratios, **about}))
    return None


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=["mini", "large", "tiny"], default="mini")
    parser.add_argument("--size", type=int, default=512, help="side of the image in pixels")
    parser.add_argument("--prompts", type=int, nargs="+", default=[22], help="1 to 160 each")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest of so many counts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--flops-only", action="store_true", help="count; compute nothing")
    parser.add_argument("--peak", choices=list(WAYS), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if not all(1 <= p <= 160 for p in args.prompts):
        parser.error("--prompts must be 1 to 160")
    return args


def prompts_of(count: int) -> list[str]:
    """The first of the published labels, breast first, as sentences."""
    labels = sorted(load_labels(), key=lambda label: label.region != "breast")
    return [label.prompt for label in labels][:count]


def config_of(name: str, vocabulary: int) -> SegmentorConfig:
    """Sizes by name, the large one with the text encoder of the published code."""
    if name == "large":
        return large_config(text="clip")
    return mini_config(vocabulary) if name == "mini" else tiny_config(vocabulary)


def setup_of(args: argparse.Namespace) -> Setup:
    """A model with random weights whose masks are neither empty nor full."""
    torch.manual_seed(0)
    tokenizer = fit_tokenizer(prompts_of(160))
    config = config_of(args.model, tokenizer.vocabulary)
    with torch.device(args.device):
        model = build_segmentor(config, layer_scale=1.0)
    info = SegmentorInfo(
        name=args.model,
        mpp=0.5,
        image_size=args.size,
        labels=(),
        licence="Apache-2.0",
        synthetic_only=True,
    )
    predictor = SegmentPredictor(
        model, tokenizer, info, device=args.device, config=PredictorConfig(precision=args.precision)
    )
    shape = (args.size, args.size, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Setup(model, config, tokenizer, predictor, image)


# ------------------------------------------------------------------------------- the naive way


def naive_answer(model: PathSegmentor, image: Tensor, ids: Tensor, mask: Tensor) -> NaiveAnswer:
    """One prompt on one image, as the published code answers it.

    Args:
        model: The segmentor.
        image: ``(1, 3, H, W)`` in 0..255.
        ids: ``(1, T)``, padded to the longest prompt allowed.
        mask: ``(1, T)``, True on real tokens.
    """
    features = model.pixel_decoder(model.image_encoder(model.normalise(image)))
    text = model.encode_text(ids, mask)
    words = text.tokens[:, : int(mask.sum())] if not mask.is_meta else text.tokens
    decoder = model.decoder
    levels = [naive_level(decoder, features.scales[i], i) for i in range(3)]
    position, word_position = decoder.query_position.weight[None], words
    queries = decoder.query_content.weight[None]  # (1, Q, D)
    everything = torch.ones(1, 1, words.shape[1], dtype=torch.bool, device=words.device)
    masks, classes = naive_head(decoder, queries, features.mask_features)
    kept = [masks]  # all masks of all layers stay alive, as for deep supervision
    for i, layer in enumerate(decoder.layers):
        tokens, where = levels[i % 3]
        size = features.scales[i % 3].shape[-2:]
        allowed = naive_attention_mask(masks, size, layer.cross.heads)
        source = layer.cross.project(tokens + where, tokens)
        read = layer.cross(queries + position, source, allowed)
        queries = layer.cross_norm(queries + read)
        heard, spoken = layer.listen(
            queries[:, None], position, words[:, None], word_position[:, None], everything
        )
        queries, words = heard[:, 0], spoken[:, 0]
        masks, classes = naive_head(decoder, queries, features.mask_features)
        kept.append(masks)
    scores = similarity(classes[:, None].float(), text.sentence.float())[0, 0]
    query = scores.argmax()
    return NaiveAnswer(kept[-1][0].index_select(0, query[None])[0], query)


def naive_level(decoder: Any, scale: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """Tokens of a feature map and their positions, ``(1, S, D)`` each."""
    scale = decoder.projections[level](scale)
    where = sine_positions(*scale.shape[-2:], scale.shape[1], scale.device).to(scale.dtype)
    tokens = scale.flatten(2).transpose(1, 2) + decoder.level_embedding.weight[level]
    return tokens, where.flatten(2).transpose(1, 2)


def naive_head(decoder: Any, queries: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Masks ``(1, Q, H / 4, W / 4)`` and class embeddings ``(1, Q, D)`` of all queries."""
    z = decoder.norm(queries)
    masks = torch.einsum("bqd,bdhw->bqhw", decoder.mask_projector(z), features)
    return masks, z @ decoder.class_projector


def naive_attention_mask(masks: Tensor, size: tuple[int, int], heads: int) -> Tensor:
    """Where each query may look, ``(1, heads, Q, S)``, everywhere if its mask is empty."""
    small = functional.interpolate(masks, size, mode="bilinear", align_corners=False)
    inside = small.sigmoid().flatten(2) >= 0.5
    inside = inside | ~inside.any(dim=-1, keepdim=True)
    return inside[:, None].repeat(1, heads, 1, 1)


@torch.inference_mode()
def naive(setup: Setup, prompts: Sequence[str]) -> np.ndarray:
    """Masks ``(P, H, W)``, one call per prompt."""
    masks = []
    height, width = setup.image.shape[:2]
    for prompt in prompts:
        logits = naive_call(setup, prompt).logits.float()[None, None]
        large = functional.interpolate(logits, scale_factor=4, mode="bilinear")
        probability = large[0, 0, :height, :width].sigmoid().cpu().numpy()
        masks.append(probability > 0.5)
    return np.stack(masks)


@torch.inference_mode()
def naive_call(setup: Setup, prompt: str) -> NaiveAnswer:
    """One prompt from pixels and words on."""
    predictor, device = setup.predictor, setup.predictor.device
    pixels = torch.from_numpy(setup.image).to(device).permute(2, 0, 1)[None].float().contiguous()
    ids, mask = setup.tokenizer([prompt])
    short = (0, setup.config.context - ids.shape[1])
    ids, mask = functional.pad(ids, short).to(device), functional.pad(mask, short).to(device)
    dtype = DTYPES[predictor.config.precision]
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        return naive_answer(setup.model, pixels, ids, mask)


def ours(setup: Setup, prompts: Sequence[str]) -> np.ndarray:
    """Masks ``(P, H, W)``: the image encoded once, all prompts together."""
    return setup.predictor.masks(setup.predictor.encode(setup.image), prompts).masks[0]


WAYS: dict[str, Callable[[Setup, Sequence[str]], np.ndarray]] = {"naive": naive, "ours": ours}


# --------------------------------------------------------------------------------- comparisons


@torch.inference_mode()
def compare(setup: Setup, prompts: Sequence[str]) -> dict[str, Any]:
    """Do both ways give the same?"""
    predictor = setup.predictor
    memory_ = predictor.encode(setup.image).memory
    dtype = DTYPES[predictor.config.precision]
    with torch.autocast(predictor.device.type, dtype, enabled=dtype != torch.float32):
        found = setup.model.decode(memory_, predictor.text(prompts))
    answers = [naive_call(setup, prompt) for prompt in prompts]
    wanted = torch.stack([answer.logits for answer in answers]).float()
    different = (found.logits[0] > 0) != (wanted > 0)
    return {
        "largest_difference": float((found.logits[0].float() - wanted).abs().max()),
        "largest_logit": float(wanted.abs().max()),
        "different_pixels": float(different.float().mean()),
        "same_query": [int(a.query) for a in answers] == found.query[0].tolist(),
        "inside": round(float((wanted > 0).float().mean()), 3),
    }


def time_both(setup: Setup, counts: Sequence[int], repeats: int) -> dict[int, tuple[float, float]]:
    """Seconds of the fastest run, naive and ours, by number of prompts. Both run in turns."""
    best: dict[int, tuple[float, float]] = {}
    for count in counts:
        prompts, few = prompts_of(count), prompts_of(min(count, NAIVE_CALLS))
        ours(setup, prompts)  # warm: prompts are encoded, memory is there
        naive(setup, few[:1])
        runs = [
            (seconds(naive, setup, few) * count / len(few), seconds(ours, setup, prompts))
            for _ in range(repeats)
        ]
        best[count] = (min(run[0] for run in runs), min(run[1] for run in runs))
    return best


def seconds(
    way: Callable[[Setup, Sequence[str]], np.ndarray], setup: Setup, prompts: Sequence[str]
) -> float:
    """Wall time of one run. Results lie on the CPU, so a GPU has finished too."""
    started = time.perf_counter()
    way(setup, prompts)
    return time.perf_counter() - started


def memory(way: str, setup: Setup, args: argparse.Namespace, prompts: int) -> float | None:
    """MiB at the peak, beyond what is there before, or None if the fresh process failed."""
    if setup.predictor.device.type == "cuda":
        return peak_of(way, setup, prompts)
    shape = ["--model", args.model, "--size", str(args.size), "--precision", args.precision]
    command = [sys.executable, __file__, "--peak", way, "--prompts", str(prompts), *shape]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def peak_of(way: str, setup: Setup, prompts: int) -> float:
    """MiB at the peak of one way in this process. The naive way needs the same for any number."""
    asked = prompts_of(min(prompts, 2) if way == "naive" else prompts)
    small = setup._replace(image=setup.image[:64, :64])  # two positions at the coarsest scale
    WAYS[way](small, asked)  # loads what is loaded lazily
    if setup.predictor.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        WAYS[way](setup, asked)
        return (torch.cuda.max_memory_allocated() - before) / MIB
    before = resident()
    WAYS[way](setup, asked)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before) / MIB


def resident() -> int:
    """Bytes of this process in memory now, or the most so far where that is unknown."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def count_flops(name: str, size: int, counts: Sequence[int]) -> dict[int, tuple[float, float]]:
    """TFLOP of both ways by number of prompts, on the meta device, so nothing is computed."""
    tokenizer = fit_tokenizer(prompts_of(160))
    config = config_of(name, tokenizer.vocabulary)
    with torch.device("meta"):
        model = build_segmentor(config).eval().requires_grad_(False)
        image = torch.zeros(1, 3, size, size)
        ids = torch.zeros(1, config.context, dtype=torch.long)
        mask = torch.ones(1, config.context, dtype=torch.bool)
    one = flops(lambda: naive_answer(model, image, ids, mask))
    memory_ = model.encode_image(image)
    encoding = flops(lambda: model.encode_image(image))
    result = {}
    for count in counts:
        longest = tokenizer(prompts_of(count)).ids.shape[1]
        text = model.encode_text(ids[:, :longest], mask[:, :longest])
        text = type(text)(*(part.expand(count, *part.shape[1:]) for part in text))
        result[count] = (
            count * one,
            encoding + flops(lambda text=text: model.decode(memory_, text)),
        )
    return result


def flops(work: Callable[[], object]) -> float:
    """TFLOP of some work, a multiply-add as two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e12


# -------------------------------------------------------------------------------------- output


def device_name(device: str) -> str:
    """For the reader of the figures."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"


def rounded(row: Row) -> dict[str, float | None]:
    """The figures of a row, four digits each."""
    return {
        name: None if value is None else float(f"{value:.4g}")
        for name, value in row._asdict().items()
    } | {"prompts": row.prompts}


def table(rows: Sequence[Row]) -> str:
    """Rows for a person."""
    head = f"{'prompts':>7} | {'seconds':^24} | {'MiB':^22} | {'TFLOP':^24}"
    names = " | ".join(f"{'naive':>8}{'ours':>8}{'ratio':>{w}}" for w in (8, 6, 8))
    lines = [head, f"{'':>7} | {names}"]
    for row in rows:
        time_, flop, mib = (row.ratios[name] for name in ("time_ratio", "flop_ratio",
                                                          "memory_ratio"))  # fmt: skip
        lines.append(
            f"{row.prompts:>7} | {shown(row.naive_s, 3)}{shown(row.ours_s, 3)}{shown(time_, 1)}"
            f" | {shown(row.naive_mib, 0)}{shown(row.ours_mib, 0)}{shown(mib, 1, 6)}"
            f" | {shown(row.naive_tflop, 3)}{shown(row.ours_tflop, 3)}{shown(flop, 1)}"
        )
    return "\n".join(lines)


def shown(value: float | None, digits: int, width: int = 8) -> str:
    """A number, right aligned, or a dash where there is none."""
    return f"{'-' if value is None else f'{value:.{digits}f}':>{width}}"


if __name__ == "__main__":
    main()
