#!/usr/bin/env python3
"""peer_attend_torch.py [--tokens N]

PyTorch's attention on a GPU, by FlashAttention-2 and by cuDNN, in the shapes of bench_attend_cuda and in its unit:
TFLOP/s of a causal prefill, the median of several; before it the card's peak, that of a product of large matrices.
Needs torch for CUDA from PyPI.
"""
import argparse
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

# query heads, heads of keys and values, dimension
SHAPES = [(16, 16, 64), (16, 16, 128), (9, 3, 64), (16, 16, 80), (16, 16, 96), (8, 8, 256)]
BACKENDS = [("flash-2", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)]
WARM_UP, REPEATS = 3, 12


def milliseconds_of(attend):
    times = []
    for i in range(WARM_UP + REPEATS):
        begun, over = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        attend()
        over.record()
        over.synchronize()
        if i >= WARM_UP:
            times.append(begun.elapsed_time(over))
    return statistics.median(times), min(times)


def measure(name, backend, shape, tokens):
    heads, kv_heads, dim = shape
    q = torch.randn(1, heads, tokens, dim, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, kv_heads, tokens, dim, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    with sdpa_kernel(backend), torch.inference_mode():
        median, best = milliseconds_of(
            lambda: scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)
        )
    tflop = 4e-12 * dim * heads * tokens * (tokens + 1) / 2
    print(
        f"torch {name:8} heads {heads:2}/{kv_heads:<2} dim {dim:3} tokens {tokens:6} causal: {median:8.3f} ms, "
        f"{1e3 * tflop / median:6.1f} TFLOP/s (best {1e3 * tflop / best:.1f})"
    )


def measure_peak(side=8192):
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    with torch.inference_mode():
        median, best = milliseconds_of(lambda: a @ b)
    tflop = 2e-12 * side**3
    print(f"matrices of {side}: {1e3 * tflop / median:.1f} TFLOP/s (best {1e3 * tflop / best:.1f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16384)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}")
    measure_peak()
    for shape in SHAPES:
        for name, backend in BACKENDS:
            try:
                measure(name, backend, shape, arguments.tokens)
            except RuntimeError as refused:
                print(f"torch {name:8} does not take heads {shape[0]}/{shape[1]} dim {shape[2]}: {refused}")


if __name__ == "__main__":
    main()
