/* Rows with AVX2 and FMA: eight weights at a time, converted and scaled. Every CPU with both has F16C too. */
#include <immintrin.h>
#include <string.h>

#include "base/cpu.h"
#include "base/num.h"
#include "model/matvec.h"

/* Two chains of additions, so that one does not wait for the other. */
struct sums {
    __m256 even, odd;
};

static inline struct sums sums_zero(void)
{
    return (struct sums){_mm256_setzero_ps(), _mm256_setzero_ps()};
}

static inline float lanes_total(__m256 lanes)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline float sums_total(struct sums sums)
{
    return lanes_total(_mm256_add_ps(sums.even, sums.odd));
}

static float dot_f32(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        matvec_fetch_ahead(row + 4 * i, 64);
        const float *w = (const float *)(const void *)(row + 4 * i);
        sums.even = _mm256_fmadd_ps(_mm256_loadu_ps(w), _mm256_loadu_ps(x + i), sums.even);
        sums.odd = _mm256_fmadd_ps(_mm256_loadu_ps(w + 8), _mm256_loadu_ps(x + i + 8), sums.odd);
    }
    float rest = 0;
    for (; i < n; i++) {
        float w;
        memcpy(&w, row + 4 * i, sizeof w);
        rest += w * x[i];
    }
    return sums_total(sums) + rest;
}

static inline __m128i load_16_bytes(const uint8_t *bytes)
{
    return _mm_loadu_si128((const __m128i *)bytes);
}

static float dot_f16(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        matvec_fetch_ahead(row + 2 * i, 32);
        __m256 low = _mm256_cvtph_ps(load_16_bytes(row + 2 * i));
        __m256 high = _mm256_cvtph_ps(load_16_bytes(row + 2 * i + 16));
        sums.even = _mm256_fmadd_ps(low, _mm256_loadu_ps(x + i), sums.even);
        sums.odd = _mm256_fmadd_ps(high, _mm256_loadu_ps(x + i + 8), sums.odd);
    }
    float rest = 0;
    for (; i < n; i++)
        rest += f16_load(row + 2 * i) * x[i];
    return sums_total(sums) + rest;
}

static inline __m256 from_bf16(__m128i halves)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

static float dot_bf16(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        matvec_fetch_ahead(row + 2 * i, 32);
        __m256 low = from_bf16(load_16_bytes(row + 2 * i)), high = from_bf16(load_16_bytes(row + 2 * i + 16));
        sums.even = _mm256_fmadd_ps(low, _mm256_loadu_ps(x + i), sums.even);
        sums.odd = _mm256_fmadd_ps(high, _mm256_loadu_ps(x + i + 8), sums.odd);
    }
    float rest = 0;
    for (; i < n; i++) {
        bf16 w;
        memcpy(&w, row + 2 * i, sizeof w);
        rest += bf16_to_f32(w) * x[i];
    }
    return sums_total(sums) + rest;
}

static inline __m256i load_8_bytes(const uint8_t *bytes)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
}

/* A group's weight = scale * integer + offset, in every lane. */
struct affine {
    __m256 scale, offset;
};

/* sum + (scale * q + offset) * x, eight at a time */
static inline __m256 add_weights(__m256 sum, __m256i q, struct affine group, const float *x)
{
    __m256 w = _mm256_fmadd_ps(group.scale, _mm256_cvtepi32_ps(q), group.offset);
    return _mm256_fmadd_ps(w, _mm256_loadu_ps(x), sum);
}

/* 16 bytes: their low nibbles in the group `low` against x [16], their high ones in `high` against x_high [16]. */
static inline struct sums add_nibbles(struct sums sums, const uint8_t *bytes, const struct affine *low_high,
                                      const float *x, const float *x_high)
{
    const __m256i mask = _mm256_set1_epi32(15);
    for (int i = 0; i < 16; i += 8) {
        __m256i q = load_8_bytes(bytes + i);
        sums.even = add_weights(sums.even, _mm256_and_si256(q, mask), low_high[0], x + i);
        sums.odd = add_weights(sums.odd, _mm256_srli_epi32(q, 4), low_high[1], x_high + i);
    }
    return sums;
}

/* The half at `bytes` in every lane. */
static inline __m256 load_half(const uint8_t *bytes)
{
    return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)bytes)));
}

static float dot_q4_0(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    for (int64_t i = 0; i < n; i += 32, row += 18) {
        matvec_fetch_ahead(row, 18);
        __m256 scale = load_half(row);
        struct affine group = {scale, _mm256_mul_ps(scale, _mm256_set1_ps(-8))};
        sums = add_nibbles(sums, row + 2, (struct affine[]){group, group}, x + i, x + i + 16);
    }
    return sums_total(sums);
}

static float dot_q4_1(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    for (int64_t i = 0; i < n; i += 32, row += 20) {
        matvec_fetch_ahead(row, 20);
        struct affine group = {load_half(row), load_half(row + 2)};
        sums = add_nibbles(sums, row + 4, (struct affine[]){group, group}, x + i, x + i + 16);
    }
    return sums_total(sums);
}

/* 16 five-bit integers at a time: nibbles in q [2], fifth bits the low 16 of `bits`. */
static inline __m256 add_five_bits(__m256 sum, const __m256i *q, uint32_t bits, struct affine group, const float *x)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), sixteen = _mm256_set1_epi32(16);
    const __m256i at_four = _mm256_set1_epi32((int)(bits << 4)); /* the first bit already counts 16 */
    for (int i = 0; i < 2; i++) {
        __m256i shift = _mm256_add_epi32(lanes, _mm256_set1_epi32(8 * i));
        __m256i fifth = _mm256_and_si256(_mm256_srlv_epi32(at_four, shift), sixteen);
        sum = add_weights(sum, _mm256_or_si256(q[i], fifth), group, x + 8 * i);
    }
    return sum;
}

/* A block of Q5_0 or Q5_1 behind its halves: 4 bytes of fifth bits, 16 of nibbles. */
static inline struct sums add_five_bit_block(struct sums sums, const uint8_t *bits, struct affine group,
                                             const float *x)
{
    const __m256i mask = _mm256_set1_epi32(15);
    const __m256i first = load_8_bytes(bits + 4), second = load_8_bytes(bits + 12);
    const __m256i low[2] = {_mm256_and_si256(first, mask), _mm256_and_si256(second, mask)};
    const __m256i high[2] = {_mm256_srli_epi32(first, 4), _mm256_srli_epi32(second, 4)};
    uint32_t fifth;
    memcpy(&fifth, bits, sizeof fifth);
    sums.even = add_five_bits(sums.even, low, fifth & 0xffff, group, x);
    sums.odd = add_five_bits(sums.odd, high, fifth >> 16, group, x + 16);
    return sums;
}

static float dot_q5_0(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    for (int64_t i = 0; i < n; i += 32, row += 22) {
        matvec_fetch_ahead(row, 22);
        __m256 scale = load_half(row);
        struct affine group = {scale, _mm256_mul_ps(scale, _mm256_set1_ps(-16))};
        sums = add_five_bit_block(sums, row + 2, group, x + i);
    }
    return sums_total(sums);
}

static float dot_q5_1(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    for (int64_t i = 0; i < n; i += 32, row += 24) {
        matvec_fetch_ahead(row, 24);
        struct affine group = {load_half(row), load_half(row + 2)};
        sums = add_five_bit_block(sums, row + 4, group, x + i);
    }
    return sums_total(sums);
}

/* The 8 signed bytes at `q` as floats. */
static inline __m256 load_int8(const int8_t *q)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)q)));
}

/* q [16] * x [16], lane by lane */
static inline __m256 products_16(const int8_t *q, const float *x)
{
    __m256 low = _mm256_mul_ps(load_int8(q), _mm256_loadu_ps(x));
    return _mm256_fmadd_ps(load_int8(q + 8), _mm256_loadu_ps(x + 8), low);
}

static float dot_q8_0(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    for (int64_t i = 0; i < n; i += 32, row += 34) {
        matvec_fetch_ahead(row, 34);
        const int8_t *q = (const int8_t *)row + 2;
        __m256 scale = load_half(row);
        sums.even = _mm256_fmadd_ps(scale, products_16(q, x + i), sums.even);
        sums.odd = _mm256_fmadd_ps(scale, products_16(q + 16, x + i + 16), sums.odd);
    }
    return sums_total(sums);
}

/* The scales and offsets of the eight groups of a Q4_K or Q5_K block. */
static inline void load_k_scales(const uint8_t *block, float *scale, float *offset)
{
    uint8_t scales[8], minima[8];
    quant_k_scales(block + 4, scales, minima);
    __m256 minus_dmin = _mm256_sub_ps(_mm256_setzero_ps(), load_half(block + 2));
    _mm256_storeu_ps(scale, _mm256_mul_ps(load_half(block), _mm256_cvtepi32_ps(load_8_bytes(scales))));
    _mm256_storeu_ps(offset, _mm256_mul_ps(minus_dmin, _mm256_cvtepi32_ps(load_8_bytes(minima))));
}

static float dot_q4_k(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    for (int64_t i = 0; i < n; i += 256, row += 144) {
        matvec_fetch_ahead(row, 144);
        float scale[8], offset[8];
        load_k_scales(row, scale, offset);
        for (int pair = 0; pair < 4; pair++) {
            const uint8_t *bytes = row + 16 + 32 * pair;
            const float *at = x + i + 64 * pair;
            const struct affine groups[2] = {
                {_mm256_set1_ps(scale[2 * pair]), _mm256_set1_ps(offset[2 * pair])},
                {_mm256_set1_ps(scale[2 * pair + 1]), _mm256_set1_ps(offset[2 * pair + 1])}};
            sums = add_nibbles(sums, bytes, groups, at, at + 32);
            sums = add_nibbles(sums, bytes + 16, groups, at + 16, at + 48);
        }
    }
    return sums_total(sums);
}

/* The group `group` of a Q5_K block: 8 nibbles, and bit `group` of 8 bytes that were shifted left by four. */
static inline __m256i join_fifth(__m256i nibbles, __m256i at_four, int group)
{
    __m256i fifth = _mm256_srlv_epi32(at_four, _mm256_set1_epi32(group));
    return _mm256_or_si256(nibbles, _mm256_and_si256(fifth, _mm256_set1_epi32(16)));
}

static float dot_q5_k(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    const __m256i mask = _mm256_set1_epi32(15);
    for (int64_t i = 0; i < n; i += 256, row += 176) {
        float scale[8], offset[8];
        matvec_fetch_ahead(row, 176);
        load_k_scales(row, scale, offset);
        for (int at = 0; at < 32; at += 8) {
            __m256i at_four = _mm256_slli_epi32(load_8_bytes(row + 16 + at), 4);
            for (int g = 0; g < 8; g += 2) {
                __m256i q = load_8_bytes(row + 48 + 16 * g + at);
                __m256i low = join_fifth(_mm256_and_si256(q, mask), at_four, g);
                __m256i high = join_fifth(_mm256_srli_epi32(q, 4), at_four, g + 1);
                struct affine even = {_mm256_set1_ps(scale[g]), _mm256_set1_ps(offset[g])};
                struct affine odd = {_mm256_set1_ps(scale[g + 1]), _mm256_set1_ps(offset[g + 1])};
                sums.even = add_weights(sums.even, low, even, x + i + 32 * g + at);
                sums.odd = add_weights(sums.odd, high, odd, x + i + 32 * g + 32 + at);
            }
        }
    }
    return sums_total(sums);
}

/* Half a Q6_K block: q [128] from 64 bytes of low bits and 32 of high bits. */
static inline void unpack_q6_k_half(const uint8_t *low, const uint8_t *high, int8_t *q)
{
    const __m256i four = _mm256_set1_epi8(15), two = _mm256_set1_epi8(48), zero = _mm256_set1_epi8(32);
    __m256i a = _mm256_loadu_si256((const __m256i *)low), b = _mm256_loadu_si256((const __m256i *)(low + 32));
    __m256i bits = _mm256_loadu_si256((const __m256i *)high);
    const __m256i nibbles[4] = {a, b, _mm256_srli_epi16(a, 4), _mm256_srli_epi16(b, 4)};
    const __m256i tops[4] = {_mm256_slli_epi16(bits, 4), _mm256_slli_epi16(bits, 2), bits,
                             _mm256_srli_epi16(bits, 2)};
    for (int i = 0; i < 4; i++) {
        __m256i six = _mm256_or_si256(_mm256_and_si256(nibbles[i], four), _mm256_and_si256(tops[i], two));
        _mm256_storeu_si256((__m256i *)(q + 32 * i), _mm256_sub_epi8(six, zero));
    }
}

static float dot_q6_k(const uint8_t *row, const float *x, int64_t n)
{
    struct sums sums = sums_zero();
    for (int64_t i = 0; i < n; i += 256, row += 210) {
        matvec_fetch_ahead(row, 210);
        int8_t q[256];
        float scales[16];
        const __m256 d = _mm256_set1_ps(f16_load(row + 208));
        unpack_q6_k_half(row, row + 128, q);
        unpack_q6_k_half(row + 64, row + 160, q + 128);
        _mm256_storeu_ps(scales, _mm256_mul_ps(d, load_int8((const int8_t *)row + 192)));
        _mm256_storeu_ps(scales + 8, _mm256_mul_ps(d, load_int8((const int8_t *)row + 200)));
        for (int g = 0; g < 16; g += 2) {
            const float *at = x + i + 16 * g;
            __m256 even = products_16(q + 16 * g, at), odd = products_16(q + 16 * g + 16, at + 16);
            sums.even = _mm256_fmadd_ps(_mm256_set1_ps(scales[g]), even, sums.even);
            sums.odd = _mm256_fmadd_ps(_mm256_set1_ps(scales[g + 1]), odd, sums.odd);
        }
    }
    return sums_total(sums);
}

static float block_dot(const struct quant_block *block, int elements, int group, const float *x)
{
    __m256 sum = _mm256_setzero_ps();
    for (int i = 0; i < elements; i += 8) {
        __m256 scale = _mm256_set1_ps(block->scale[i / group]), offset = _mm256_set1_ps(block->offset[i / group]);
        __m256 w = _mm256_fmadd_ps(scale, load_int8(block->q + i), offset);
        sum = _mm256_fmadd_ps(w, _mm256_loadu_ps(x + i), sum);
    }
    return lanes_total(sum);
}

static bool supported(void)
{
    return cpu_features().avx2_fma;
}

const struct matvec_kernel matvec_kernel_avx2 = {
    .name = "avx2",
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
