/* Rows with AVX-512.
 *
 * Four-bit weights are looked up, not converted: a register holds the 16 values that a nibble can stand for under
 * the scale and offset of its group, and one permutation by the nibbles gives 16 weights. That is fewer
 * instructions than unpacking to integers, converting, scaling, and the weights are those of tensor_row_to_f32 up
 * to one rounding. Wider weights are converted and scaled.
 */
#include <immintrin.h>
#include <string.h>

#include "base/cpu.h"
#include "model/matvec.h"

/* Two chains of additions, so that one does not wait for the other. */
struct sums {
    __m512 even, odd;
};

static inline struct sums sums_zero(void)
{
    return (struct sums){_mm512_setzero_ps(), _mm512_setzero_ps()};
}

static inline float sums_total(struct sums sums)
{
    return _mm512_reduce_add_ps(_mm512_add_ps(sums.even, sums.odd));
}

/* The first `count` (0 to 16) lanes. */
static inline __mmask16 first_lanes(int64_t count)
{
    return (__mmask16)((1u << count) - 1);
}

static float dot_f32(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        matvec_fetch_ahead(row + 4 * i, 128);
        sums.even = _mm512_fmadd_ps(_mm512_loadu_ps(row + 4 * i), _mm512_loadu_ps(x + i), sums.even);
        sums.odd = _mm512_fmadd_ps(_mm512_loadu_ps(row + 4 * i + 64), _mm512_loadu_ps(x + i + 16), sums.odd);
    }
    for (; i < n; i += 16) {
        __mmask16 in = first_lanes(n - i < 16 ? n - i : 16);
        sums.even =
            _mm512_fmadd_ps(_mm512_maskz_loadu_ps(in, row + 4 * i), _mm512_maskz_loadu_ps(in, x + i), sums.even);
    }
    return sums_total(sums);
}

static inline __m512 from_f16(__m256i halves)
{
    return _mm512_cvtph_ps(halves);
}

static inline __m512 from_bf16(__m256i halves)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

/* A row of two-byte numbers; `widen` is known where this is inlined. */
static inline __attribute__((always_inline)) float dot_halves(const uint8_t *row, const float *x, int64_t n,
                                                              __m512 (*widen)(__m256i))
{
    struct sums sums = sums_zero();
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        matvec_fetch_ahead(row + 2 * i, 64);
        __m512 low = widen(_mm256_loadu_si256((const __m256i *)(row + 2 * i)));
        __m512 high = widen(_mm256_loadu_si256((const __m256i *)(row + 2 * i + 32)));
        sums.even = _mm512_fmadd_ps(low, _mm512_loadu_ps(x + i), sums.even);
        sums.odd = _mm512_fmadd_ps(high, _mm512_loadu_ps(x + i + 16), sums.odd);
    }
    for (; i < n; i += 16) {
        __mmask16 in = first_lanes(n - i < 16 ? n - i : 16);
        __m512 w = widen(_mm256_maskz_loadu_epi16(in, row + 2 * i));
        sums.even = _mm512_fmadd_ps(w, _mm512_maskz_loadu_ps(in, x + i), sums.even);
    }
    return sums_total(sums);
}

static float dot_f16(const uint8_t *row, const float *x, int64_t n)
{
    return dot_halves(row, x, n, from_f16);
}

static float dot_bf16(const uint8_t *row, const float *x, int64_t n)
{
    return dot_halves(row, x, n, from_bf16);
}

/* 0, 1 .. 15 */
static inline __m512 nibble_values(void)
{
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

/* The halves at `bytes` as floats: the first in lane 0, the second in lane 1. Reads 8 bytes. */
static inline __m128 load_halves(const uint8_t *bytes)
{
    return _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)bytes));
}

static inline __m512 lane_0(__m128 floats)
{
    return _mm512_broadcastss_ps(floats);
}

static inline __m512 lane_1(__m128 floats)
{
    return _mm512_permutexvar_ps(_mm512_set1_epi32(1), _mm512_castps128_ps512(floats));
}

static inline __m512i load_16_bytes(const uint8_t *bytes)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)bytes));
}

/* 16 low nibbles under the table `low` against x, 16 high ones under `high` against x_high. */
static inline struct sums add_nibbles(struct sums sums, __m512i bytes, __m512 low, __m512 high, const float *x,
                                      const float *x_high)
{
    __m512 w_low = _mm512_permutexvar_ps(bytes, low);
    __m512 w_high = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), high);
    sums.even = _mm512_fmadd_ps(w_low, _mm512_loadu_ps(x), sums.even);
    sums.odd = _mm512_fmadd_ps(w_high, _mm512_loadu_ps(x_high), sums.odd);
    return sums;
}

static float dot_q4_0(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    const __m512 values = _mm512_sub_ps(nibble_values(), _mm512_set1_ps(8));
    for (int64_t i = 0; i < n; i += 32, row += 18) {
        matvec_fetch_ahead(row, 18);
        __m512 table = _mm512_mul_ps(lane_0(load_halves(row)), values);
        sums = add_nibbles(sums, load_16_bytes(row + 2), table, table, x + i, x + i + 16);
    }
    return sums_total(sums);
}

static float dot_q4_1(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    const __m512 values = nibble_values();
    for (int64_t i = 0; i < n; i += 32, row += 20) {
        matvec_fetch_ahead(row, 20);
        __m128 halves = load_halves(row);
        __m512 table = _mm512_fmadd_ps(lane_0(halves), values, lane_1(halves));
        sums = add_nibbles(sums, load_16_bytes(row + 4), table, table, x + i, x + i + 16);
    }
    return sums_total(sums);
}

/* As add_nibbles within one block of 32, with a fifth bit each that adds `sixteen`, the value of 16 steps. */
static inline struct sums add_five_bits(struct sums sums, const uint8_t *bits, const uint8_t *nibbles, __m512 table,
                                        __m512 sixteen, const float *x)
{
    uint32_t fifth;
    memcpy(&fifth, bits, sizeof fifth);
    __m512i bytes = load_16_bytes(nibbles);
    __m512 w_low = _mm512_permutexvar_ps(bytes, table);
    __m512 w_high = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), table);
    w_low = _mm512_mask_add_ps(w_low, (__mmask16)fifth, w_low, sixteen);
    w_high = _mm512_mask_add_ps(w_high, (__mmask16)(fifth >> 16), w_high, sixteen);
    sums.even = _mm512_fmadd_ps(w_low, _mm512_loadu_ps(x), sums.even);
    sums.odd = _mm512_fmadd_ps(w_high, _mm512_loadu_ps(x + 16), sums.odd);
    return sums;
}

static float dot_q5_0(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    const __m512 values = _mm512_sub_ps(nibble_values(), _mm512_set1_ps(16));
    for (int64_t i = 0; i < n; i += 32, row += 22) {
        matvec_fetch_ahead(row, 22);
        __m512 scale = lane_0(load_halves(row));
        __m512 table = _mm512_mul_ps(scale, values);
        sums = add_five_bits(sums, row + 2, row + 6, table, _mm512_mul_ps(scale, _mm512_set1_ps(16)), x + i);
    }
    return sums_total(sums);
}

static float dot_q5_1(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    const __m512 values = nibble_values();
    for (int64_t i = 0; i < n; i += 32, row += 24) {
        matvec_fetch_ahead(row, 24);
        __m128 halves = load_halves(row);
        __m512 scale = lane_0(halves), table = _mm512_fmadd_ps(scale, values, lane_1(halves));
        sums = add_five_bits(sums, row + 4, row + 8, table, _mm512_mul_ps(scale, _mm512_set1_ps(16)), x + i);
    }
    return sums_total(sums);
}

/* The 16 signed bytes at `q` as floats. */
static inline __m512 load_int8(const int8_t *q)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)q)));
}

static float dot_q8_0(const uint8_t *row, const float *x, int64_t n)
{
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 32, row += 34) {
        matvec_fetch_ahead(row, 34);
        const int8_t *q = (const int8_t *)row + 2;
        __m512 scale = lane_0(load_halves(row));
        __m512 products = _mm512_mul_ps(load_int8(q), _mm512_loadu_ps(x + i));
        products = _mm512_fmadd_ps(load_int8(q + 16), _mm512_loadu_ps(x + i + 16), products);
        sum = _mm512_fmadd_ps(scale, products, sum);
    }
    return _mm512_reduce_add_ps(sum);
}

/* The scales and minima of the groups of a Q4_K or Q5_K block. */
struct k_scales {
    float scale[8], minimum[8];
};

/* d * bytes [8] */
static inline __m256 scale_bytes(__m256 d, const uint8_t *bytes)
{
    return _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes))));
}

static inline void load_k_scales(const uint8_t *block, struct k_scales *out)
{
    uint8_t scales[8], minima[8];
    quant_k_scales(block + 4, scales, minima);
    __m128 halves = load_halves(block);
    _mm256_storeu_ps(out->scale, scale_bytes(_mm256_broadcastss_ps(halves), scales));
    _mm256_storeu_ps(out->minimum, scale_bytes(_mm256_broadcastss_ps(_mm_movehdup_ps(halves)), minima));
}

/* scale * (0 .. 15) - minimum of one group */
static inline __m512 k_table(const struct k_scales *k, int group)
{
    return _mm512_fmsub_ps(_mm512_set1_ps(k->scale[group]), nibble_values(), _mm512_set1_ps(k->minimum[group]));
}

static float dot_q4_k(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    for (int64_t i = 0; i < n; i += 256, row += 144) {
        matvec_fetch_ahead(row, 144);
        struct k_scales k;
        load_k_scales(row, &k);
        for (int pair = 0; pair < 4; pair++) {
            const uint8_t *bytes = row + 16 + 32 * pair;
            const float *at = x + i + 64 * pair;
            __m512 low = k_table(&k, 2 * pair), high = k_table(&k, 2 * pair + 1);
            sums = add_nibbles(sums, load_16_bytes(bytes), low, high, at, at + 32);
            sums = add_nibbles(sums, load_16_bytes(bytes + 16), low, high, at + 16, at + 48);
        }
    }
    return sums_total(sums);
}

/* 16 weights of group `group`: nibbles, and a fifth bit where bit `group` of `high` is set. */
static inline __m512 five_bit_weights(const struct k_scales *k, int group, __m512i nibbles, __m512i high)
{
    __mmask16 fifth = _mm512_test_epi32_mask(high, _mm512_set1_epi32(1 << group));
    __m512 w = _mm512_permutexvar_ps(nibbles, k_table(k, group));
    return _mm512_mask_add_ps(w, fifth, w, _mm512_set1_ps(16 * k->scale[group]));
}

static float dot_q5_k(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    for (int64_t i = 0; i < n; i += 256, row += 176) {
        matvec_fetch_ahead(row, 176);
        struct k_scales k;
        load_k_scales(row, &k);
        for (int half = 0; half < 2; half++) {
            __m512i fifth_bits = load_16_bytes(row + 16 + 16 * half);
            for (int pair = 0; pair < 4; pair++) {
                __m512i bytes = load_16_bytes(row + 48 + 32 * pair + 16 * half);
                const float *at = x + i + 64 * pair + 16 * half;
                __m512 low = five_bit_weights(&k, 2 * pair, bytes, fifth_bits);
                __m512 high = five_bit_weights(&k, 2 * pair + 1, _mm512_srli_epi32(bytes, 4), fifth_bits);
                sums.even = _mm512_fmadd_ps(low, _mm512_loadu_ps(at), sums.even);
                sums.odd = _mm512_fmadd_ps(high, _mm512_loadu_ps(at + 32), sums.odd);
            }
        }
    }
    return sums_total(sums);
}

/* Half a Q6_K block: q [128] from 64 bytes of low bits and 32 of high bits. */
static inline void unpack_q6_k_half(const uint8_t *low, const uint8_t *high, int8_t *q)
{
    const __m512i four = _mm512_set1_epi8(15), two = _mm512_set1_epi8(48), zero = _mm512_set1_epi8(32);
    /* A shift for the first 32 weights, another for the next 32; bits from the neighbour byte are masked off. */
    const __m512i left = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
    const __m512i right = _mm512_inserti64x4(_mm512_set1_epi16(0), _mm256_set1_epi16(2), 1);
    __m512i nibbles = _mm512_loadu_si512(low);
    __m512i bits = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)high));
    __m512i first =
        _mm512_or_si512(_mm512_and_si512(nibbles, four), _mm512_and_si512(_mm512_sllv_epi16(bits, left), two));
    __m512i second = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(nibbles, 4), four),
                                     _mm512_and_si512(_mm512_srlv_epi16(bits, right), two));
    _mm512_storeu_si512(q, _mm512_sub_epi8(first, zero));
    _mm512_storeu_si512(q + 64, _mm512_sub_epi8(second, zero));
}

static float dot_q6_k(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    for (int64_t i = 0; i < n; i += 256, row += 210) {
        matvec_fetch_ahead(row, 210);
        int8_t q[256];
        float scales[16];
        unpack_q6_k_half(row, row + 128, q);
        unpack_q6_k_half(row + 64, row + 160, q + 128);
        __m512 d = _mm512_set1_ps(f16_load(row + 208));
        _mm512_storeu_ps(scales, _mm512_mul_ps(d, load_int8((const int8_t *)row + 192)));
        for (int g = 0; g < 16; g += 2) {
            const float *at = x + i + 16 * g;
            __m512 even = _mm512_mul_ps(load_int8(q + 16 * g), _mm512_loadu_ps(at));
            __m512 odd = _mm512_mul_ps(load_int8(q + 16 * g + 16), _mm512_loadu_ps(at + 16));
            sums.even = _mm512_fmadd_ps(_mm512_set1_ps(scales[g]), even, sums.even);
            sums.odd = _mm512_fmadd_ps(_mm512_set1_ps(scales[g + 1]), odd, sums.odd);
        }
    }
    return sums_total(sums);
}

static float block_dot(const struct quant_block *block, int elements, int group, const float *x)
{
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < elements; i += 16) {
        __m512 scale = _mm512_set1_ps(block->scale[i / group]), offset = _mm512_set1_ps(block->offset[i / group]);
        __m512 w = _mm512_fmadd_ps(scale, load_int8(block->q + i), offset);
        sum = _mm512_fmadd_ps(w, _mm512_loadu_ps(x + i), sum);
    }
    return _mm512_reduce_add_ps(sum);
}

static bool supported(void)
{
    return cpu_features().avx512;
}

const struct matvec_kernel matvec_kernel_avx512 = {
    .name = "avx512",
    .supported = supported,
    .dot = {[TENSOR_F32] = dot_f32,
            [TENSOR_F16] = dot_f16,
            [TENSOR_BF16] = dot_bf16,
            [TENSOR_Q4_0] = dot_q4_0,
            [TENSOR_Q4_1] = dot_q4_1,
            [TENSOR_Q5_0] = dot_q5_0,
            [TENSOR_Q5_1] = dot_q5_1,
            [TENSOR_Q8_0] = dot_q8_0,
            [TENSOR_Q4_K] = dot_q4_k,
            [TENSOR_Q5_K] = dot_q5_k,
            [TENSOR_Q6_K] = dot_q6_k},
    .block_dot = block_dot,
};
