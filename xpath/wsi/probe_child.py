"""The child process of ``probe``: reads slides within limits and answers in lines of JSON.

It imports no torch: a first look must not cost more than the file it is about.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpath.errors import ResolutionError, SlideError, XPathError
from xpath.geometry import Box
from xpath.wsi.resolution import contradiction
from xpath.wsi.slide import Slide

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["main", "sample"]

TILE = 256
"""Side of the tiles that are read, in pixels of their level."""
LARGE = 2**27
"""Pixels above which a slide without pyramid is slow to look at."""


def main(arguments: list[str]) -> None:
    """Answers one question a line until stdin ends.

    Args:
        arguments: Address space in bytes, and number of open files.
    """
    _limit(*map(int, arguments))
    # Native libraries may write to stdout, which is the way our answers go.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            answers.write(json.dumps(_answer(json.loads(line))) + "\n")
            answers.flush()


def sample(path: Path, mpp: float | None) -> dict[str, Any]:
    """Facts about a slide for a ``SlideProbe``, as JSON has them.

    Raises:
        SlideError: It cannot be opened.
    """
    with Slide.open(path, mpp=mpp) as slide:
        return {
            "levels": [
                [level.downsample, level.size.width, level.size.height] for level in slide.levels
            ],
            "mpp": slide.mpp_or_none,
            "vendor": slide.properties.get("openslide.vendor", ""),
            "objective": slide.objective,
            "problems": list(_problems(slide)),
        }


def _problems(slide: Slide) -> Iterator[str]:
    try:
        _ = slide.mpp
    except ResolutionError as error:
        yield str(error)
    doubt = contradiction(slide.mpp_or_none, slide.objective)
    if doubt:
        yield f"{slide.path.name}: {doubt}"
    if len(slide.levels) == 1 and slide.size.width * slide.size.height > LARGE:
        yield (
            f"{slide.path.name} has no pyramid: its overview is made from all"
            f" {slide.size.width} x {slide.size.height} pixels, which takes a while"
        )
    for index in range(len(slide.levels)):
        try:
            _read_samples(slide, index)
        except SlideError as error:
            yield f"level {index}: {error}"


def _read_samples(slide: Slide, index: int) -> None:
    """Reads a tile at the corner, which is often glass, and one in the middle."""
    size = slide.levels[index].size
    for part in (0.0, 0.5):
        x, y = int(part * size.width), int(part * size.height)
        slide.read_level(index, Box(x, y, min(TILE, size.width - x), min(TILE, size.height - y)))


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    path = Path(question["path"])
    try:
        return sample(path, question["mpp"])
    except XPathError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        message = f"{path.name} asks for more memory than a slide can need; the file is damaged"
        return {"error": "SlideError", "message": message}
    except Exception as error:  # noqa: BLE001 - whatever a slide raises is an answer
        message = f"{path.name} cannot be read: {error}"
        return {"error": type(error).__name__, "message": message}


def _limit(memory: int, files: int) -> None:
    """Sets the limits of this process. Windows has none: there only the time is limited."""
    try:
        import resource
    except ImportError:
        return
    wanted = {resource.RLIMIT_AS: memory, resource.RLIMIT_NOFILE: files, resource.RLIMIT_CORE: 0}
    for which, limit in wanted.items():
        _, most = resource.getrlimit(which)
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(which, (limit, most))


if __name__ == "__main__":
    main(sys.argv[1:])
