"""How well the offline reader understands sentences with known answers.

    python benchmarks/language.py FILE.jsonl

A line has ``id``, ``case``, ``slide_region``, ``text`` and the labels ``expected``, ``acceptable``
and ``negated``. A sentence is exact if all expected labels are asked for, and none but those and
acceptable ones. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpath.language.offline import OfflineReader
from xpath.language.reading import Request

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """From a file of sentences to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="sentences, one JSON object a line")
    parser.add_argument("--guess-case", action="store_true", help="the reader is not told the case")
    parser.add_argument("--verbose", action="store_true", help="show sentences that are not exact")
    args = parser.parse_args(arguments)

    lines = args.file.read_text(encoding="utf-8").splitlines()
    cases = [json.loads(line) for line in lines if line.strip()]
    reader = OfflineReader()
    reader.read(Request("tumor"))  # loads the lexicon
    started = time.perf_counter()
    answers = [ask(reader, case, guess=args.guess_case) for case in cases]
    seconds = time.perf_counter() - started
    if args.verbose:
        show(cases, answers)
    print(
        json.dumps(
            score(cases, answers) | {"ms_per_sentence": round(1e3 * seconds / len(cases), 3)}
        )
    )


def ask(reader: OfflineReader, case: dict[str, Any], *, guess: bool) -> set[str]:
    """Ids of what a sentence asks for."""
    kind = None if guess else case["case"]
    reading = reader.read(Request(case["text"], kind, case["slide_region"]))
    return {label.id for label in reading.labels}


def score(cases: list[dict[str, Any]], answers: list[set[str]]) -> dict[str, Any]:
    """Exact sentences; precision and recall over all labels, acceptable ones left out."""
    right = wrong = missed = exact = denied = 0
    for case, answer in zip(cases, answers, strict=True):
        expected = set(case["expected"])
        surplus = answer - expected - set(case["acceptable"])
        right += len(answer & expected)
        wrong += len(surplus)
        missed += len(expected - answer)
        denied += len(answer & set(case["negated"]) - expected)
        exact += not surplus and expected <= answer
    return {
        "n": len(cases),
        "exact": exact,
        "precision": round(right / (right + wrong), 4) if right + wrong else None,
        "recall": round(right / (right + missed), 4) if right + missed else None,
        "asked_though_negated": denied,
    }


def show(cases: list[dict[str, Any]], answers: list[set[str]]) -> None:
    """What is missing or too much, sentence by sentence."""
    for case, answer in zip(cases, answers, strict=True):
        expected = set(case["expected"])
        missing = sorted(expected - answer)
        surplus = sorted(answer - expected - set(case["acceptable"]))
        if missing or surplus:
            print(f"{case['id']}: {case['text']}\n  missing {missing}\n  too much {surplus}")


if __name__ == "__main__":
    main()
