#include "attention/landmark.h"

#include <math.h>
#include <string.h>

#include "attention/kernel.h"
#include "attention/rows.h"

/* Whole blocks before the query's own. */
static int64_t blocks_before(const struct landmark_rows *rows)
{
    return (rows->n - 1) / (rows->block + 1);
}

/* Where a token stands for the query: 0 is where the block before the last `top` begins. */
static int64_t position_of(const struct landmark_rows *rows, const struct landmark_query *query, int64_t token)
{
    const int64_t length = rows->block + 1, blocks = blocks_before(rows), top = i64_min(query->top, blocks);
    const int64_t slot = i64_max(0, token / length - (blocks - top) + 1);
    return slot * length + token % length;
}

static void query_at_place(const struct landmark_rows *rows, const struct landmark_query *query, float *out)
{
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2];
    rope_angles(query->rope, position_of(rows, query, rows->n - 1), cosines, sines);
    rope_rotate(query->rope, cosines, sines, query->q, out, rows->dim, query->scale);
}

static size_t row_at(const struct landmark_rows *rows, int64_t token)
{
    return (size_t)token * (size_t)rows->dim * dtype_size(rows->dtype);
}

/* The rotated, scaled query q times a token's key at a position. */
static float score_at(const struct landmark_rows *rows, const struct landmark_query *query, const float *q,
                      int64_t token, int64_t position)
{
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2], key[ATTN_MAX_DIM], sum = 0;
    key_to_f32(rows->dtype, (const char *)rows->keys + row_at(rows, token), rows->key_offset, key, rows->dim);
    rope_angles(query->rope, position, cosines, sines);
    rope_rotate(query->rope, cosines, sines, key, key, rows->dim, 1);
    for (int e = 0; e < rows->dim; e++)
        sum += q[e] * key[e];
    return sum;
}

static float score(const struct landmark_rows *rows, const struct landmark_query *query, const float *q,
                   int64_t token)
{
    return score_at(rows, query, q, token, position_of(rows, query, token));
}

/* Where the i-th of the chosen blocks begins: those among the last `top` end where the query's own block begins,
 * the older ones begin at 0, and all keep their order. */
static int64_t place_of(const struct landmark_rows *rows, const struct landmark_query *query, int64_t block,
                        int64_t i)
{
    return (i + (block >= blocks_before(rows) - query->top)) * (rows->block + 1);
}

int64_t landmark_choose(const struct landmark_rows *rows, const struct landmark_query *query, int64_t *chosen,
                        float *scratch)
{
    const int64_t blocks = blocks_before(rows), n = i64_min(query->top, blocks);
    float q[ATTN_MAX_DIM];
    query_at_place(rows, query, q);
    for (int64_t b = 0; b < blocks; b++)
        scratch[b] = score(rows, query, q, b * (rows->block + 1) + rows->block);
    for (int64_t i = 0; i < n; i++) {
        int64_t best = 0, at = i;
        for (int64_t b = 1; b < blocks; b++)
            if (scratch[b] > scratch[best])
                best = b;
        scratch[best] = -INFINITY;
        for (; at > 0 && chosen[at - 1] > best; at--)
            chosen[at] = chosen[at - 1];
        chosen[at] = best;
    }
    return n;
}

/* scores [n] := their softmax. */
static void softmax(float *scores, int64_t n)
{
    float largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fmaxf(largest, scores[i]);
    for (int64_t i = 0; i < n; i++)
        sum += scores[i] = expf(scores[i] - largest);
    for (int64_t i = 0; i < n; i++)
        scores[i] /= sum;
}

/* out += factor times the values of tokens first .. first + n - 1, weighted. */
static void add_values(const struct landmark_rows *rows, int64_t first, int64_t n, const float *weights,
                       float factor, float *out)
{
    float value[ATTN_MAX_DIM];
    for (int64_t i = 0; i < n; i++) {
        row_to_f32(rows->dtype, (const char *)rows->values + row_at(rows, first + i), value, rows->dim);
        for (int e = 0; e < rows->dim; e++)
            out[e] += factor * weights[i] * value[e];
    }
}

void landmark_attend(const struct landmark_rows *rows, const struct landmark_query *query, const int64_t *chosen,
                     int64_t n, float *scratch, float *out)
{
    const int64_t length = rows->block + 1, first = (rows->n - 1) / length * length;
    const int64_t own = i64_min(rows->n - first, rows->block); /* a landmark does not see itself */
    float *weights = scratch, *inner = scratch + rows->block + 1 + n, q[ATTN_MAX_DIM];
    memset(out, 0, (size_t)rows->dim * sizeof *out);
    query_at_place(rows, query, q);
    for (int64_t i = 0; i < own; i++)
        weights[i] = score(rows, query, q, first + i);
    for (int64_t i = 0; i < n; i++)
        weights[own + i] = score_at(rows, query, q, chosen[i] * length + rows->block,
                                    place_of(rows, query, chosen[i], i) + rows->block);
    softmax(weights, own + n);
    add_values(rows, first, own, weights, 1, out);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t t = 0; t < rows->block; t++)
            inner[t] = score_at(rows, query, q, chosen[i] * length + t, place_of(rows, query, chosen[i], i) + t);
        softmax(inner, rows->block);
        add_values(rows, chosen[i] * length, rows->block, inner, weights[own + i], out);
    }
}
