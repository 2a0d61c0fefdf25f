#!/usr/bin/env bash
# The whole King James Bible, 1.2 million tokens, read by a 135M model on 2 ranks with the memory that the program
# takes by itself, and with one of 64k tokens: it ends, predicts the end as well as when it reads that alone, and
# resident bytes are within what was planned; the small memory grows no more. Perplexity is flat: beside the untouched
# model, which reads the text in pieces, no bucket is more than 15% worse. It is summarised whole, within its plan,
# with a receipt. Two hours on two cores with AVX-512.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/watched.sh"

[ -n "${LONGHAUL_TEST_ALL:-}" ] || skip "long: tests/run.sh --all"
command -v bible >/dev/null || skip "no bible (Debian's bible-kjv)"
model=$(model_file SmolLM2-135M-Instruct.Q4_1.gguf) || skip "no SmolLM2 (jobs/fetch_model.sh smollm2)"

bible -f -l 4000 "Gen1:1-Rev22:21" >"$work/whole.txt"

"$source/tests/mpi/run.sh" 2 "$longhaul" score "$work/whole.txt" -m "$model" -o "$work/pieces" >"$work/pieces.txt" \
    2>"$work/pieces.err" || fail "in pieces: $(tail -n 3 "$work/pieces.err")"

# read_whole NAME OPTIONS...
read_whole() {
    watched "$1" score "$work/whole.txt" "${@:2}"
    within_plan "$1" score "$work/whole.txt" "${@:2}"
    flat_at_end "$1" "$work/whole.txt"
    buckets "$1" >"$work/buckets"
    holds "$(tail -n 1 "$work/buckets") < 2 * $(head -n 1 "$work/buckets")"
    [ "$(wc -l <"$work/buckets")" -eq 12 ] || fail "$1: not twelve whole buckets"
    paste "$work/buckets" <(buckets pieces) | while read -r whole pieces; do
        holds "$whole < 1.15 * $pieces"
    done
}

read_whole default
read_whole bounded --memory-budget 65536
stays_as_large bounded

summarised summary "$work/whole.txt"
