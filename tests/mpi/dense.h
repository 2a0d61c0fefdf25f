/* Dense attention in fp64, for the tests of what is shared out over ranks. Queries, keys and values are functions
 * of a token's number, so every rank can compute what any token is. */
#ifndef LONGHAUL_TESTS_DENSE_H
#define LONGHAUL_TESTS_DENSE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/kernel.h"
#include "attention/position.h"

struct shape {
    int heads, kv_heads, dim, rotated;
    double base;
    enum dtype dtype;
    enum rope_pairs pairs;
    float scale;
    float common;     /* what all keys have in common and are kept without; 0: they are kept whole */
    double tolerance; /* largest difference of one output; the values are between -1 and 1 */
};

#define SMALL_SHAPE                                                                                                \
    {                                                                                                              \
        1, 1, 16, 16, 10000.0, DTYPE_F32, ROPE_NEIGHBOURS, 0.25f, 0, 1e-5                                          \
    }

static const struct shape MODELS[] = {
    {9, 3, 64, 64, 10000.0, DTYPE_F32, ROPE_NEIGHBOURS, 0.125f, 0, 1e-5},
    {14, 2, 64, 64, 10000.0, DTYPE_F32, ROPE_HALVES, 0.125f, 0, 1e-5},
    {4, 4, 80, 32, 10000.0, DTYPE_F32, ROPE_HALVES, 0.1118034f, 0, 1e-5},
    {5, 1, 96, 96, 10000.0, DTYPE_F32, ROPE_HALVES, 0.1020621f, 0, 1e-5},
    {2, 1, 128, 128, 10000.0, DTYPE_F32, ROPE_NEIGHBOURS, 0.0883883f, 0, 1e-5},
    {2, 1, 256, 256, 10000.0, DTYPE_F32, ROPE_HALVES, 0.0625f, 0, 1e-5},
    /* bf16: in prefill the scores come from rounded queries and keys, and the output is rounded, too */
    {9, 3, 64, 64, 10000.0, DTYPE_BF16, ROPE_NEIGHBOURS, 0.125f, 0, 4e-3},
    {14, 2, 64, 64, 10000.0, DTYPE_BF16, ROPE_HALVES, 0.125f, 0, 4e-3},
    {2, 2, 80, 80, 10000.0, DTYPE_BF16, ROPE_HALVES, 0.1118034f, 0, 4e-3},
    {2, 1, 128, 128, 10000.0, DTYPE_BF16, ROPE_NEIGHBOURS, 0.0883883f, 0, 4e-3},
};

enum { N_MODELS = sizeof MODELS / sizeof MODELS[0] };

/* As Qwen2's keys, which share up to 200 in elements that turn slowly: bf16 must not round the sum. */
static inline struct shape keys_that_share(enum dtype dtype)
{
    return (struct shape){.heads = 14,
                          .kv_heads = 2,
                          .dim = 64,
                          .rotated = 64,
                          .base = 1e12,
                          .dtype = dtype,
                          .pairs = ROPE_HALVES,
                          .scale = 0.125f / 8, /* or one key would take all the weight */
                          .common = 20.0f,
                          .tolerance = dtype == DTYPE_F32 ? 2e-5 : 2e-2};
}

enum kind { QUERY, KEY, VALUE };

/* A number in -1 .. 1 that only depends on its place. */
static inline float number(enum kind kind, int64_t token, int element)
{
    uint64_t x = (uint64_t)token * 3 + kind;
    x = (x * 100003 + (uint64_t)element + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (float)(x >> 40) / 8388608.0f - 1.0f;
}

/* What a key's element has in common with that of all other keys. */
static inline float common(const struct shape *shape, int element)
{
    return shape->common * number(KEY, -1, element);
}

/* The same as it comes out of a memory of that dtype. */
static inline double kept(const struct shape *shape, enum kind kind, int64_t token, int element)
{
    float x = number(kind, token, element);
    double rounded =
        shape->dtype == DTYPE_BF16 && kind != QUERY ? (double)bf16_to_f32(bf16_from_f32(x)) : (double)x;
    return kind == KEY ? rounded + (double)common(shape, element) : rounded;
}

/* x [dim] := x rotated to the position. */
static inline void rotate(const struct shape *shape, int64_t position, double *x)
{
    const int half = shape->rotated / 2;
    for (int i = 0; i < half; i++) {
        const bool neighbours = shape->pairs == ROPE_NEIGHBOURS;
        const int a = neighbours ? 2 * i : i, b = neighbours ? a + 1 : i + half;
        const double angle = (double)position * pow(shape->base, -2.0 * i / shape->rotated);
        const double xa = x[a], xb = x[b];
        x[a] = xa * cos(angle) - xb * sin(angle);
        x[b] = xa * sin(angle) + xb * cos(angle);
    }
}

/* out [dim] = one head of the token's query, key or value. */
static inline void row_of(const struct shape *shape, enum kind kind, int64_t token, int head, double *out)
{
    for (int e = 0; e < shape->dim; e++)
        out[e] = kept(shape, kind, token, head * shape->dim + e);
}

static inline double dot(const double *a, const double *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* out [dim] = the values of one head of tokens 0 .. n-1, weighted by the softmax of scores [n]; 0 for none. */
static inline void weigh(const struct shape *shape, int kv_head, const double *scores, int64_t n, double *out)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, scores[i]);
    memset(out, 0, (size_t)shape->dim * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        const double weight = exp(scores[i] - largest);
        sum += weight;
        for (int e = 0; e < shape->dim && weight > 1e-12; e++)
            out[e] += weight * kept(shape, VALUE, i, kv_head * shape->dim + e);
    }
    for (int e = 0; e < shape->dim && n > 0; e++)
        out[e] /= sum;
}

#endif
