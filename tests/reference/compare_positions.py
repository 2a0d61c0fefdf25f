#!/usr/bin/env python3
"""Hold the log-probabilities of one long text's tokens against position_logprobs.py; standard library only.

    compare_positions.py METHOD.ref TEXT SCORES.csv [--max-diff X]

SCORES.csv is `longhaul export --format csv` of a score of TEXT. Token ids must agree. Prints one line, exits 1 when
the greatest |difference| is more than X; the reference's are rounded to 1/4096.
"""
import argparse
import csv
import hashlib
import json
import pathlib
import struct
import sys


def read_reference(path):
    """(about, log-probabilities of tokens 1, 2, ...)"""
    with open(path, "rb") as file:
        about = json.loads(file.readline())
        steps = struct.unpack(f"<{about['tokens'] - 1}H", file.read())
    return about, [-step / about["steps"] for step in steps]


def read_scores(path, about):
    """The same of the CSV file, which must be of the same tokens; it has no line for the first."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = sorted((int(row["position"]), int(row["token"]), float(row["logprob"])) for row in csv.DictReader(file))
    if [row[0] for row in rows] != list(range(1, about["tokens"])):
        sys.exit(f"compare_positions: {path}: {len(rows)} predictions, wanted {about['tokens'] - 1}")
    ids = b"".join(struct.pack("<i", row[1]) for row in rows)
    if hashlib.sha256(ids).hexdigest() != about["ids_sha256"]:
        sys.exit(f"compare_positions: {path}: other tokens than the reference's")
    return [row[2] for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("scores", type=pathlib.Path)
    parser.add_argument("--max-diff", type=float, default=5e-3)
    args = parser.parse_args()
    about, wanted = read_reference(args.reference)
    if hashlib.sha256(args.text.read_bytes()).hexdigest() != about["text_sha256"]:
        sys.exit(f"compare_positions: {args.text} is not the text of {args.reference}")
    differences = [abs(a - b) for a, b in zip(wanted, read_scores(args.scores, about))]
    worst = max(range(len(differences)), key=differences.__getitem__)
    print(f"{about['method']}, factor {about['factor']:g}, {about['tokens']} tokens: largest difference "
          f"{differences[worst]:.2e}, at {worst + 1}")
    if not differences[worst] <= args.max_diff:
        sys.exit(f"compare_positions: {differences[worst]:g} is more than {args.max_diff:g}")


if __name__ == "__main__":
    main()
