"""Reads folders in the layout of BiomedParseData.

A folder looks like this::

    DIR/test/IMG_pathology_SITE.png              pixels
    DIR/test_mask/IMG_pathology_SITE_TARGET.png  non-zero is the object; + for blanks
    DIR/test.json                                images, annotations and their sentences

and the same with ``train``. Every annotation is one triple of image, mask and sentences.
``biomedparse_writer`` writes the layout. Axes: H W pixels.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.errors import DataError, XPathError
from xpath.pathseg.image_files import image_size
from xpath.pathseg.reading import refuse_damage
from xpath.pathseg.sentences import plain, template_label
from xpath.pathseg.standardisation import MPP_AT_40X

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

__all__ = ["PromptedMask", "read_binary_mask", "read_biomedparse"]

ADVICE = "repair or remove the entry; the others stay usable"


class PromptedMask(NamedTuple):
    """An annotation: what is asked of which image, and the right answer."""

    image: Path
    mask: Path
    """Non-zero is the object; see ``read_binary_mask``."""
    prompts: tuple[str, ...]
    """Sentences that ask for it, as written; any of them will do."""
    label: str | None
    """Label id of the mapping or of a sentence in the paper's template; None if neither tells."""
    name: str
    """Unique in the folder: the mask's file name without ending."""
    ignore: Path | None = None
    """Mask of what is unknown; only in folders written by xpath."""
    absent: tuple[str, ...] = ()
    """Label ids known not to be in the image; only in folders written by xpath."""
    mpp: float | None = None
    """Microns per pixel of the image; only in folders written by xpath."""


def read_biomedparse(
    folder: Path,
    split: str,
    *,
    mapping: Mapping[str, str] | None = None,
    on_error: Callable[[XPathError], object] | None = None,
) -> list[PromptedMask]:
    """All annotations of a split, checked but not decoded.

    Looks at the head and the end of every file: a missing, empty or truncated one, a Git LFS
    pointer, or a mask of another size than its image is found here and not hours later. Boxes,
    areas and all other fields are ignored; a ``mask_file`` that is missing is the image's name.

    Args:
        folder: The folder that holds ``SPLIT/``, ``SPLIT_mask/`` and ``SPLIT.json``.
        split: ``train``, ``test`` or any other name.
        mapping: Sentence, category or target to label id (``sentences.read_mapping``); goes before
            what the sentence says.
        on_error: Called with the error of every broken annotation, which is then left out; pass
            ``list.append`` of a list to collect them. Without it the first one is raised.

    Raises:
        DataError: The JSON is missing or broken; or, without ``on_error``, any item is.
    """
    index = _Index.read(folder, split)
    keys = {plain(key): label for key, label in (mapping or {}).items()}
    items, names = list[PromptedMask](), dict[str, int]()
    for position, annotation in enumerate(index.annotations):
        try:
            item = index.item(annotation, position, keys)
        except XPathError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        names[item.name] = names.get(item.name, 0) + 1
        again = names[item.name] > 1
        items.append(item._replace(name=f"{item.name}#{names[item.name]}") if again else item)
    return items


def read_binary_mask(path: Path) -> NDArray[np.bool_]:
    """``(H, W)``, True where any colour channel is not zero. Transparency does not count.

    Raises:
        DataError: The file is missing or damaged.
    """
    from PIL import Image

    with refuse_damage(path, "mask image"), Image.open(path) as picture:
        picture.load()
        values = np.asarray(picture.convert("RGB") if picture.mode in ("P", "PA") else picture)
    if values.ndim == 3:
        colours = values[..., :-1] if values.shape[2] in (2, 4) else values
        return np.asarray(colours.any(axis=2))
    return np.asarray(values != 0)


@dataclass(slots=True)
class _Index:
    """Content of a split's JSON, and the sizes of images looked at so far."""

    path: Path
    images: dict[str, dict[str, Any]]
    categories: dict[str, str]
    annotations: list[Any]
    sizes: dict[Path, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, split: str) -> _Index:
        path = folder / f"{split}.json"
        wanted = f"wanted {split}/, {split}_mask/ and {split}.json as BiomedParseData has them"
        if not path.is_file():
            raise DataError(f"{path} does not exist; {wanted}")
        with path.open("rb") as file:
            head = file.read(40)
        if head.startswith(b"version https://git-lfs"):
            raise DataError(f"{path} is a Git LFS pointer, not the file; run `git lfs pull`")
        with refuse_damage(path, "JSON index"):
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            images = _by_id(content["images"])
            annotations = list(content["annotations"])
            categories = _by_id(content.get("categories", ()))
        names = {key: str(entry.get("name", "")) for key, entry in categories.items()}
        return cls(path, images, names, annotations)

    def item(self, annotation: Any, position: int, keys: Mapping[str, str]) -> PromptedMask:
        """The annotation at a position of the list, with its files found and looked at."""
        where = f"{self.path}, annotation {position}"
        if not isinstance(annotation, dict):
            raise DataError(f"{where} is no object but {annotation!r:.60}; {ADVICE}")
        entry = self.images.get(str(annotation.get("image_id")), {})
        image_name = entry.get("file_name") or annotation.get("file_name")
        if not image_name:
            raise DataError(
                f"{where} names image {annotation.get('image_id')!r}, which is not listed; {ADVICE}"
            )
        mask_name = str(annotation.get("mask_file") or image_name)
        folder, split = self.path.parent, self.path.stem
        image = _existing(folder, split, str(image_name), where)
        mask = _existing(folder, f"{split}_mask", mask_name, where)
        ignore = entry.get("ignore_file")
        unknown = _existing(folder, f"{split}_ignore", str(ignore), where) if ignore else None
        for picture in (mask, unknown) if unknown else (mask,):
            self._check_sizes(image, picture, where)
        prompts = tuple(_sentences(annotation, where)) or (_sentence_of_name(mask.stem),)
        return PromptedMask(
            image=image,
            mask=mask,
            prompts=prompts,
            label=self._label(annotation, prompts, mask.stem, keys),
            name=mask.stem,
            ignore=unknown,
            absent=tuple(map(str, entry.get("absent", ()))),
            mpp=_resolution(entry, where),
        )

    def _label(
        self,
        annotation: dict[str, Any],
        prompts: tuple[str, ...],
        stem: str,
        keys: Mapping[str, str],
    ) -> str | None:
        category = str(annotation.get("category_id"))
        names = (*prompts, self.categories.get(category, ""), category, stem.split("_")[-1])
        mapped = (keys[plain(name)] for name in names if plain(name) in keys)
        said = (template_label(prompt) for prompt in prompts)
        return next(mapped, None) or next((label for label in said if label), None)

    def _check_sizes(self, image: Path, mask: Path, where: str) -> None:
        if image not in self.sizes:
            self.sizes[image] = image_size(image)
        width, height = image_size(mask)
        if (width, height) != self.sizes[image]:
            wide, high = self.sizes[image]
            raise DataError(
                f"{where}: {mask} is {width} x {height} pixels, but its image {image} is "
                f"{wide} x {high}; {ADVICE}"
            )


def _resolution(entry: Mapping[str, Any], where: str) -> float | None:
    """Microns per pixel as the entry of an image gives it, or as its window at 40x tells.

    Folders built before resolutions were written hold the window alone.
    """
    mpp = entry.get("mpp")
    if mpp is None and {"window", "height", "width"} <= entry.keys():
        high, wide = entry["window"][-2:]
        mpp = MPP_AT_40X * math.sqrt(high * wide / (entry["height"] * entry["width"]))
    if mpp is None:
        return None
    if isinstance(mpp, int | float) and math.isfinite(mpp) and mpp > 0:
        return float(mpp)
    raise DataError(f"{where}: mpp is {mpp!r}, wanted microns per pixel above 0; {ADVICE}")


def _by_id(entries: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Entries by their id. One without is missed, and named, by whoever refers to it."""
    return {
        str(entry["id"]): entry for entry in entries if isinstance(entry, dict) and "id" in entry
    }


def _existing(root: Path, part: str, name: str, where: str) -> Path:
    """A file of a part of the folder, also with blanks for ``+`` or the part in front."""
    folder = root / part
    plain_name = Path(name.replace("\\", "/")).name
    for spelled in (name, plain_name, plain_name.replace(" ", "+"), plain_name.replace("+", " ")):
        if (folder / spelled).is_file():
            return folder / spelled
    raise DataError(f"{where}: {folder / plain_name} does not exist; {ADVICE}")


def _sentences(annotation: dict[str, Any], where: str) -> Iterator[str]:
    """The sentences of an annotation, each once."""
    given = annotation.get("sentences") or []
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list):
        raise DataError(f"{where}: sentences are {given!r:.60}, wanted a list; {ADVICE}")
    texts = (one.get("raw") or one.get("sent") if isinstance(one, dict) else one for one in given)
    yield from dict.fromkeys(
        text.strip() for text in texts if isinstance(text, str) and text.strip()
    )


def _sentence_of_name(stem: str) -> str:
    """``{target} in {site} {modality}``, as the official converter makes it of a mask's name."""
    parts = [part.replace("+", " ") for part in stem.split("_")]
    if len(parts) < 4:
        return parts[-1]
    return f"{parts[-1]} in {parts[-2]} {parts[-3]}"
