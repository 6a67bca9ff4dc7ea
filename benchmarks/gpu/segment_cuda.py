"""The segmentor on a GPU: is it right, how fast is it, what does it need?

    python benchmarks/gpu/segment_cuda.py --out segment_cuda.json --commit "$(git rev-parse HEAD)"

Random weights. A section that fails leaves its error in the answer and the others go on. On an idle
GPU it takes about a minute and a half; ``--device cpu --quick`` tries the script itself. Needs
torch, timm, safetensors and tokenizers, nothing else. Last line: JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # runs from a checkout that was never installed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

COMPILE_SECONDS = 40.0
"""Compilation that takes longer is given up: its answer is ``skipped``."""
TOLERANCE = {"fp32": 0.005, "bf16": 0.05, "fp16": 0.02}
"""Largest share of mask pixels that may differ from float32 on the CPU, with random weights; a GPU
convolves in TF32 unless torch is told otherwise."""


def main() -> None:
    """Every section in turn, then one JSON file and line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("segment_cuda.json"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--commit", default="", help="where git cannot tell")
    args = parser.parse_args()
    started = time.perf_counter()
    answer: dict[str, Any] = about(args)
    sections: dict[str, Callable[[argparse.Namespace], Any]] = {
        "correct": correct,
        "prompts": prompts,
        "encoder": encoder,
        "finalise": finalise,
    }
    for name, section in sections.items():
        began = time.perf_counter()
        try:
            answer[name] = section(args)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            answer[name] = {"error": f"{type(error).__name__}: {error}"[:2000]}
            answer[name]["where"] = traceback.format_exc()[-1500:]
        answer[f"{name}_s"] = round(time.perf_counter() - began, 1)
        print(name, json.dumps(answer[name]), flush=True)
        if args.device.startswith("cuda"):
            torch.cuda.empty_cache()
    answer["seconds"] = round(time.perf_counter() - started, 1)
    args.out.write_text(json.dumps(answer, indent=1) + "\n")
    print(json.dumps(answer))


def about(args: argparse.Namespace) -> dict[str, Any]:
    """Machine and versions."""
    cuda = args.device.startswith("cuda")
    found = importlib.util.find_spec("triton")
    triton = __import__("triton").__version__ if found else None
    return {
        "benchmark": "segment_cuda",
        "device": torch.cuda.get_device_name(args.device) if cuda else "cpu",
        "torch": torch.__version__,
        "triton": triton,
        "commit": args.commit or commit(),
        "quick": args.quick,
    }


def commit() -> str:
    """The checkout's commit, empty where git or its folder is not there."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()


def prompts_benchmark() -> ModuleType:
    """``benchmarks/segment_prompts.py``: the naive way, and models with random weights."""
    path = ROOT / "benchmarks" / "segment_prompts.py"
    spec = importlib.util.spec_from_file_location("segment_prompts", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["segment_prompts"] = module
    spec.loader.exec_module(module)
    return module


def setup(model: str, size: int, device: str, precision: str = "fp32") -> Any:
    """A model with the same random weights on every device."""
    benchmark = prompts_benchmark()
    common = ["--model", model, "--size", str(size), "--precision", precision]
    made = benchmark.setup_of(benchmark.parse([*common, "--device", "cpu"]))
    return moved(made, device, precision)


def moved(made: Any, device: str, precision: str, **config: Any) -> Any:
    """The same model and image behind another predictor. The model is moved, not copied."""
    from xpath.segment.predict.predictor import PredictorConfig, SegmentPredictor

    old = made.predictor
    settings = PredictorConfig(precision=precision, **config)
    predictor = SegmentPredictor(
        made.model, old.tokenizer, old.info, device=device, config=settings
    )
    return made._replace(predictor=predictor)


# ---------------------------------------------------------------------------------- sections


def correct(args: argparse.Namespace) -> dict[str, Any]:
    """Masks and queries on the device, every precision, against float32 on the CPU."""
    cases = [("tiny", 64)] if args.quick else [("mini", 512), ("large", 512)]
    return {model: correct_model(model, size, args.device) for model, size in cases}


@torch.inference_mode()
def correct_model(model: str, size: int, device: str) -> dict[str, Any]:
    """One model."""
    benchmark = prompts_benchmark()
    asked = benchmark.prompts_of(4)
    made = setup(model, size, "cpu")
    wanted = decoded(made, asked)
    result: dict[str, Any] = {"inside": float((wanted[0] > 0).float().mean())}
    for precision in ("fp32", "bf16", "fp16"):
        logits, query = decoded(moved(made, device, precision), asked)
        different = float(((logits > 0) != (wanted[0] > 0)).float().mean())
        result[precision] = {
            "different_pixels": different,
            "same_query": float((query == wanted[1]).float().mean()),
            "largest_difference": float((logits - wanted[0]).abs().max()),
            "within_tolerance": different <= TOLERANCE[precision],
        }
    result["largest_logit"] = float(wanted[0].abs().max())
    return result


def decoded(made: Any, asked: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and chosen queries, on the CPU."""
    predictor = made.predictor
    embedding = predictor.encode(made.image)
    dtype = prompts_benchmark().DTYPES[predictor.config.precision]
    with torch.autocast(predictor.device.type, dtype, enabled=dtype != torch.float32):
        query = made.model.decode(embedding.memory, predictor.text(asked)).query
    return predictor.logits(embedding, asked).cpu(), query.cpu()


def prompts(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Naive and ours, time and peak memory, by number of prompts."""
    model, size, precision = ("tiny", 64, "fp32") if args.quick else ("large", 1024, "bf16")
    made = setup(model, size, args.device, precision)
    counts = (1, 4) if args.quick else (1, 4, 22, 160)
    return [{"precision": precision, "prompts": n, **one_count(made, n)} for n in counts]


def one_count(made: Any, count: int) -> dict[str, Any]:
    """One number of prompts, with the naive way timed on four calls and scaled."""
    benchmark = prompts_benchmark()
    asked = benchmark.prompts_of(count)
    few = asked[:4]
    benchmark.ours(made, asked)
    benchmark.naive(made, few[:1])
    naive_s = best(lambda: benchmark.naive(made, few), 2) * count / len(few)
    ours_s = best(lambda: benchmark.ours(made, asked), 3)
    row = {"naive_s": naive_s, "ours_s": ours_s, "time_ratio": naive_s / ours_s}
    row |= parts(made, asked)
    if made.predictor.device.type == "cuda":
        row["naive_mib"] = benchmark.peak_of("naive", made, count)
        row["ours_mib"] = benchmark.peak_of("ours", made, count)
        row["memory_ratio"] = row["naive_mib"] / row["ours_mib"]
    return row


def parts(made: Any, asked: list[str]) -> dict[str, float]:
    """Where our time goes: encoding, decoding, and all that follows up to numpy masks."""
    predictor = made.predictor
    embedding = predictor.encode(made.image)

    def encode() -> None:
        predictor.encode(made.image)
        wait(predictor.device)

    def decode() -> None:
        predictor.logits(embedding, asked)
        wait(predictor.device)

    return {
        "encode_s": best(encode, 3),
        "decode_s": best(decode, 3),
        "masks_s": best(lambda: predictor.masks(embedding, asked), 3),
    }


def encoder(args: argparse.Namespace) -> dict[str, Any]:
    """Images per second of encoding: eager, channels last, compiled, at batch 1 and 8."""
    model, size = ("tiny", 64) if args.quick else ("large", 1024)
    made = setup(model, size, args.device, "fp32" if args.quick else "bf16")
    result: dict[str, Any] = {}
    for name, config in (("eager", {}), ("channels_last", {"channels_last": True})):
        variant = moved(made, args.device, made.predictor.config.precision, **config)
        for batch in (1, 8):
            result[f"{name}_{batch}"] = encoding(variant, batch)
    if not args.quick:
        result |= compiled(made, args.device)
    return result


def encoding(made: Any, batch: int) -> dict[str, float]:
    """Seconds per image, and peak memory beside what was estimated."""
    from xpath.segment.predict.memory import working_set

    predictor = made.predictor
    images = np.stack([made.image] * batch)
    cuda = predictor.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else 0

    def work() -> None:
        predictor.encode(images)
        wait(predictor.device)

    work()
    row = {"s_per_image": best(work, 3) / batch}
    if cuda:
        itemsize = 4 if predictor.config.precision == "fp32" else 2
        estimate = working_set(made.model, images.shape[1:3], itemsize).image * batch
        row["peak_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
        row["estimate_mib"] = estimate / 2**20
    return row


def compiled(made: Any, device: str) -> dict[str, Any]:
    """Compiled encoding, without batch 8 where batch 1 took too long."""
    result: dict[str, Any] = {}
    variant = moved(made, device, made.predictor.config.precision, compile=True)
    for batch in (1, 8):
        began = time.perf_counter()
        variant.predictor.encode(np.stack([made.image] * batch))
        wait(variant.predictor.device)
        first = time.perf_counter() - began
        result[f"compiled_{batch}"] = {"first_s": first} | encoding(variant, batch)
        if first > COMPILE_SECONDS:
            result["compiled_8"] = {"skipped": f"batch 1 took {first:.0f} s to compile"}
            break
    return result


def finalise(args: argparse.Namespace) -> dict[str, Any]:
    """The Triton kernel against its reference in torch: equal, and how fast."""
    if importlib.util.find_spec("xpath.segment.kernels.finalisation") is None:
        return {"skipped": "there is no such kernel"}
    from xpath.segment.kernels.finalisation import finalise as fused
    from xpath.segment.kernels.finalisation import finalise_reference

    count, side = (3, 16) if args.quick else (22, 256)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, count, side // 8, side // 8, generator=generator)
    logits = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[0]
    logits, size = logits.to(args.device), (4 * side - 3, 4 * side - 1)
    cells = (side // 4, side // 4)
    found = fused(logits, size, cells=cells)
    wanted = finalise_reference(logits, size, cells=cells)
    result: dict[str, Any] = {"masks": count, "size": list(size)}
    for name, value in wanted._asdict().items():
        difference = (getattr(found, name).double() - value.double()).abs().max()
        result[f"{name}_largest_difference"] = float(difference)
    bits = found.packed.cpu().numpy() ^ wanted.packed.cpu().numpy()
    result["different_pixels"] = int(np.unpackbits(bits).sum())

    def timed(way: Callable[..., object]) -> float:
        def work() -> None:
            way(logits, size, cells=cells)
            wait(torch.device(args.device))

        return best(work, 5)

    result["fused_s"], result["reference_s"] = timed(fused), timed(finalise_reference)
    result["ratio"] = result["reference_s"] / result["fused_s"]
    return result


def best(work: Callable[[], object], repeats: int) -> float:
    """Wall time of the fastest of some runs. The work waits for the device."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def wait(device: torch.device) -> None:
    """Until the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
