"""The time saved by training on packed bags instead of one bag after the other.

    python benchmarks/packed_training.py
    python benchmarks/packed_training.py --bags 100 --median 40 --device cuda

A gated attention classifier is trained on bags of log-normal size, ``--step`` bags per optimiser
step. Packed: the bags of a step lie end to end and go through the model at once, as
``xpath.mil.training`` does. One by one: the model is asked for each bag and the gradients add up.
Same loss, same steps. Both run in turns in this process, and the fastest epoch of each counts.
``padded`` is the usual third way, every bag as long as the longest of its step. Last line: JSON,
``time_ratio`` is one by one over packed; ``max_abs_diff`` is the largest difference of any weight
after training in double precision.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LR = 2e-4


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bags", type=int, default=100, help="slides")
    parser.add_argument("--median", type=int, default=40, help="median patches of a slide")
    parser.add_argument("--sigma", type=float, default=1.0, help="spread of the log of patches")
    parser.add_argument("--dim", type=int, default=512, help="features of a patch")
    parser.add_argument("--step", type=int, default=8, help="bags per optimiser step")
    parser.add_argument(
        "--repeats", type=int, default=4, help="the fastest of so many epochs counts"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda ... (default: cpu)")
    args = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    logs = torch.randn(args.bags, generator=generator) * args.sigma
    sizes = (args.median * logs.exp()).long().clamp(min=1).tolist()
    bags = [
        Bag(torch.randn(size, args.dim, generator=generator), label=number % 2)
        for number, size in enumerate(sizes)
    ]
    torch.manual_seed(0)
    model = AttentionMIL(args.dim, 2).to(args.device)
    difference = largest_difference(model, bags[:16], args.step)

    ways = {"packed": packed, "one by one": one_by_one, "padded": padded}
    seconds = dict.fromkeys(ways, float("inf"))
    for repeat in range(args.repeats):
        for name, way in ways.items():
            if way is padded and repeat >= 2:
                continue  # by far the slowest, and not what is compared
            seconds[name] = min(seconds[name], epoch_seconds(model, bags, args.step, way))
    for name, spent in seconds.items():
        print(f"{name:<12}{spent:8.3f} s an epoch of {args.bags} bags, {sum(sizes)} patches")
    print(f"bags of {min(sizes)} to {max(sizes)} patches; {platform.processor() or args.device}")
    print(
        json.dumps({
            "time_ratio": round(seconds["one by one"] / seconds["packed"], 3),
            "max_abs_diff": difference,
            "padded_ratio": round(seconds["padded"] / seconds["packed"], 3),
            "bags": args.bags,
            "patches": sum(sizes),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": args.device,
        })
    )


def packed(model: AttentionMIL, bags: Sequence[Bag]) -> None:
    """Gradients of a step, all bags at once."""
    batch = pack(bags).like(model.classifier.weight)
    functional.cross_entropy(model(batch).logits, batch.labels).backward()


def one_by_one(model: AttentionMIL, bags: Sequence[Bag]) -> None:
    """The same gradients, a bag at a time, as they add up."""
    for bag in bags:
        batch = pack([bag]).like(model.classifier.weight)
        (functional.cross_entropy(model(batch).logits, batch.labels) / len(bags)).backward()


def padded(model: AttentionMIL, bags: Sequence[Bag]) -> None:
    """The same gradients, each bag filled up with zeros to the longest of the step."""
    weight = model.classifier.weight
    rows = torch.nn.utils.rnn.pad_sequence([bag.features for bag in bags], batch_first=True)
    rows = model.scaler(rows.to(weight))
    lengths = torch.tensor([len(bag.features) for bag in bags], device=weight.device)
    there = torch.arange(rows.shape[1], device=weight.device) < lengths[:, None]
    scores = model.attention(rows.flatten(0, 1)[:, None])[:, 0].view(rows.shape[:2])
    attention = scores.masked_fill(~there, -torch.inf).softmax(dim=1)
    logits = model.classifier((attention[..., None] * rows).sum(dim=1))
    labels = torch.tensor([bag.label for bag in bags], device=weight.device)
    functional.cross_entropy(logits, labels).backward()


def train_epoch(
    model: AttentionMIL,
    bags: Sequence[Bag],
    step: int,
    way: Callable[[AttentionMIL, Sequence[Bag]], None],
) -> None:
    """An optimiser step for every ``step`` bags."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    model.train()
    for start in range(0, len(bags), step):
        optimizer.zero_grad()
        way(model, bags[start : start + step])
        optimizer.step()


def epoch_seconds(
    model: AttentionMIL,
    bags: Sequence[Bag],
    step: int,
    way: Callable[[AttentionMIL, Sequence[Bag]], None],
) -> float:
    """Seconds of an epoch, which leaves the model as it was."""
    model = copy.deepcopy(model)
    cuda = model.classifier.weight.is_cuda
    if cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    train_epoch(model, bags, step, way)
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def largest_difference(model: AttentionMIL, bags: Sequence[Bag], step: int) -> float:
    """Of any weight after an epoch of each way, in double precision."""
    trained = []
    for way in (packed, one_by_one, padded):
        twin = copy.deepcopy(model).double()
        train_epoch(twin, bags, step, way)
        trained.append(twin.state_dict())
    return max(
        float((value - other[name]).abs().max())
        for other in trained[1:]
        for name, value in trained[0].items()
    )


if __name__ == "__main__":
    main()
