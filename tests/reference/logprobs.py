#!/usr/bin/env python3
"""Log-probabilities of texts under a GGUF model, computed by transformers in fp32.

    logprobs.py MODEL.gguf --texts texts/*.txt --out ../data/logprobs/NAME

writes one NAME.lp per text for compare_logprobs.py and for the C tests (format: see reference_file.py).
Needs torch, transformers, accelerate and gguf from PyPI. The tokenizer is built from the vocabulary in the file
and its merges or, for SentencePiece, its scores: transformers' own GGUF loader loses SmolLM's digit splitting.
Text that looks like a special token is plain text here; BOS is put in front where the file asks for it.
"""
import argparse
import hashlib
import pathlib

import gguf
import torch
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM

import reference_file

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def pre_tokenizer(name):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in ("gpt-2", "default"):
        return byte_level
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if name == "qwen2":
        return pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])
    raise SystemExit(f"no pre-tokenizer for '{name}'")


def merges_of_scores(vocabulary, scores):
    """The merges of a SentencePiece BPE model: every pair of pieces that makes a piece, best score first."""
    merges = []
    for piece, score in scores.items():
        pairs = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        pairs = [pair for pair in pairs if pair[0] in scores and pair[1] in scores]
        merges += [(-score, vocabulary[left], vocabulary[right], left, right) for left, right in pairs]
    return [merge[3:] for merge in sorted(merges)]


def sentencepiece_tokenizer(fields):
    tokens, scores, types = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type"))
    vocabulary = {token: i for i, token in enumerate(tokens)}
    normal = {token: score for token, score, kind in zip(tokens, scores, types) if kind == gguf.TokenType.NORMAL}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges_of_scores(vocabulary, normal), fuse_unk=True,
                                     byte_fallback=True, unk_token=tokens[types.index(gguf.TokenType.UNKNOWN)]
                                     if gguf.TokenType.UNKNOWN in types else None))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.add_tokens([AddedToken(token, normalized=True) for token, kind in zip(tokens, types)
                          if kind == gguf.TokenType.USER_DEFINED])
    return tokenizer


def tokenizer_of(path):
    fields = gguf.GGUFReader(path).fields
    if fields["tokenizer.ggml.model"].contents() == "llama":
        return sentencepiece_tokenizer(fields)
    vocabulary = {token: i for i, token in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer(fields["tokenizer.ggml.pre"].contents())
    return tokenizer


def bos_of(path):
    fields = gguf.GGUFReader(path).fields
    asked = "tokenizer.ggml.add_bos_token" in fields and fields["tokenizer.ggml.add_bos_token"].contents()
    return [fields["tokenizer.ggml.bos_token_id"].contents()] if asked else []


def score(model, ids):
    """For each predicted token: its log-probability, the best id, and the best's lead over the second."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, :-1]
        best, order = logits.topk(2, dim=-1)
        own = logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        logprobs = own.double() - torch.logsumexp(logits.double(), dim=-1)
    return logprobs.tolist(), order[:, 0].tolist(), (best[:, 0] - best[:, 1]).tolist()


def write_references(model_path, texts, out, change=lambda model: model):
    """`change` makes another model of the one in the file."""
    tokenizer, bos = tokenizer_of(model_path), bos_of(model_path)
    model = change(AutoModelForCausalLM.from_pretrained(
        model_path.parent, gguf_file=model_path.name, dtype=torch.float32, attn_implementation="sdpa")).eval()
    model_sha256 = hashlib.sha256(model_path.read_bytes()).hexdigest()
    out.mkdir(parents=True, exist_ok=True)
    for text in texts:
        content = text.read_bytes()
        ids = bos + tokenizer.encode(content.decode("utf-8"), add_special_tokens=False).ids
        logprobs, top1, margins = score(model, ids)
        about = {"model": model_path.name, "model_sha256": model_sha256,
                 "text": text.name, "text_sha256": hashlib.sha256(content).hexdigest()}
        reference_file.write(out / f"{text.stem}.lp", about, ids, logprobs, top1, margins)
        print(f"{text.name}: {len(ids)} tokens, mean negative log-likelihood "
              f"{-sum(logprobs) / len(logprobs):.4f}", flush=True)


def main(description=__doc__, change=lambda model: model):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="a GGUF file")
    parser.add_argument("--texts", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the .lp files")
    args = parser.parse_args()
    write_references(args.model, args.texts, args.out, change)


if __name__ == "__main__":
    main()
