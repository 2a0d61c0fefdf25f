#!/usr/bin/env bash
# Tiny random llama, mistral, qwen2 and gemma3 models on two ranks: log-probabilities within 2e-4 of transformers (f32).
. "$(dirname "$0")/../e2e/common.sh"

# check REFERENCES MODEL OPTIONS...
check() {
    local references=$1 model=$2 text
    shift 2
    on_ranks 2 score "$texts"/{mixed,prose}.txt -m "$tiny/$model.gguf" -o "$work/$references" --dtype f32 --ring 2 \
        --threads 1 "$@" >/dev/null
    "$longhaul" export "$work/$references" --format csv >"$work/$references.csv"
    for text in mixed prose; do
        printf '%s: ' "$references"
        python3 "$compare" "$tiny/$references/$text.lp" "$work/$references.csv" --max-diff 2e-4 --top1-margin 0.01
    done
}

for name in llama-tied-f32 llama-untied-f16 qwen2-f16 gemma3-q8; do
    check "$name" "$name"
done
# A Mistral is a llama whose file names a window, which is then every layer's without being told; or the user names it.
check mistral-f16 mistral-f16
grep -q "policy window:window=100" "$work/mistral-f16/logs/rank-0000.log" || fail "the file's window is not in the log"
check llama-tied-f32-window llama-tied-f32 --policy window:window=100
