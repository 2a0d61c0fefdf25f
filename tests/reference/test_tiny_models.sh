#!/usr/bin/env bash
# Tiny random llama, qwen2 and gemma3 models on two ranks: log-probabilities within 1e-4 of transformers (f32).
. "$(dirname "$0")/../e2e/common.sh"

for name in llama-tied-f32 llama-untied-f16 qwen2-f16 gemma3-q8; do
    on_ranks 2 score "$texts"/{mixed,prose}.txt -m "$tiny/$name.gguf" -o "$work/$name" --dtype f32 --ring 2 --threads 1 >/dev/null
    "$longhaul" export "$work/$name" --format csv >"$work/$name.csv"
    for text in mixed prose; do
        printf '%s: ' "$name"
        python3 "$compare" "$tiny/$name/$text.lp" "$work/$name.csv" --max-diff 1e-4 --top1-margin 0.01
    done
done
