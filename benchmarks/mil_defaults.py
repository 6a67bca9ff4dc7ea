"""Does a classifier with nothing set learn? Beside plain attention MIL and the mean over patches.

    python benchmarks/mil_defaults.py                              # every row; about an hour
    python benchmarks/mil_defaults.py --rows digits gauss --bags 100
    python benchmarks/mil_defaults.py --set lr=0.001 --set proj=64   # other settings of ours

Rows: ``digits``, bags of scikit-learn's 8 x 8 digits, positive if one is a 9; ``wide``, the same
through 1,536 fixed random ReLU features, as wide as an encoder's; ``gauss``, bags of 30 to 60
points in 32 dimensions of which 3 are shifted in positive bags; ``musk``, small bags in 166
dimensions, positive if an instance lies near one point, as in the MUSK data; ``glas``, gland images
of the GlaS challenge as bags of patches, where ``XPATH_SHARED`` has them. Classes are 1:1 or 1:10.

All see the same folds, stratified. A row with few positives is drawn anew, data and folds, until
50 of them were tested (``--positives``): the AUC of three positives in a fold is mostly noise.
``plain`` is 40 lines: projection of 128, gated attention, one bag a step, Adam at 5e-4, 50 epochs,
no early stop (Ilse et al. 2018). ``mean`` is a logistic regression on the mean of the standardised
features. Figures are AUC, the mean over the folds of all draws. Last line: JSON.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import runpy
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from tqdm import tqdm

from xpath import SegmentPredictor
from xpath.mil.estimator import AttentionMILClassifier
from xpath.segment.predict.patch_features import SegmentorEncoder

REPOSITORY = Path(__file__).resolve().parent.parent


class Bags(NamedTuple):
    """Bags ``(N, D)`` and their classes, 0 or 1."""

    features: list[np.ndarray]
    labels: np.ndarray
    patients: np.ndarray
    """No fold has a patient in both of its parts."""


def main() -> None:
    """From arguments to one JSON line."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    ours = {
        name: ast.literal_eval(value) for name, _, value in (s.partition("=") for s in args.set)
    }
    rows = []
    for row, bags, ratio in tqdm(_rows(args), desc="rows", unit="row"):
        draws = _draws(row, bags, ratio, args)
        if draws is None:
            print(f"{row}: left out, XPATH_SHARED names no folder with GlaS", flush=True)
            continue
        rows.append(
            {"row": row, "bags": len(draws[0].labels), "ratio": ratio, "draws": len(draws)}
            | _scores(draws, args, ours)
        )
        print(json.dumps(rows[-1]), flush=True)
    enough = [row for row in rows if row["bags"] >= 100]
    gaps = {other: min((row["ours"] - row[other] for row in enough), default=0.0)
            for other in ("plain", "mean")}  # fmt: skip
    holds = gaps["plain"] >= -0.03 and gaps["mean"] >= 0
    print(json.dumps({"rows": rows, "worst_gap": gaps, "holds": holds, "settings": ours}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--rows", nargs="+", default=list(ROWS), choices=ROWS, help="data sets (default: all)")
    add("--bags", nargs="+", type=int, default=[20, 100, 300], help="numbers of bags")
    add("--ratios", nargs="+", type=int, default=[1, 10], help="negatives per positive")
    add("--folds", type=int, default=3, help="cross-validation, the same for all")
    add("--positives", type=int, default=50, help="to test in a row, by drawing it anew")
    add("--plain-epochs", type=int, default=50, help="of plain attention MIL")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of ours")
    add("--seed", type=int, default=0, help="of data, folds and weights")
    add("--threads", type=int, default=1, help="torch's threads")
    return parser.parse_args()


def _rows(args: argparse.Namespace) -> list[tuple[str, int, int]]:
    """Name, bags and negatives per positive of every row that can be made."""
    made = [
        (row, bags, ratio)
        for row in args.rows
        if row != "glas"
        for bags in args.bags
        for ratio in args.ratios
        if bags / (ratio + 1) >= 2 * args.folds
    ]
    return made + [("glas", 0, 1)] * ("glas" in args.rows)


def _draws(row: str, bags: int, ratio: int, args: argparse.Namespace) -> list[Bags] | None:
    """The row's data, from as many seeds as it takes to have ``args.positives`` of them."""
    made = [ROWS[row](bags, ratio, np.random.default_rng(args.seed))]
    while made[0] is not None and row != "glas":  # those are the same at every draw
        if sum(int(draw.labels.sum()) for draw in made) >= args.positives:
            break
        made.append(ROWS[row](bags, ratio, np.random.default_rng(args.seed + len(made))))
    return None if made[0] is None else made


def _scores(draws: list[Bags], args: argparse.Namespace, ours: dict[str, Any]) -> dict[str, Any]:
    """Mean AUC over the folds of all draws and seconds of CPU, of each method."""
    methods = {"ours": _ours(ours), "plain": _plain(args.plain_epochs), "mean": _mean}
    scores: dict[str, Any] = {}
    for name, method in methods.items():
        start = time.process_time()
        aucs = [
            auc
            for seed, bags in enumerate(draws, args.seed)
            for auc in _fold_aucs(bags, method, args.folds, seed)
        ]
        scores[name] = round(float(np.mean(aucs)), 4)
        scores[f"{name}_folds"] = [round(auc, 3) for auc in aucs]
        scores[f"{name}_cpu_s"] = round(time.process_time() - start, 1)
    return scores


def _fold_aucs(bags: Bags, method: Any, folds: int, seed: int) -> list[float]:
    """AUC of the method in each fold that it was not trained on."""
    aucs = []
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in splits.split(bags.labels, bags.labels, bags.patients):
        learn, ask = ([bags.features[i] for i in part] for part in (train, test))
        scores = method(learn, bags.labels[train], ask)
        aucs.append(float(roc_auc_score(bags.labels[test], scores)))
    return aucs


def _ours(settings: dict[str, Any]) -> Any:
    def method(bags: list[np.ndarray], labels: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says of small data is for its users
            model = AttentionMILClassifier(**settings).fit(bags, labels)
        return model.predict_proba(others)[:, 1]

    return method


class _PlainMIL(nn.Module):
    """Gated attention over projected patches (Ilse et al. 2018)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(dim, 128), nn.ReLU())
        self.gate = nn.Sequential(nn.Linear(128, 128), nn.Sigmoid())
        self.value = nn.Sequential(nn.Linear(128, 128), nn.Tanh())
        self.score, self.head = nn.Linear(128, 1), nn.Linear(128, 1)

    def forward(self, bag: torch.Tensor) -> torch.Tensor:
        hidden = self.projection(bag)
        weights = self.score(self.value(hidden) * self.gate(hidden)).softmax(dim=0)
        return self.head((weights * hidden).sum(dim=0))[0]


def _plain(epochs: int) -> Any:
    def method(bags: list[np.ndarray], labels: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
        torch.manual_seed(0)
        scaler = StandardScaler().fit(np.concatenate(bags))
        learn, ask = (
            [torch.tensor(scaler.transform(bag), dtype=torch.float32) for bag in those]
            for those in (bags, others)
        )
        model = _PlainMIL(bags[0].shape[1])
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, weight_decay=1e-5)
        weight = torch.tensor((labels == 0).sum() / max(1, (labels == 1).sum()))
        loss_of = nn.BCEWithLogitsLoss(pos_weight=weight)
        for _ in range(epochs):
            for index in torch.randperm(len(learn)).tolist():
                optimizer.zero_grad()
                loss_of(model(learn[index]), torch.tensor(float(labels[index]))).backward()
                optimizer.step()
        with torch.inference_mode():
            return torch.stack([model(bag) for bag in ask]).numpy()

    return method


def _mean(bags: list[np.ndarray], labels: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    )
    model.fit(np.stack([bag.mean(axis=0) for bag in bags]), labels)
    return model.predict_proba(np.stack([bag.mean(axis=0) for bag in others]))[:, 1]


def _labels(bags: int, ratio: int, rng: np.random.Generator) -> np.ndarray:
    labels = np.zeros(bags, np.int64)
    labels[: max(2, round(bags / (ratio + 1)))] = 1
    return rng.permutation(labels)


def _digits(bags: int, ratio: int, rng: np.random.Generator) -> Bags:
    data = load_digits()
    images, nines = data.data / 16, data.target == 9
    labels = _labels(bags, ratio, rng)
    made = []
    for label in labels:
        chosen = rng.choice(np.flatnonzero(~nines), rng.integers(15, 30))
        if label:
            witnesses = rng.integers(1, 3)
            chosen[:witnesses] = rng.choice(np.flatnonzero(nines), witnesses)
        made.append(images[chosen])
    return Bags(made, labels, np.arange(bags))


def _wide(bags: int, ratio: int, rng: np.random.Generator) -> Bags:
    narrow = _digits(bags, ratio, rng)
    weights = rng.normal(size=(64, 1536)) / 4
    return Bags([np.maximum(0, bag @ weights) for bag in narrow.features], *narrow[1:])


def _gauss(bags: int, ratio: int, rng: np.random.Generator) -> Bags:
    labels = _labels(bags, ratio, rng)
    shift = rng.normal(size=32)
    shift *= 4 / np.linalg.norm(shift)
    made = [rng.normal(size=(rng.integers(30, 61), 32)) for _ in labels]
    for bag, label in zip(made, labels, strict=True):
        bag[: 3 * label] += shift
    return Bags(made, labels, np.arange(bags))


def _musk(bags: int, ratio: int, rng: np.random.Generator) -> Bags:
    labels = _labels(bags, ratio, rng)
    basis = rng.normal(size=(8, 166))
    target = 1.2 * rng.normal(size=8)
    made = []
    for label in labels:
        shape = rng.normal(size=(rng.integers(2, 12), 8)) + rng.normal(size=8)  # of one molecule
        if label:
            shape[0] = target + 0.6 * rng.normal(size=8)
        made.append(shape @ basis + 0.5 * rng.normal(size=(len(shape), 166)))
    return Bags(made, labels, np.arange(bags))


@cache
def _glas_bags() -> Bags | None:
    example = runpy.run_path(str(REPOSITORY / "examples" / "glas_bags.py"))
    shown = example["pictures"](Path(os.environ.get("XPATH_SHARED", "../shared")) / "data")
    if not shown:
        return None
    encoder = SegmentorEncoder(SegmentPredictor.from_pretrained())
    made = [example["bags_of"](each, encoder, 2).patches.features.numpy() for each in shown]
    labels = np.array([each.label for each in shown])
    return Bags(made, labels, np.array([each.patient for each in shown]))


def _glas(bags: int, ratio: int, rng: np.random.Generator) -> Bags | None:
    del bags, ratio, rng  # there are as many as there are
    return _glas_bags()


ROWS = {"digits": _digits, "wide": _wide, "gauss": _gauss, "musk": _musk, "glas": _glas}


if __name__ == "__main__":
    main()
