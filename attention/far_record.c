#include "attention/far_record.h"

#include <math.h>
#include <string.h>

#include "attention/kernel.h"
#include "attention/rows.h"

static int value_groups(int dim)
{
    return (dim + FAR_VALUE_GROUP - 1) / FAR_VALUE_GROUP;
}

struct far_record_parts far_record_parts(const void *record, int dim)
{
    const size_t nibbles = (size_t)FAR_BLOCK * (size_t)dim / 2;
    struct far_record_parts p = {.keys = (uint8_t *)record};
    p.values = p.keys + nibbles;
    p.low = (bf16 *)(p.values + nibbles);
    p.key_steps = p.low + dim;
    p.value_steps = p.key_steps + dim;
    p.representatives = (uint8_t *)(p.value_steps + FAR_BLOCK * value_groups(dim));
    return p;
}

size_t far_record_bytes(int dim)
{
    return (size_t)FAR_BLOCK * (size_t)dim +
           sizeof(bf16) * (2 * (size_t)dim + (size_t)FAR_BLOCK * (size_t)value_groups(dim)) + FAR_REPRESENTATIVES;
}

/* ---- writing ---- */

/* fminf and fmaxf are calls for the sake of NaNs; these are one instruction. */
static inline float least_of(float a, float b)
{
    return a < b ? a : b;
}

static inline float most_of(float a, float b)
{
    return a > b ? a : b;
}

/* x rounded, within 0 .. 15. */
static uint8_t nibble(float x)
{
    return (uint8_t)(least_of(most_of(x, 0), 15) + 0.5f);
}

/* A step of bf16, not smaller than asked, so that the outermost levels are reached. */
static bf16 step_up(float step)
{
    return bf16_from_f32(step * (1 + 1.0f / 256));
}

static float over(bf16 step)
{
    const float s = bf16_to_f32(step);
    return s > 0 ? 1 / s : 0;
}

static void write_keys(const struct far_record_parts *p, int dim, const float *rows)
{
    uint8_t levels[FAR_BLOCK * ATTN_MAX_DIM];
    for (int e = 0; e < dim; e++) {
        float low = rows[e], high = rows[e];
        for (int t = 1; t < FAR_BLOCK; t++) {
            low = least_of(low, rows[t * dim + e]);
            high = most_of(high, rows[t * dim + e]);
        }
        p->low[e] = bf16_from_f32(low);
        low = bf16_to_f32(p->low[e]);
        p->key_steps[e] = step_up((high - low) / 15);
        const float by = over(p->key_steps[e]);
        for (int t = 0; t < FAR_BLOCK; t++)
            levels[t * dim + e] = nibble((rows[t * dim + e] - low) * by);
    }
    for (int t = 0; t < FAR_BLOCK; t++)
        for (int e = 0; e < dim / 2; e++)
            p->keys[t * (dim / 2) + e] = (uint8_t)(levels[t * dim + e] | levels[t * dim + e + dim / 2] << 4);
}

static void write_values(const struct far_record_parts *p, int dim, const float *rows)
{
    const int groups = value_groups(dim), half = dim / 2;
    for (int t = 0; t < FAR_BLOCK; t++) {
        float by[ATTN_MAX_DIM / FAR_VALUE_GROUP];
        for (int g = 0; g < groups; g++) {
            float most = 0;
            for (int e = g * FAR_VALUE_GROUP; e < dim && e < (g + 1) * FAR_VALUE_GROUP; e++)
                most = most_of(most, fabsf(rows[t * dim + e]));
            p->value_steps[t * groups + g] = step_up(most / 7);
            by[g] = over(p->value_steps[t * groups + g]);
        }
        for (int e = 0; e < half; e++) {
            const float a = rows[t * dim + e] * by[e / FAR_VALUE_GROUP];
            const float b = rows[t * dim + e + half] * by[(e + half) / FAR_VALUE_GROUP];
            p->values[t * half + e] = (uint8_t)(nibble(a + 8) | nibble(b + 8) << 4);
        }
    }
}

static float distance_of(const float *a, const float *b, int dim)
{
    float sum = 0;
    for (int e = 0; e < dim; e++)
        sum += (a[e] - b[e]) * (a[e] - b[e]);
    return sum;
}

static void mean_of(const float *rows, int dim, float *out)
{
    memset(out, 0, (size_t)dim * sizeof *out);
    for (int t = 0; t < FAR_BLOCK; t++)
        for (int e = 0; e < dim; e++)
            out[e] += rows[t * dim + e] / FAR_BLOCK;
}

static void choose_representatives(const struct far_record_parts *p, int dim, const float *rows)
{
    float mean[ATTN_MAX_DIM], nearest[FAR_BLOCK]; /* of what is chosen, how far the nearest is */
    const float *last = mean;
    mean_of(rows, dim, mean);
    for (int t = 0; t < FAR_BLOCK; t++)
        nearest[t] = INFINITY;
    for (int i = 0; i < FAR_REPRESENTATIVES; i++) {
        int farthest = 0;
        for (int t = 0; t < FAR_BLOCK; t++) {
            nearest[t] = least_of(nearest[t], distance_of(rows + t * dim, last, dim));
            if (nearest[t] > nearest[farthest])
                farthest = t;
        }
        p->representatives[i] = (uint8_t)farthest;
        last = rows + farthest * dim;
        if (i == 0)
            for (int t = 0; t < FAR_BLOCK; t++)
                nearest[t] = INFINITY; /* the mean is not one of them */
    }
}

void far_record_write(void *record, enum dtype dtype, int dim, const void *keys, const void *values)
{
    const struct far_record_parts p = far_record_parts(record, dim);
    float rows[FAR_BLOCK * ATTN_MAX_DIM];
    row_to_f32(dtype, keys, rows, (int64_t)FAR_BLOCK * dim);
    write_keys(&p, dim, rows);
    choose_representatives(&p, dim, rows);
    row_to_f32(dtype, values, rows, (int64_t)FAR_BLOCK * dim);
    write_values(&p, dim, rows);
}

/* ---- reading ---- */

void far_record_read(const void *record, enum dtype dtype, int dim, void *keys, void *values)
{
    const struct far_record_parts p = far_record_parts(record, dim);
    const int half = dim / 2, groups = value_groups(dim);
    const size_t row = (size_t)dim * dtype_size(dtype);
    float low[ATTN_MAX_DIM], step[ATTN_MAX_DIM], out[ATTN_MAX_DIM];
    row_to_f32(DTYPE_BF16, p.low, low, dim);
    row_to_f32(DTYPE_BF16, p.key_steps, step, dim);
    for (int t = 0; t < FAR_BLOCK; t++) {
        const uint8_t *n = p.keys + t * half;
        for (int e = 0; e < half; e++) {
            out[e] = low[e] + step[e] * (float)(n[e] & 15);
            out[e + half] = low[e + half] + step[e + half] * (float)(n[e] >> 4);
        }
        row_from_f32(dtype, out, (char *)keys + (size_t)t * row, dim);
        n = p.values + t * half;
        for (int e = 0; e < half; e++) {
            out[e] = bf16_to_f32(p.value_steps[t * groups + e / FAR_VALUE_GROUP]) * (float)((n[e] & 15) - 8);
            out[e + half] =
                bf16_to_f32(p.value_steps[t * groups + (e + half) / FAR_VALUE_GROUP]) * (float)((n[e] >> 4) - 8);
        }
        row_from_f32(dtype, out, (char *)values + (size_t)t * row, dim);
    }
}
