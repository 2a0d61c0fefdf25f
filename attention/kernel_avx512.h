/* What the AVX-512 kernels share: from scores to weights, and the transposition of keys for packing. */
#ifndef LONGHAUL_ATTENTION_KERNEL_AVX512_H
#define LONGHAUL_ATTENTION_KERNEL_AVX512_H

#include <immintrin.h>

#include "attention/kernel_strip.h"

enum { LANES = 16 };

/* Inlined into a caller with a constant number of rows, so that the accumulators become registers. */
#define MICRO_KERNEL static inline __attribute__((always_inline)) void

/* Functions for each number of rows, made from MICRO_KERNELs score_rows(rows, strip) and add_value_rows(rows,
 * strip, factor), and those that call the right one: score_strip(), and add_values() with the factors of o [rows].
 */
#define FOR_ROWS(rows)                                                                                             \
    static void score_##rows(const struct strip *strip)                                                            \
    {                                                                                                              \
        score_rows(rows, strip);                                                                                   \
    }                                                                                                              \
    static void add_values_##rows(const struct strip *strip, const float *factor)                                  \
    {                                                                                                              \
        add_value_rows(rows, strip, factor);                                                                       \
    }
#define FOR_ALL_ROWS                                                                                               \
    FOR_ROWS(1)                                                                                                    \
    FOR_ROWS(2)                                                                                                    \
    FOR_ROWS(3)                                                                                                    \
    FOR_ROWS(4)                                                                                                    \
    FOR_ROWS(5)                                                                                                    \
    FOR_ROWS(6)                                                                                                    \
    FOR_ROWS(7)                                                                                                    \
    FOR_ROWS(8)                                                                                                    \
    FOR_ROWS(9)                                                                                                    \
    FOR_ROWS(10)                                                                                                   \
    FOR_ROWS(11)                                                                                                   \
    FOR_ROWS(12)                                                                                                   \
    static void score_strip(const struct strip *strip)                                                             \
    {                                                                                                              \
        static void (*const by_rows[STRIP_ROWS])(const struct strip *) = {score_1, score_2,  score_3,  score_4,    \
                                                                          score_5, score_6,  score_7,  score_8,    \
                                                                          score_9, score_10, score_11, score_12};  \
        by_rows[strip->rows - 1](strip);                                                                           \
    }                                                                                                              \
    static void add_values(const struct strip *strip, const float *factor)                                         \
    {                                                                                                              \
        static void (*const by_rows[STRIP_ROWS])(const struct strip *, const float *) = {                          \
            add_values_1, add_values_2, add_values_3, add_values_4,  add_values_5,  add_values_6,                  \
            add_values_7, add_values_8, add_values_9, add_values_10, add_values_11, add_values_12};                \
        by_rows[strip->rows - 1](strip, factor);                                                                   \
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

/* sums [16] += what 16 keys get */
static inline void receive(const struct strip *strip, const struct strip_class *rows, int key, int64_t *sums)
{
    const struct reference reference = {_mm512_set1_ps(STRIP_FLOOR), _mm512_set1_ps(STRIP_SHIFT)};
    __m512i low = _mm512_loadu_si512(sums), high = _mm512_loadu_si512(sums + LANES / 2);
    for (int r = rows->first; r < strip->rows; r += rows->step) {
        const __m512 score = _mm512_load_ps(strip->scores + r * STRIP_STRIDE + key);
        const __m512 weight = weight_of(_mm512_sub_ps(score, _mm512_set1_ps(rows->lse[r])), reference);
        const __m512i units = _mm512_cvttps_epi32(_mm512_mul_ps(weight, _mm512_set1_ps(STRIP_UNITS)));
        low = _mm512_add_epi64(low, _mm512_cvtepi32_epi64(_mm512_castsi512_si256(units)));
        high = _mm512_add_epi64(high, _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(units, 1)));
    }
    _mm512_storeu_si512(sums, low);
    _mm512_storeu_si512(sums + LANES / 2, high);
}

static void receive_tile(const struct strip *strip, const struct strip_class *rows, int key, int64_t *sums)
{
    for (int i = 0; i < ATTN_KEY_TILE; i += LANES)
        receive(strip, rows, key + i, sums + i);
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
