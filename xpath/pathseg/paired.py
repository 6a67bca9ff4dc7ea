"""Sources that are folders of pictures, each with folders of masks of the same names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from xpath.pathseg.reading import folder_with, list_files, too_few, unpaired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from xpath.pathseg.record import Annotated, SourceImage, SourceInfo

__all__ = ["PairedFolders", "Subset"]


class Subset(NamedTuple):
    """A folder as published, which holds a folder of pictures and folders of masks."""

    folder: str
    pictures: int
    """Published number."""
    split: str | None = None
    prefix: str = ""
    """Before the names of its images, where subsets use the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedFolders:
    """A source of such subsets."""

    info: SourceInfo
    subsets: tuple[Subset, ...]
    pictures: str
    """Name of the folder of pictures, which are PNG."""
    masks: tuple[str, ...]
    """Names of the folders of masks beside it."""
    suffix: str = ".png"
    """Of the masks."""
    read: Callable[[Path], Annotated]
    """Decodes a picture and its masks; see ``mask_of``."""
    patient: Callable[[str], str] | None = None
    """Patient of a picture by its name, empty where it does not tell; None if no name does."""

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images, subset by subset."""
        for subset in self.subsets:
            for path in list_files(self._folder(root, subset) / self.pictures, ".png"):
                yield self.info.image(
                    path,
                    partial(self.read, path),
                    name=f"{subset.prefix}{path.stem}",
                    group=self.patient(path.stem) if self.patient else "",
                    split=subset.split,
                )

    def missing(self, root: Path) -> list[str]:
        """Folders and masks that are not there, and how many pictures."""
        gaps: list[str] = []
        for subset in self.subsets:
            name, folder = subset.folder, self._folder(root, subset)
            if not folder.is_dir():
                gaps.append(f"{name}/")
                continue
            stems = {path.stem for path in list_files(folder / self.pictures, ".png")}
            gaps += too_few(len(stems), subset.pictures, f"pictures in {name}/{self.pictures}")
            for below in self.masks:
                lacking = unpaired(stems, folder / below, self.suffix)
                gaps += [f"{name}/{below}/{mask}" for mask in lacking]
        return gaps

    def _folder(self, root: Path, subset: Subset) -> Path:
        """Folder of a subset, which some programs unpack as ``2.validation/2.validation``."""
        top = (folder_with(root, subset.folder) or root) / subset.folder
        return folder_with(top, self.pictures, depth=1) or top
