#!/usr/bin/env python3
"""with_metadata.py FROM.gguf TO.gguf NAME=VALUE...: the file with more in it. A VALUE with a point is a float32, of digits
alone a uint32, of numbers between commas a float32 tensor, and else a string. Needs Python alone."""
import struct
import sys

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
UINT32, FLOAT32, STRING, ARRAY = 4, 6, 8, 9
ALIGNMENT = 32


def text(string):
    data = string.encode()
    return struct.pack("<Q", len(data)) + data


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
    values, tensors = data[24:values_end], data[values_end:tensors_end]
    weights = padded(data[len(padded(data[:tensors_end])):])
    for name, value in (word.split("=") for word in more):
        if "," in value:
            floats = [float(number) for number in value.split(",")]
            tensors += text(name) + struct.pack("<IQIQ", 1, len(floats), 0, len(weights))
            weights = padded(weights + struct.pack(f"<{len(floats)}f", *floats))
            n_tensors += 1
            continue
        n_values += 1
        if value.isdigit():
            values += text(name) + struct.pack("<II", UINT32, int(value))
        elif value.replace(".", "").isdigit():
            values += text(name) + struct.pack("<If", FLOAT32, float(value))
        else:
            values += text(name) + struct.pack("<I", STRING) + text(value)
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_values) + values + tensors
    with open(target, "wb") as file:
        file.write(padded(head) + weights)


if __name__ == "__main__":
    main()
