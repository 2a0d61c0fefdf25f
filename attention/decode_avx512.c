#include <immintrin.h>

#include "base/cpu.h"

#define LANES    16
#define WIDEN(h) ((words)_mm512_cvtepu16_epi32((__m256i)(h)))
#include "attention/decode_body.inc"

static bool supported(void)
{
    return cpu_features().avx512;
}

const struct decode_variant decode_variant_avx512 = {
    .name = "avx512",
    .supported = supported,
    .turn = turn_query,
    .scores = {[DTYPE_F32] = scores_f32, [DTYPE_BF16] = scores_bf16},
    .sums = {[DTYPE_F32] = sums_f32, [DTYPE_BF16] = sums_bf16},
};
