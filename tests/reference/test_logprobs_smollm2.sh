#!/usr/bin/env bash
# SmolLM2-135M-Instruct on two ranks: log-probabilities as transformers has them.
. "$(dirname "$0")/logprobs.sh"
compare_model SmolLM2-135M-Instruct.Q4_1.gguf smollm2
