#!/usr/bin/env bash
# The whole King James Bible, 1.1 million tokens, read by a 135M model on 2 ranks with the memory that the program
# takes by itself: it ends, perplexity does not drift, and resident bytes are within what `plan` said. About an hour.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/watched.sh"

[ -n "${LONGHAUL_TEST_ALL:-}" ] || skip "long: tests/run.sh --all"
command -v bible >/dev/null || skip "no bible (Debian's bible-kjv)"
model=$(model_file SmolLM2-135M-Instruct.Q4_1.gguf) || skip "no SmolLM2 (jobs/fetch_model.sh smollm2)"

bible -f -l 4000 "Gen1:1-Rev22:21" >"$work/whole.txt"
planned=$(planned_mib "$work/whole.txt")
score_watched whole "$work/whole.txt"
buckets whole >"$work/buckets"
expect "$(tail -n 1 "$work/buckets") < 2 * $(head -n 1 "$work/buckets")"
peak=$(sort -n "$work/whole.rss" | tail -n 1)
echo "resident: $peak MiB at most, $planned MiB planned"
expect "$peak <= $planned + 128"
