"""The .lp files of tests/data: a reference for the log-probabilities of one text, in plain binary.

One line of JSON ({"tokens": N, "model": ..., "text": ..., checksums}) ended by a newline, then, little-endian
and without padding:
    ids       int32   [N]      the text's tokens
    logprobs  float32 [N - 1]  of tokens 1..N-1, given those before (natural logarithm)
    top1      int32   [N - 1]  the id the model would have chosen there
    margins   float16 [N - 1]  logit of top1 minus the next best logit
Only the Python standard library is needed to read or write one.
"""
import json
import struct


def write(path, about, ids, logprobs, top1, margins):
    n = len(ids)
    if not len(logprobs) == len(top1) == len(margins) == n - 1:
        raise ValueError(f"{path}: {n} ids need {n - 1} predictions")
    with open(path, "wb") as file:
        file.write(json.dumps({"tokens": n, **about}, sort_keys=False).encode() + b"\n")
        file.write(struct.pack(f"<{n}i", *ids))
        file.write(struct.pack(f"<{n - 1}f", *logprobs))
        file.write(struct.pack(f"<{n - 1}i", *top1))
        file.write(struct.pack(f"<{n - 1}e", *(min(m, 60000.0) for m in margins)))


def read(path):
    """(about, ids, logprobs, top1, margins)"""
    with open(path, "rb") as file:
        about = json.loads(file.readline())
        n = about["tokens"]

        def take(count, code, size):
            data = file.read(count * size)
            if len(data) != count * size:
                raise ValueError(f"{path}: ends too early")
            return struct.unpack(f"<{count}{code}", data)

        return about, take(n, "i", 4), take(n - 1, "f", 4), take(n - 1, "i", 4), take(n - 1, "e", 2)
