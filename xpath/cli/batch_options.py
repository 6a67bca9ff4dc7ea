"""Options of every command that goes over slides: where they are worked on, and which."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING

from xpath.errors import ConfigError, XPathError

if TYPE_CHECKING:
    from xpath.batch.runner import Executor
    from xpath.batch.selection import Shard
    from xpath.study.chain import Batch
    from xpath.study.config import StudyConfig
    from xpath.study.folder import RunFolder
    from xpath.study.study import Study

__all__ = [
    "add_batch_options",
    "add_executor_options",
    "batch_from",
    "executor_from",
    "require_tools",
    "show_plan",
    "tell_problems",
    "tell_unready",
]


def add_batch_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options in two groups."""
    add = parser.add_argument_group("which slides").add_argument
    add(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="slides of this name, in which * and ? stand for anything; may be repeated",
    )
    add("--shard", type=_shard, metavar="I/N", help="every N-th slide from number I, e.g. 0/4")
    add("--retry-failed", action="store_true", help="only slides that failed in the stage before")
    add("--dry-run", action="store_true", help="say what would be done, and do nothing")
    add_executor_options(parser)


def add_executor_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where slides are worked on and classifiers trained."""
    add = parser.add_argument_group("where").add_argument
    add(
        "--executor",
        choices=("local", "ray", "slurm"),
        default="local",
        help="processes of this machine (default), a Ray cluster, or an array of Slurm jobs",
    )
    add(
        "--workers",
        type=_positive,
        help="slides or models at once (default: as many as GPUs; without GPUs 1 here, on Ray as"
        " cores)",
    )
    add("--address", default="", help="of a running Ray cluster, such as auto (default: a new one)")
    add(
        "--slurm",
        action="append",
        default=[],
        metavar="A=B",
        help="what sbatch takes, e.g. partition=gpu or gres=gpu:1; may be repeated",
    )


def batch_from(args: argparse.Namespace, study: Study) -> Batch:
    """The batch the options ask for.

    Raises:
        ConfigError: An option of another executor.
    """
    from xpath.batch.selection import Selection, Shard
    from xpath.study.chain import Batch

    selection = Selection(
        only=tuple(args.only), shard=args.shard or Shard(), failed=args.retry_failed
    )
    executor = executor_from(args, study.config, study.folder)
    return Batch(executor=executor, selection=selection)


def show_plan(study: Study, stage: str, batch: Batch) -> int:
    """Prints what a stage would do to each slide. Returns 0."""
    from xpath.study.jobs import STAGES

    if stage == "segment":
        tell_problems(study, batch)
    candidates = study.slides if stage in ("segment", "features") else study.slides_to_explain()
    slides = batch.selection.of(candidates, stage, study.ledger)
    made = STAGES[stage].is_made
    plan = {slide.slide_id: "stays" if made(study, slide) else "is made" for slide in slides}
    for slide_id, what in plan.items():
        print(f"{what:8} {slide_id}")
    makes = sum(what == "is made" for what in plan.values())
    print(f"{stage}: {makes} of {len(slides)} slides would be worked on; nothing was done")
    return 0


def tell_problems(study: Study, batch: Batch) -> None:
    """Names all problems that segmenting would meet, before any work, on stderr."""
    from xpath.study.preflight import preflight

    for problem in preflight(study, batch.selection.of(study.slides, "segment", study.ledger)):
        print(f"xpath: {problem}", file=sys.stderr)


def tell_unready(study: Study, batch: Batch) -> int:
    """Names slides that were to be explained and have no features, on stderr. 1 if there are any.

    Features of other settings count as none, and so do those of a slide that is not there.
    """
    from xpath.store.names import shown

    chosen = batch.selection.of(study.slides_to_explain(), "explain", study.ledger)
    ready = {entry.slide_id for entry in study.with_features(chosen)}
    unready = [entry.slide_id for entry in chosen if entry.slide_id not in ready]
    if unready:
        print(
            f"xpath: {len(unready)} of {len(chosen)} slides were not explained, for they are not"
            f" there or have no finished features: {shown(unready)}; run `xpath features --out"
            f" {study.folder.root}`",
            file=sys.stderr,
        )
    return 1 if unready else 0


def require_tools(study: Study) -> None:
    """As of the study. Whatever else is wrong is printed beside the error, not at the next call."""
    from xpath.study.preflight import preflight

    try:
        study.require_tools()
    except XPathError as error:
        for problem in preflight(study, study.slides):
            if problem != str(error):
                print(f"xpath: {problem}", file=sys.stderr)
        raise


def executor_from(args: argparse.Namespace, config: StudyConfig, folder: RunFolder) -> Executor:
    """The executor the options ask for.

    Raises:
        ConfigError: An option of another executor.
    """
    from xpath.batch.ray_cluster import RayCluster
    from xpath.batch.runner import InProcess
    from xpath.batch.slurm import SlurmArray
    from xpath.batch.workers import LocalProcesses

    if args.address and args.executor != "ray":
        raise ConfigError("--address is that of a Ray cluster; add --executor ray")
    if args.slurm and args.executor != "slurm":
        raise ConfigError("--slurm does nothing without --executor slurm")
    device = config.objects.device
    if args.executor == "ray":
        return RayCluster(args.address, args.workers or 0, 0.0 if device == "cpu" else 1.0)
    if args.executor == "slurm":
        options = dict(_pair(text) for text in args.slurm)
        return SlurmArray(args.workers or 8, folder.logs / "slurm", options)
    gpus = _gpus() if device == "cuda" else ()
    workers = args.workers or max(len(gpus), 1)
    return LocalProcesses(workers, gpus) if workers > 1 else InProcess()


def _gpus() -> tuple[str, ...]:
    """Numbers of the GPUs that this process may use."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(filter(None, visible.split(",")))
    return tuple(map(str, range(torch.cuda.device_count())))


def _shard(text: str) -> Shard:
    from xpath.batch.selection import Shard

    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise argparse.ArgumentTypeError(
            f"wanted a number from 0, a slash and how many there are, such as 0/4, got {text!r}"
        )
    return Shard(int(match[1]), int(match[2]))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"wanted a whole number above 0, got {text!r}")
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"--slurm takes NAME=VALUE, such as partition=gpu, got {text!r}")
    return name, value
