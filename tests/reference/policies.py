#!/usr/bin/env python3
"""What the published code of memory policies makes of the numbers that tests/mpi/dense.h gives, for
tests/mpi/test_published.c.

    pip install torch transformers kvpress attention-sinks compressive-transformer-pytorch
    policies.py --out ../data/policies

    sinks        attention_sinks' cache (mit-han-lab/streaming-llm), token by token
    h2o          kvpress' ObservedAttentionPress: what each key has received. It divides by the number of queries that
                 saw the key, which the paper and longhaul do not: that is undone
    snapkv       kvpress' SnapKVPress: scores by the last 64 queries
    compressive  compressive-transformer-pytorch's ConvCompress and queue_fifo, with random weights

The packages say what is kept, or what becomes of it; attention over that is dense and in fp64 here, at positions
counted inside what is kept. A file is one line of JSON, then the answers as float64 [positions][heads][dim]; for
compressive the weights come first, float32: keys' [dim][rate][dim] and [dim], then the values'.
"""
import argparse
import importlib.metadata
import json
import pathlib
import types

import numpy as np
import torch
from attention_sinks.attention_sink_kv_cache import AttentionSinkKVCache
from compressive_transformer_pytorch.compressive_transformer_pytorch import ConvCompress, queue_fifo
from kvpress import ObservedAttentionPress, SnapKVPress
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from bed_numbers import number

HEADS, KV_HEADS, DIM, BASE, SCALE = 4, 2, 16, 10000.0, 0.9
QUERY, KEY, VALUE = range(3)
TOKENS, AFTER = 200, 6  # in one segment, and one by one behind it


def rows(kind, heads):
    """[1][heads][tokens][DIM] in fp64."""
    values = number(kind, TOKENS + AFTER, heads * DIM).reshape(-1, heads, DIM)
    return torch.from_numpy(values).permute(1, 0, 2)[None]


def rotated(x, positions):
    angles = torch.as_tensor(positions, dtype=torch.float64)[:, None] * BASE ** (-torch.arange(0, DIM, 2) / DIM)
    cosines, sines = (torch.cat((f(angles), f(angles)), -1)[None] for f in (torch.cos, torch.sin))
    return apply_rotary_pos_emb(x, x, cosines, sines)[0]


def attend(q, k, v):
    """One query [1][HEADS][1][DIM] at the end of raw keys [1][KV_HEADS][n][DIM]: [HEADS][DIM]."""
    n = k.shape[2]
    keys, values = (repeat_kv(x, HEADS // KV_HEADS) for x in (rotated(k, range(n)), v))
    scores = rotated(q, [n - 1]) @ keys.transpose(2, 3) * SCALE
    return (scores.softmax(-1) @ values)[0, :, 0].numpy()


def attentions(q, k):
    """Causal, of the whole segment: [1][HEADS][TOKENS][TOKENS]."""
    positions = range(TOKENS)
    keys = repeat_kv(rotated(k[:, :, :TOKENS], positions), HEADS // KV_HEADS)
    scores = rotated(q[:, :, :TOKENS], positions) @ keys.transpose(2, 3) * SCALE
    return (scores + torch.full((TOKENS, TOKENS), -torch.inf).triu(1)).softmax(-1)


def behind(kept_k, kept_v, window, q, k, v):
    """The answers to the tokens behind the segment: kept slots, then what is near."""
    answers = []
    for t in range(TOKENS, TOKENS + AFTER):
        near = slice(TOKENS - window, t + 1)
        answers.append(attend(q[:, :, t:t + 1], torch.cat((kept_k, k[:, :, near]), 2),
                              torch.cat((kept_v, v[:, :, near]), 2)))
    return answers


def best(scores, slots, x):
    """The rows of x [1][KV_HEADS][..][DIM] with the highest scores [1][KV_HEADS][n], in their order."""
    chosen = scores.topk(slots, -1).indices.sort(-1).values
    return x.gather(2, chosen[..., None].expand(-1, -1, -1, DIM))


def sinks(q, k, v):
    sink, window = 4, 50
    cache = AttentionSinkKVCache(attention_sink_size=sink, attention_sink_window_size=window)
    kept, answers = [[k[:, :, :1], v[:, :, :1]]], []
    for t in range(TOKENS + AFTER):
        if t > 0:
            kept = cache.evict_for_space(kept, 1)
            kept = [[torch.cat((old, x[:, :, t:t + 1]), 2) for old, x in zip(kept[0], (k, v))]]
        answers.append(attend(q[:, :, t:t + 1], *kept[0]))
    return f"sinks:window={window},sinks={sink}", 120, answers[120:], b""


def h2o(q, k, v):
    window, slots = 40, 30
    scores = ObservedAttentionPress().score(None, None, k[:, :, :TOKENS], None, attentions(q, k), {})
    scores = (scores * torch.arange(TOKENS, 0, -1))[..., :TOKENS - window]
    kept = best(scores, slots, k), best(scores, slots, v)
    return f"h2o:window={window},slots={slots}", TOKENS, behind(*kept, window, q, k, v), b""


def snapkv(q, k, v):
    window, slots = 64, 30
    module = types.SimpleNamespace(config=types.SimpleNamespace(num_attention_heads=HEADS,
                                                                num_key_value_heads=KV_HEADS))
    scores = SnapKVPress(window_size=window).score(module, torch.empty(1, TOKENS, 1), k[:, :, :TOKENS], None,
                                                   attentions(q, k), {})[..., :TOKENS - window]
    kept = best(scores, slots, k), best(scores, slots, v)
    return f"snapkv:window={window},slots={slots}", TOKENS, behind(*kept, window, q, k, v), b""


def compressive(q, k, v):
    window, slots, rate = 41, 20, 3
    kept, weights = [], b""
    for x in (k, v):
        convolution = ConvCompress(DIM, rate).double()
        with torch.no_grad():
            old = x[0, :, :TOKENS - window]
            _, compressed = queue_fifo(torch.empty(KV_HEADS, 0, DIM), convolution(old), length=slots, dim=1)
        kept.append(compressed[None])
        weight = convolution.conv.weight.detach().permute(0, 2, 1)  # [out][token][in]
        weights += weight.numpy().astype("<f4").tobytes() + convolution.conv.bias.detach().numpy().astype("<f4").tobytes()
    policy = f"compressive:window={window},slots={slots},rate={rate},form=conv"
    return policy, TOKENS, behind(*kept, window, q, k, v), weights


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    packages = {name: importlib.metadata.version(name)
                for name in ("kvpress", "attention-sinks", "compressive-transformer-pytorch", "transformers")}
    torch.manual_seed(args.seed)
    q, k, v = rows(QUERY, HEADS), rows(KEY, KV_HEADS), rows(VALUE, KV_HEADS)
    for policy in (sinks, h2o, snapkv, compressive):
        text, first, answers, weights = policy(q, k, v)
        about = {"policy": text, "first": first, "positions": len(answers), "segment": TOKENS, "heads": HEADS,
                 "kv_heads": KV_HEADS, "dim": DIM, "base": BASE, "scale": SCALE, "packages": packages}
        path = args.out / f"{policy.__name__}.ref"
        path.write_bytes(json.dumps(about).encode() + b"\n" + weights + np.asarray(answers, "<f8").tobytes())
        print(f"{path}: {text}, {len(answers)} positions, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
