#!/usr/bin/env bash
# Models with windows of their own say the same on 1, 2, 3 and 4 ranks, to 1e-3 (f32): a gemma3, whose other layers are full
# or retrieve, and a mistral. Without their windows they say something else.
. "$(dirname "$0")/policies.sh"
ranks_agree "$tiny/gemma3-q8.gguf" "2 3 4" retrieval:window=60,sinks=4,top=2

# same MODEL LAYERS: with the windows of its file
same() {
    local ranks gap
    score full 1 "$1" "0-$(($2 - 1)) full"
    score one 1 "$1" own
    exceeds "$(difference full one)" 0.05 || fail "$1: its windows change nothing"
    for ranks in 2 3 4; do
        score many "$ranks" "$1" own
        gap=$(difference one many)
        ! exceeds "$gap" 1e-3 || fail "$1: $ranks ranks differ by $gap from 1"
        echo "${1##*/}: $ranks ranks differ by $gap from 1"
    done
}

same "$tiny/gemma3-q8.gguf" 6
same "$tiny/mistral-f16.gguf" 2
