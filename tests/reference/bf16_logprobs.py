#!/usr/bin/env python3
"""Log-probabilities as logprobs.py writes them, with the roundings of longhaul's bf16 arithmetic.

    bf16_logprobs.py MODEL.gguf --texts texts/*.txt --out FOLDER

Inputs and weights of linear layers are rounded to bf16 and so are rotated queries (with their scale), keys, values and
the softmax's weights before they are summed; everything else is fp32. For llama and qwen2. What the result differs
from fp32 by is what these roundings cost; what a run in bf16 differs from the result by is their order alone.
"""
import math

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import repeat_kv

import logprobs

LOG2_E = math.log2(math.e)


def rounded(x):
    return x.bfloat16().float()


def attend(module, query, key, value, attention_mask, scaling, **_):
    key, value = (repeat_kv(rounded(x), module.num_key_value_groups) for x in (key, value))
    scores = rounded(query * (scaling * LOG2_E)) @ key.transpose(2, 3)
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[-2]]
    weights = torch.exp2(scores - scores.amax(-1, keepdim=True))
    out = rounded(weights) @ value / weights.sum(-1, keepdim=True)
    return out.transpose(1, 2).contiguous(), weights


def round_as_bf16(model):
    ALL_ATTENTION_FUNCTIONS.register("bf16", attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register("bf16", ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    model.config._attn_implementation = "bf16"
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight = torch.nn.Parameter(rounded(module.weight), requires_grad=False)
            module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    return model


if __name__ == "__main__":
    logprobs.main(__doc__, round_as_bf16)
