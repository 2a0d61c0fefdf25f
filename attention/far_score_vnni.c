#include <immintrin.h>

#define FAR_OWN_BEST
#include "attention/far_score_body.inc"

static bool supported(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}

enum { KEYS = 8 }; /* chains of products at once: enough to hide the latency of one */

static inline __m512i four(const int8_t *k)
{
    int32_t bytes;
    memcpy(&bytes, k, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

static void best(const uint8_t *lanes, const struct far_keys8 *keys, int32_t *out)
{
    const int dim = keys->dim;
    __m512i most = _mm512_set1_epi32(INT32_MIN);
    for (int t = 0; t < FAR_BLOCK; t += KEYS) {
        const int8_t *k = keys->k + t * dim;
        __m512i dots[KEYS];
        for (int i = 0; i < KEYS; i++)
            dots[i] = _mm512_set1_epi32(-keys->shifts[t + i]);
        for (int e = 0; e < dim; e += 4) {
            const __m512i q = _mm512_loadu_si512(lanes + e * FAR_LANES);
            for (int i = 0; i < KEYS; i++)
                dots[i] = _mm512_dpbusd_epi32(dots[i], q, four(k + i * dim + e));
        }
        for (int i = 0; i < KEYS; i++)
            most = _mm512_max_epi32(most, dots[i]);
    }
    _mm512_storeu_si512(out, most);
}

const struct far_scorer far_scorer_vnni = {"vnni", supported, best, weigh, mix};
