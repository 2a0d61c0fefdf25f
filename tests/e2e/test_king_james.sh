#!/usr/bin/env bash
# A 135M model with a context of 8,192 tokens reads the first 64k tokens of the King James Bible on 2 ranks with the
# memory that the program takes by itself: it ends, and predicts their end as well as when it reads that alone; and it
# summarises them whole, with a receipt. With a memory far smaller than the text (24k tokens) it ends, too, and resident
# bytes stop growing; all within what was planned. On 16k tokens first tokens and a window keep perplexity flat; the same
# window without them does not.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/watched.sh"

command -v bible >/dev/null || skip "no bible (Debian's bible-kjv)"
model=$(model_file SmolLM2-135M-Instruct.Q4_1.gguf) || skip "no SmolLM2 (jobs/fetch_model.sh smollm2)"

bible -f -l 4000 "Gen1:1-Rev22:21" >"$work/whole.txt"
head -c 240000 "$work/whole.txt" >"$work/64k.txt"
head -c 84000 "$work/whole.txt" >"$work/24k.txt"
head -c 55000 "$work/whole.txt" >"$work/16k.txt"

watched default score "$work/64k.txt"
within_plan default score "$work/64k.txt"
flat_at_end default "$work/64k.txt"

summarised summary "$work/64k.txt"

# What the memory of the default is bounded to, far below the text: the second half of the run must not grow.
budget=8192
watched bounded score "$work/24k.txt" --memory-budget $budget
within_plan bounded score "$work/24k.txt" --memory-budget $budget
flat_at_end bounded "$work/24k.txt"
stays_as_large bounded

# The explosion: 768 keys each, with and without the first four (measured over all: 1.9 times). The first bucket has
# the first tokens in either window.
watched sinks score "$work/16k.txt" --policy sinks:window=764
watched no-sinks score "$work/16k.txt" --policy window:window=768
holds "$(perplexity no-sinks) > 1.5 * $(perplexity sinks)"
[ "$(buckets sinks | wc -l)" -ge 10 ] || fail "no perplexity by position"
paste <(buckets sinks) <(buckets no-sinks) | tail -n +2 | while read -r with without; do
    holds "$without > 1.2 * $with"
done
