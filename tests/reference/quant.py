#!/usr/bin/env python3
"""Reference vectors for base/tensor.c: random blocks of every type and their numbers, by the `gguf` package.

Writes one file per type to the folder given: n (uint32), the bytes of a row of n elements, n float32. All
little-endian. The bytes are random but for the half-precision scales, which are finite; one of them is subnormal.

    pip install gguf numpy
    python tests/reference/quant.py tests/data/quant
"""
import argparse
import pathlib

import gguf
import numpy as np

# type: (bytes of a block, where its half-precision scales are)
BLOCKS = {
    "F32": (4, []),
    "F16": (2, []),
    "BF16": (2, []),
    "Q4_0": (18, [0]),
    "Q4_1": (20, [0, 2]),
    "Q5_0": (22, [0]),
    "Q5_1": (24, [0, 2]),
    "Q8_0": (34, [0]),
    "Q2_K": (84, [80, 82]),
    "Q3_K": (110, [108]),
    "Q4_K": (144, [0, 2]),
    "Q5_K": (176, [0, 2]),
    "Q6_K": (210, [208]),
}


def plain_rows(name, rng):
    """Every exponent, subnormals and both zeros, and infinities; a NaN has no one bit pattern."""
    values = np.concatenate([[0.0, -0.0, np.inf, -np.inf], rng.normal(size=60) * 2.0 ** rng.integers(-26, 16, size=60)])
    values = values.astype(np.float32)
    if name == "F32":
        return values.view(np.uint8)
    if name == "F16":
        return values.astype(np.float16).view(np.uint8)
    return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)


def quantised_rows(size, scales, rng):
    count = 3 if size > 34 else 8
    blocks = rng.integers(0, 256, size=(count, size), dtype=np.uint8)
    for place in scales:
        halves = (rng.normal(size=count) * 0.02).astype(np.float16)
        halves[1] = np.float16(3e-6)
        blocks[:, place : place + 2] = halves.reshape(-1, 1).view(np.uint8)
    return blocks.reshape(-1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="folder for the files")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20240607)
    for name, (size, scales) in BLOCKS.items():
        row = quantised_rows(size, scales, rng) if size > 4 else plain_rows(name, rng)
        numbers = gguf.quants.dequantize(row.reshape(1, -1), gguf.GGMLQuantizationType[name])
        numbers = np.ascontiguousarray(numbers, dtype="<f4").reshape(-1)
        with open(out / f"{name}.bin", "wb") as file:
            file.write(np.uint32(numbers.size).tobytes() + row.tobytes() + numbers.tobytes())


if __name__ == "__main__":
    main()
