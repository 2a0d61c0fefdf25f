#define LANES    4
#define WIDEN(h) __builtin_convertvector(h, words)
#include "attention/decode_body.inc"

static bool supported(void)
{
    return true;
}

const struct decode_variant decode_variant_c = {
    .name = "c",
    .supported = supported,
    .turn = turn_query,
    .scores = {[DTYPE_F32] = scores_f32, [DTYPE_BF16] = scores_bf16},
    .sums = {[DTYPE_F32] = sums_f32, [DTYPE_BF16] = sums_bf16},
};
