#!/usr/bin/env python3
"""Log-probabilities of a text longer than a GGUF model was trained for, by transformers in fp32, under each of its
position methods linear, dynamic and yarn; angles in fp64, as those of fp32 are off by 1e-3 at position 12,000.

    position_logprobs.py MODEL.gguf --text TEXT --out ../data/positions

writes METHOD.ref for compare_positions.py: one line of JSON, then for each token but the first minus its
log-probability in steps of 1/2048, little-endian uint16. TEXT is what test_positions_smollm2.sh puts together of files
of this repository. Needs what logprobs.py needs.
"""
import argparse
import copy
import hashlib
import json
import pathlib
import struct
from unittest import mock

import torch
from transformers import AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import logprobs

METHODS = {"yarn": "yarn", "linear": "pi", "dynamic": "dynamic"}  # as transformers and longhaul call them
ROWS = 512  # of logits at a time
STEPS = 2048  # to a nat


class RotaryInFp64(torch.nn.Module):
    """LlamaRotaryEmbedding of a text that is read at once."""

    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, x, position_ids):
        parameters = self.config.rope_parameters
        with mock.patch.multiple(torch, float=torch.float64, float32=torch.float64):
            inverse, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](self.config, "cpu",
                                                                           seq_len=position_ids.shape[-1])
        angles = position_ids[..., None].double() * inverse
        angles = torch.cat((angles, angles), dim=-1)
        return (angles.cos() * factor).to(x.dtype), (angles.sin() * factor).to(x.dtype)


def stretch(model, method, factor):
    config = copy.deepcopy(model.config)
    config.rope_parameters = {"rope_theta": config.rope_parameters["rope_theta"], "rope_type": method,
                              "factor": factor, "original_max_position_embeddings": config.max_position_embeddings}
    model.model.rotary_emb = RotaryInFp64(config)


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
    args = parser.parse_args()
    content = args.text.read_bytes()
    ids = logprobs.tokenizer_of(args.model).encode(content.decode("utf-8"), add_special_tokens=False).ids
    model = AutoModelForCausalLM.from_pretrained(
        args.model.parent, gguf_file=args.model.name, dtype=torch.float32, attn_implementation="sdpa").eval()
    args.out.mkdir(parents=True, exist_ok=True)
    for theirs, ours in METHODS.items():
        stretch(model, theirs, args.factor)
        scores = score(model, ids)
        about = {"model": args.model.name, "method": ours, "factor": args.factor, "tokens": len(ids),
                 "text_sha256": hashlib.sha256(content).hexdigest(),
                 "ids_sha256": hashlib.sha256(struct.pack(f"<{len(scores)}i", *ids[1:])).hexdigest(), "steps": STEPS}
        steps = struct.pack(f"<{len(scores)}H", *(round(-score * STEPS) for score in scores))
        (args.out / f"{ours}.ref").write_bytes(json.dumps(about).encode() + b"\n" + steps)
        print(f"{theirs}: {len(ids)} tokens, mean negative log-likelihood {-sum(scores) / len(scores):.4f}", flush=True)


if __name__ == "__main__":
    main()
