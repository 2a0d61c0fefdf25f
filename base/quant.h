/* Quantised blocks, unpacked: the one place that knows how each type lays out its bits.
 *
 * A block of a quantised type holds `elements` small integers, in groups that share a scale and an offset:
 *     weight[i] = scale[i / group] * q[i] + offset[i / group]
 * quant_unpack gives q, scale and offset; whoever wants numbers or dot products goes on from there. The plain
 * types (F32, F16, BF16) are not of this kind: quant_layout says NULL for them. The layouts are those of ggml
 * (ggml/src/ggml-common.h); the arithmetic rounds as ggml's does, so the weights are equal bit for bit.
 */
#ifndef LONGHAUL_BASE_QUANT_H
#define LONGHAUL_BASE_QUANT_H

#include <stdint.h>
#include <string.h>

#include "base/tensor.h"

enum { QUANT_MAX_ELEMENTS = 256, QUANT_MAX_GROUPS = 16 };

struct quant_block {
    int8_t q[QUANT_MAX_ELEMENTS];
    float scale[QUANT_MAX_GROUPS];
    float offset[QUANT_MAX_GROUPS];
};

struct quant_layout {
    int group; /* elements that share a scale: 16 or 32 */
    void (*unpack)(const uint8_t *block, struct quant_block *out);
};

/* NULL for the plain types. */
const struct quant_layout *quant_layout(enum tensor_type type);

/* IEEE binary16, subnormals, infinities and NaNs included; without a branch, so that loops of it vectorise. */
static inline float f16_to_f32(uint16_t half)
{
    uint32_t magnitude = half & 0x7fffu, sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t rebias = magnitude >= 0x7c00u ? 224u << 23 : 112u << 23; /* infinity and NaN: to exponent 255 */
    uint32_t normal = (magnitude << 13) + rebias;
    float small = (float)(int32_t)magnitude * 0x1p-24f;
    uint32_t subnormal;
    memcpy(&subnormal, &small, sizeof subnormal);
    uint32_t bits = (magnitude < 0x0400u ? subnormal : normal) | sign;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The binary16 at `bytes`, which need not be aligned. */
static inline float f16_load(const uint8_t *bytes)
{
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    return f16_to_f32(half);
}

/* The eight scales and eight minima, of 6 bits each, of a Q4_K or Q5_K block, from its 12 bytes behind d and dmin:
 * 0 to 3 are the low bits of bytes 0-3 (scales) and 4-7 (minima); 4 to 7 have their low nibbles in bytes 8-11
 * and their two high bits on top of the former. */
static inline void quant_k_scales(const uint8_t *bytes, uint8_t scales[8], uint8_t minima[8])
{
    uint32_t a, b, c;
    memcpy(&a, bytes, 4);
    memcpy(&b, bytes + 4, 4);
    memcpy(&c, bytes + 8, 4);
    const uint32_t scale[2] = {a & 0x3f3f3f3fu, (c & 0x0f0f0f0fu) | (a >> 6 & 0x03030303u) << 4};
    const uint32_t minimum[2] = {b & 0x3f3f3f3fu, (c >> 4 & 0x0f0f0f0fu) | (b >> 6 & 0x03030303u) << 4};
    memcpy(scales, scale, 8);
    memcpy(minima, minimum, 8);
}

#endif
