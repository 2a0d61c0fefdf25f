#!/usr/bin/env python3
"""peer_torch.py MODEL.gguf [--threads N] [--lengths 512 4096 ...] [--dtype float32 bfloat16]

What a user would run instead: transformers on PyTorch (SDPA attention), prefill in tokens/s, for the figures that
docs/measurements.md sets beside ours. Needs torch, transformers, accelerate and gguf from PyPI.
"""
import argparse
import os
import time

import torch
from transformers import AutoModelForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder, name = os.path.split(os.path.abspath(arguments.model))
    for dtype in arguments.dtype:
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=getattr(torch, dtype)).eval()
        for length in arguments.lengths:
            ids = (torch.arange(length) * 7919 % model.config.vocab_size)[None]
            best = float("inf")
            with torch.inference_mode():
                for _ in range(2 if length <= 4096 else 1):
                    begun = time.perf_counter()
                    model(ids, logits_to_keep=1, use_cache=True)
                    best = min(best, time.perf_counter() - begun)
            print(f"torch {torch.__version__} {dtype} {arguments.threads} threads: {length} tokens, {length / best:.0f}/s")


if __name__ == "__main__":
    main()
