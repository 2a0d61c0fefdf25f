#!/usr/bin/env python3
"""Hold the log-probabilities of some tokens of one long text against position_logprobs.py; standard library only.

    compare_positions.py METHOD.json TEXT SCORES.csv [--max-diff X]

SCORES.csv is `longhaul export --format csv` of a score of TEXT. Token ids must agree. Prints one line, exits 1 when
the greatest |difference| is more than X.
"""
import argparse
import csv
import hashlib
import json
import pathlib
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("scores", type=pathlib.Path)
    parser.add_argument("--max-diff", type=float, default=5e-3)
    args = parser.parse_args()
    wanted = json.loads(args.reference.read_text(encoding="ascii"))
    if hashlib.sha256(args.text.read_bytes()).hexdigest() != wanted["text_sha256"]:
        sys.exit(f"compare_positions: {args.text} is not the text of {args.reference}")
    with open(args.scores, newline="", encoding="utf-8") as file:
        got = {int(row["position"]): (int(row["token"]), float(row["logprob"])) for row in csv.DictReader(file)}
    if len(got) != wanted["tokens"] - 1:
        sys.exit(f"compare_positions: {len(got)} predictions, wanted {wanted['tokens'] - 1}")
    worst, where = -1.0, 0
    for i, (token, logprob) in enumerate(zip(wanted["ids"], wanted["logprobs"])):
        position = (i + 1) * wanted["every"]
        if got[position][0] != token:
            sys.exit(f"compare_positions: token {got[position][0]} at {position}, wanted {token}")
        worst, where = max((worst, where), (abs(got[position][1] - logprob), position))
    print(f"{wanted['method']}, factor {wanted['factor']:g}, {wanted['tokens']} tokens: largest difference {worst:.2e} "
          f"of {len(wanted['ids'])}, at {where}")
    if not worst <= args.max_diff:
        sys.exit(f"compare_positions: {worst:g} is more than {args.max_diff:g}")


if __name__ == "__main__":
    main()
