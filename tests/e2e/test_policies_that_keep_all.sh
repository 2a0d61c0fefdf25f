#!/usr/bin/env bash
# A policy with room for everything says what full says, to 1e-3 (f32): a llama's and a qwen2's scores on two ranks, by
# segments. A memory of which every token may be seen is one of which all are. Retrieval of all blocks, which are kept in
# four bits, says nearly that: weights of random numbers exaggerate what is rounded, so it is held to half of what a
# choice of few blocks differs by.
. "$(dirname "$0")/policies.sh"

# same MODEL POLICY OTHER: OTHER was scored as $work/other.csv
same() {
    local gap
    score one 2 "$tiny/$1.gguf" "$2"
    gap=$(difference other one)
    echo "$1: $2 is $3 to $gap"
    ! exceeds "$gap" 1e-3 || fail "$2 is not $3"
}

for model in llama-tied-f32 qwen2-f16; do
    score other 2 "$tiny/$model.gguf" full
    for policy in window:window=8000 sinks:window=8000,sinks=4 retrieval:window=8000 \
        infllm:window=8000,sinks=4 memory:window=8000 h2o:window=64,slots=8000 \
        snapkv:window=64,slots=8000 compressive:window=50,slots=8000,rate=1,form={mean,max,used}; do
        same "$model" "$policy" full
    done
    score one 2 "$tiny/$model.gguf" retrieval:window=100,top=1024
    score few 2 "$tiny/$model.gguf" retrieval:window=100,top=3
    echo "$model: of all blocks $(difference other one) from full, of 3 $(difference other few)"
    holds "2 * $(difference other one) < $(difference other few)"
    score other 2 "$tiny/$model.gguf" memory:window=20,memory=1000
    same "$model" memory:window=20,memory=1000,top=1000 memory:window=20,memory=1000
done
