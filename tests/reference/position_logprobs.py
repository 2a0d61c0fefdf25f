#!/usr/bin/env python3
"""Log-probabilities of a text longer than a GGUF model was trained for, by transformers in fp32, under each of its
position methods linear, dynamic and yarn.

    position_logprobs.py MODEL.gguf --text TEXT --out ../data/positions

writes METHOD.json: every 50th token's id and log-probability, for compare_positions.py. TEXT is what
test_positions_smollm2.sh puts together of files of this repository. Needs what logprobs.py needs.
"""
import argparse
import copy
import hashlib
import json
import pathlib

import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

import logprobs

METHODS = {"linear": "pi", "dynamic": "dynamic", "yarn": "yarn"}  # as transformers and longhaul call them
ROWS = 512  # of logits at a time


def stretch(model, method, factor):
    config = copy.deepcopy(model.config)
    config.rope_parameters = {"rope_theta": config.rope_parameters["rope_theta"], "rope_type": method,
                              "factor": factor, "original_max_position_embeddings": config.max_position_embeddings}
    model.model.rotary_emb = LlamaRotaryEmbedding(config)


def score(model, ids):
    with torch.inference_mode():
        hidden = model.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0, :-1]
        parts = []
        for rows, targets in zip(hidden.split(ROWS), torch.tensor(ids[1:]).split(ROWS)):
            logits = model.lm_head(rows).double()
            parts.append(logits.gather(1, targets[:, None])[:, 0] - torch.logsumexp(logits, dim=-1))
    return torch.cat(parts).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--factor", type=float, default=2.0)
    parser.add_argument("--every", type=int, default=50)
    args = parser.parse_args()
    content = args.text.read_bytes()
    ids = logprobs.tokenizer_of(args.model).encode(content.decode("utf-8"), add_special_tokens=False).ids
    model = AutoModelForCausalLM.from_pretrained(
        args.model.parent, gguf_file=args.model.name, dtype=torch.float32, attn_implementation="sdpa").eval()
    args.out.mkdir(parents=True, exist_ok=True)
    for theirs, ours in METHODS.items():
        stretch(model, theirs, args.factor)
        scores = score(model, ids)
        positions = list(range(args.every, len(ids), args.every))
        about = {"model": args.model.name, "method": ours, "factor": args.factor, "tokens": len(ids),
                 "text_sha256": hashlib.sha256(content).hexdigest(), "every": args.every,
                 "ids": [ids[p] for p in positions], "logprobs": [round(scores[p - 1], 6) for p in positions]}
        (args.out / f"{ours}.json").write_text(json.dumps(about) + "\n", encoding="ascii")
        print(f"{theirs}: {len(ids)} tokens, mean negative log-likelihood {-sum(scores) / len(scores):.4f}", flush=True)


if __name__ == "__main__":
    main()
