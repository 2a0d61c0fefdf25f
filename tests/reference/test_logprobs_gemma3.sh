#!/usr/bin/env bash
# Gemma 3 270M on two ranks: log-probabilities as transformers has them.
. "$(dirname "$0")/logprobs.sh"
compare_model gemma-3-270m-q4_k_m.gguf gemma3
