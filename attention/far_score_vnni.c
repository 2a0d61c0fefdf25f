#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "attention/far_score.h"
#include "base/cpu.h"

/* 32 channels' levels, of which `valid` count, as eight-bit numbers. */
static inline void read_levels(__m256i levels, const uint16_t *low, const uint16_t *step, __mmask32 valid,
                               uint8_t *k8)
{
    const __m512i n = _mm512_mullo_epi16(_mm512_cvtepu8_epi16(levels), _mm512_maskz_loadu_epi16(valid, step));
    const __m512i k = _mm512_add_epi16(n, _mm512_maskz_loadu_epi16(valid, low));
    _mm512_mask_cvtepi16_storeu_epi8(k8, valid, _mm512_srli_epi16(k, 8));
}

static inline void read_key(const uint8_t *nibbles, const uint16_t *low, const uint16_t *step, int dim, uint8_t *k8)
{
    const int half = dim / 2;
    const __m256i fifteen = _mm256_set1_epi8(15);
    for (int e = 0; e < half; e += 32) {
        const __mmask32 valid = half - e < 32 ? (1u << (half - e)) - 1 : ~0u;
        const __m256i both = _mm256_maskz_loadu_epi8(valid, nibbles + e);
        const __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), fifteen);
        read_levels(_mm256_and_si256(both, fifteen), low + e, step + e, valid, k8 + e);
        read_levels(second, low + half + e, step + half + e, valid, k8 + half + e);
    }
}

static inline __m512i four(const uint8_t *k)
{
    int32_t bytes;
    memcpy(&bytes, k, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

/* Elements e to e + 3 of all rows of a tile; at e = dim, where their products begin. */
static inline __m512i row_of(const int8_t *lanes, int dim, int tile, int e)
{
    return _mm512_loadu_si512(lanes + (size_t)tile * far_lanes_bytes(dim) + e * FAR_LANES);
}

/* dots + the products of four elements of a tile's rows with those of a key. In assembly, as GCC 12 copies the sums
 * of the intrinsic to other registers and back, twelve times a step. */
static inline __m512i add_products(__m512i dots, __m512i key, __m512i rows)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(dots) : "v"(key), "v"(rows));
    return dots;
}

/* The largest products of `tiles` tiles over a block, `wide` keys at a time: wide * tiles chains of products,
 * enough to hide the latency of one and few enough for the registers. Both are constants where this is called. */
static inline __attribute__((always_inline)) void best_of(const int8_t *lanes, int tiles, int wide,
                                                          const struct far_keys8 *keys, int32_t *out)
{
    const int dim = keys->dim;
    __m512i most[3], dots[3][8];
#pragma GCC unroll 3
    for (int i = 0; i < tiles; i++)
        most[i] = _mm512_set1_epi32(INT32_MIN);
    for (int t = 0; t < keys->n; t += wide) {
        const uint8_t *k = keys->k + t * dim;
#pragma GCC unroll 8
        for (int j = 0; j < wide; j++)
#pragma GCC unroll 3
            for (int i = 0; i < tiles; i++)
                dots[i][j] = row_of(lanes, dim, i, dim);
        for (int e = 0; e < dim; e += 4)
#pragma GCC unroll 8
            for (int j = 0; j < wide; j++) {
                const __m512i key = four(k + j * dim + e);
#pragma GCC unroll 3
                for (int i = 0; i < tiles; i++)
                    dots[i][j] = add_products(dots[i][j], key, row_of(lanes, dim, i, e));
            }
#pragma GCC unroll 8
        for (int j = 0; j < wide; j++)
#pragma GCC unroll 3
            for (int i = 0; i < tiles; i++)
                most[i] = _mm512_max_epi32(most[i], dots[i][j]);
    }
#pragma GCC unroll 3
    for (int i = 0; i < tiles; i++)
        _mm512_storeu_si512(out + i * FAR_LANES, most[i]);
}

static void best(const int8_t *lanes, int tiles, const struct far_keys8 *keys, int32_t *out)
{
    const size_t tile = far_lanes_bytes(keys->dim);
    for (; tiles > 4 || tiles == 3; tiles -= 3, lanes += 3 * tile, out += 3 * FAR_LANES)
        best_of(lanes, 3, 4, keys, out);
    for (; tiles >= 2; tiles -= 2, lanes += 2 * tile, out += 2 * FAR_LANES)
        best_of(lanes, 2, 8, keys, out);
    if (tiles == 1)
        best_of(lanes, 1, 8, keys, out);
}

#define FAR_OWN_READ
#define FAR_OWN_BEST
#include "attention/far_score_body.inc"

static bool supported(void)
{
    return cpu_features().avx512_vnni;
}

const struct far_scorer far_scorer_vnni = {"vnni", supported, read, best, share, weigh, mix};
