"""How a segmentor's text encoder orders the labels (BiomedParse, Fig. 1d).

Axes: n labels, D features of a sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.labels import Label
    from xpath.segment.predict.predictor import SegmentPredictor

__all__ = ["LEVELS", "TextMap", "silhouettes", "text_map"]

LEVELS = ("region", "structure", "object_type")
"""Parts of a label that sentences may be grouped by."""
NEIGHBOURS = 15
"""Of UMAP, its own default; t-SNE takes it for its perplexity."""


class TextMap(NamedTuple):
    """Sentences of labels in the plane."""

    labels: tuple[Label, ...]
    features: NDArray[np.float64]
    """``(n, D)`` of unit length."""
    positions: NDArray[np.float64]
    """``(n, 2)``."""
    method: Literal["UMAP", "t-SNE"]
    """How features became positions: t-SNE where umap-learn is not installed."""


def text_map(predictor: SegmentPredictor, labels: Sequence[Label], *, seed: int = 0) -> TextMap:
    """Encodes the sentence of every label, and lays them out by cosine.

    Args:
        predictor: Its text encoder is asked.
        labels: Four at least.
        seed: Of the layout.
    """
    vectors = predictor.text([label.prompt for label in labels]).sentence
    features = np.asarray(vectors.detach().cpu().double().numpy())
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    positions, method = _laid_out(features, seed)
    return TextMap(tuple(labels), features, positions, method)


def silhouettes(found: TextMap) -> list[dict[str, object]]:
    """Silhouette score by region, structure and object type, on the features, by cosine.

    1: groups are far apart; 0: they touch; below 0: they lie within each other. Labels that are
    alone in their group are left out; NaN where fewer than two groups stay.
    """
    from sklearn.metrics import silhouette_score

    rows: list[dict[str, object]] = []
    for level in LEVELS:
        names = np.array([getattr(label, level) for label in found.labels])
        each, counts = np.unique(names, return_counts=True)
        kept = np.isin(names, each[counts > 1])
        groups, score = len(np.unique(names[kept])), np.nan
        if 2 <= groups < kept.sum():
            score = silhouette_score(found.features[kept], names[kept], metric="cosine")
        row = {"level": level, "groups": groups, "labels": int(kept.sum())}
        rows.append({**row, "silhouette": float(score)})
    return rows


def _laid_out(
    features: NDArray[np.float64], seed: int
) -> tuple[NDArray[np.float64], Literal["UMAP", "t-SNE"]]:
    neighbours = min(NEIGHBOURS, (len(features) - 1) // 2)
    try:
        from umap import UMAP
    except ImportError:
        from sklearn.manifold import TSNE

        tsne = TSNE(perplexity=neighbours, metric="cosine", init="random", random_state=seed)
        return np.asarray(tsne.fit_transform(features), np.float64), "t-SNE"
    umap = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1)
    return np.asarray(umap.fit_transform(features), np.float64), "UMAP"
