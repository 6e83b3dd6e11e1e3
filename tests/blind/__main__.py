"""Measure the checks on the blind set: `python -m tests.blind [EXERCISE ...]`."""

import argparse
import json
from collections import Counter

from tests.blind import COUNTS, measure, wrong_answers

ROW = "{:32s} {:>6} {:>11} {:>6}"


def main() -> None:
    """Print a line for each exercise and the totals."""
    parser = argparse.ArgumentParser(prog="python -m tests.blind", description=__doc__)
    parser.add_argument("prefix", nargs="*", help="exercises or units, e.g. 02 or 02.kd_loss")
    parser.add_argument("--list", action="store_true", help="name the answers with full marks")
    parser.add_argument("--store", action="store_true", help=f"write {COUNTS.name}")
    parser.add_argument("--seed", type=int, default=0, help="of the checks' inputs")
    args = parser.parse_args()
    if args.store and (args.prefix or args.seed):
        parser.error("--store wants all exercises at seed 0")
    chosen = {
        exercise: answers
        for exercise, answers in wrong_answers().items()
        if not args.prefix or exercise.startswith(tuple(args.prefix))
    }
    counts, total = {}, Counter()
    print(ROW.format("exercise", "wrong", "full marks", "named"))
    for exercise, answers in chosen.items():
        full, named = measure(exercise, answers, args.seed)
        counts[exercise] = {"wrong": len(answers), "full": len(full), "named": len(named)}
        total.update(counts[exercise])
        print(ROW.format(exercise, *counts[exercise].values()), flush=True)
        for wrong in full if args.list else ():
            print(f"    {wrong.answer.__name__}: {wrong.cause} (breaks: {wrong.clause})")
    print(ROW.format("all", *(total[key] for key in ("wrong", "full", "named"))))
    if total["wrong"]:
        full, named = (total[key] / total["wrong"] for key in ("full", "named"))
        print(f"full marks {full:.1%}, named {named:.1%}")
    if args.store:
        COUNTS.write_text(json.dumps(counts, indent=1) + "\n")


if __name__ == "__main__":
    main()
