"""The segmentor's sections of ``suite.py``: random weights, every stage beside the naive way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks import segment_prompts as naive_way
from xpath.segment.kernels.finalisation import finalise, finalise_reference, unpack
from xpath.segment.predict.memory import working_set
from xpath.segment.predict.predictor import PredictorConfig, SegmentPredictor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

__all__ = ["best", "correct", "encoder", "kernel", "stages", "wait"]

COMPILE_SECONDS = 60.0
"""Compilation that takes longer is given up: its answer is ``skipped``."""
TOLERANCE = {"fp32": 1e-3, "tf32": 0.005, "bf16": 0.05, "fp16": 0.02}
"""Largest share of mask pixels that may differ from float32 on the CPU, with random weights, whose
logits lie all around 0."""
NAIVE_CALLS = 4
"""The naive way is timed for at most so many prompts and scaled up: its calls are all alike."""


def correct(args: argparse.Namespace) -> dict[str, Any]:
    """Masks and queries on the device, at every precision, against float32 on the CPU."""
    cases = [("tiny", 64)] if args.quick else [("mini", 512), ("large", 512)]
    return {model: _correct(model, size, args.device) for model, size in cases}


@torch.inference_mode()
def _correct(model: str, size: int, device: str) -> dict[str, Any]:
    asked = naive_way.prompts_of(4)
    made = _setup(model, size)
    wanted, query = _decoded(made, asked)
    result: dict[str, Any] = {"inside": float((wanted > 0).float().mean())}
    for precision, most in TOLERANCE.items():
        logits, chosen = _decoded(_moved(made, device, precision), asked)
        different = float(((logits > 0) != (wanted > 0)).float().mean())
        result[precision] = {
            "different_pixels": different,
            "same_query": float((chosen == query).float().mean()),
            "largest_difference": float((logits - wanted).abs().max()),
            "within_tolerance": different <= most,
        }
    return result | {"largest_logit": float(wanted.abs().max())}


def _decoded(made: Any, asked: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and chosen queries, on the CPU."""
    predictor = made.predictor
    embedding = predictor.encode(made.image)
    with predictor._precision():
        query = made.model.decode(embedding.memory, predictor.text(asked)).query
    return predictor.logits(embedding, asked).cpu(), query.cpu()


def kernel(args: argparse.Namespace) -> dict[str, Any]:
    """The Triton kernel against its reference in torch, on the device: equal, and how fast."""
    count, side = (3, 16) if args.quick else (22, 256)
    fields = _smooth(count, side, args.device)
    size, cells = (4 * side - 11, 4 * side - 9), (side // 4, side // 4)
    result: dict[str, Any] = {"masks": count, "size": list(size)}
    for corner, grid in ((0, cells), (1, (1, 1))):
        found = finalise(fields, size, corner=corner, cells=grid)
        wanted = finalise_reference(fields, size, corner=corner, cells=grid)
        bits = [unpack(each.packed, size[1]) for each in (found, wanted)]
        result[f"corner_{corner}"] = {
            "different_pixels": int((bits[0] != bits[1]).sum()),
            **{
                f"{name}_difference": float(
                    (getattr(found, name).double() - value.double()).abs().max()
                )
                for name, value in wanted._asdict().items()
                if name != "packed"
            },
        }
    ways = {"fused": finalise, "reference": finalise_reference}
    for name, way in ways.items():
        result[f"{name}_s"] = best(lambda way=way: way(fields, size, corner=1), 5, args.device)
    return result | {"ratio": result["reference_s"] / result["fused_s"]}


def stages(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every stage beside the naive way, by size of the image and number of prompts."""
    model, sizes, counts = ("large", (512, 1024), (1, 4, 22, 160))
    if args.quick:
        model, sizes, counts = ("tiny", (64,), (1, 3))
    made = _moved(_setup(model, sizes[0]), args.device, _fast(args))
    rows = []
    for size in sizes:
        made = made._replace(image=_noise(size))
        flops = naive_way.count_flops(model, size, counts)
        for count in counts:
            row = {"size": size, "prompts": count, "precision": _fast(args)}
            row |= _one_count(made, count) | _finalised(made, count)
            naive_tflop, ours_tflop = flops[count]
            row |= {"naive_tflop": naive_tflop, "ours_tflop": ours_tflop}
            rows.append(row | {"tflop_per_s": ours_tflop / (row["encode_s"] + row["decode_s"])})
    return rows


def _one_count(made: Any, count: int) -> dict[str, Any]:
    """Seconds and peak memory of an image, from pixels to masks, by both ways and by stage."""
    predictor, device = made.predictor, made.predictor.device
    asked = naive_way.prompts_of(count)
    few = asked[:NAIVE_CALLS]
    embedding = predictor.encode(made.image)
    work = {
        "encode_s": lambda: predictor.encode(made.image),
        "decode_s": lambda: predictor.logits(embedding, asked),
        "ours_s": lambda: naive_way.ours(made, asked),
    }
    row: dict[str, Any] = {name: best(each, 3, device) for name, each in work.items()}
    row["naive_s"] = best(lambda: naive_way.naive(made, few), 2, device) * count / len(few)
    row["time_ratio"] = row["naive_s"] / row["ours_s"]
    if device.type == "cuda":
        row["naive_mib"] = naive_way.peak_of("naive", made, count)
        row["ours_mib"] = naive_way.peak_of("ours", made, count)
    return row


@torch.inference_mode()
def _finalised(made: Any, count: int) -> dict[str, float]:
    """From logits to packed bits on the host: one step, against maps at full size."""
    side, device = made.image.shape[0], made.predictor.device
    logits = _smooth(count, side // 4, device)

    def one_step() -> None:
        finalise(logits, (side, side)).packed.cpu()

    def full_size() -> None:
        for plane in logits[0].split(32):  # 160 maps of a megapixel at once are 2 GiB of floats
            large = functional.interpolate(plane[None], scale_factor=4, mode="bilinear")[0]
            np.packbits((large.sigmoid() > 0.5).cpu().numpy(), axis=-1)

    row = {"finalise_s": best(one_step, 3, device), "full_size_s": best(full_size, 2, device)}
    return row | {"finalise_ratio": row["full_size_s"] / row["finalise_s"]}


def encoder(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds per image of encoding: eager, channels last, compiled, at batch 1 and 8."""
    model, size = ("tiny", 64) if args.quick else ("large", 1024)
    made = _setup(model, size)
    result: dict[str, Any] = {}
    for name, config in (("eager", {}), ("channels_last", {"channels_last": True})):
        variant = _moved(made, args.device, _fast(args), **config)
        for batch in (1, 8):
            result[f"{name}_{batch}"] = _encoding(variant, batch)
    return result if args.quick else result | _compiled(made, args)


def _encoding(made: Any, batch: int) -> dict[str, float]:
    """Seconds per image, and peak memory beside what was estimated."""
    predictor, images = made.predictor, np.stack([made.image] * batch)
    cuda = predictor.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else 0
    row = {"s_per_image": best(lambda: predictor.encode(images), 3, predictor.device) / batch}
    if cuda:
        itemsize = 4 if predictor.config.precision == "fp32" else 2
        estimate = working_set(made.model, images.shape[1:3], itemsize).image * batch
        row["peak_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
        row["estimate_mib"] = estimate / 2**20
    return row


def _compiled(made: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Compiled encoding, without batch 8 where batch 1 took too long."""
    result: dict[str, Any] = {}
    variant = _moved(made, args.device, _fast(args), compile=True)
    for batch in (1, 8):
        began = time.perf_counter()
        variant.predictor.encode(np.stack([made.image] * batch))
        wait(variant.predictor.device)
        first = time.perf_counter() - began
        result[f"compiled_{batch}"] = {"first_s": first} | _encoding(variant, batch)
        if first > COMPILE_SECONDS:
            result["compiled_8"] = {"skipped": f"batch 1 took {first:.0f} s to compile"}
            break
    return result


def _setup(model: str, size: int) -> Any:
    """A model on the CPU, with the same random weights wherever it is moved to."""
    arguments = ["--model", model, "--size", str(size), "--device", "cpu"]
    return naive_way.setup_of(naive_way.parse(arguments))


def _moved(made: Any, device: str, precision: str, **config: Any) -> Any:
    """The same model and image behind another predictor. The model is moved, not copied."""
    old = made.predictor
    settings = PredictorConfig(precision=precision, **config)
    predictor = SegmentPredictor(
        made.model, old.tokenizer, old.info, device=device, config=settings
    )
    return made._replace(predictor=predictor)


def _fast(args: argparse.Namespace) -> str:
    """The precision of a run on this device."""
    return "bf16" if args.device.startswith("cuda") else "fp32"


def _noise(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def _smooth(count: int, side: int, device: str | torch.device) -> torch.Tensor:
    """Logits ``(1, count, side, side)`` with blobs, as a decoder gives them."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, count, max(side // 8, 2), max(side // 8, 2), generator=generator)
    return functional.interpolate(coarse, (side, side), mode="bicubic").to(device)


def best(work: Callable[[], object], repeats: int, device: str | torch.device) -> float:
    """Seconds of the fastest of some runs, after one that warms up, the device's work included."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        wait(torch.device(device))
        times.append(time.perf_counter() - began)
    return min(times[1:])


def wait(device: torch.device) -> None:
    """Until the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
