"""Is a run folder consistent? What is damaged, left behind or missing, and what to do about it."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xpath.batch.claim import LEASE_SECONDS, claim, is_orphan, lock_of
from xpath.batch.done import is_intact
from xpath.study.progress import SLIDE_STAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from xpath.study.study import Study

__all__ = ["Trouble", "check_run", "remove_leftovers"]

SEAL = ".done.json"
DRAFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.\d+\.[0-9a-f]{8}\.(part|old)")
"""Name of a draft, as ``xpath.store.schema.atomic`` gives them."""
STAGE_OF = {
    "masks.zarr": "segment",
    "objects.h5": "segment",
    "features.h5": "features",
    "explanation.h5": "explain",
    "export": "export",
    "pyramids": "export --pyramids",
    "objects.dcm": "export --dicom-seg",
}
"""Output of a slide to the command that makes it. All others are made by ``xpath train``."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is not as it should be."""

    what: str
    advice: str


def check_run(study: Study, on_output: Callable[[Path], None] = lambda _: None) -> list[Trouble]:
    """Everything that is wrong with a run folder. All bytes of all outputs are read.

    Args:
        study: The study of the folder.
        on_output: Called with every sealed output when it is read.
    """
    return [
        *_slides(study),
        *_outputs(study.folder.root, on_output),
        *(Trouble(f"{path}: left behind", "--repair removes it") for path in _leftovers(study)),
    ]


def remove_leftovers(study: Study) -> int:
    """Removes locks and drafts that nobody works on any more. Returns their number."""
    removed = 0
    for path in list(_leftovers(study)):
        with claim(_output_of(path)) as ours:  # else somebody has begun to work on it since
            if not ours:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix != ".lock":  # that is ours now, and is given back
                path.unlink(missing_ok=True)
            removed += 1
    return removed


def _slides(study: Study) -> Iterator[Trouble]:
    known = {entry.slide_id for entry in study.slides}
    for entry in study.slides:
        if not entry.path.exists():
            yield Trouble(
                f"{entry.slide_id}: {entry.path} is gone",
                "bring it back, or give `xpath segment` its new folder",
            )
        for stage in SLIDE_STAGES:
            fared = study.ledger.entry(entry.slide_id, stage)
            if fared.failed:
                yield Trouble(
                    f"{entry.slide_id}: failed in {stage} {fared.attempts} times, {fared.reason}",
                    f"`xpath {stage} ... --retry-failed` tries again",
                )
    folder = study.folder.root / "slides"
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        if path.is_dir() and path.name not in known:
            yield Trouble(f"{path}: no slide of run.json", "remove the folder if it is not needed")


def _outputs(root: Path, on_output: Callable[[Path], None]) -> Iterator[Trouble]:
    """Outputs that are not what was sealed, or never were."""
    for home in sorted({*root.glob("slides/*"), root / "models"}):
        for seal in sorted(home.glob(f"*{SEAL}")):
            output = seal.with_name(seal.name.removesuffix(SEAL))
            on_output(output)
            if not is_intact(output):
                yield Trouble(f"{output}: not as it was written", _make_again(output))
        for name in STAGE_OF:
            output = home / name
            if output.exists() and not output.with_name(name + SEAL).exists():
                yield Trouble(f"{output}: never finished", _make_again(output))


def _make_again(output: Path) -> str:
    return f"`xpath {STAGE_OF.get(output.name, 'train')}` makes it again"


def _leftovers(study: Study) -> Iterator[Path]:
    """Locks and drafts of processes and machines that are gone."""
    root = study.folder.root
    homes = [root, root / "tables", root / "models", root / "logs", *sorted(root.glob("slides/*"))]
    for path in (path for home in homes for path in sorted(home.glob(".*"))):
        draft = DRAFT.fullmatch(path.name)
        if draft is not None and _is_abandoned(path, lock_of(_output_of(path))):
            yield path
        if path.suffix == ".lock" and is_orphan(path):
            yield path


def _output_of(leftover: Path) -> Path:
    """The output that a lock or draft belongs to."""
    draft = DRAFT.fullmatch(leftover.name)
    name = draft["name"] if draft else leftover.name.removeprefix(".").removesuffix(".lock")
    return leftover.with_name(name)


def _is_abandoned(draft: Path, lock: Path) -> bool:
    """True if nobody holds the lock of an output, and its draft is too old to be without one."""
    if lock.exists():
        return is_orphan(lock)
    try:
        return time.time() - draft.stat().st_mtime > LEASE_SECONDS
    except OSError:  # it was finished just now
        return False
