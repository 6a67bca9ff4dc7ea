"""The segmentation core on a GPU in one command: is it right, how fast is it, what is left to win?

    python benchmarks/gpu/suite.py                       a few minutes on one H100
    python benchmarks/gpu/suite.py --device cpu --quick  tiny sizes, to try the suite itself

Correctness on the device; two ceilings, copying and bf16 products; every stage at 512 and 1024 px
with 1, 4, 22 and 160 prompts beside the naive way; a slide end to end, no synchronisation allowed;
importance. A section that fails leaves its error in the answer and the others go on. JSON and
Markdown go to ``--out``, with device and commit inside. Last line: JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # runs from a checkout that was never installed

from benchmarks import segment_slide as stage  # noqa: E402
from benchmarks.gpu import segmentor  # noqa: E402
from benchmarks.gpu.segmentor import best, wait  # noqa: E402
from xpath.explain.hiding import SegmentedSlide  # noqa: E402
from xpath.explain.importance import object_importance  # noqa: E402
from xpath.explain.perturbation import Blur, PerturbationConfig  # noqa: E402
from xpath.geometry import Size  # noqa: E402
from xpath.segment.predict.patch_features import SegmentorEncoder  # noqa: E402
from xpath.segment.predict.predictor import PredictorConfig, SegmentPredictor  # noqa: E402
from xpath.segment.predict.whole_slide import SegmentConfig, segment_slide  # noqa: E402
from xpath.store.masks import open_masks  # noqa: E402
from xpath.testing.masks import grid_at  # noqa: E402
from xpath.testing.slides import write_slide  # noqa: E402
from xpath.testing.tissue import paint_tissue, random_recipe  # noqa: E402
from xpath.wsi.patches import iter_patches  # noqa: E402
from xpath.wsi.slide import Slide  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xpath.geometry import PatchGrid

RESULTS = Path(__file__).parent / "results"
LIMITS = {"fp32": 1e-3, "bf16": 0.01}
"""Largest share of a slide's mask pixels that may differ from float32 on the CPU."""


def main() -> None:
    """Every section in turn, then two files and one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the suite")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--commit", default="", help="where git cannot tell")
    args = parser.parse_args()
    started = time.perf_counter()
    answer: dict[str, Any] = about(args)
    for name in args.only:
        began = time.perf_counter()
        answer[name] = attempted(SECTIONS[name], args)
        answer[f"{name}_s"] = round(time.perf_counter() - began, 1)
        print(name, json.dumps(answer[name]), flush=True)
        if args.device.startswith("cuda"):
            torch.cuda.empty_cache()
    answer["seconds"] = round(time.perf_counter() - started, 1)
    name = "".join(letter if letter.isalnum() else "-" for letter in answer["device"].lower())
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps(answer, indent=1) + "\n")
    (args.out / f"{name}.md").write_text(report(answer))
    print(json.dumps(answer))


def attempted(section: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    """The answer of a section, or its error."""
    try:
        return section(args)
    except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
        return {
            "error": f"{type(error).__name__}: {error}"[:2000],
            "where": traceback.format_exc()[-1500:],
        }


def about(args: argparse.Namespace) -> dict[str, Any]:
    """Machine and versions."""
    cuda = args.device.startswith("cuda")
    has_triton = importlib.util.find_spec("triton") is not None
    return {
        "benchmark": "gpu_suite",
        "device": torch.cuda.get_device_name(args.device) if cuda else "cpu",
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "triton": __import__("triton").__version__ if has_triton else None,
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


# ---------------------------------------------------------------------------------- sections


def ceilings(args: argparse.Namespace) -> dict[str, float]:
    """The fastest this device copies and multiplies: GB read and written, bf16 TFLOP a second."""
    count, side = (2**20, 256) if args.quick else (2**30, 8192)
    source = torch.ones(count, dtype=torch.uint8, device=args.device)
    target = torch.empty_like(source)
    matrix = torch.ones(side, side, dtype=torch.bfloat16, device=args.device)
    copying = best(lambda: target.copy_(source), 10, args.device)
    product = best(lambda: matrix @ matrix, 10, args.device)
    return {"copy_gb_per_s": 2e-9 * count / copying, "bf16_tflop_per_s": 2e-12 * side**3 / product}


def slide(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The whole stage on a drawn slide: masks as on the CPU, nothing waits, seconds per patch."""
    side, pixels = (256, (128,)) if args.quick else (4096, (256, 512, 1024))
    with tempfile.TemporaryDirectory() as folder, drawn(Path(folder), side) as opened:
        return [one_slide(args, opened, size, Path(folder)) for size in pixels]


def one_slide(args: argparse.Namespace, opened: Slide, pixels: int, folder: Path) -> dict[str, Any]:
    """One size of patches: first a few against the CPU, then all of them against the clock."""
    grid = grid_of(opened, pixels)
    few = replace(grid, coords=grid.coords[:4])
    exact, labels = stage.asked("cpu")
    paths = {name: folder / f"{pixels}-{name}.zarr" for name in ("cpu", *LIMITS)}
    segment_slide(opened, few, exact, labels, paths["cpu"])
    wanted = open_masks(paths["cpu"]).read(slice(None))
    row: dict[str, Any] = {"pixels": pixels, "patches": len(grid), "labels": len(labels)}
    for precision, most in LIMITS.items():
        config = PredictorConfig(precision=precision)
        predictor = SegmentPredictor.from_pretrained(device=args.device, config=config)
        segment_slide(opened, few, predictor, labels, paths[precision])
        with no_waiting(args.device):
            segment_slide(opened, few, predictor, labels, paths[precision])
        different = (open_masks(paths[precision]).read(slice(None)) != wanted).mean()
        row[f"{precision}_different_pixels"] = float(different)
        row[f"{precision}_within_tolerance"] = bool(different <= most)
        for competition in ("exclusive", "independent"):
            settings = SegmentConfig(competition=competition)
            work = stage.Work(opened, grid, predictor, labels, settings)
            row[f"{precision}_{competition}_s_per_patch"] = per_patch(work, folder / "timed.zarr")
        if precision == "fp32":
            work = stage.Work(opened, few, predictor, labels, SegmentConfig())
            row["ratio_to_full_size"] = stage.compared(work, folder, 1)["ratio"]
    return row


def per_patch(work: stage.Work, path: Path) -> float:
    """Seconds per patch, from the slide's file to the masks'."""
    began = time.perf_counter()
    stage.packed(work, path)
    return (time.perf_counter() - began) / len(work.grid)


def importance(args: argparse.Namespace) -> dict[str, Any]:
    """Objects hidden one after the other, each patch encoded anew for each."""
    side, pixels = (256, 128) if args.quick else (2048, 256)
    with tempfile.TemporaryDirectory() as folder, drawn(Path(folder), side) as opened:
        predictor, labels = stage.asked(args.device)
        grid, path = grid_of(opened, pixels), Path(folder) / "masks.zarr"
        segment_slide(opened, grid, predictor, labels, path)
        encoder, masks = SegmentorEncoder(predictor), open_masks(path)
        features = [
            encoder.maps(torch.from_numpy(images).permute(0, 3, 1, 2)).mean(dim=(2, 3))
            for _, images in iter_patches(opened, grid, batch=16)
        ]
        head = torch.randn(encoder.dim, 2, generator=torch.Generator().manual_seed(0))
        segmented = SegmentedSlide(
            slide_id="drawn", slide=opened, masks=masks, features=torch.cat(features).numpy()
        )
        began = time.perf_counter()
        found = object_importance(
            lambda rows: rows.mean(dim=0) @ head,
            encoder,
            segmented,
            objects=masks.labels,
            target=0,
            perturbation=Blur(8.0),
            config=PerturbationConfig(batch=16),
        )
        wait(torch.device(args.device))
        seconds = time.perf_counter() - began
    pairs = int(found.patches.sum())
    row = {"patches": len(grid), "objects": len(masks.labels), "pairs": pairs, "seconds": seconds}
    finite = bool(np.isfinite(found.imp).all())
    return row | {"s_per_pair": seconds / max(pairs, 1), "finite": finite}


@contextmanager
def no_waiting(device: str) -> Iterator[None]:
    """Whatever waits for the GPU in here raises."""
    if not device.startswith("cuda"):
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def drawn(folder: Path, side: int) -> Iterator[Slide]:
    """A slide of drawn tissue, a field of 1024 pixels again and again."""
    rng = np.random.default_rng(0)
    field = min(side, 1024)
    image = paint_tissue(Size(field, field), random_recipe(rng), rng).image
    path = folder / "drawn.tiff"
    write_slide(path, np.tile(image, (side // field, side // field, 1)), mpp=0.5)
    with Slide.open(path) as opened:
        yield opened


def grid_of(opened: Slide, pixels: int) -> PatchGrid:
    """The whole slide in patches of so many pixels."""
    side = opened.size.width
    corners = [[x, y] for y in range(0, side, pixels) for x in range(0, side, pixels)]
    return grid_at(corners, footprint=pixels, slide_size=opened.size)


SECTIONS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "correct": segmentor.correct,
    "kernel": segmentor.kernel,
    "ceilings": ceilings,
    "stages": segmentor.stages,
    "encoder": segmentor.encoder,
    "slide": slide,
    "importance": importance,
}


# ------------------------------------------------------------------------------------ report


def report(answer: dict[str, Any]) -> str:
    """The answer for a reader: a heading with device and commit, then a table a section."""
    lines = [
        f"# GPU suite on {answer['device']}",
        "",
        f"Commit {answer['commit'] or 'unknown'}, torch {answer['torch']}, triton"
        f" {answer['triton']}, {answer['cores']} cores, {answer['seconds']:g} s"
        + (", tiny sizes." if answer["quick"] else "."),
    ]
    for name, section in SECTIONS.items():
        if name in answer:
            lines += ["", f"## {name.capitalize()}", "", (section.__doc__ or "").split("\n")[0], ""]
            lines += table(answer[name])
    return "\n".join(lines) + "\n"


def table(content: Any) -> list[str]:
    """Lines of a Markdown table of rows, or of names and values."""
    if isinstance(content, list):
        names = list(dict.fromkeys(name for row in content for name in row))
        rows = [[shown(row.get(name)) for name in names] for row in content]
    else:
        names, rows = ["what", "value"], [[name, shown(it)] for name, it in flat(content).items()]
    return [f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows)]


def flat(content: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Values of nested tables by dotted name."""
    values: dict[str, Any] = {}
    for name, value in content.items():
        nested = isinstance(value, dict)
        values |= flat(value, f"{path}{name}.") if nested else {f"{path}{name}": value}
    return values


def shown(value: Any) -> str:
    """A value in a cell, numbers to three digits."""
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
