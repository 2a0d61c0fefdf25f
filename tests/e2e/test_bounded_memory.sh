#!/usr/bin/env bash
# Under a bounded retrieval scores and the count of forgotten tokens do not depend on segments and ranks, whether the
# memory is longer than a segment or shorter (f32).
. "$(dirname "$0")/common.sh"

model=$tiny/llama-untied-f16.gguf
text=$texts/prose.txt

# score NAME RANKS SEGMENT POLICY
score() {
    on_ranks "$2" score "$text" -m "$model" -o "$work/$1" --dtype f32 --threads 1 --ring "$2" --segment "$3" \
        --policy "$4" --context 8192 >"$work/$1.txt" || fail "score on $2 ranks, segments of $3"
    "$longhaul" export "$work/$1" --format csv >"$work/$1.csv"
}

# forgotten NAME: the count in the document's record.
forgotten() {
    "$longhaul" export "$work/$1" --format jsonl |
        python3 -c 'import json, sys; print(json.loads(sys.stdin.readline())["longhaul"]["tokens"]["forgotten"])'
}

bounded=retrieval:window=64,top=3,memory=384
score whole 1 4096 "$bounded"
count=$(forgotten whole)
[ "$count" -gt 0 ] || fail "nothing was forgotten, of a text longer than the memory"
for case in 1-128 1-1024 2-256 3-2048; do
    score "$case" "${case%-*}" "${case#*-}" "$bounded"
    printf '%s ranks, segments of %s: ' "${case%-*}" "${case#*-}"
    python3 "$compare" "$work/whole.csv" "$work/$case.csv" --max-diff 1e-3
    [ "$(forgotten "$case")" = "$count" ] || fail "$(forgotten "$case") tokens forgotten, not $count"
done

score unbounded 1 1024 retrieval:window=64,top=3
[ "$(forgotten unbounded)" = 0 ] || fail "$(forgotten unbounded) tokens forgotten by a memory without bounds"
