#!/usr/bin/env bash
# policy landmark: the program carries landmark tokens by itself, so scores are of the text's tokens only, and are the
# same on 1, 2 and 3 ranks and in segments of any length; summaries come out; what cannot work is refused.
. "$(dirname "$0")/common.sh"

model=$tiny/llama-untied-f16.gguf
policy=landmark:token=381,block=16,top=3

# score NAME RANKS SEGMENT
score() {
    on_ranks "$2" score "$texts/code_c.txt" -m "$model" -o "$work/$1" --dtype f32 --threads 1 --ring "$2" \
        --segment "$3" --policy "$policy" >"$work/$1.txt" 2>"$work/$1.err" || fail "score $1: $(cat "$work/$1.err")"
    "$longhaul" export "$work/$1" --format csv >"$work/$1.csv"
}

score whole 1 100000
for ranks in 1 2 3; do
    score "r$ranks" "$ranks" "$((130 * ranks))"
    printf '%s ranks, segments of %s: ' "$ranks" "$((130 * ranks))"
    python3 "$compare" "$work/whole.csv" "$work/r$ranks.csv" --max-diff 1e-3
done
on_ranks 1 score "$texts/code_c.txt" -m "$model" -o "$work/full" --threads 1 >"$work/full.txt" 2>/dev/null
expect_tokens=$(grep -o "over [0-9]* tokens" "$work/full.txt")
grep -q "$expect_tokens" "$work/whole.txt" || fail "not $expect_tokens: $(cat "$work/whole.txt")"

on_ranks 2 summarize "$texts/prose.txt" -m "$model" -o "$work/summary" --policy "$policy" --max-new 20 --ring 2 \
    >"$work/summary.txt" 2>&1 || fail "summarize: $(cat "$work/summary.txt")"

# refuses WORDS OPTIONS...
refuses() {
    local words=$1
    shift
    exit_code "$longhaul" score "$texts/code_c.txt" -m "$model" -o "$work/refused" "$@" 2>"$work/error"
    [ "$code" = 2 ] || fail "$*: code $code"
    grep -q "$words" "$work/error" || fail "$*: $(cat "$work/error")"
}

refuses "token=ID is missing" --policy landmark
refuses "token=99999" --policy landmark:token=99999
echo "0 landmark:token=381" >"$work/layers"
refuses "layer 1 differs" --layers "$work/layers"
