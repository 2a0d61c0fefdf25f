#include "base/quant.h"

/* x + -0 is x for every x, its sign included; x + 0 is not. */
static const float no_offset = -0.0f;

/* Blocks of 32: a scale, sometimes an offset ("_1"), sometimes fifth bits, then nibbles; element j is the low
 * nibble of byte j, element j + 16 the high one. */

static void unpack_nibbles(const uint8_t *nibbles, int zero, int8_t *q)
{
    for (int j = 0; j < 16; j++) {
        q[j] = (int8_t)((nibbles[j] & 15) - zero);
        q[j + 16] = (int8_t)((nibbles[j] >> 4) - zero);
    }
}

/* sixteens [32]: 16 where bit i of the four bytes is set, else 0. Eight bits become eight bytes at once: byte k of
 * the product keeps bit k alone, and adding 127 carries whatever it is into the top bit. */
static void spread_bits(const uint8_t *bits, uint8_t *sixteens)
{
    for (int i = 0; i < 4; i++) {
        uint64_t each = bits[i] * UINT64_C(0x0101010101010101) & UINT64_C(0x8040201008040201);
        uint64_t spread = (each + UINT64_C(0x7f7f7f7f7f7f7f7f)) >> 3 & UINT64_C(0x1010101010101010);
        memcpy(sixteens + 8 * i, &spread, sizeof spread);
    }
}

static void unpack_five_bits(const uint8_t *high, const uint8_t *nibbles, int zero, int8_t *q)
{
    uint8_t sixteens[32];
    spread_bits(high, sixteens);
    for (int j = 0; j < 16; j++) {
        q[j] = (int8_t)(((nibbles[j] & 15) | sixteens[j]) - zero);
        q[j + 16] = (int8_t)((nibbles[j] >> 4 | sixteens[j + 16]) - zero);
    }
}

static void unpack_q4_0(const uint8_t *block, struct quant_block *out)
{
    out->scale[0] = f16_load(block);
    out->offset[0] = no_offset;
    unpack_nibbles(block + 2, 8, out->q);
}

static void unpack_q4_1(const uint8_t *block, struct quant_block *out)
{
    out->scale[0] = f16_load(block);
    out->offset[0] = f16_load(block + 2);
    unpack_nibbles(block + 4, 0, out->q);
}

static void unpack_q5_0(const uint8_t *block, struct quant_block *out)
{
    out->scale[0] = f16_load(block);
    out->offset[0] = no_offset;
    unpack_five_bits(block + 2, block + 6, 16, out->q);
}

static void unpack_q5_1(const uint8_t *block, struct quant_block *out)
{
    out->scale[0] = f16_load(block);
    out->offset[0] = f16_load(block + 2);
    unpack_five_bits(block + 4, block + 8, 0, out->q);
}

static void unpack_q8_0(const uint8_t *block, struct quant_block *out)
{
    out->scale[0] = f16_load(block);
    out->offset[0] = no_offset;
    memcpy(out->q, block + 2, 32);
}

/* Blocks of 256, the "K" types: groups of 16 or 32 with small integer scales under a scale of the block. */

/* scales [16] (low nibble scale, high nibble minimum), q [64] of 2 bits, d, dmin */
static void unpack_q2_k(const uint8_t *block, struct quant_block *out)
{
    const uint8_t *scales = block, *bits = block + 16;
    float d = f16_load(block + 80), minimum = f16_load(block + 82);
    for (int g = 0; g < 16; g++) {
        out->scale[g] = d * (float)(scales[g] & 15);
        out->offset[g] = -(minimum * (float)(scales[g] >> 4));
    }
    for (int half = 0; half < 2; half++)
        for (int plane = 0; plane < 4; plane++)
            for (int i = 0; i < 32; i++)
                out->q[half * 128 + plane * 32 + i] = (int8_t)(bits[half * 32 + i] >> 2 * plane & 3);
}

/* high [32] (bit p: third bit of plane p; clear means 4 less), q [64] of 2 bits, scales [12] of 6 bits, d */
static void unpack_q3_k(const uint8_t *block, struct quant_block *out)
{
    const uint8_t *high = block, *bits = block + 32, *scales = block + 96;
    float d = f16_load(block + 108);
    for (int g = 0; g < 16; g++) {
        int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
        int top = scales[8 + g % 4] >> 2 * (g / 4) & 3;
        out->scale[g] = d * (float)((low | top << 4) - 32);
        out->offset[g] = no_offset;
    }
    for (int plane = 0; plane < 8; plane++)
        for (int i = 0; i < 32; i++) {
            int low = bits[plane / 4 * 32 + i] >> 2 * (plane % 4) & 3;
            out->q[plane * 32 + i] = (int8_t)(low + (high[i] >> plane & 1) * 4 - 4);
        }
}

static void unpack_k_scales(const uint8_t *block, struct quant_block *out)
{
    uint8_t scales[8], minima[8];
    float d = f16_load(block), minimum = f16_load(block + 2);
    quant_k_scales(block + 4, scales, minima);
    for (int g = 0; g < 8; g++) {
        out->scale[g] = d * (float)scales[g];
        out->offset[g] = -(minimum * (float)minima[g]);
    }
}

/* d, dmin, scales [12], q [128] of 4 bits: 32 low nibbles, then their 32 high ones */
static void unpack_q4_k(const uint8_t *block, struct quant_block *out)
{
    const uint8_t *nibbles = block + 16;
    unpack_k_scales(block, out);
    for (int pair = 0; pair < 4; pair++)
        for (int i = 0; i < 32; i++) {
            out->q[pair * 64 + i] = (int8_t)(nibbles[pair * 32 + i] & 15);
            out->q[pair * 64 + 32 + i] = (int8_t)(nibbles[pair * 32 + i] >> 4);
        }
}

/* d, dmin, scales [12], high [32] (bit g: fifth bit of group g), q [128] of 4 bits */
static void unpack_q5_k(const uint8_t *block, struct quant_block *out)
{
    const uint8_t *high = block + 16, *nibbles = block + 48;
    unpack_k_scales(block, out);
    for (int pair = 0; pair < 4; pair++)
        for (int i = 0; i < 32; i++) {
            int byte = nibbles[pair * 32 + i];
            out->q[pair * 64 + i] = (int8_t)((byte & 15) | (high[i] >> 2 * pair & 1) << 4);
            out->q[pair * 64 + 32 + i] = (int8_t)(byte >> 4 | (high[i] >> (2 * pair + 1) & 1) << 4);
        }
}

/* low [128] of 4 bits, high [64] of 2 bits, scales [16] signed, d */
static void unpack_q6_k(const uint8_t *block, struct quant_block *out)
{
    const uint8_t *scales = block + 192;
    float d = f16_load(block + 208);
    for (int g = 0; g < 16; g++) {
        out->scale[g] = d * (float)(int8_t)scales[g];
        out->offset[g] = no_offset;
    }
    for (int half = 0; half < 2; half++) {
        const uint8_t *low = block + half * 64, *high = block + 128 + half * 32;
        int8_t *q = out->q + half * 128;
        for (int i = 0; i < 32; i++) {
            q[i] = (int8_t)(((low[i] & 15) | (high[i] & 3) << 4) - 32);
            q[i + 32] = (int8_t)(((low[i + 32] & 15) | (high[i] >> 2 & 3) << 4) - 32);
            q[i + 64] = (int8_t)((low[i] >> 4 | (high[i] >> 4 & 3) << 4) - 32);
            q[i + 96] = (int8_t)((low[i + 32] >> 4 | (high[i] >> 6) << 4) - 32);
        }
    }
}

static const struct quant_layout layouts[TENSOR_TYPE_COUNT] = {
    [TENSOR_Q4_0] = {32, unpack_q4_0}, [TENSOR_Q4_1] = {32, unpack_q4_1}, [TENSOR_Q5_0] = {32, unpack_q5_0},
    [TENSOR_Q5_1] = {32, unpack_q5_1}, [TENSOR_Q8_0] = {32, unpack_q8_0}, [TENSOR_Q2_K] = {16, unpack_q2_k},
    [TENSOR_Q3_K] = {16, unpack_q3_k}, [TENSOR_Q4_K] = {32, unpack_q4_k}, [TENSOR_Q5_K] = {32, unpack_q5_k},
    [TENSOR_Q6_K] = {16, unpack_q6_k},
};

const struct quant_layout *quant_layout(enum tensor_type type)
{
    return layouts[type].unpack ? &layouts[type] : NULL;
}
