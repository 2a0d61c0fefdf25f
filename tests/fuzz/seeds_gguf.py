#!/usr/bin/env python3
"""Small sound GGUF files for the fuzzer to start from: seeds_gguf.py FOLDER. Needs Python alone."""
import pathlib
import struct
import sys


def text(string):
    return struct.pack("<Q", len(string)) + string.encode()


def value(key, number, body):
    return text(key) + struct.pack("<I", number) + body


def tensor(name, dims, number, offset):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, number, offset)


def gguf(version, values, tensors, data):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values)) + b"".join(values) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


# One value of each type by its number, arrays of each; then tensors of each type: (number, elements, bytes) of a block.
SCALARS = ["<B", "<b", "<H", "<h", "<I", "<i", "<f", "<B", None, None, "<Q", "<q", "<d"]
BLOCKS = [(0, 1, 4), (1, 1, 2), (2, 32, 18), (3, 32, 20), (6, 32, 22), (7, 32, 24), (8, 32, 34), (10, 256, 84),
          (11, 256, 110), (12, 256, 144), (13, 256, 176), (14, 256, 210), (30, 1, 2)]


def main():
    out = pathlib.Path(sys.argv[1])
    values = [value("general.alignment", 4, struct.pack("<I", 32)), value("s", 8, text("llama")),
              value("words", 9, struct.pack("<IQ", 8, 2) + text("a") + text(""))]
    for number, form in enumerate(SCALARS):
        if form:
            values.append(value(f"v{number}", number, struct.pack(form, 1)))
            values.append(value(f"l{number}", 9, struct.pack("<IQ", number, 2) + struct.pack(form, 1) * 2))
    tensors, data = [], b""
    for number, elements, size in BLOCKS:
        tensors.append(tensor(f"t{number}", [elements * 2, 3], number, len(data)))
        data += bytes(size * 6) + bytes(-size * 6 % 32)
    seeds = {"all": gguf(3, values, tensors, data), "values": gguf(2, values, [], b""),
             "tensors": gguf(3, [], tensors, data), "empty": gguf(3, [], [], b""),
             "one": gguf(3, values[:1], [tensor("t", [2, 2, 2, 2], 0, 0)], bytes(64))}
    for name, content in seeds.items():
        (out / name).write_bytes(content)


if __name__ == "__main__":
    main()
