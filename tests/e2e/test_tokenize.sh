#!/usr/bin/env bash
# tokenize prints the ids of the reference, one a line, for every text and every model there is.
. "$(dirname "$0")/common.sh"

# ids_of FILE.lp: the reference's ids, one a line.
ids_of() {
    PYTHONPATH=$source/tests/reference python3 -c '
import sys, reference_file
print("\n".join(map(str, reference_file.read(sys.argv[1])[1])))' "$1"
}

checked=0
# check_model MODEL REFERENCES [FIRST]: from the first id of the references on, 2 where that is BOS.
check_model() {
    local model=$1 references=$2 first=${3:-1} reference text
    for reference in "$references"/*.lp; do
        text=$texts/$(basename "$reference" .lp).txt
        "$longhaul" tokenize "$text" -m "$model" >"$work/got"
        ids_of "$reference" | tail -n +"$first" >"$work/wanted"
        cmp "$work/got" "$work/wanted" || fail "$(basename "$model"): other ids for $(basename "$text")"
        checked=$((checked + 1))
    done
}

for name in llama-tied-f32 llama-untied-f16 qwen2-f16 gemma3-q8; do
    check_model "$tiny/$name.gguf" "$tiny/$name"
done
if model=$(model_file SmolLM2-135M-Instruct.Q4_1.gguf); then
    check_model "$model" "$source/tests/data/logprobs/smollm2"
fi
if model=$(model_file qwen2.5-coder-0.5b-instruct-q4_k_m.gguf); then
    check_model "$model" "$source/tests/data/logprobs/qwen2.5-coder"
fi
if model=$(model_file gemma-3-270m-q4_k_m.gguf); then
    check_model "$model" "$source/tests/data/logprobs/gemma3" 2
fi
echo "$checked texts: all ids agree"
