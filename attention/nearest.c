#include "attention/nearest.h"

#include <math.h>
#include <string.h>

#include "attention/rows.h"

enum { SCANNED = 64 }; /* keys that are turned and multiplied at once */

bool nearest_is_further(struct nearest_key a, struct nearest_key b)
{
    return a.score < b.score || (a.score == b.score && a.index > b.index);
}

size_t nearest_scratch_bytes(int dim)
{
    return (size_t)dim * SCANNED * sizeof(float);
}

static const void *row_of(const struct nearest_rows *keys, const void *rows, int64_t index)
{
    return (const char *)rows + (size_t)index * (size_t)keys->dim * dtype_size(keys->dtype);
}

/* ---- a heap whose root is the furthest ---- */

static void sink(struct nearest_key *heap, int64_t n, int64_t at)
{
    const struct nearest_key key = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && nearest_is_further(heap[child + 1], heap[child]))
            child++;
        if (!nearest_is_further(heap[child], key))
            break;
        heap[at] = heap[child];
    }
    heap[at] = key;
}

/* The key takes its place among the first `top` of all, `seen` of which came before it. */
static void offer(struct nearest_key *heap, int64_t top, int64_t seen, struct nearest_key key)
{
    if (seen < top) {
        heap[seen] = key;
        for (int64_t at = top / 2 - 1; seen + 1 == top && at >= 0; at--)
            sink(heap, top, at);
    } else if (nearest_is_further(heap[0], key)) {
        heap[0] = key;
        sink(heap, top, 0);
    }
}

/* ---- scores ---- */

/* Keys first .. first + n - 1, ready for products: element e of key j at [e][j], 0 behind the last. */
static void load(const struct nearest_rows *keys, int64_t first, int64_t n, float (*columns)[SCANNED])
{
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2], key[ATTN_MAX_DIM];
    rope_angles(keys->rope, 0, cosines, sines);
    memset(columns, 0, nearest_scratch_bytes(keys->dim));
    for (int64_t j = 0; j < n; j++) {
        key_to_f32(keys->dtype, row_of(keys, keys->keys, first + j), keys->key_offset, key, keys->dim);
        rope_rotate(keys->rope, cosines, sines, key, key, keys->dim, 1);
        for (int e = 0; e < keys->dim; e++)
            columns[e][j] = key[e];
    }
}

static void multiply(const float *q, const float (*columns)[SCANNED], int dim, float *scores)
{
    memset(scores, 0, SCANNED * sizeof *scores);
    for (int e = 0; e < dim; e++)
        for (int j = 0; j < SCANNED; j++)
            scores[j] += q[e] * columns[e][j];
}

int64_t nearest_find(const struct nearest_rows *keys, const struct nearest_queries *queries,
                     struct nearest_key *best, void *scratch)
{
    float(*columns)[SCANNED] = scratch, scores[SCANNED];
    for (int64_t first = 0; first < keys->n; first += SCANNED) {
        const int64_t n = i64_min(SCANNED, keys->n - first);
        load(keys, first, n, columns);
        for (int row = 0; row < queries->rows; row++) {
            multiply(queries->q + (int64_t)row * keys->dim, (const float(*)[SCANNED])columns, keys->dim, scores);
            for (int64_t j = 0; j < n; j++)
                offer(best + row * queries->top, queries->top, first + j,
                      (struct nearest_key){scores[j], (int32_t)(first + j)});
        }
    }
    return i64_min(queries->top, keys->n);
}

/* ---- the softmax ---- */

void nearest_sum(const struct nearest_rows *keys, const struct nearest_key *best, int64_t n,
                 const struct attn_state *state)
{
    float largest = -INFINITY, value[ATTN_MAX_DIM];
    if (n == 0)
        return;
    for (int64_t i = 0; i < n; i++)
        largest = fmaxf(largest, best[i].score);
    *state->m = 2 * ceilf(largest / 2); /* even, as kernels have it */
    *state->l = 0;
    memset(state->o, 0, (size_t)keys->dim * sizeof *state->o);
    for (int64_t i = 0; i < n; i++) {
        const float weight = exp2f(best[i].score - *state->m);
        row_to_f32(keys->dtype, row_of(keys, keys->values, best[i].index), value, keys->dim);
        *state->l += weight;
        for (int e = 0; e < keys->dim; e++)
            state->o[e] += weight * value[e];
    }
}
