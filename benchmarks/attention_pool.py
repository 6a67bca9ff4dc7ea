"""The cost of leave-one-out of a slide's patches, in closed form and by full forwards.

    python benchmarks/attention_pool.py --patches 5000

The model is a gated attention classifier of 512 features, in double precision throughout. Full
forwards are timed on a few patches and multiplied, for all of them would take many minutes. The
closed form needs the model once; ``time_ratio`` counts that, ``time_ratio_given_pools`` does not.
``max_abs_diff`` compares both on the patches that were timed. Times are those of one CPU core, so
other work on the machine does not count. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from xpath.explain.attention_pool import attention_pools, deletion_curve, leave_out_patches
from xpath.explain.shapley import shapley_patches
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from xpath.explain.attention_pool import AttentionPools


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--patches", type=int, default=5000, help="patches of the slide")
    parser.add_argument("--dim", type=int, default=512, help="features of a patch")
    parser.add_argument("--forwards", type=int, default=10, help="full forwards that are timed")
    parser.add_argument("--repeats", type=int, default=20, help="the fastest of so many counts")
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AttentionMIL(args.dim, 2).double().eval()
    bag = Bag(torch.randn(args.patches, args.dim, dtype=torch.float64))
    pools = attention_pools(model, bag, 1)
    rng = np.random.default_rng(0)
    order = rng.permutation(args.patches)
    asked = order[: args.forwards]

    once = fastest(lambda: attention_pools(model, bag, 1), 3)
    closed = fastest(lambda: leave_out_patches(pools), args.repeats)
    curve = fastest(lambda: deletion_curve(pools, order), args.repeats)
    shapley = fastest(lambda: shapley_patches(pools, rng, orders=200), 1)
    scale = args.patches / len(asked)
    times, forwards = zip(*(timed(model, bag, int(i)) for i in asked), strict=True)
    found = pools.logit - leave_out_patches(pools)[asked]
    full = min(times) * args.patches
    cached = fastest(lambda: pooled_again(pools, asked), 3) * scale

    scaled = f"scaled from {len(asked)} of {args.patches} patches"
    print(f"the model once, pools made      {1e3 * once:12.2f} ms")
    print(f"leave-one-out, closed form      {1e3 * closed:12.2f} ms for {args.patches} patches")
    print(f"leave-one-out, cached scores    {1e3 * cached:12.2f} ms, {scaled}")
    print(f"leave-one-out, full forwards    {1e3 * full:12.2f} ms, {scaled}")
    print(f"deletion curve, closed form     {1e3 * curve:12.2f} ms for {args.patches} steps")
    print(f"Shapley, 200 orders             {1e3 * shapley:12.2f} ms")
    print(
        f"full forwards over closed form  {full / (closed + once):12.0f} times, the model included"
    )
    print(
        json.dumps({
            "benchmark": "attention_pool",
            "time_ratio": round(full / (closed + once), 1),
            "time_ratio_given_pools": round(full / closed, 1),
            "loo_ms": round(1e3 * closed, 3),
            "max_abs_diff": float(np.abs(found - forwards).max()),
            "patches": args.patches,
            "timed_forwards": len(asked),
            "forwards_ms": round(1e3 * full, 1),
            "cached_ms": round(1e3 * cached, 1),
            "deletion_curve_ms": round(1e3 * curve, 3),
            "shapley_200_ms": round(1e3 * shapley, 1),
            "device": f"{platform.machine()}, 1 CPU thread",
        })
    )


@torch.inference_mode()
def timed(model: AttentionMIL, bag: Bag, patch: int) -> tuple[float, float]:
    """CPU seconds and the logit of class 1, asked from the model, without a patch."""
    started = time.process_time()
    features = torch.cat((bag.features[:patch], bag.features[patch + 1 :]))
    logit = float(model(pack([Bag(features)])).logits[0, 1])
    return time.process_time() - started, logit


def pooled_again(pools: AttentionPools, patches: np.ndarray) -> list[float]:
    """Logits without each patch from kept scores, one weighted mean after the other."""
    weight, evidence = pools.weight[:, 0], pools.evidence[:, 0]
    left = (np.delete(np.arange(len(weight)), patch) for patch in patches)
    return [float(weight[rest] @ evidence[rest] / weight[rest].sum()) for rest in left]


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of some runs, for other work disturbs."""
    return min(seconds(work) for _ in range(repeats))


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one run: on one thread of an idle machine, the time it takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
