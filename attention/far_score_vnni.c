#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "attention/far_score.h"
#include "base/cpu.h"

static float largest_of(const float *low, const float *step, int dim)
{
    const __m512 fifteen = _mm512_set1_ps(15);
    __m512 most = _mm512_setzero_ps();
    for (int e = 0; e < dim; e += 16) {
        const __m512 least = _mm512_loadu_ps(low + e);
        most = _mm512_max_ps(most, _mm512_fmadd_ps(fifteen, _mm512_loadu_ps(step + e), least));
        most = _mm512_max_ps(most, _mm512_sub_ps(_mm512_setzero_ps(), least));
    }
    return _mm512_reduce_max_ps(most);
}

/* 16 levels, of which `valid` count, as eight-bit numbers. */
static inline void read_levels(__m128i levels, const float *low, const float *step, __mmask16 valid, uint8_t *out)
{
    const __m512 n = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(levels));
    const __m512 k = _mm512_fmadd_ps(n, _mm512_maskz_loadu_ps(valid, step), _mm512_maskz_loadu_ps(valid, low));
    const __m512i shifted = _mm512_add_epi32(_mm512_cvtps_epi32(k), _mm512_set1_epi32(128));
    _mm_mask_storeu_epi8(out, valid, _mm512_cvtepi32_epi8(shifted));
}

static inline void read_key(const uint8_t *nibbles, const float *low, const float *step, int dim, uint8_t *k8)
{
    const int half = dim / 2;
    const __m128i fifteen = _mm_set1_epi8(15);
    for (int e = 0; e < half; e += 16) {
        const __mmask16 valid = half - e < 16 ? (__mmask16)((1 << (half - e)) - 1) : 0xffff;
        const __m128i both = _mm_maskz_loadu_epi8(valid, nibbles + e);
        const __m128i second = _mm_and_si128(_mm_srli_epi16(both, 4), fifteen);
        read_levels(_mm_and_si128(both, fifteen), low + e, step + e, valid, k8 + e);
        read_levels(second, low + half + e, step + half + e, valid, k8 + half + e);
    }
}

static inline __m512i four(const uint8_t *k)
{
    int32_t bytes;
    memcpy(&bytes, k, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

/* Elements e to e + 3 of all rows of a tile. */
static inline __m512i row_of(const int8_t *lanes, int dim, int tile, int e)
{
    return _mm512_loadu_si512(lanes + (tile * dim + e) * FAR_LANES);
}

/* The largest products of `tiles` tiles over a block, `wide` keys at a time: wide * tiles chains of products,
 * enough to hide the latency of one and few enough for the registers. Both are constants where this is called. */
static inline __attribute__((always_inline)) void best_of(const int8_t *lanes, int tiles, int wide,
                                                          const struct far_keys8 *keys, int32_t *out)
{
    const int dim = keys->dim;
    __m512i most[3], shift[3], dots[3][8];
#pragma GCC unroll 3
    for (int i = 0; i < tiles; i++) {
        most[i] = _mm512_set1_epi32(INT32_MIN);
        shift[i] = _mm512_setzero_si512();
    }
    for (int e = 0; e < dim; e += 4)
#pragma GCC unroll 3
        for (int i = 0; i < tiles; i++)
            shift[i] = _mm512_dpbusd_epi32(shift[i], _mm512_set1_epi8((char)128), row_of(lanes, dim, i, e));
    for (int t = 0; t < keys->n; t += wide) {
        const uint8_t *k = keys->k + t * dim;
#pragma GCC unroll 8
        for (int j = 0; j < wide; j++)
#pragma GCC unroll 3
            for (int i = 0; i < tiles; i++)
                dots[i][j] = _mm512_setzero_si512();
        for (int e = 0; e < dim; e += 4)
#pragma GCC unroll 8
            for (int j = 0; j < wide; j++) {
                const __m512i key = four(k + j * dim + e);
#pragma GCC unroll 3
                for (int i = 0; i < tiles; i++)
                    dots[i][j] = _mm512_dpbusd_epi32(dots[i][j], key, row_of(lanes, dim, i, e));
            }
#pragma GCC unroll 8
        for (int j = 0; j < wide; j++)
#pragma GCC unroll 3
            for (int i = 0; i < tiles; i++)
                most[i] = _mm512_max_epi32(most[i], dots[i][j]);
    }
#pragma GCC unroll 3
    for (int i = 0; i < tiles; i++)
        _mm512_storeu_si512(out + i * FAR_LANES, _mm512_sub_epi32(most[i], shift[i]));
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
