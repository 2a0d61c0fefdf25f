#!/usr/bin/env bash
# A 135M model with a context of 8,192 tokens reads the first 64k tokens of the King James Bible on 2 ranks with the
# memory that the program takes by itself: it ends, perplexity stays flat, and with a memory far smaller than the text
# resident bytes stop growing, within what `plan` said. Without the first tokens and without what lies before the
# window perplexity is half as high again at least (measured: 1.9 times).
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/watched.sh"

command -v bible >/dev/null || skip "no bible (Debian's bible-kjv)"
model=$(model_file SmolLM2-135M-Instruct.Q4_1.gguf) || skip "no SmolLM2 (jobs/fetch_model.sh smollm2)"

bible -f -l 4000 "Gen1:1-Rev22:21" >"$work/whole.txt"
head -c 240000 "$work/whole.txt" >"$work/64k.txt"
head -c 55000 "$work/whole.txt" >"$work/16k.txt"

# What the memory of the default is bounded to, far below the text: the second half of the run must not grow.
budget=16384
planned=$(planned_mib "$work/64k.txt" --memory-budget $budget)
score_watched bounded "$work/64k.txt" --memory-budget $budget
buckets bounded >"$work/buckets"
expect "$(tail -n 1 "$work/buckets") < 2 * $(head -n 2 "$work/buckets" | tail -n 1)"
expect "$(sort -g "$work/buckets" | tail -n 1) < 25"
lines=$(wc -l <"$work/bounded.rss")
half=$(head -n $((lines / 2)) "$work/bounded.rss" | sort -n | tail -n 1)
peak=$(sort -n "$work/bounded.rss" | tail -n 1)
echo "resident: $half MiB half-way, $peak MiB at most, $planned MiB planned"
expect "$peak <= 1.05 * $half + 16"
expect "$peak <= $planned + 128" # what MPI, HDF5, oneDNN and the vocabulary take

score_watched default "$work/16k.txt"
score_watched no-sinks "$work/16k.txt" --policy window:window=764
expect "$(perplexity no-sinks) > 1.5 * $(perplexity default)"
