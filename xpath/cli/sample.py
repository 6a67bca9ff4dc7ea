"""``xpath sample``: a public slide to try things on."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xpath.cli.command import Command
from xpath.errors import SlideError

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND", "SAMPLES", "fetch"]


class Sample(NamedTuple):
    """A public slide, pinned by its content."""

    url: str
    sha256: str
    licence: str


SAMPLES = {
    "cmu-1-small-region": Sample(
        "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1-Small-Region.svs",
        "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7",
        "CC0 1.0 (OpenSlide test data)",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("name", choices=sorted(SAMPLES))
    parser.add_argument("--out", type=Path, default=Path(), help="folder to put it in")


def run(args: argparse.Namespace) -> int:
    """Prints where the slide lies."""
    sample = SAMPLES[args.name]
    path = args.out / f"{args.name}{Path(sample.url).suffix}"
    fetch(sample, path)
    print(f"{path}  ({sample.licence})")
    return 0


def fetch(sample: Sample, path: Path) -> None:
    """Downloads a sample unless it is there already.

    Raises:
        SlideError: No network, or other content than expected.
    """
    from xpath.store.schema import atomic, sha256_of

    if path.exists() and sha256_of(path) == sample.sha256:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic(path) as draft:
            urllib.request.urlretrieve(sample.url, draft)
            digest = sha256_of(draft)
            if digest != sample.sha256:
                raise SlideError(
                    f"{sample.url} has SHA-256 {digest}, wanted {sample.sha256}: it was changed or"
                    " cut short; nothing was kept, try again"
                )
    except urllib.error.URLError as error:
        raise SlideError(
            f"{sample.url} cannot be reached ({error.reason}); fetch it elsewhere and pass its path"
        ) from error


COMMAND = Command(
    name="sample",
    help="fetch a small public slide (needs a network)",
    description="Fetches a public slide and accepts it only with the right SHA-256.",
    arguments=add_arguments,
    run=run,
)
