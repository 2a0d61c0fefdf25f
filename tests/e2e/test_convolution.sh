#!/usr/bin/env bash
# compressive:form=conv takes its weights from the model's file: those of tests/reference/tiny_models.py make the mean,
# so scores are those of form=mean, on 1 to 4 ranks; another rate, and a file without weights, are errors.
. "$(dirname "$0")/common.sh"

model=$tiny/llama-convolution-f32.gguf

# score NAME RANKS FORM
score() {
    on_ranks "$2" score "$texts/code_c.txt" -m "$model" -o "$work/$1" --dtype f32 --threads 1 --ring "$2" \
        --segment 256 --policy "compressive:window=100,slots=20,rate=4,form=$3" >"$work/$1.txt" || fail "score $1"
    "$longhaul" export "$work/$1" --format csv >"$work/$1.csv"
}

score mean 1 mean
score conv 1 conv
for ranks in 2 3 4; do
    score "conv-$ranks" "$ranks" conv
done
for other in conv conv-{2,3,4}; do
    printf '%s: ' "$other"
    python3 "$compare" "$work/mean.csv" "$work/$other.csv" --max-diff 1e-3
done

# refuses MODEL POLICY WORDS
refuses() {
    exit_code "$longhaul" score "$texts/code_c.txt" -m "$1" -o "$work/refused" --policy "$2" 2>"$work/error"
    [ "$code" = 2 ] || fail "$2: code $code"
    grep -q "$3" "$work/error" || fail "$2: $(cat "$work/error")"
}

refuses "$model" compressive:rate=5,form=conv "rate=4"
refuses "$tiny/llama-tied-f32.gguf" compressive:form=conv "no tensor blk.0.compress_k.weight"
