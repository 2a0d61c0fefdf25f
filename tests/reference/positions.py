#!/usr/bin/env python3
"""Inverse frequencies and attention factors of transformers' position methods, over a grid of options.

    positions.py --out ../data/positions/methods.txt

writes each case for tests/unit/test_position_method.c:
    METHOD dims base trained length factor beta_fast beta_slow truncate mscale
        mscale_all_dim attention_factor low_freq_factor high_freq_factor
    the attention factor of cosines and sines
    dims/2 inverse frequencies
Options that a method does not have, or that are not given, are 0. LongRoPE's lists are short_i = 1 + i/64 and
long_i = 1 + i/4. NTK-aware scaling, which transformers does not have by itself, is its dynamic one with factor 1 at
`factor` times the trained length. Needs torch and transformers from PyPI.
"""
import argparse
import pathlib

from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

TRAINED = 8192
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


def parameters(method, dims, factor, options):
    own = {"rope_type": method, "factor": factor, "original_max_position_embeddings": TRAINED, **options}
    if "truncate" in own:
        own["truncate"] = bool(own["truncate"])
    if method == "longrope":
        own["short_factor"] = [1 + i / 64 for i in range(dims // 2)]
        own["long_factor"] = [1 + i / 4 for i in range(dims // 2)]
    return own


def compute(method, dims, base, factor, length, options):
    theirs = method
    if method == "ntk":
        theirs, length, factor = "dynamic", int(factor * TRAINED), 1.0
    config = LlamaConfig(hidden_size=dims, num_attention_heads=1, max_position_embeddings=TRAINED,
                         rope_parameters={"rope_theta": base, **parameters(theirs, dims, factor, options)})
    inverse, attention_factor = ROPE_INIT_FUNCTIONS[theirs](config, "cpu", seq_len=length)
    return attention_factor, inverse.tolist()


def cases():
    for method, variants in VARIANTS.items():
        lengths = (TRAINED, 3 * TRAINED) if method in ("dynamic", "longrope") else (TRAINED,)
        shapes = ((64, 10000.0), (128, 500000.0), (96, 1000000.0))
        for options in variants:
            for dims, base in shapes:
                for factor in (1.0, 2.0, 8.0):
                    for length in lengths:
                        if factor == 1.0 and base != 10000.0:
                            continue
                        yield method, dims, base, factor, length, options


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    with open(args.out, "w", encoding="ascii") as file:
        for method, dims, base, factor, length, options in cases():
            attention_factor, inverse = compute(method, dims, base, factor, length, options)
            given = " ".join(f"{options.get(name, 0):g}" for name in OPTIONS)
            print(NAMES.get(method, method), dims, f"{base:g}", TRAINED, length, f"{factor:g}", given, file=file)
            print(f"{attention_factor:.9g}", file=file)
            print(" ".join(f"{value:.8g}" for value in inverse), file=file)


if __name__ == "__main__":
    main()
