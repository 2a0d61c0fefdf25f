#!/usr/bin/env bash
# Models with windows of their own say the same on 1, 2, 3 and 4 ranks, to 1e-3 (f32): a gemma3, whose other layers are full
# or retrieve, and a mistral. Without their windows they say something else.
. "$(dirname "$0")/policies.sh"
ranks_agree "$tiny/gemma3-q8.gguf" "2 3 4" retrieval:window=60,sinks=4,top=2

score full 1 "$tiny/gemma3-q8.gguf" "0-5 full"
agrees "$tiny/gemma3-q8.gguf" "2 3 4" own
score full 1 "$tiny/mistral-f16.gguf" "0-1 full"
agrees "$tiny/mistral-f16.gguf" "2 3 4" own
