#!/usr/bin/env python3
"""with_metadata.py FROM.gguf TO.gguf NAME=VALUE...: the file with more in it. A VALUE with a point is a float32, of digits
alone a uint32, of numbers between commas a float32 tensor, and else a string. Needs Python alone."""
import pathlib
import struct
import sys

sys.path.append(str(pathlib.Path(__file__).parent.parent / "fuzz"))
from seeds_gguf import tensor, text, value

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
UINT32, FLOAT32, STRING, ARRAY = 4, 6, 8, 9
F32_TENSOR = 0
ALIGNMENT = 32


def value_end(data, at, kind):
    if kind == STRING:
        return at + 8 + struct.unpack_from("<Q", data, at)[0]
    if kind != ARRAY:
        return at + SIZES[kind]
    kind, count = struct.unpack_from("<IQ", data, at)
    at += 12
    for _ in range(count):
        at = value_end(data, at, kind)
    return at


def ends(data, n_tensors, n_values):
    """Where the values end, and where the descriptions of tensors do."""
    at = 24
    for _ in range(n_values):
        at = value_end(data, at, STRING)
        at = value_end(data, at + 4, struct.unpack_from("<I", data, at)[0])
    values = at
    for _ in range(n_tensors):
        at = value_end(data, at, STRING)
        at += 4 + 8 * struct.unpack_from("<I", data, at)[0] + 12
    return values, at


def padded(data):
    return data + bytes(-len(data) % ALIGNMENT)


def main():
    source, target, *more = sys.argv[1:]
    with open(source, "rb") as file:
        data = file.read()
    version, n_tensors, n_values = struct.unpack_from("<IQQ", data, 4)
    values_end, tensors_end = ends(data, n_tensors, n_values)
    weights = padded(data[len(padded(data[:tensors_end])):])
    values, tensors = [], []
    for name, given in (word.split("=") for word in more):
        if "," in given:
            floats = [float(number) for number in given.split(",")]
            tensors.append(tensor(name, [len(floats)], F32_TENSOR, len(weights)))
            weights = padded(weights + struct.pack(f"<{len(floats)}f", *floats))
        elif given.isdigit():
            values.append(value(name, UINT32, struct.pack("<I", int(given))))
        elif given.replace(".", "").isdigit():
            values.append(value(name, FLOAT32, struct.pack("<f", float(given))))
        else:
            values.append(value(name, STRING, text(given)))
    head = struct.pack("<IQQ", version, n_tensors + len(tensors), n_values + len(values))
    with open(target, "wb") as file:
        file.write(padded(b"GGUF" + head + data[24:values_end] + b"".join(values) + data[values_end:tensors_end] +
                          b"".join(tensors)) + weights)


if __name__ == "__main__":
    main()
