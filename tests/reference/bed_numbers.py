"""The numbers of the tests in tests/mpi, for the scripts that write references for them. Needs numpy."""
import numpy as np


def number(kind, tokens, elements):
    """As tests/mpi/dense.h has it: [tokens][elements] in -1 .. 1."""
    with np.errstate(over="ignore"):
        x = np.arange(tokens, dtype=np.uint64)[:, None] * np.uint64(3) + np.uint64(kind)
        x = (x * np.uint64(100003) + np.arange(elements, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(40)).astype(np.float64) / 8388608.0 - 1.0
