#!/usr/bin/env bash
# SentencePiece vocabularies: the ids of the sentencepiece package, over a mixed corpus of about 2 MB. Mistral's
# vocabulary comes with the package mistral-common, Gemma's with the model. tests/run.sh --all fetches both.
. "$(dirname "$0")/../e2e/common.sh"

python=${PYTHON:-python3}
export PYTHONPATH=${BUILD:-$source/build}/python${PYTHONPATH:+:$PYTHONPATH}
"$python" -c 'import sentencepiece, gguf, tokenizers, google.protobuf' 2>/dev/null ||
    skip "no $python with: pip install sentencepiece protobuf tokenizers gguf mistral-common"

reference=$source/tests/reference
"$python" "$reference/tokens.py" corpus "$work/corpus.txt"

# check MODEL NAME
check() {
    printf '%s: ' "$2"
    "$python" "$reference/tokens.py" compare "$1" "$work/corpus.txt" "$longhaul" tokenize
}

checked=0
if data=$("$python" -c 'import os, mistral_common as m; print(os.path.dirname(m.__file__) + "/data")' 2>/dev/null); then
    "$python" "$reference/spm.py" "$data/tokenizer.model.v1" "$work/mistral.gguf"
    check "$work/mistral.gguf" "Mistral (a space in front)"
    checked=$((checked + 1))
fi
if model=$(model_file gemma-3-270m-q4_k_m.gguf); then
    check "$model" "Gemma 3 (none)"
    checked=$((checked + 1))
fi
[ "$checked" -gt 0 ] || skip "neither the package mistral-common nor models/gemma-3-270m-q4_k_m.gguf (jobs/fetch_model.sh gemma3)"
