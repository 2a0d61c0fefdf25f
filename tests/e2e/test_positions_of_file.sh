#!/usr/bin/env bash
# What a model's file says of its positions is what is done: a file that names YaRN, linear scaling, Llama 3's divisors or
# LongRoPE's factors scores as the same model without it does when the user asks for them (which is held against
# transformers elsewhere). Another method in its place is a warning and is recorded.
. "$(dirname "$0")/common.sh"

plain=$tiny/llama-tied-f32.gguf # trained to 8192, heads of 16, base 10000
text=$texts/prose.txt

# score NAME MODEL OPTIONS...: to $work/NAME.csv
score() {
    local name=$1 model=$2
    shift 2
    "$longhaul" score "$text" -m "$model" -o "$work/$name" --dtype f32 --threads 1 "$@" >/dev/null 2>"$work/$name.err" ||
        fail "$name: $(cat "$work/$name.err")"
    "$longhaul" export "$work/$name" --format csv >"$work/$name.csv"
}

# same NAME "ASKED..." VALUE...: the values in the file do what the words on the command line do
same() {
    local name=$1 asked=$2
    shift 2
    python3 "$source/tests/e2e/with_metadata.py" "$plain" "$work/$name.gguf" "$@"
    score "$name-file" "$work/$name.gguf"
    # shellcheck disable=SC2086 # options are words
    score "$name-asked" "$plain" $asked
    printf '%s: ' "$name"
    python3 "$compare" "$work/$name-asked.csv" "$work/$name-file.csv" --max-diff 1e-4
    ! cmp -s "$work/plain.csv" "$work/$name-file.csv" || fail "$name: the file's positions change nothing"
}

rope=llama.rope.scaling
divisors=$(awk 'BEGIN {
    for (i = 0; i < 8; i++) {
        wave = 8 * atan2(1, 1) * 10000 ^ (i / 8)
        smooth = (8192 / wave - 1) / 3
        kept = smooth < 0 ? 0 : smooth < 1 ? smooth : 1
        printf "%s%.9g", i ? "," : "", 1 / ((1 - kept) / 8 + kept)
    }}')

score plain "$plain"
same yarn "--positions yarn --factor 2" $rope.type=yarn $rope.factor=2.0 $rope.original_context_length=8192
same linear "--positions pi --factor 1.25" $rope.type=linear $rope.factor=1.25
same llama3 "--positions llama3 --factor 8" rope_freqs.weight="$divisors"
# Within the trained length it is the short factors that count.
same longrope "--positions pi --factor 1.25" $rope.type=longrope $rope.attn_factor=1.0 \
    $rope.original_context_length=8192 rope_factors_long.weight=2,2,2,2,2,2,2,2 \
    rope_factors_short.weight=1.25,1.25,1.25,1.25,1.25,1.25,1.25,1.25

grep -q "yarn, factor 2 .*(the model's own)" "$work/yarn-file.err" || fail "$(cat "$work/yarn-file.err")"
score replaced "$work/yarn.gguf" --positions pi --factor 3
grep -q "warn: .* in place of the file's yarn, factor 2" "$work/replaced.err" || fail "no warning: $(cat "$work/replaced.err")"
grep -aq "in place of the file's yarn, factor 2" "$work/replaced/results.h5" || fail "not recorded"
python3 "$source/tests/e2e/with_metadata.py" "$plain" "$work/attention.gguf" $rope.attn_factor=1.2
score attention "$work/attention.gguf" --positions yarn --factor 2
grep -q "warn: .* in place of the file's attention factor 1.2" "$work/attention.err" || fail "no warning: $(cat "$work/attention.err")"
