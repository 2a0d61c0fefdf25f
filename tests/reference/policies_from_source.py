#!/usr/bin/env python3
"""What the authors' own code of memory policies answers to the numbers that tests/mpi/dense.h gives, for
tests/mpi/test_published.c, where that code is no package (see policies.py for those that are).

    git clone https://github.com/epfml/landmark-attention && git -C landmark-attention checkout d963e504
    git clone https://github.com/FMInference/H2O          && git -C H2O checkout ac75c2a8
    git clone https://github.com/CStanKonrad/long_llama   && git -C long_llama checkout bfcb8d1d
    git clone https://github.com/thunlp/InfLLM            && git -C InfLLM checkout 12b7079
    pip install torch numpy
    policies_from_source.py --out ../data/policies --landmark landmark-attention --h2o H2O --longllama long_llama \\
        --infllm InfLLM

Any of the four may be left out. Of each file only the classes named below are executed, as they stand but for
"float32" and ".float()", which become fp64, so that rounding does not decide what is kept, and for "cuda". Their
projections are made to give the queries, keys and values of dense.h. The authors' scale is 1/sqrt(dim), so queries are
multiplied by what is missing.

    landmark_trained, landmark  LlamaAttention of llama_legacy/llama_mem.py: one pass as in training, and block by block
                                with a cache
    h2o_source, h2o_each        H2OLlamaAttention_streaming of h2o_hf/utils_real_drop/modify_llama.py: by segments, and
                                token by token
    memory                      LongLlamaAttention of src/modeling_longllama.py: by context windows, then token by token
    infllm                      ContextManager of inf_llm/attention/context_manager.py: by chunks of 128, without a GPU

What is changed in their code, because longhaul differs there by intent, stands beside each. A file is one line of JSON,
then the answers as float64 [positions][heads][dim], of every `every`-th position from `first` on.
"""
import argparse
import ast
import contextlib
import copy
import dataclasses
import json
import math
import pathlib
import subprocess
import types
import typing
from unittest import mock

import torch
from torch import nn

from bed_numbers import number

DIM, BASE, SCALE = 16, 10000.0, 0.9
QUERY, KEY, VALUE = range(3)


def rows(kind, tokens, heads):
    """[1][heads][tokens][DIM] in fp64; queries so that a scale of 1/sqrt(DIM) makes SCALE of it."""
    values = torch.from_numpy(number(kind, tokens, heads * DIM).reshape(-1, heads, DIM)).permute(1, 0, 2)[None]
    return values * SCALE * math.sqrt(DIM) if kind == QUERY else values


def definitions(path, names, **known):
    """The top-level classes and functions of these names, executed, in fp64 and on the CPU."""
    text = path.read_text(encoding="utf-8")
    for theirs, ours in (("float32", "float64"), (".float()", ".double()"), ('"cuda"', '"cpu"'), ("'cuda'", "'cpu'")):
        text = text.replace(theirs, ours)
    found = [node for node in ast.parse(text).body if getattr(node, "name", None) in names]
    missing = set(names) - {node.name for node in found}
    if missing:
        raise SystemExit(f"{path}: no {', '.join(sorted(missing))}")
    space = {"torch": torch, "nn": nn, "math": math, "dataclass": dataclasses.dataclass, **vars(typing), **known}
    exec(compile(ast.Module(found, []), path, "exec"), space)  # pylint: disable=exec-used
    return types.SimpleNamespace(**{name: space[name] for name in names})


class Given(nn.Module):
    """A projection that gives what it was told to, as [1][tokens][heads * DIM]."""

    def forward(self, _):
        return self.rows.transpose(1, 2).flatten(2)


def give(attention, q, k, v):
    """Makes the attention's next call see these; returns hidden states of the right shape."""
    for name, given in (("q_proj", q), ("k_proj", k), ("v_proj", v)):
        if not isinstance(getattr(attention, name), Given):
            setattr(attention, name, Given())
        getattr(attention, name).rows = given
    attention.o_proj = nn.Identity()
    return torch.zeros(1, q.shape[2], q.shape[1] * DIM)


def causal(queries, keys):
    """[1][1][queries][keys]: 0 where the last queries see a key, else the least number."""
    hidden = torch.ones(queries, keys, dtype=torch.bool).triu(keys - queries + 1)
    return torch.zeros(queries, keys).masked_fill(hidden, torch.finfo(torch.float64).min)[None, None]


def answers_of(output, heads):
    return output.view(-1, heads, DIM)


def config(heads, **more):
    return types.SimpleNamespace(hidden_size=heads * DIM, num_attention_heads=heads, num_key_value_heads=heads,
                                 max_position_embeddings=4096, rope_theta=BASE, rope_scaling=None, pretraining_tp=1,
                                 torch_attention=False, **more)


# ---- Landmark Attention -------------------------------------------------------------------------------------

def landmark_code(path):
    return definitions(path / "llama_legacy" / "llama_mem.py",
                       ["LlamaRotaryEmbedding", "rotate_half", "apply_rotary_pos_emb", "LandmarkGroupedSoftmaxFunction",
                        "landmark_grouped_softmax", "LlamaAttention"], LlamaConfig=object)


def landmark_masks(tokens, block):
    """For queries and keys 0 .. tokens-1, as their LlamaModel makes them: attention_mask, is_mem, last_section_mask."""
    mask, key = causal(tokens, tokens), torch.arange(tokens)
    last = (key[:, None] // block == key // block)[None, None]
    landmarks = (key % block == block - 1).expand(1, 1, tokens, tokens)
    mask = mask.masked_fill(last & landmarks, torch.finfo(torch.float64).min)
    return mask, landmarks & (mask > -1), last & (mask > -1)


def landmark_trained(path):
    heads, block, tokens = 4, 16, 200
    attention = landmark_code(path).LlamaAttention(config(heads))
    q, k, v = rows(QUERY, tokens, heads), rows(KEY, tokens, heads), rows(VALUE, tokens, heads)
    mask, is_mem, last = landmark_masks(tokens, block)
    output = attention(give(attention, q, k, v), mask, torch.arange(tokens)[None], is_mem=is_mem,
                       last_section_mask=last)
    return f"landmark:token=0,block={block},top=1000", heads, tokens, 4, answers_of(output[0], heads)


def landmark(path):
    heads, block, top, tokens = 4, 16, 3, 208
    attention = landmark_code(path).LlamaAttention(config(heads))
    attention.set_mem_cache_args(block - 1, top, None)
    q, k, v = rows(QUERY, tokens, heads), rows(KEY, tokens, heads), rows(VALUE, tokens, heads)
    _, is_mem, last = landmark_masks(block, block)
    parts, past = [], None
    for first in range(0, tokens, block):
        part = [x[:, :, first:first + block] for x in (q, k, v)]
        mask = torch.cat((torch.zeros(1, 1, block, first), landmark_masks(block, block)[0]), -1)
        output, _, past = attention(give(attention, *part), mask, torch.arange(first, first + block)[None], past,
                                    use_cache=True, is_mem=is_mem, last_section_mask=last)
        parts.append(answers_of(output, heads))
    return f"landmark:token=0,block={block},top={top}", heads, block, 4, torch.cat(parts)


# ---- H2O ----------------------------------------------------------------------------------------------------

def h2o(path, segment, tokens, every):
    heads, window, slots = 4, 40, 30
    code = definitions(path / "h2o_hf" / "utils_real_drop" / "modify_llama.py",
                       ["repeat_kv", "_make_causal_mask", "apply_rotary_pos_emb_single", "H2OKVCache_LayerWise",
                        "H2OLlamaAttention_streaming"], LlamaConfig=object,
                       LlamaRotaryEmbedding=RotaryInFp64, rotate_half=rotate_half)
    attention = code.H2OLlamaAttention_streaming(config(heads, hh_size=slots, recent_size=window))
    q, k, v = rows(QUERY, tokens, heads), rows(KEY, tokens, heads), rows(VALUE, tokens, heads)
    parts, past = [], None
    for first in range(0, tokens, segment):
        part = [x[:, :, first:first + segment] for x in (q, k, v)]
        held = 0 if past is None else past[0].shape[2]
        places = torch.arange(held, held + part[0].shape[2])[None]
        output, _, past = attention(give(attention, *part), None, places, past, use_cache=True)
        parts.append(answers_of(output, heads))
    return f"h2o:window={window},slots={slots}", heads, segment, every, torch.cat(parts)


def h2o_source(path):
    return h2o(path, 50, 300, 5)


def h2o_each(path):
    return h2o(path, 1, 150, 3)


def rotate_half(x):
    """As in transformers, where H2O takes it from."""
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), -1)


class RotaryInFp64(nn.Module):
    """As LlamaRotaryEmbedding in transformers was when H2O was written: cosines and sines [1][1][positions][DIM]."""

    def __init__(self, dim, max_position_embeddings, base):
        super().__init__()
        angles = torch.arange(max_position_embeddings)[:, None] * base ** (-torch.arange(0, dim, 2) / dim)
        self.angles = torch.cat((angles, angles), -1)[None, None]

    def forward(self, _, seq_len):
        return self.angles[:, :, :seq_len].cos(), self.angles[:, :, :seq_len].sin()


# ---- LongLLaMA ----------------------------------------------------------------------------------------------

def memory(path):
    """A context window after the other, each of which goes into the memory; then token by token."""
    heads, window, tokens, after = 4, 64, 320, 6
    utils = definitions(path / "src" / "longllama_utils.py",
                        ["LongLlamaMemConfig", "LongLlamaMemCache", "mem_apply_update"])
    code = definitions(path / "src" / "modeling_longllama.py",
                       ["LongLlamaRotaryEmbedding", "rotate_half", "rotate_one", "rotate_as_if_first",
                        "LongLlamaAttention"], LongLlamaConfig=object, **vars(utils))
    attention = code.LongLlamaAttention(config(heads), utils.LongLlamaMemConfig(cache_dtype=torch.float64))
    q, k, v = (rows(kind, tokens + after, heads) for kind in (QUERY, KEY, VALUE))
    parts, held, past = [], None, None
    for first in [*range(0, tokens, window), *range(tokens, tokens + after)]:
        end = first + window if first < tokens else first + 1
        part = [x[:, :, first:end] for x in (q, k, v)]
        mask = causal(end - first, end - min(first, tokens))
        output, _, past, held = attention(give(attention, *part), mask, torch.arange(first, end)[None], past,
                                          use_cache=first >= tokens, mem_cache=held)
        parts.append(answers_of(output, heads))
    return "memory:window=0", heads, window, 4, torch.cat(parts), tokens


# ---- InfLLM -------------------------------------------------------------------------------------------------

def no_gpu():
    """What makes code for a GPU run without one."""
    stack = contextlib.ExitStack()
    for name in ("Event", "current_stream"):
        stack.enter_context(mock.patch.object(torch.cuda, name, mock.MagicMock()))
    stack.enter_context(mock.patch.object(torch.cuda, "stream", lambda _: contextlib.nullcontext()))
    stack.enter_context(mock.patch.object(torch.Tensor, "is_cuda", True))
    return stack


def infllm_code(path):
    """Their ContextManager and rotary embedding, with two differences that longhaul has by intent: what is retrieved
    stands at the distance n_local of the paper, not n_local - 1; and a token that leaves the local window within a
    chunk is seen once, by the queries that it has left, not by all of the chunk, as the paper has no chunks."""
    folder = path / "inf_llm" / "attention"
    base = definitions(folder / "dot_production_attention" / "base.py", ["MultiStageDotProductionAttention"])
    product = definitions(folder / "dot_production_attention" / "torch_impl.py",
                          ["TorchMultiStageDotProductionAttention"], **vars(base))
    rope = definitions(folder / "rope.py", ["RotaryEmbeddingESM"])
    manager = definitions(folder / "context_manager.py",
                          ["CudaCache", "MemoryUnit", "VectorTensor", "ContextManager"], GLOBAL_STREAM=None,
                          deepcopy=copy.deepcopy,
                          get_multi_stage_dot_production_attention=lambda _: (
                              product.TorchMultiStageDotProductionAttention, False))

    class Rope(rope.RotaryEmbeddingESM):
        def apply_rotary_pos_emb_one_angle(self, x, index):
            self._update_cos_sin_tables_len(index + 1, x.device)
            return super().apply_rotary_pos_emb_one_angle(x, index + 1)

    class Manager(manager.ContextManager):
        def get_global_hidden_and_mask(self, len_q, block_topk):
            k, v, _, blocks, number_of_blocks = super().get_global_hidden_and_mask(len_q, block_topk)
            waiting = self._global_remainder_ed - self._global_remainder_st
            return k, v, (self.global_buffer_init_ed + waiting, self.n_local), blocks, number_of_blocks

    return Rope, Manager


def infllm(path):
    heads, kv_heads, window, sinks, top, chunk, tokens = 4, 2, 200, 10, 2, 128, 1280
    rope, manager = infllm_code(path)
    q, k, v = rows(QUERY, tokens, heads), rows(KEY, tokens, kv_heads), rows(VALUE, tokens, kv_heads)
    parts = []
    with no_gpu():
        context = manager(rope(DIM, BASE), sinks, window, 128, 32, top, chunk, fattn=False, repr_topk=4,
                          async_global_stream=False)
        for first in range(0, tokens, chunk):
            part = [x[:, :, first:first + chunk] for x in (q, k, v)]
            parts.append(answers_of(context.append(*part, *part).transpose(1, 2), heads))
    return f"infllm:window={window},sinks={sinks},top={top}", heads, chunk, 16, torch.cat(parts)


def commit_of(path):
    return subprocess.run(["git", "-C", path, "rev-parse", "HEAD"], capture_output=True, text=True,
                          check=True).stdout.strip()


def write(path, source, policy, heads, segment, every, answers, tokens=None):
    tokens = tokens or len(answers)
    first = tokens - 1 - (tokens - 1) // every * every  # so that the last of the segments is among them
    kv_heads = 2 if policy.startswith("infllm") else heads
    chosen = answers[first::every]
    about = {"policy": policy, "first": first, "positions": len(chosen), "every": every, "tokens": tokens,
             "segment": segment, "heads": heads, "kv_heads": kv_heads, "dim": DIM, "base": BASE, "scale": SCALE,
             "commit": commit_of(source)}
    path.write_bytes(json.dumps(about).encode() + b"\n" + chosen.detach().numpy().astype("<f8").tobytes())
    print(f"{path}: {policy}, {len(chosen)} positions, {path.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    sources = {"landmark": (landmark_trained, landmark), "h2o": (h2o_source, h2o_each), "longllama": (memory,),
               "infllm": (infllm,)}
    for name in sources:
        parser.add_argument(f"--{name}", type=pathlib.Path, metavar="CLONE")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    for name, witnesses in sources.items():
        source = getattr(args, name)
        for witness in witnesses if source else ():
            write(args.out / f"{witness.__name__}.ref", source, *witness(source))


if __name__ == "__main__":
    main()
