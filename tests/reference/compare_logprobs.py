#!/usr/bin/env python3
"""Hold log-probabilities of `longhaul export --format csv` against a reference; standard library only.

    compare_logprobs.py REFERENCE.lp SCORES.csv [--max-diff X] [--mean-diff X] [--ppl SHARE] [--top1-margin X]
    compare_logprobs.py SCORES-A.csv SCORES-B.csv [--max-diff X] ...

The CSV has the columns doc,position,token,logprob,top1. Where it holds several documents, those of the
reference's text are taken (by file name); two CSV files are compared over all their documents. Every bar
given must be met; token ids must always agree. Prints one line, exits 1 when a bar is missed.
  --max-diff X      greatest |difference| of log-probabilities
  --mean-diff X     mean |difference|
  --ppl SHARE       perplexity within this share of the reference's
  --top1-margin X   the best id agrees wherever the reference's lead is more than X
"""
import argparse
import csv
import math
import pathlib
import sys

import reference_file


def fail(message):
    sys.exit(f"compare_logprobs: {message}")


def read_scores(path):
    """{document: {position: (token, logprob, top1)}}"""
    documents = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            scores = documents.setdefault(row["doc"], {})
            position = int(row["position"])
            if position in scores:
                fail(f"{path}: {row['doc']}: position {position} twice")
            scores[position] = (int(row["token"]), float(row["logprob"]), int(row["top1"]))
    if not documents:
        fail(f"{path}: no lines")
    return documents


def scores_of_text(documents, name, path):
    found = [document for document in documents if pathlib.PurePath(document).name == name]
    if len(found) != 1:
        fail(f"{path}: wanted one document '{name}', found {len(found)} of {sorted(documents)}")
    return documents[found[0]]


def read_pairs(reference, scores_path):
    """[(place, (token, logprob, top1) wanted, the same got, margin)] of the two files"""
    got = read_scores(scores_path)
    if reference.endswith(".lp"):
        about, ids, logprobs, top1, margins = reference_file.read(reference)
        name = about["text"]
        wanted = {name: {i + 1: (ids[i + 1], logprobs[i], top1[i]) for i in range(len(logprobs))}}
        got = {name: scores_of_text(got, name, scores_path)}
    else:
        wanted, margins = read_scores(reference), None
    if wanted.keys() != got.keys():
        fail(f"{scores_path}: documents {sorted(got)}, wanted {sorted(wanted)}")
    pairs = []
    for name, scores in wanted.items():
        if scores.keys() != got[name].keys():
            fail(f"{scores_path}: {name}: {len(got[name])} predictions, wanted {len(scores)}")
        for i, position in enumerate(sorted(scores)):
            margin = margins[i] if margins else 0.0
            pairs.append((f"{name}:{position}", scores[position], got[name][position], margin))
    return pairs


def measure(pairs, top1_margin):
    for place, want, got, _ in pairs:
        if want[0] != got[0]:
            fail(f"{place}: token {got[0]}, wanted {want[0]}")
        if not math.isfinite(got[1]) or got[1] > 1e-6:
            fail(f"{place}: log-probability {got[1]}")
    differences = [abs(want[1] - got[1]) for _, want, got, _ in pairs]
    worst = max(range(len(pairs)), key=differences.__getitem__)
    ratio = math.exp(sum(want[1] - got[1] for _, want, got, _ in pairs) / len(pairs))
    clear = [(want[2], got[2]) for _, want, got, margin in pairs if margin > top1_margin]
    return {"max": differences[worst], "place": pairs[worst][0], "mean": sum(differences) / len(pairs),
            "ppl": abs(ratio - 1), "top1": sum(want != got for want, got in clear), "clear": len(clear)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference")
    parser.add_argument("scores")
    parser.add_argument("--max-diff", type=float)
    parser.add_argument("--mean-diff", type=float)
    parser.add_argument("--ppl", type=float)
    parser.add_argument("--top1-margin", type=float)
    args = parser.parse_args()

    pairs = read_pairs(args.reference, args.scores)
    found = measure(pairs, 0.0 if args.top1_margin is None else args.top1_margin)
    print(f"{pathlib.PurePath(args.reference).name}: {len(pairs)} tokens, largest difference {found['max']:.2e} "
          f"at {found['place']}, mean {found['mean']:.2e}, perplexity off by {100 * found['ppl']:.3f}%, "
          f"best id differs at {found['top1']} of {found['clear']} clear places")
    bars = [(args.max_diff, found["max"], "largest difference"), (args.mean_diff, found["mean"], "mean difference"),
            (args.ppl, found["ppl"], "share of perplexity"),
            (None if args.top1_margin is None else 0, found["top1"], "best ids that differ")]
    missed = [f"{name} {value:g} > {bar:g}" for bar, value, name in bars if bar is not None and value > bar]
    if missed:
        fail(f"{args.scores} against {args.reference}: " + "; ".join(missed))


if __name__ == "__main__":
    main()
