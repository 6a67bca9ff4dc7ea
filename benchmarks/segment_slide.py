"""Masks of a slide at full size against masks that are packed where they are made.

    python benchmarks/segment_slide.py
    python benchmarks/segment_slide.py --slide SLIDE --patches 24 --competition independent

The plain way does what the library did first: logits of all labels are enlarged at once, masks are
boolean maps, their overlaps products of float maps, and numpy packs them. Both ways read, encode,
decode and blend alike, run in turns in one process, and must write the same bytes (``equal``; with
several threads, or three labels, torch rounds the sums of the plain way otherwise). Seconds are of
the processor, on a GPU of the clock; ``after_ratio`` compares what the main thread does beside the
segmentor. Weights that ship. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from xpath.geometry import Size
from xpath.labels import activation_objects
from xpath.segment.predict.blending import SeamBlender
from xpath.segment.predict.competition import compete, siblings
from xpath.segment.predict.known_prompts import untaught
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.segment.predict.slide_facts import SlideTally
from xpath.segment.predict.whole_slide import SegmentConfig, segment_slide
from xpath.store.masks import MaskWriter, open_masks
from xpath.testing.slides import write_slide
from xpath.testing.tissue import paint_tissue, random_recipe
from xpath.wsi.grid import cut_grid
from xpath.wsi.patches import iter_patches
from xpath.wsi.slide import Slide
from xpath.wsi.tissue import find_tissue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xpath.geometry import PatchGrid
    from xpath.labels import Label
    from xpath.segment.predict.competition import Siblings

STRIDE = 4


class Work(NamedTuple):
    """What both ways are given."""

    slide: Slide
    grid: PatchGrid
    predictor: SegmentPredictor
    labels: Sequence[Label]
    config: SegmentConfig


class PlainAnswer(NamedTuple):
    """Masks of a patch at full size, with the names ``SlideTally`` asks for."""

    masks: torch.Tensor
    """``(L, H, W)``."""
    presence: torch.Tensor
    """``(1, L)``."""
    peak: torch.Tensor
    area: torch.Tensor
    shared: torch.Tensor
    """``(1, L, L)``."""


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slide", type=Path, help="one of your own; otherwise one is drawn")
    parser.add_argument("--patches", type=int, default=24)
    parser.add_argument("--side", type=int, default=2048, help="of the drawn slide, in pixels")
    parser.add_argument("--competition", default="exclusive", choices=["exclusive", "independent"])
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many counts")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.slide or drawn(Path(folder) / "drawn.tiff", args.side)
        with Slide.open(path) as slide:
            grid = cut_grid(slide, find_tissue(slide))
            work = Work(
                slide,
                replace(grid, coords=grid.coords[: args.patches]),
                *asked(args.device),
                SegmentConfig(competition=args.competition),
            )
            facts = compared(work, Path(folder), args.repeats)
    about = {"benchmark": "segment_slide", "device": args.device, "patches": len(work.grid)}
    about |= {"labels": len(work.labels), "threads": torch.get_num_threads()}
    print(json.dumps(about | {"competition": args.competition} | facts))


def drawn(path: Path, side: int) -> Path:
    """A drawn slide."""
    rng = np.random.default_rng(0)
    write_slide(path, paint_tissue(Size(side, side), random_recipe(rng), rng).image, mpp=0.5)
    return path


def asked(device: str) -> tuple[SegmentPredictor, list[Label]]:
    """The weights that ship, and the paper's objects they were taught."""
    predictor = SegmentPredictor.from_pretrained(device=device)
    labels = activation_objects()
    unknown = untaught([label.prompt for label in labels], predictor.info.labels)
    return predictor, [label for label in labels if label.prompt not in unknown]


def compared(work: Work, folder: Path, repeats: int) -> dict[str, object]:
    """Seconds of the fastest run of both ways, in turns, and whether they wrote the same."""
    paths = {"plain": folder / "plain.zarr", "packed": folder / "packed.zarr"}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    for _ in range(repeats + 1):  # the first warms up
        for name, path in paths.items():
            with timed(work.predictor) as model:
                began, own = clock(work, time.process_time), clock(work, time.thread_time)
                plain(work, path) if name == "plain" else packed(work, path)
                whole = clock(work, time.process_time) - began
                own = clock(work, time.thread_time) - own
            times[name].append((whole, own - sum(model)))
    best = {name: np.min(runs[1:], axis=0) for name, runs in times.items()}
    ratios = best["plain"] / best["packed"]
    one, other = (open_masks(path) for path in paths.values())
    return {
        "plain_s": round(best["plain"][0], 4),
        "packed_s": round(best["packed"][0], 4),
        "ratio": round(ratios[0], 3),
        "after_ratio": round(ratios[1], 3),
        "equal": bool(
            np.array_equal(one.read(slice(None)), other.read(slice(None)))
            and np.array_equal(one.presence, other.presence)
            and all(np.array_equal(a, b) for a, b in zip(one.facts, other.facts, strict=True))
        ),
    }


def clock(work: Work, of_processor: Callable[[], float]) -> float:
    """Seconds of the processor, which others on the machine do not disturb; a GPU has none."""
    return time.perf_counter() if work.predictor.device.type == "cuda" else of_processor()


@contextmanager
def timed(predictor: SegmentPredictor) -> Iterator[list[float]]:
    """Seconds that encoding and decoding take the main thread meanwhile."""
    cuda = predictor.device.type == "cuda"
    now = time.perf_counter if cuda else time.thread_time
    spent: list[float] = []
    originals = {name: getattr(predictor, name) for name in ("encode", "logits")}

    def watched(name: str) -> object:
        def call(*args: object, **options: object) -> object:
            began = now()
            answer = originals[name](*args, **options)
            if cuda:
                torch.cuda.synchronize(predictor.device)
            spent.append(now() - began)
            return answer

        return call

    for name in originals:
        setattr(predictor, name, watched(name))
    try:
        yield spent
    finally:
        for name in originals:
            delattr(predictor, name)  # the methods of the class are there again


def packed(work: Work, path: Path) -> None:
    """The library's way."""
    segment_slide(work.slide, work.grid, work.predictor, work.labels, path, config=work.config)


# ------------------------------------------------------------------------------- the plain way


@torch.inference_mode()
def plain(work: Work, path: Path) -> None:
    """Masks as maps of booleans, from the logits to the file."""
    exclusive = work.config.competition == "exclusive"
    groups = siblings(work.labels) if exclusive else ()
    margin = work.config.overlap // STRIDE - 1 if any(group.whole for group in groups) else 0
    tally = SlideTally(work.predictor, [label.prompt for label in work.labels])
    ids = [label.id for label in work.labels]
    with MaskWriter(
        path, grid=work.grid, labels=ids, size=work.grid.pixels, provenance={}
    ) as writer:
        kept = []
        for index, field in enumerate(fields_of(work, margin)):
            answer = decided(field_logits(field, work.grid.pixels, margin)[1])
            tally.add(answer)
            kept.append(field)
            if not exclusive:
                tally.add_resolved(answer.shared.numpy()[0])
                writer.write(index, answer.masks[None].numpy(), answer.presence.numpy())
        facts = tally.facts()
        presence = np.where(facts.present, facts.probability, 0)
        for index, field in enumerate(kept if exclusive else ()):
            answer = resolved(field, groups, presence, work.grid, margin)
            tally.add_resolved(answer.shared.numpy()[0])
            writer.write(index, answer.masks[None].numpy(), answer.presence.numpy())
        facts = tally.facts()
        writer.facts = facts._replace(present=facts.present & (facts.after.diagonal() > 0))


def fields_of(work: Work, margin: int) -> Iterator[torch.Tensor]:
    """Blended logits ``(L, h, w)`` of every patch, on the host."""
    blender = SeamBlender(work.grid, overlap=work.config.overlap, margin=margin)
    prompts = [label.prompt for label in work.labels]
    batches = iter_patches(work.slide, blender.windows, batch=work.config.batch, only=blender.order)
    for index, images in batches:
        answers = work.predictor.logits(work.predictor.encode(images), prompts)
        for window, logits in zip(index, answers, strict=True):
            blender.add(int(window), logits)
        yield from blender.finished().fields.cpu()


def field_logits(
    field: torch.Tensor, pixels: int, margin: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of all labels with the margin around the patch, and of the patch alone."""
    large = functional.interpolate(field[None], scale_factor=STRIDE, mode="bilinear")[0]
    edge = STRIDE * margin
    here = slice(STRIDE, STRIDE + pixels + 2 * edge)
    around = large[:, here, here]
    return around, around[:, edge : edge + pixels, edge : edge + pixels]


def decided(logits: torch.Tensor, masks: torch.Tensor | None = None) -> PlainAnswer:
    """Masks of logits ``(L, H, W)``, and how sure they are. Those above 0 if none are given."""
    inside = logits > 0 if masks is None else masks
    area = inside.sum(dim=(1, 2))
    presence = torch.zeros_like(area, dtype=torch.float32)
    peak = torch.zeros_like(presence)
    filled = area.nonzero()[:, 0]
    chances = logits[filled].sigmoid()
    presence[filled] = (chances * inside[filled]).sum(dim=(1, 2)) / area[filled]
    peak[filled] = chances.flatten(1).amax(dim=1)
    flat = inside.flatten(1).float()
    shared = (flat @ flat.T).round().long()
    return PlainAnswer(inside, *(part[None] for part in (presence, peak, area, shared)))


def resolved(
    field: torch.Tensor,
    groups: Sequence[Siblings],
    presence: np.ndarray,
    grid: PatchGrid,
    margin: int,
) -> PlainAnswer:
    """Masks of a patch after its labels competed, all of them at full size."""
    around, logits = field_logits(field, grid.pixels, margin)
    masks = compete(around, groups, presence, mpp=grid.mpp)
    edge = STRIDE * margin
    inner = slice(edge, edge + grid.pixels)
    return decided(logits, masks[:, inner, inner])


if __name__ == "__main__":
    main()
