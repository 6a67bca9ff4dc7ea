"""Pictures of a training: its curves, and its answers on held-out images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.segment.evaluation.validation import mean_by_label, validate, write_samples
from xpath.store.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.pathseg.record import Annotated, SourceImage
    from xpath.segment.predict.predictor import SegmentPredictor

__all__ = ["draw_answers", "draw_curves", "judge"]

TRUTH, ANSWER = (0, 158, 115), (213, 94, 0)
"""Bluish green and vermilion: apart for every eye."""


def judge(
    predictor: SegmentPredictor, images: Sequence[SourceImage], folder: Path
) -> dict[str, tuple[int, float]]:
    """Scores held-out images, and writes ``samples.csv`` and pictures of some answers.

    Returns:
        Number of images and mean Dice by label, as ``mean_by_label``.
    """
    from tqdm import tqdm

    samples = validate(
        predictor,
        tqdm(images, desc="validating"),
        mpp=predictor.info.mpp_range,
        on_image=draw_answers(folder),
    )
    write_samples(folder / "samples.csv", samples)
    return mean_by_label(samples)


def draw_answers(
    folder: Path, *, every: int = 8
) -> Callable[[SourceImage, Annotated, NDArray[np.bool_]], None]:
    """Writes pictures of some validated images: truth green, answer orange, a panel a label."""
    import cv2

    out = folder / "answers"
    out.mkdir(parents=True, exist_ok=True)
    count = 0

    def draw(item: SourceImage, annotated: Annotated, answers: NDArray[np.bool_]) -> None:
        nonlocal count
        count += 1
        if count % every:
            return
        truth = [mask for _, mask in annotated.masks]
        truth += [np.zeros_like(answers[0])] * len(annotated.absent)
        names = [label for label, _ in annotated.masks] + list(annotated.absent)
        panels = [
            _panel(annotated.image, name, wanted, answer)
            for name, wanted, answer in zip(names, truth, answers, strict=True)
        ]
        picture = np.concatenate(panels, axis=1)[..., ::-1]
        cv2.imwrite(str(out / f"{item.source}-{item.name}.jpg"), picture)

    return draw


def _panel(
    image: NDArray[np.uint8], name: str, truth: NDArray[np.bool_], answer: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    import cv2

    zoom = 384 / max(image.shape[:2])
    resized = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    panel = np.asarray(resized, np.uint8)
    for mask, colour in ((truth, TRUTH), (answer, ANSWER)):
        small = cv2.resize(mask.astype(np.uint8), panel.shape[1::-1])
        lines, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(panel, lines, -1, colour, 1, cv2.LINE_AA)
    band = np.full((22, panel.shape[1], 3), 255, np.uint8)
    cv2.putText(band, name, (3, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    framed = cv2.copyMakeBorder(
        np.concatenate((band, panel)), 0, 0, 0, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255)
    )
    return np.asarray(framed, np.uint8)


def draw_curves(folder: Path) -> None:
    """Writes ``curves.png``: losses from ``log.csv``, Dice from ``validation.csv``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    log = _columns(folder / "log.csv")
    for name in ("bce", "dice", "match"):
        left.plot(log.get("step", []), log.get(name, []), label=name, linewidth=1)
    left.set(xlabel="step", ylabel="loss", title="training")
    left.legend()
    validation = _columns(folder / "validation.csv")
    # the column of a training begun before 0.1.0 is called "kind"
    classes = validation.get("object_class") or validation.get("kind", [])
    for object_class in dict.fromkeys(classes):
        rows = [i for i, name in enumerate(classes) if name == object_class]
        steps = [validation["step"][i] for i in rows]
        right.plot(
            steps, [validation["dice"][i] for i in rows], marker=".", label=str(object_class)
        )
    right.set(xlabel="step", ylabel="Dice", ylim=(0, 1), title="validation images")
    right.legend(fontsize=7)
    figure.savefig(folder / "curves.png", dpi=150)


def _columns(path: Path) -> dict[str, list[float | str]]:
    """Columns of a CSV, numbers where they are numbers, and none of a missing file."""
    rows = read_table(path)
    return {name: [_number(row[name]) for row in rows] for name in rows[0]} if rows else {}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
