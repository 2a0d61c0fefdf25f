/* Numbers at random for tests, the same in every run: the file defines SEED before it includes this. */
#ifndef LONGHAUL_TESTS_UNIT_RANDOM_FLOATS_H
#define LONGHAUL_TESTS_UNIT_RANDOM_FLOATS_H

#include <stdint.h>

static uint64_t seed = SEED;

/* Uniform in -size .. size. */
static inline float random_float(float size)
{
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    return (float)(int32_t)(seed >> 32) * 0x1p-31F * size;
}

static inline void fill(float *x, int64_t n, float size)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = random_float(size);
}

#endif
