#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "attention/far_score.h"
#include "base/cpu.h"

enum { WIDE = 4 }; /* keys at a time: enough chains to hide the latency of one, few enough for the registers */

/* dots + the products of four elements of eight rows with those of a key, which is not negative. Queries have seven
 * bits, so that two products are never more than the sixteen bits that they are first added in. */
static inline __m256i add_products(__m256i dots, __m256i rows, __m256i key)
{
    return _mm256_add_epi32(dots, _mm256_madd_epi16(_mm256_set1_epi16(1), _mm256_maddubs_epi16(key, rows)));
}

static inline __m256i four(const uint8_t *k)
{
    int32_t bytes;
    memcpy(&bytes, k, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

/* Elements e to e + 3 of half of a tile's rows; at e = dim, where their products begin. */
static inline __m256i rows_of(const int8_t *lanes, int e, int half)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(lanes + e * FAR_LANES + half * 32));
}

/* The largest products of a tile over a block. */
static void best_of(const int8_t *lanes, const struct far_keys8 *keys, int32_t *out)
{
    const int dim = keys->dim;
    __m256i most[2];
    most[0] = most[1] = _mm256_set1_epi32(INT32_MIN);
    for (int t = 0; t < keys->n; t += WIDE) {
        const uint8_t *k = keys->k + t * dim;
        __m256i dots[WIDE][2];
#pragma GCC unroll 4
        for (int j = 0; j < WIDE; j++)
            for (int half = 0; half < 2; half++)
                dots[j][half] = rows_of(lanes, dim, half);
        for (int e = 0; e < dim; e += 4) {
            const __m256i first = rows_of(lanes, e, 0), second = rows_of(lanes, e, 1);
#pragma GCC unroll 4
            for (int j = 0; j < WIDE; j++) {
                const __m256i key = four(k + j * dim + e);
                dots[j][0] = add_products(dots[j][0], first, key);
                dots[j][1] = add_products(dots[j][1], second, key);
            }
        }
#pragma GCC unroll 4
        for (int j = 0; j < WIDE; j++)
            for (int half = 0; half < 2; half++)
                most[half] = _mm256_max_epi32(most[half], dots[j][half]);
    }
    for (int half = 0; half < 2; half++)
        _mm256_storeu_si256((__m256i *)(void *)(out + half * 8), most[half]);
}

static void best(const int8_t *lanes, int tiles, const struct far_keys8 *keys, int32_t *out)
{
    for (int tile = 0; tile < tiles; tile++)
        best_of(lanes + (size_t)tile * far_lanes_bytes(keys->dim), keys, out + tile * FAR_LANES);
}

#define FAR_OWN_BEST
#include "attention/far_score_body.inc"

static bool supported(void)
{
    return cpu_features().avx2_fma;
}

const struct far_scorer far_scorer_avx2 = {"avx2", supported, read, best, share, weigh, mix};
