"""``xpath grid``: where the patches of a slide lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xpath.cli.command import Command, microns

if TYPE_CHECKING:
    import argparse

    from xpath.geometry import PatchGrid
    from xpath.wsi.slide import Slide

__all__ = ["COMMAND"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("slide", type=Path, help="any slide OpenSlide can read")
    parser.add_argument("--out", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument(
        "--mpp", type=microns, help="the slide's microns per pixel, if it stores none"
    )
    parser.add_argument("--patch-um", type=float, default=128.0, help="side of a patch in microns")
    parser.add_argument("--at-mpp", type=float, default=0.5, help="resolution patches are read at")
    parser.add_argument("--overlap", type=float, default=0.0, help="share of a side, 0 to 0.9")
    parser.add_argument("--min-tissue", type=float, default=0.3, help="smallest share of tissue")
    parser.add_argument("--preset", help="clam:default, clam:tcga, clam:bwh_biopsy, ...: as CLAM")
    parser.add_argument("--patch-size", type=int, default=256, help="preset: pixels at level 0")
    parser.add_argument("--step-size", type=int, help="preset: pixels from patch to patch")
    parser.add_argument("--picture", type=Path, help="also draw the patches on a thumbnail (PNG)")


def run(args: argparse.Namespace) -> int:
    """Writes the grid and prints how many patches it has."""
    from xpath.store.grids import write_grid
    from xpath.wsi.probe import probe
    from xpath.wsi.slide import Slide

    probe(args.slide, mpp=args.mpp)  # in a child process, which a broken file may end
    with Slide.open(args.slide, mpp=args.mpp) as slide:
        grid = _cut(slide, args)
        write_grid(args.out, grid, args.slide.stem)
        if args.picture:
            from xpath.export.overlay import grid_picture

            grid_picture(args.picture, slide.thumbnail(1600), grid)
    size = f"{grid.footprint} px at level 0"
    print(f"{len(grid)} patches of {size} -> {args.out}")
    return 0


def _cut(slide: Slide, args: argparse.Namespace) -> PatchGrid:
    from xpath.wsi.clam import grid_from_preset
    from xpath.wsi.grid import GridConfig, cut_grid
    from xpath.wsi.tissue import find_tissue

    if args.preset:
        return grid_from_preset(
            slide, args.preset, patch_size=args.patch_size, step_size=args.step_size
        )
    config = GridConfig(
        patch_um=args.patch_um,
        mpp=args.at_mpp,
        overlap=args.overlap,
        min_tissue=args.min_tissue,
    )
    return cut_grid(slide, find_tissue(slide), config)


COMMAND = Command(
    name="grid",
    help="find tissue and cut the patch grid of a slide",
    description="Writes patch coordinates to HDF5 that CLAM and TRIDENT read as their own. "
    "Without --preset the grid is physical: patches of --patch-um microns read at --at-mpp.",
    arguments=add_arguments,
    run=run,
)
