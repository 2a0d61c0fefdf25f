#!/usr/bin/env python3
"""Hold our token ids against those of the original tokenizers.

    tokens.py corpus OUT                    write a mixed corpus of about 2 MB, the same every time on one machine
    tokens.py compare MODEL FILE PROGRAM..  run `PROGRAM.. FILE -m MODEL`, which prints one id a line, and compare
    tokens.py characters MODEL PROGRAM..    the same over a file with every Unicode character in a few contexts
    tokens.py vectors MODEL OUT             write small texts with their ids, for tests/unit/test_tokenizer.c

The original tokenizer is built by the `tokenizers` package from the vocabulary and merges in the GGUF file, with
the normaliser and pre-tokenizer of the model's own tokenizer.json. Special tokens are left out of it: their names
in a text are plain text. For a SentencePiece vocabulary it is the sentencepiece package (spm.py).
Needs: pip install tokenizers gguf, or sentencepiece protobuf tokenizers gguf
"""
import argparse
import glob
import os
import random
import subprocess
import sys
import tempfile

from gguf import GGUFReader
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def split_words(digits):
    pattern = Regex(CONTRACTIONS + WORDS % digits)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), byte_level(False)])


PRE = {
    "gpt-2": lambda: byte_level(True),
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]),
    "qwen2": lambda: split_words(r"\p{N}"),
    "llama-bpe": lambda: split_words(r"\p{N}{1,3}"),
}


def is_sentencepiece(fields):
    return fields["tokenizer.ggml.model"].contents() == "llama"


def original(path, pre=None):
    """The original tokenizer of a GGUF file; `pre` overrides the name of its pre-tokenizer."""
    fields = GGUFReader(path).fields
    if is_sentencepiece(fields):
        import spm

        return spm.Original(fields)
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    pre = pre or fields["tokenizer.ggml.pre"].contents()
    bpe = models.BPE({t: i for i, t in enumerate(tokens)}, merges, ignore_merges=pre == "llama-bpe")
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = PRE[pre]()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


ENGLISH = ("It was the best of times, it was the worst of times; we'll say so, they've said \"I'M\" and 'twas. "
           "Don't   stop\tat 3.14159 or 1,000,000 \u2014 that's what SHE'D said\u2026 r\u00e9sum\u00e9 na\u00efve co\u00f6perate")
CHINESE = ("\u957f\u7bc7\u6587\u6863\u5904\u7406\u662f\u4e00\u4e2a\u91cd\u8981\u7684\u95ee\u9898\uff0c\u6211\u4eec\u9700\u8981\u628a\u6bcf\u4e2a\u6587\u4ef6\u5206\u6210\u591a\u4e2a\u90e8\u5206\u3002"
           "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff1b\u5171\u67092024\u5e743\u670815\u65e5\u7684\u8bb0\u5f55\u3001\u300a\u7ea2\u697c\u68a6\u300b\u548c\u201c\u5f15\u53f7\u201d\u3002")
EMOJI = ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f", "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd", "\u2603", "\u26a1\ufe0f!"]
SPACES = [" ", "  ", "    ", "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n  ", "\u00a0", "\u3000", "\u2003",
          "\u200b", "\u0085", "\u2028", "\u180e", "\x0b", "\x0c", "\x1c", "\ufeff", " " * 70]
# What only SentencePiece treats specially: runs of spaces and line breaks, user-defined pieces, names of bytes.
SENTENCEPIECE = ["x".join(c * n for n in (1, 2, 3, 5, 31, 32, 33, 63, 100)) for c in " \n\t"] + [
    " a", "  a", "a ", " ", "  ", "<table><tr><td>x</td></tr></table><h1></h1>", "<start_of_turn>user\nhi<end_of_turn>\n",
    "<bos><eos><unk><pad><mask>[multimodal]<unused7><start_of_image>", "<0x0A><0x41>\\n", "<s>[INST] <<SYS>> x[/INST]</s>",
    "\u6f22\u5b57" * 40, "\U00020000\U0002a6df\U000e0041", "def f(x):\n    if x:\n\t\treturn  x\n\n\n", "\ufffd\x00\x01\x7f\x80",
    "1234567890 3.14", "supercalifragilisticexpialidocious" * 3, "a b  c   d    e", "\u00e9e\u0301", "\r\n\r\n \n \t\n"]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", "<s>", "[INST]"]
MARKS = ["e\u0301", "a\u0323\u0302", "A\u030a", "\u1112\u1161\u11ab", "\uac00\u11a8", "\u212b", "\u2126", "\u0928\u093c", "\u0301x", "q\u0307\u0323",
         "\u0344", "\uf900", "\ufb1d", "\u09c7\u09be", "\u0f73"]


def files_at_hand(limit):
    """Text that every Debian machine with a C compiler has."""
    paths = sorted(glob.glob("/usr/share/common-licenses/*")) + sorted(glob.glob("/usr/include/*.h"))
    size = 0
    for path in paths:
        if os.path.islink(path) or size > limit:
            continue
        with open(path, "rb") as file:
            text = file.read().decode("utf-8", "replace")
        size += len(text)
        yield text


def random_characters(rng, n):
    """Any code point but surrogates, in runs from one block, as real text has them."""
    out = []
    while len(out) < n:
        start = rng.choice([0, 0xa0, 0x370, 0x400, 0x590, 0x900, 0xe00, 0x1100, 0x2000, 0x3040, 0x4e00, 0xac00, 0x1f300,
                            0x20000, rng.randrange(0x110000)])
        for _ in range(rng.randrange(1, 12)):
            code = min(start + rng.randrange(0x100), 0x10ffff)
            out.append(chr(code) if not 0xd800 <= code < 0xe000 else "?")
        out.append(rng.choice(["", "", " ", "  ", "\n", "1"]))
    return "".join(out)


def salad(rng, n):
    """Everything odd, mixed in one text."""
    parts = ENGLISH.split(" ") + list(CHINESE) + EMOJI + SPACES * 2 + SPECIAL + MARKS + ["'s", "'LL", "'\u017f", "42", "007", "x+=1;"]
    return "".join(rng.choice(parts) + rng.choice(["", "", " "]) for _ in range(n))


def corpus(args):
    rng = random.Random(20240607)
    parts = list(files_at_hand(900_000))
    parts += [" ".join(rng.sample(ENGLISH.split(" "), 12)) + "\n" for _ in range(1500)]
    parts += ["".join(rng.sample(CHINESE, 40)) + rng.choice(["", "\n", " "]) for _ in range(2500)]
    parts += [salad(rng, 40_000), random_characters(rng, 120_000), "ab" * 20_000, "\u8bf7" * 20_000, " " * 20_000 + "x"]
    with open(args.out, "wb") as file:
        size = file.write("".join(parts).encode())
    print(f"{args.out}: {size} bytes")


def ids_of(program, path, model):
    out = subprocess.run([*program, path, "-m", model], check=True, stdout=subprocess.PIPE).stdout
    return [int(line) for line in out.split()]


def show_difference(tokenizer, ours, theirs):
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    for name, ids in (("ours", ours), ("theirs", theirs)):
        print(f"  {name}: ...{[tokenizer.id_to_token(i) for i in ids[max(at - 4, 0):at + 8]]}")
    return at


def compare(args):
    with open(args.file, "rb") as file:
        text = file.read().decode("utf-8")
    tokenizer = original(args.model)
    theirs = tokenizer.encode(text, add_special_tokens=False).ids
    ours = ids_of(args.program, args.file, args.model)
    if ours == theirs:
        print(f"{len(theirs)} tokens, 0 differences")
        return
    print(f"{len(ours)} tokens of ours, {len(theirs)} of theirs, first difference at token "
          f"{show_difference(tokenizer, ours, theirs)}")
    sys.exit(1)


def cut(ids, mark):
    """The ids between the marks."""
    out, part, i = [], [], 0
    while i < len(ids):
        if ids[i:i + len(mark)] == mark:
            out.append(part)
            part, i = [], i + len(mark)
        else:
            part.append(ids[i])
            i += 1
    return out + [part]


def different_lines(tokenizer, args, lines):
    """Those for which the two do not agree. "~~~" on a line of its own keeps them apart: no piece crosses it."""
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write("\n~~~\n".join(lines).encode())
        file.flush()
        ours = ids_of(args.program, file.name, args.model)
    mark = tokenizer.encode("a\n~~~\na", add_special_tokens=False).ids[1:-1]
    theirs = tokenizer.encode_batch(["\n~~~\n".join(lines)], add_special_tokens=False)[0].ids
    return [line for line, a, b in zip(lines, cut(ours, mark), cut(theirs, mark), strict=True) if a != b]


def characters(args):
    """One line per code point, so that a difference names its character."""
    tokenizer = original(args.model)
    # U+0000 makes a file binary, which is not tokenized; of U+2581 sentencepiece makes a space, while we keep it
    skipped = [0, 0x2581] if is_sentencepiece(GGUFReader(args.model).fields) else [0]
    codes = [c for c in range(0x110000) if not 0xd800 <= c < 0xe000 and c not in skipped]
    # the last but one have marks before and after, of the highest and the lowest class
    lines = [f"a{c}b {c}{c} {c}1 '{c}\u0301 e\u0345{c} e{c}\u0334 {c}z" for c in map(chr, codes)]
    wrong = []
    for start in range(0, len(lines), 1 << 16):
        wrong += [ord(line[1]) for line in different_lines(tokenizer, args, lines[start:start + (1 << 16)])]
    print(f"{len(lines)} characters, {len(wrong)} differ: {' '.join(f'U+{c:04X}' for c in wrong)}")
    sys.exit(bool(wrong))


def vectors(args):
    """Each line: the ids, a tab, the bytes of the text in hexadecimal."""
    rng = random.Random(7)
    texts = [ENGLISH, CHINESE, "".join(EMOJI), "x".join(SPACES), " ".join(SPECIAL), " ".join(MARKS), "   0 12 345",
             "for (int i = 0; i < n; i++) {\n\tsum += a[i];\n\n}\n", "a" * 100, "\u8bf7" * 60, "don't DON'T \u2019s 's'll",
             "", " ", "\n", "\x00a\x00", "!\x04!\x13!", "\U000e0001\U0010ffff"]
    texts += [salad(rng, 30) for _ in range(8)] + [random_characters(rng, 40) for _ in range(4)]
    if is_sentencepiece(GGUFReader(args.model).fields):
        texts += SENTENCEPIECE
        texts = [text.replace("\u2581", "") for text in texts]  # see characters()
    tokenizer = original(args.model)
    with open(args.out, "w") as file:
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            file.write(f"{' '.join(map(str, ids))}\t{text.encode().hex()}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run, names in ((corpus, ["out"]), (compare, ["model", "file", "program"]),
                       (characters, ["model", "program"]), (vectors, ["model", "out"])):
        command = commands.add_parser(run.__name__)
        for name in names:
            command.add_argument(name, nargs="+" if name == "program" else None)
        command.set_defaults(run=run)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
