#include <immintrin.h>

#define LANES    16
#define WIDEN(h) ((words)_mm512_cvtepu16_epi32((__m256i)(h)))
#include "attention/decode_body.inc"

static bool supported(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("fma");
}

const struct decode_variant decode_variant_avx512 = {
    .name = "avx512",
    .supported = supported,
    .turn = turn_query,
    .scores = {[DTYPE_F32] = scores_f32, [DTYPE_BF16] = scores_bf16},
    .sums = {[DTYPE_F32] = sums_f32, [DTYPE_BF16] = sums_bf16},
};
