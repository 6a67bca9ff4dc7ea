"""Breast cancer subtypes from slides, explained by objects (paper, section 2.6).

    python pipelines/brca_subtype.py SLIDES LABELS.csv --out RUN
    python pipelines/brca_subtype.py SLIDES LABELS.csv --out RUN --set objects.device=cuda

SLIDES is a folder of whole-slide images (TCGA-BRCA, say), LABELS.csv has the columns slide_id (file
name without suffix), label (IDC, ILC) and, if slides share patients, patient. The run segments 21
breast objects with words, extracts features, trains the standard and the object-aware classifier,
explains the test slides and writes pages, QuPath files and tables.

It can be stopped at any moment and started again: what is done stays, byte for byte. A slide that
fails is written to slides.csv with its reason, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xpath.cli.stages import add_study_options, study_from
from xpath.errors import XPathError
from xpath.study.chain import run_chain


def main() -> int:
    """From arguments to pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slides", type=Path, nargs=1, help="a folder of slides")
    parser.add_argument("labels", type=Path, help="CSV: slide_id, label[, patient][, mpp]")
    parser.add_argument("--out", type=Path, required=True, help="the run folder")
    add_study_options(parser)
    args = parser.parse_args()
    try:
        study = study_from(args, labels=args.labels)
        good = run_chain(study, title=f"Breast subtypes: {args.slides[0].resolve().name}")
    except XPathError as error:
        print(f"brca_subtype: {error}", file=sys.stderr)
        return 1
    print(f"open {study.folder.index}")
    if not good:
        print(f"some slides failed; see {study.folder.ledger}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
