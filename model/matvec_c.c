/* Rows in plain C: what the fast variants are held against. */
#include <string.h>

#include "base/num.h"
#include "model/matvec.h"

enum { LANES = 8 }; /* partial sums: shorter chains of roundings, and room for a vector unit */

static float sum_lanes(const float *sums)
{
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++)
        sum += sums[lane];
    return sum;
}

static float dot_f32(const uint8_t *row, const float *x, int64_t n)
{
    float sums[LANES] = {0};
    for (int64_t i = 0; i < n; i++) {
        float w;
        memcpy(&w, row + 4 * i, sizeof w);
        sums[i % LANES] += w * x[i];
    }
    return sum_lanes(sums);
}

static float dot_f16(const uint8_t *row, const float *x, int64_t n)
{
    float sums[LANES] = {0};
    for (int64_t i = 0; i < n; i++)
        sums[i % LANES] += f16_load(row + 2 * i) * x[i];
    return sum_lanes(sums);
}

static float dot_bf16(const uint8_t *row, const float *x, int64_t n)
{
    float sums[LANES] = {0};
    for (int64_t i = 0; i < n; i++) {
        bf16 w;
        memcpy(&w, row + 2 * i, sizeof w);
        sums[i % LANES] += bf16_to_f32(w) * x[i];
    }
    return sum_lanes(sums);
}

struct group_scale {
    float scale, offset;
};

/* One group of a length known to the compiler. */
static inline float group_dot(const int8_t *q, struct group_scale s, int group, const float *x)
{
    float sums[LANES] = {0};
    for (int i = 0; i < group; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += (s.scale * (float)q[i + lane] + s.offset) * x[i + lane];
    return sum_lanes(sums);
}

static float block_dot(const struct quant_block *block, int elements, int group, const float *x)
{
    float sum = 0;
    for (int g = 0; g < elements / group; g++) {
        const struct group_scale s = {block->scale[g], block->offset[g]};
        sum += group == 32 ? group_dot(block->q + 32 * g, s, 32, x + 32 * g)
                           : group_dot(block->q + 16 * g, s, 16, x + 16 * g);
    }
    return sum;
}

static bool supported(void)
{
    return true;
}

const struct matvec_kernel matvec_kernel_c = {
    .name = "c",
    .supported = supported,
    .dot = {[TENSOR_F32] = dot_f32, [TENSOR_F16] = dot_f16, [TENSOR_BF16] = dot_bf16},
    .block_dot = block_dot,
};
