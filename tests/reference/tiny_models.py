#!/usr/bin/env python3
"""Tiny random models as GGUF files, and their log-probabilities under transformers in fp32.

    tiny_models.py --texts texts/*.txt --out ../data/tiny

writes for each row of MODELS (--only: one of them) the file NAME.gguf and, in the folder NAME, one TEXT.lp per text;
for those of MISTRALS also NAME-window, the same weights as a Mistral, which is a llama with a window; where the file of
a llama names the window itself, its references are a Mistral's. They are small enough to be committed and quick enough
for every test: whatever reads a real model reads them. The weights are random, so the text they write is noise; the
vocabulary is the 256 bytes, a few merges learnt from the texts, and three special tokens, with the ChatML template.

The rows of Q and K of the llama models are random as well, so nothing need be permuted here: they are in the
order of the GGUF convention (rotary pairs adjacent), and transformers puts them into its own when it reads.
"""
import argparse
import dataclasses
import pathlib
import tempfile

import gguf
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import MistralConfig, MistralForCausalLM

import logprobs

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
          "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
VOCABULARY = 384
CONTEXT = 8192
RMS_EPSILON = 1e-5


@dataclasses.dataclass
class Model:
    name: str
    arch: str
    pre: str
    dtype: str
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    rope_base: float
    tied: bool
    biases: bool
    width: int = 0  # 0: heads * head_dim
    layers: int = 2
    window: int = 0  # of the local layers; 0: none
    gemma: bool = False  # norms of heads, norms behind both halves of a layer
    compress: int = 0  # convolutions that make one slot of so many tokens, and what they make is the mean; 0: none

    def __post_init__(self):
        self.width = self.width or self.q_width

    @property
    def q_width(self):
        return self.heads * self.head_dim


TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
MODELS = [
    Model("llama-tied-f32", "llama", "gpt-2", "f32", 4, 2, 16, 128, 1e4, tied=True, biases=False),
    Model("llama-untied-f16", "llama", "gpt-2", "f16", 6, 2, 16, 192, 1e5, tied=False, biases=False),
    Model("qwen2-f16", "qwen2", "qwen2", "f16", 2, 1, 32, 160, 1e6, tied=False, biases=True),
    # transformers divides q.k by sqrt(256) whatever the file says, so heads have 256 elements as in the real ones
    Model("gemma3-q8", "gemma3", "gpt-2", "q8_0", 2, 1, 256, 64, 1e6, tied=True, biases=False, width=32,
          layers=6, window=100, gemma=True),
    Model("mistral-f16", "llama", "gpt-2", "f16", 4, 2, 16, 64, 1e4, tied=True, biases=False, window=100),
    Model("llama-convolution-f32", "llama", "gpt-2", "f32", 2, 1, 16, 32, 1e4, tied=True, biases=False, compress=4),
]
MISTRALS = {"llama-tied-f32": 100}


def as_mistral(llama, window):
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings",
             "rope_parameters")
    config = MistralConfig(**{size: getattr(llama.config, size) for size in sizes}, sliding_window=window,
                           attn_implementation="sdpa")
    mistral = MistralForCausalLM(config)
    mistral.load_state_dict(llama.state_dict())
    return mistral


def learn_vocabulary(texts):
    """(tokens, merges): bytes and merges learnt from the texts, the special tokens last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - len(SPECIAL), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([text.read_text(encoding="utf-8") for text in texts], trainer)
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get) + SPECIAL
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.model.save(folder)
        lines = (pathlib.Path(folder) / "merges.txt").read_text(encoding="utf-8").splitlines()
    return tokens, [line for line in lines if not line.startswith("#version")]


def add_tokenizer(writer, pre, tokens, merges):
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in SPECIAL else normal for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)


def add_settings(writer, model):
    writer.add_name(f"tiny random {model.name}")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(model.width)
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length(model.ffn)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_layer_norm_rms_eps(RMS_EPSILON)
    writer.add_rope_freq_base(model.rope_base)
    writer.add_vocab_size(VOCABULARY)
    if model.arch == "llama":
        writer.add_rope_dimension_count(model.head_dim)
    if model.width != model.q_width:
        writer.add_key_length(model.head_dim)
        writer.add_value_length(model.head_dim)
    if model.window:
        writer.add_sliding_window(model.window)


def add_weights(writer, model, random):
    """Wide enough a spread that attention is not flat and that the best logit has a lead."""

    kind = TYPES[model.dtype][0]

    def matrix(name, rows, columns, gain=1.0):
        values = random.standard_normal((rows, columns), dtype=np.float32) * np.float32(gain / np.sqrt(columns))
        if kind is gguf.GGMLQuantizationType.Q8_0:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values.astype(np.float32 if kind is gguf.GGMLQuantizationType.F32 else np.float16))

    def vector(name, length, centre, spread):
        values = centre + spread * random.standard_normal(length, dtype=np.float32)
        writer.add_tensor(name, values.astype(np.float32))

    kv_width = model.kv_heads * model.head_dim
    matrix("token_embd.weight", VOCABULARY, model.width, gain=1.5)
    for layer in range(model.layers):
        block = f"blk.{layer}."
        vector(block + "attn_norm.weight", model.width, 1.0, 0.1)
        for name, rows in (("q", model.q_width), ("k", kv_width), ("v", kv_width)):
            matrix(f"{block}attn_{name}.weight", rows, model.width, gain=1.5)
            if model.biases:
                vector(f"{block}attn_{name}.bias", rows, 0.0, 0.5)
        if model.gemma:
            vector(block + "attn_q_norm.weight", model.head_dim, 1.0, 0.1)
            vector(block + "attn_k_norm.weight", model.head_dim, 1.0, 0.1)
            vector(block + "post_attention_norm.weight", model.width, 1.0, 0.1)
            vector(block + "post_ffw_norm.weight", model.width, 1.0, 0.1)
        matrix(block + "attn_output.weight", model.width, model.q_width)
        if model.compress:
            mean = np.tile(np.eye(model.head_dim, dtype=np.float32) / model.compress, (1, model.compress))
            for part in "kv":
                writer.add_tensor(f"{block}compress_{part}.weight", mean)
                writer.add_tensor(f"{block}compress_{part}.bias", np.zeros(model.head_dim, dtype=np.float32))
        vector(block + "ffn_norm.weight", model.width, 1.0, 0.1)
        matrix(block + "ffn_gate.weight", model.ffn, model.width, gain=1.5)
        matrix(block + "ffn_up.weight", model.ffn, model.width)
        matrix(block + "ffn_down.weight", model.width, model.ffn)
    vector("output_norm.weight", model.width, 1.0, 0.1)
    if not model.tied:
        matrix("output.weight", VOCABULARY, model.width, gain=1.5)


def write_model(path, model, tokens, merges, seed):
    writer = gguf.GGUFWriter(path, model.arch)
    writer.add_file_type(TYPES[model.dtype][1])
    add_settings(writer, model)
    add_tokenizer(writer, model.pre, tokens, merges)
    add_weights(writer, model, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def reader_of(model):
    """Makes of what transformers reads what the file says: it takes every file of arch llama for a Llama."""
    mistral = model.arch == "llama" and model.window
    return (lambda llama: as_mistral(llama, model.window)) if mistral else (lambda read: read)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--only", metavar="NAME")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tokens, merges = learn_vocabulary(args.texts)
    for model in (row for row in MODELS if args.only in (None, row.name)):
        path = args.out / f"{model.name}.gguf"
        write_model(path, model, tokens, merges, args.seed)
        print(f"{path}: {path.stat().st_size} bytes", flush=True)
        logprobs.write_references(path, args.texts, args.out / model.name, reader_of(model))
        if model.name in MISTRALS:
            logprobs.write_references(path, args.texts, args.out / f"{model.name}-window",
                                      lambda llama, window=MISTRALS[model.name]: as_mistral(llama, window))


if __name__ == "__main__":
    main()
