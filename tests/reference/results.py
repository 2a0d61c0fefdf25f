#!/usr/bin/env python3
"""Read a results directory of longhaul with h5py alone, check that it is what docs/formats.md says, and print it.

Usage: results.py OUT [--quiet]
Exit status: 0 as documented, 1 not (the first difference is named), 77 h5py is not installed.
"""
import argparse
import hashlib
import json
import os
import sys

try:
    import h5py
except ImportError:
    sys.exit(77)

STATUSES = {"pending", "running", "ok", "partial", "failed", "skipped"}
KINDS = {"map", "reduce", "refine", "final"}
USES = {"used", "skipped", "dropped"}
SEAL = 512


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def check(condition, what):
    if not condition:
        sys.exit(f"results.py: {what}")


def check_seal(path):
    data = open(path, "rb").read()
    said = data[:SEAL].split(b"\n")[0].split()[-1].decode()
    check(hashlib.sha256(data[SEAL:]).hexdigest() == said, f"{path}: the seal is of other bytes")


def check_parts(out, index):
    for row in index["parts"][()]:
        data = open(os.path.join(out, text(row["file"])), "rb").read()
        check(len(data) == row["bytes"], f"{text(row['file'])}: size")
        check(hashlib.sha256(data).hexdigest() == text(row["sha256"]), f"{text(row['file'])}: sha256")
        check(text(row["file"]) == f"parts/part-{row['number']:06d}.h5", "the name of a part")


def check_nodes(group, where):
    nodes = group["nodes"][()]
    ids = {int(row["id"]) for row in nodes}
    for row in nodes:
        check(text(row["kind"]) in KINDS, f"{where}: kind of a node")
        check(row["parent"] == -1 or int(row["parent"]) in ids, f"{where}: parent of a node")
        check(len(row["tokens"]) == row["tokens_generated"], f"{where}: tokens of a node")
        check(isinstance(text(row["text"]), str), f"{where}: text of a node")


def check_ledger(group, where):
    end = 0
    for row in group["ledger"][()]:
        check(text(row["use"]) in USES, f"{where}: use of a span")
        check(row["first_byte"] == end and row["end_byte"] >= end, f"{where}: gap or overlap in the ledger")
        end = row["end_byte"]


def check_score(score, where):
    count = score.attrs["count"]
    for name, kind in (("position", "i8"), ("token", "i4"), ("logprob", "f4"), ("top1", "i4")):
        check(score[name].shape == (count,), f"{where}: length of {name}")
        check(score[name].dtype.str[1:] == kind, f"{where}: type of {name}")
        if score[name].size * score[name].dtype.itemsize >= 4096:
            check(score[name].compression == "gzip" and score[name].shuffle, f"{where}: filters of {name}")


def check_buckets(score, where):
    buckets = score["buckets"][()]
    end = 0
    for row in buckets:
        check(row["first_position"] >= end and row["end_position"] > row["first_position"], f"{where}: a bucket's positions")
        end = row["end_position"]
    check(sum(row["count"] for row in buckets) == score.attrs["count"], f"{where}: predictions of the buckets")
    nll = sum(row["nll_sum"] for row in buckets)
    check(abs(nll - score.attrs["nll_sum"]) <= 1e-9 * abs(nll), f"{where}: nll_sum of the buckets")


def check_receipt(receipt, group, where):
    said = receipt.attrs
    if said["bytes"] == 0:
        check(said["probes"] == 0 and said["predictions"] == 0, f"{where}: numbers of what was not measured")
        check(all(said[name] != said[name] for name in ("mean_loss", "worst_loss", "mean_kl", "worst_kl", "ratio")),
              f"{where}: numbers of what was not measured")
        return
    check(said["mean_kl"] >= 0 and said["worst_kl"] >= said["mean_kl"], f"{where}: KL of the receipt")
    check(said["worst_loss"] >= said["mean_loss"], f"{where}: losses of the receipt")
    ratio = said["reference_bytes"] / said["bytes"]
    check(abs(said["ratio"] - ratio) <= 1e-9 * ratio, f"{where}: ratio of the receipt")
    if "logprob" in receipt:
        lost = receipt["logprob"][()].astype("f8") - group["score/logprob"][()]
        check(abs(lost.mean() - said["mean_loss"]) < 1e-6, f"{where}: mean loss of the receipt")
        check(abs(lost.max() - said["worst_loss"]) < 1e-6, f"{where}: worst loss of the receipt")
        at = group["score/position"][()][lost.argmax()]
        check(at == said["worst_loss_position"], f"{where}: position of the worst loss")


def check_document(row, group):
    where = text(row["id"])
    for name in ("id", "path", "sha256", "reason"):
        check(text(group.attrs[name]) == text(row[name]), f"{where}: {name} is not the one in the index")
    for name in ("attempts", "bytes", "tokens_in", "tokens_used", "tokens_dropped", "run"):
        check(group.attrs[name] == row[name], f"{where}: {name} is not the one in the index")
    check(text(group.attrs["status"]) == text(row["status"]) and text(row["status"]) in STATUSES, f"{where}: status")
    check(isinstance(text(group["text"][()]), str), f"{where}: text")
    if "nodes" in group:
        check_nodes(group, where)
    if "ledger" in group:
        check_ledger(group, where)
    if "score" in group:
        check_score(group["score"], where)
        if "buckets" in group["score"]:
            check_buckets(group["score"], where)
    if "receipt" in group:
        check_receipt(group["receipt"], group, where)


def show(index):
    print(f"{index.attrs['format']} version {index.attrs['format_version']}, task {index.attrs['task']}")
    for name, run in index["runs"].items():
        print(f"run {name}: {run.attrs['json']}")
    for row in index["index"][()] if "index" in index else []:
        group = index[f"documents/{row['number']:08d}"]
        print(f"{text(row['id'])}: {text(row['status'])}, part {row['part']}, {row['tokens_used']} tokens used")
        for name, item in group.items():
            shape = getattr(item, "shape", "group")
            print(f"    {name}: {shape}")
        print(f"    text = {text(group['text'][()])[:70]!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", help="the output directory of a run")
    parser.add_argument("--quiet", action="store_true", help="only check")
    options = parser.parse_args()
    path = os.path.join(options.out, "results.h5")
    check_seal(path)
    with h5py.File(path, "r") as index:
        check(text(index.attrs["format"]) == "longhaul results", "format")
        check(index.attrs["format_version"] == 1, "format_version")
        check(len(index["documents"]) == index.attrs["documents"], "the number of documents")
        for run in index["runs"].values():
            check(json.loads(run.attrs["json"])["ranks"] == run.attrs["ranks"], "the JSON of a run")
        check_parts(options.out, index)
        for row in index["index"][()]:
            check_document(row, index[f"documents/{row['number']:08d}"])
        if not options.quiet:
            show(index)


if __name__ == "__main__":
    main()
