"""Compare segmentors by their samples.csv: tables, tests and figures, without running a model.

    python pipelines/compare_segmentors.py PathSegmentor=E/samples.csv MedSAM=M/samples.csv --out C

The first model is ours: stars and p-values are of it against the best of the others. OUT gets
compare_by_{source,region,structure,object_type,label}.csv with a column per model, its interval,
the best and the second, compare_trends.csv, compare_improvement.csv (gain by object type), and
figures/. With --size also compare_sizes.csv and figures/sizes.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xpath.errors import XPathError
from xpath.export.comparison_figures import sizes_figure, write_comparison_figures
from xpath.segment.evaluation.compared import (
    ModelSize,
    named_paths,
    named_sizes,
    read_compared,
    size_rows,
    write_comparison,
)
from xpath.store.tables import write_table


def main(arguments: list[str] | None = None) -> int:
    """From tables of samples to tables of models."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="NAME=samples.csv", help="ours first")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and figures")
    parser.add_argument(
        "--size",
        action="append",
        default=[],
        metavar="NAME=MILLIONS[,MODELS]",
        help="parameters of a model and how many were trained, for sizes.png; may be repeated",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the intervals")
    args = parser.parse_args(arguments)
    try:
        sizes = named_sizes(args.size)
        compare(args.out, named_paths(args.models), sizes, seed=args.seed)
    except XPathError as error:
        print(f"compare_segmentors: {error}", file=sys.stderr)
        return 1
    print(f"see {args.out / 'compare_by_source.csv'}")
    return 0


def compare(
    out: Path, tables: dict[str, Path], sizes: dict[str, ModelSize], *, seed: int = 0
) -> None:
    """Writes tables and figures of several models, ours first."""
    compared = read_compared(tables)
    if sizes:
        rows = size_rows(compared, sizes)
        write_table(out / "compare_sizes.csv", rows)
        sizes_figure(out / "figures" / "sizes.png", rows)
    write_comparison_figures(out / "figures", compared, write_comparison(out, compared, seed=seed))


if __name__ == "__main__":
    sys.exit(main())
