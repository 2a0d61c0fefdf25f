#!/usr/bin/env python3
"""From `longhaul export --format jsonl` on standard input: a line for each document, in the order of paths.

The columns, separated by tabs, are what may not differ between runs: path (within the corpus's parent), status,
tokens used, reason, text.
"""
import json
import sys

lines = []
for line in sys.stdin:
    record = json.loads(line)
    about, response = record["longhaul"], record["response"]
    text = response["body"]["choices"][0]["message"]["content"] if response else ""
    lines.append((record["custom_id"], about["status"], about["tokens"]["used"], about["reason"], repr(text)))
for line in sorted(lines):
    print(*line, sep="\t")
