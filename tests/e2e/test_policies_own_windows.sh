#!/usr/bin/env bash
# Models with windows of their own, a gemma3 whose other layers are full or retrieve and a mistral, say the same on 1, 2, 3
# and 4 ranks, to 1e-3 (f32).
. "$(dirname "$0")/policies.sh"
ranks_agree "$tiny/gemma3-q8.gguf" "2 3 4" retrieval:window=60,sinks=4,top=2

# same MODEL: with the windows of its file
same() {
    local ranks gap
    score one 1 "$1" own
    for ranks in 2 3 4; do
        score many "$ranks" "$1" own
        gap=$(difference one many)
        ! exceeds "$gap" 1e-3 || fail "$1: $ranks ranks differ by $gap from 1"
        echo "${1##*/}: $ranks ranks differ by $gap from 1"
    done
}

same "$tiny/gemma3-q8.gguf"
same "$tiny/mistral-f16.gguf"
