"""``xpath doctor``: is everything there that a run needs, and is a run in order?"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xpath.cli.command import Command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["COMMAND"]

PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "openslide": "openslide-python",
    "h5py": "h5py",
    "zarr": "zarr",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "cv2": "opencv-python-headless",
    "matplotlib": "matplotlib",
    "captum": "captum",
    "tifffile": "tifffile",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "imagecodecs": "imagecodecs",
    "huggingface_hub": "huggingface_hub",
    "transformers": "transformers",
    "tqdm": "tqdm",
    "jinja2": "jinja2",
    "lazy_loader": "lazy-loader",
    "rapidfuzz": "rapidfuzz",
    "shapely": "shapely",
}
"""Module to the name it is installed by."""


class Finding(NamedTuple):
    """One thing looked at."""

    ok: bool
    what: str
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "run_folder", type=Path, nargs="?", metavar="RUN", help="check this run instead"
    )
    parser.add_argument(
        "--repair", action="store_true", help="of RUN, remove what lost processes left behind"
    )


def run(args: argparse.Namespace) -> int:
    """Prints every check. Returns 1 if something needed is missing or broken."""
    if args.run_folder:
        return _check_run(args.run_folder, repair=args.repair)
    good = True
    for finding in _findings():
        print(f"{'ok  ' if finding.ok else 'FAIL'} {finding.what:24} {finding.detail}", flush=True)
        good = good and finding.ok
    return 0 if good else 1


def _check_run(folder: Path, *, repair: bool) -> int:
    """Prints what is wrong with a run. Returns 1 if anything is."""
    from tqdm import tqdm

    from xpath.study.checkup import check_run, remove_leftovers
    from xpath.study.study import open_study

    study = open_study(folder)
    if repair:
        print(f"removed {remove_leftovers(study)} locks and drafts that lost processes left behind")
    with tqdm(desc="   reading", unit="output") as bar:
        troubles = check_run(study, lambda _: bar.update())
    for trouble in troubles:
        print(f"FAIL {trouble.what}\n     {trouble.advice}")
    print(f"{folder}: {len(study.slides)} slides, {len(troubles) or 'no'} troubles")
    return 1 if troubles else 0


def _findings() -> Iterator[Finding]:
    """Every check. One that cannot even begin is a finding too."""
    yield from packages()
    for check in (weights, openslide_library, device, machine):
        try:
            yield check()
        except Exception as error:  # noqa: BLE001 - a bare environment fails in many ways
            name = check.__name__.replace("_", " ")
            yield Finding(ok=False, what=name, detail=f"cannot be checked: {error}")


def packages() -> Iterator[Finding]:
    """Every package that is needed, really imported."""
    for module, distribution in PACKAGES.items():
        try:
            importlib.import_module(module)
            version = importlib.metadata.version(distribution)
            yield Finding(ok=True, what=distribution, detail=version)
        except (ImportError, OSError, RuntimeError) as error:
            advice = f"{error}; pip install {distribution}"
            yield Finding(ok=False, what=distribution, detail=advice)


def weights() -> Finding:
    """The segmentor weights that ship, really loaded."""
    from xpath.errors import XPathError
    from xpath.segment.predict.predictor import SegmentPredictor

    try:
        info = SegmentPredictor.from_pretrained().info
    except XPathError as error:
        return Finding(ok=False, what="segmentor weights", detail=str(error))
    note = " (synthetic tissue only: not for real slides)" if info.synthetic_only else ""
    return Finding(ok=True, what="segmentor weights", detail=f"{info.name}{note}")


def openslide_library() -> Finding:
    """The OpenSlide library behind the Python package."""
    try:
        import openslide
    except (ImportError, OSError) as error:
        detail = f"{error}; pip install openslide-bin"
        return Finding(ok=False, what="OpenSlide library", detail=detail)
    return Finding(ok=True, what="OpenSlide library", detail=openslide.__library_version__)


def device() -> Finding:
    """A GPU is welcome, not needed."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return Finding(ok=True, what="device", detail=f"{name}; --device cuda uses it")
    return Finding(ok=True, what="device", detail="CPU only; all of it works, more slowly")


def machine() -> Finding:
    """Cores and free disk."""
    free = shutil.disk_usage(".").free / 2**30
    detail = f"Python {platform.python_version()}, {os.cpu_count()} cores, {free:.0f} GiB free here"
    return Finding(ok=free > 1, what="machine", detail=detail)


COMMAND = Command(
    name="doctor",
    help="check packages, weights, device, memory and disk, or a run",
    description="Checks the installation, or with RUN a run folder: damaged and unfinished outputs,"
    " failed and missing slides, locks and drafts of lost processes.",
    arguments=add_arguments,
    run=run,
)
