#!/usr/bin/env python3
"""Inverse frequencies and attention factors of transformers' position methods, over a grid of options.

    positions.py --out ../data/positions/methods.txt

writes each case for tests/unit/test_position_method.c:
    METHOD dims base trained length factor beta_fast beta_slow truncate mscale
        mscale_all_dim attention_factor low_freq_factor high_freq_factor
    the attention factor of cosines and sines
    dims/2 inverse frequencies
Options that a method does not have, or that are not given, are 0. LongRoPE's lists are short_i = 1 + i/64 and
long_i = 1 + i/4. Of the grid of bases, dims, trained lengths and factors each variant of a method takes PER_VARIANT
cases that walk through all values of each, in steps that differ. NTK-aware scaling, which transformers does not have by
itself, is its dynamic one with factor 1 at `factor` times the trained length. All is computed in fp64: in transformers'
own fp32 the end of YaRN's ramp is off by 2e-6 at factor 32. Needs torch and transformers from PyPI.
"""
import argparse
import pathlib
from unittest import mock

import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

BASES = (1e4, 1e5, 5e5, 1e6)
DIMS = (32, 64, 96, 128, 256)
TRAINED = (2048, 4096, 8192, 32768)
FACTORS = (1.0, 1.5, 2.0, 4.0, 8.0, 32.0)
LENGTHS = (1.0, 3.0)  # times the trained one, for methods that follow it
PER_VARIANT = 10
OPTIONS = ("beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim", "attention_factor",
           "low_freq_factor", "high_freq_factor")
YARN = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": 1}
VARIANTS = {
    "linear": [{}],
    "ntk": [{}],
    "dynamic": [{}],
    "yarn": [YARN, {**YARN, "truncate": 0}, {**YARN, "attention_factor": 1.25},
             {**YARN, "mscale": 0.707, "mscale_all_dim": 1.0}, {**YARN, "beta_fast": 64.0, "beta_slow": 2.0}],
    "llama3": [{"low_freq_factor": 1.0, "high_freq_factor": 4.0}, {"low_freq_factor": 2.0, "high_freq_factor": 8.0}],
    "longrope": [{}, {"attention_factor": 1.5}],
}
NAMES = {"linear": "pi"}


def parameters(method, dims, trained, factor, options):
    own = {"rope_type": method, "factor": factor, "original_max_position_embeddings": trained, **options}
    if "truncate" in own:
        own["truncate"] = bool(own["truncate"])
    if method == "longrope":
        own["short_factor"] = [1 + i / 64 for i in range(dims // 2)]
        own["long_factor"] = [1 + i / 4 for i in range(dims // 2)]
    return own


def compute(method, dims, base, trained, factor, length, options):
    theirs = method
    if method == "ntk":
        theirs, length, factor = "dynamic", int(factor * trained), 1.0
    config = LlamaConfig(hidden_size=dims, num_attention_heads=1, max_position_embeddings=trained,
                         rope_parameters={"rope_theta": base, **parameters(theirs, dims, trained, factor, options)})
    with mock.patch.multiple(torch, float=torch.float64, float32=torch.float64), \
            mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        inverse, attention_factor = ROPE_INIT_FUNCTIONS[theirs](config, "cpu", seq_len=length)
    return attention_factor, inverse.tolist()


def cases():
    for method, variants in VARIANTS.items():
        lengths = LENGTHS if method in ("dynamic", "longrope") else LENGTHS[:1]
        for variant, options in enumerate(variants):
            for i in range(3 * variant, 3 * variant + PER_VARIANT):
                trained = TRAINED[(i + i // 4) % len(TRAINED)]
                yield (method, DIMS[i % len(DIMS)], BASES[(3 * i + i // 5) % len(BASES)], trained,
                       FACTORS[i % len(FACTORS)], int(lengths[i // 3 % len(lengths)] * trained), options)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    with open(args.out, "w", encoding="ascii") as file:
        for method, dims, base, trained, factor, length, options in cases():
            attention_factor, inverse = compute(method, dims, base, trained, factor, length, options)
            given = " ".join(f"{options.get(name, 0):g}" for name in OPTIONS)
            print(NAMES.get(method, method), dims, f"{base:g}", trained, length, f"{factor:g}", given, file=file)
            print(f"{attention_factor:.9g}", file=file)
            print(" ".join(f"{value:.9g}" for value in inverse), file=file)


if __name__ == "__main__":
    main()
