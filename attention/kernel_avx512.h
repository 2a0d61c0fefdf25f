/* What the AVX-512 kernels share: from scores to weights, and the transposition of keys for packing. */
#ifndef LONGHAUL_ATTENTION_KERNEL_AVX512_H
#define LONGHAUL_ATTENTION_KERNEL_AVX512_H

#include <immintrin.h>

#include "attention/kernel_strip.h"

enum { LANES = 16 };

/* Inlined into a caller with a constant number of rows, so that the accumulators become registers. */
#define MICRO_KERNEL static inline __attribute__((always_inline)) void

/* A function for each number of rows, made from MICRO_KERNEL attend_rows(rows, strip), and attend_strip() that
 * calls the right one. */
#define ATTEND(rows)                                                                                               \
    static void attend_##rows(const struct strip *strip)                                                           \
    {                                                                                                              \
        attend_rows(rows, strip);                                                                                  \
    }
#define ATTEND_ALL                                                                                                 \
    ATTEND(1)                                                                                                      \
    ATTEND(2)                                                                                                      \
    ATTEND(3)                                                                                                      \
    ATTEND(4)                                                                                                      \
    ATTEND(5)                                                                                                      \
    ATTEND(6)                                                                                                      \
    ATTEND(7)                                                                                                      \
    ATTEND(8)                                                                                                      \
    ATTEND(9)                                                                                                      \
    ATTEND(10)                                                                                                     \
    ATTEND(11)                                                                                                     \
    ATTEND(12)                                                                                                     \
    static void attend_strip(const struct strip *strip)                                                            \
    {                                                                                                              \
        static void (*const by_rows[STRIP_ROWS])(const struct strip *) = {                                         \
            attend_1, attend_2, attend_3, attend_4,  attend_5,  attend_6,                                          \
            attend_7, attend_8, attend_9, attend_10, attend_11, attend_12};                                        \
        by_rows[strip->rows - 1](strip);                                                                           \
    }

static inline float largest_score(const float *scores, int n_tiles)
{
    __m512 high[4];
    for (int i = 0; i < 4; i++)
        high[i] = _mm512_load_ps(scores + i * LANES);
    for (int t = 1; t < n_tiles; t++)
        for (int i = 0; i < 4; i++)
            high[i] = _mm512_max_ps(high[i], _mm512_load_ps(scores + t * ATTN_KEY_TILE + i * LANES));
    return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(high[0], high[1]), _mm512_max_ps(high[2], high[3])));
}

struct reference {
    __m512 floor; /* m + STRIP_FLOOR */
    __m512 shift; /* STRIP_SHIFT - m */
};

/* 2^(score - m), or 0 below the floor; 2^r by a polynomial on [-1/2, 1/2], relative error 1.1e-7. */
static inline __m512 weight_of(__m512 score, struct reference reference)
{
    __mmask16 seen = _mm512_cmp_ps_mask(score, reference.floor, _CMP_NLT_UQ);
    __m512 shifted = _mm512_add_ps(score, reference.shift); /* round(score) - m in the lowest bits */
    __m512 r = _mm512_sub_ps(score, _mm512_sub_ps(shifted, reference.shift));
    __m512 power = _mm512_set1_ps(0.00132647273f);
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.00967151299f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.0555073358f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.240222424f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.693147004f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(1.0f));
    __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(seen, _mm512_castps_si512(power), exponent));
}

/* l + the sum of the lanes of each vector in turn */
static inline float add_lanes(const __m512 v[STRIP_TILES], float l)
{
    __m512 low = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    __m512 high = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    __m512 four = _mm512_add_ps(_mm512_shuffle_ps(low, high, 0x44), _mm512_shuffle_ps(low, high, 0xee));
    __m256 two = _mm256_add_ps(_mm512_castps512_ps256(four), _mm512_extractf32x8_ps(four, 1));
    float sums[STRIP_TILES];
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1)));
    for (int t = 0; t < STRIP_TILES; t++)
        l += sums[t];
    return l;
}

/* The weights of the 64 scores of a tile, and the sum of each lane. */
static inline __m512 weigh_tile(const float *scores, struct reference reference, __m512 weights[4])
{
    for (int i = 0; i < 4; i++)
        weights[i] = weight_of(_mm512_load_ps(scores + i * LANES), reference);
    return _mm512_add_ps(_mm512_add_ps(weights[0], weights[1]), _mm512_add_ps(weights[2], weights[3]));
}

/* The reference of row r before its scores are weighed; factor [rows]: for l and o. */
static inline void raise_references(const struct strip *strip, float *factor)
{
    for (int r = 0; r < strip->rows; r++) {
        factor[r] = 1;
        if (strip_sees(strip, r))
            factor[r] =
                strip_raise(strip->state.m + r, largest_score(strip->scores + r * STRIP_STRIDE, strip->n_tiles));
        strip->state.l[r] *= factor[r];
    }
}

/* A row that sees nothing of the strip may have no reference yet: any will do, its weights are all 0. */
static inline struct reference reference_of(const struct strip *strip, int r)
{
    float m = strip_sees(strip, r) ? strip->state.m[r] : 0;
    return (struct reference){_mm512_set1_ps(m + STRIP_FLOOR), _mm512_set1_ps(STRIP_SHIFT - m)};
}

/* rows [16] of 16 words := columns */
static inline void transpose(__m512i rows[LANES])
{
    __m512i t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; j++) {
            rows[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            rows[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    /* now rows[4 * i + c] holds columns c, c + 4, c + 8, c + 12 of rows 4i .. 4i + 3 */
    for (int c = 0; c < 4; c++) {
        __m512i low_0 = _mm512_shuffle_i32x4(rows[c], rows[4 + c], 0x88);
        __m512i low_1 = _mm512_shuffle_i32x4(rows[8 + c], rows[12 + c], 0x88);
        __m512i high_0 = _mm512_shuffle_i32x4(rows[c], rows[4 + c], 0xdd);
        __m512i high_1 = _mm512_shuffle_i32x4(rows[8 + c], rows[12 + c], 0xdd);
        t[c] = _mm512_shuffle_i32x4(low_0, low_1, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(low_0, low_1, 0xdd);
        t[4 + c] = _mm512_shuffle_i32x4(high_0, high_1, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(high_0, high_1, 0xdd);
    }
    for (int i = 0; i < LANES; i++)
        rows[i] = t[i];
}

#endif
