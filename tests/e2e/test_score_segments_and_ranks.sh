#!/usr/bin/env bash
# score gives the same log-probabilities on 1, 2, 3 and 4 ranks and in segments of 256, 1000 and the whole (f32).
. "$(dirname "$0")/common.sh"

model=$tiny/llama-untied-f16.gguf

# score NAME RANKS SEGMENT
score() {
    on_ranks "$2" score "$texts/code_c.txt" "$texts/prose.txt" -m "$model" -o "$work/$1" \
        --dtype f32 --threads 1 --ring "$2" --segment "$3" >"$work/$1.txt" || fail "score on $2 ranks, segments of $3"
    "$longhaul" export "$work/$1" --format csv >"$work/$1.csv"
}

score whole 1 100000
for ranks in 1 2 3 4; do
    for segment in 256 1000 100000; do
        [ "$ranks-$segment" != 1-100000 ] || continue
        score "r$ranks-s$segment" "$ranks" "$segment"
        printf '%s ranks, segments of %s: ' "$ranks" "$segment"
        python3 "$compare" "$work/whole.csv" "$work/r$ranks-s$segment.csv" --max-diff 1e-3
    done
done

# Texts of one token, which without BOS have no predictions, on two ring groups.
mkdir "$work/letters"
for letter in a b; do printf '%s' "$letter" >"$work/letters/$letter.txt"; done
on_ranks 2 score "$work/letters" -m "$tiny/qwen2-f16.gguf" -o "$work/ones" --ring 1 --threads 1 2>"$work/stderr" ||
    { cat "$work/stderr"; fail "score of one token on two ring groups"; }
