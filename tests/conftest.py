"""Fixtures for every test."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from xpath.geometry import PatchGrid, Size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

REPOSITORY = Path(__file__).resolve().parent.parent

# Tiny tensors gain nothing from many threads, and tests must give the same sums everywhere. Set
# before anything imports torch, so that torch itself need not be imported here.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell lets what it starts in the background ignore Ctrl-C, and tests press it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or fills the user's cache of prompts."""
    os.environ["XPATH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Imports a script by its place in the checkout; a fresh module each time."""

    def load(place: str) -> ModuleType:
        path = REPOSITORY / place
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real slides; the test is skipped where there is none."""
    folder = Path(os.environ.get("XPATH_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real slides: {folder} is not a folder; set XPATH_SHARED")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)


class PlainMasks:
    """Masks in memory behind the face of ``SlideMasks``."""

    def __init__(self, planes: np.ndarray, grid: PatchGrid, labels: Sequence[str]) -> None:
        self.grid, self.labels, self.size = grid, tuple(labels), planes.shape[-1]
        self.area = planes.sum(axis=(2, 3))
        self.presence = np.linspace(0.1, 0.9, self.area.size, dtype=np.float32)
        self.presence = self.presence.reshape(self.area.shape)
        self.planes, self.reads = planes, 0

    def __len__(self) -> int:
        return len(self.planes)

    def read(self, patches: np.ndarray) -> np.ndarray:
        self.reads += np.size(patches)
        return self.planes[patches]


@pytest.fixture(scope="session")
def masks_of() -> Callable[..., PlainMasks]:
    """Masks ``(N, S, S)`` or ``(N, L, S, S)`` at corners ``(N, 2)`` of level-0 pixels."""

    def make(
        planes: np.ndarray,
        coords: Sequence[Sequence[int]] = ((0, 0),),
        *,
        labels: Sequence[str] = ("breast-nuclei-neoplastic",),
        scale: float = 1,
        mpp: float | None = 0.5,
        slide: Size | None = None,
    ) -> PlainMasks:
        planes = np.asarray(planes, bool)
        planes = planes if planes.ndim == 4 else planes[:, None]
        corners = np.asarray(coords, np.int64)
        footprint = round(planes.shape[-1] * scale)
        grid = PatchGrid(
            coords=corners,
            footprint=footprint,
            pixels=footprint,
            mpp=mpp,
            overlap=0,
            slide_size=slide or Size(*(corners.max(axis=0) + footprint).tolist()),
            slide_mpp=mpp,
        )
        return PlainMasks(planes, grid, labels)

    return make


@pytest.fixture(scope="session")
def tiles() -> Callable[..., tuple[np.ndarray, list[tuple[int, int]]]]:
    """Cuts a picture ``(H, W)`` or ``(L, H, W)`` into square patches and gives their corners."""

    def cut(picture: np.ndarray, side: int, step: int = 0) -> tuple[np.ndarray, list]:
        step = step or side
        height, width = picture.shape[-2:]
        corners = [(x, y) for y in range(0, height, step) for x in range(0, width, step)]
        padded = np.pad(picture, [(0, 0)] * (picture.ndim - 2) + [(0, side), (0, side)])
        return np.stack([padded[..., y : y + side, x : x + side] for x, y in corners]), corners

    return cut


@pytest.fixture
def write_bomb(tmp_path: Path, rng: np.random.Generator) -> Callable[..., Path]:
    """Writes a slide whose tiles are said to be so high; OpenSlide believes it."""
    import tifffile

    def write(height: int = 2**31 - 16) -> Path:
        path = tmp_path / "bomb.tiff"
        picture = rng.integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
        tiles = {"tile": (256, 256), "compression": "zlib"}
        with tifffile.TiffWriter(path) as file:
            file.write(picture, photometric="rgb", metadata=None, **tiles)
        with tifffile.TiffFile(path, mode="r+b") as file:
            file.pages[0].tags["TileLength"].overwrite(height, dtype="I")
        return path

    return write


@pytest.fixture
def write_named(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Writes an Aperio slide of 0.5 microns per pixel with a property of any name."""
    import tifffile

    def write(name: str, key: bytes) -> Path:
        path = tmp_path / name
        with tifffile.TiffWriter(path) as file:
            file.write(
                np.full((300, 300, 3), 200, np.uint8),
                photometric="rgb",
                tile=(128, 128),
                metadata=None,
                description=b"Aperio Image Library v1\r\n300x300|AppMag = 20|MPP = 0.5|NAME = 1",
                software=None,
            )
        path.write_bytes(path.read_bytes().replace(b"NAME", key))
        return path

    return write
