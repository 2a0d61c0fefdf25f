#!/usr/bin/env bash
# Qwen2.5-Coder-0.5B-Instruct on two ranks: log-probabilities as transformers has them.
. "$(dirname "$0")/logprobs.sh"
compare_model qwen2.5-coder-0.5b-instruct-q4_k_m.gguf qwen2.5-coder
