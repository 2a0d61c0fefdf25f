#include "attention/bounded_parts.h"

#include <math.h>
#include <string.h>

#include "attention/rows.h"

/* Attention is summed in whole units of 2^-30, so that sums do not depend on their order. */
static const float UNITS = 1073741824.0f;

enum { VOTED_KEYS = 64 }; /* keys that are turned and multiplied at once */

/* Keys of the near part, ready for products: element e of key j at [e][j]. */
struct columns {
    int64_t first; /* position of key 0 */
    int n, dim;
    float at[ATTN_MAX_DIM][VOTED_KEYS];
};

static void load(const struct bounded *b, const struct bounded_layer *layer, const struct rope *rope, int kv_head,
                 struct columns *columns)
{
    const int dim = columns->dim;
    const size_t row = (size_t)dim * dtype_size(b->options.kernel->dtype);
    const char *rows = near_keys(&layer->near, kv_head, columns->first);
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2], key[ATTN_MAX_DIM];
    memset(columns->at, 0, sizeof columns->at[0] * (size_t)dim);
    for (int j = 0; j < columns->n; j++) {
        row_to_f32(b->options.kernel->dtype, rows + (size_t)j * row, key, dim);
        for (int e = 0; e < dim && layer->key_offset; e++)
            key[e] += layer->key_offset[kv_head * dim + e];
        rope_angles(rope, columns->first + j, cosines, sines);
        rope_rotate(rope, cosines, sines, key, key, dim, 1);
        for (int e = 0; e < dim; e++)
            columns->at[e][j] = key[e];
    }
}

/* One head's query of the token at `position`, rotated, and the log-sum-exp of its whole softmax. */
struct voter {
    int64_t position;
    float lse, q[ATTN_MAX_DIM];
};

/* What a query gives the keys of its window, added to sums. */
static void add_row(const struct bounded_layer *layer, const struct columns *columns, const struct voter *voter,
                    int64_t *sums)
{
    float scores[VOTED_KEYS] = {0};
    const int64_t first = i64_max(0, voter->position - layer->spec.window + 1 - columns->first);
    const int64_t end = i64_min(columns->n, voter->position + 1 - columns->first);
    if (first >= end)
        return;
    for (int e = 0; e < columns->dim; e++)
        for (int j = 0; j < VOTED_KEYS; j++)
            scores[j] += voter->q[e] * columns->at[e][j];
    for (int64_t j = first; j < end; j++)
        sums[j] += (int64_t)(exp2f(scores[j] - voter->lse * BOUNDED_LOG2_E) * UNITS);
}

void bounded_vote(const struct bounded *b, const struct bounded_layer *layer, const struct rope *rope,
                  const struct bounded_tile *tile, const float *lse)
{
    const int dim = b->options.dim, group = b->group;
    const int64_t first = tile->first, end = first + tile->rows / group, stride = layer->near.shape.capacity;
    const size_t row = (size_t)dim * dtype_size(b->options.kernel->dtype);
    const char *queries = b->scratch[tile->thread].q;
    struct columns columns = {.first = i64_max(layer->near.first, first - layer->spec.window + 1), .dim = dim};
    for (; columns.first < end; columns.first += VOTED_KEYS) {
        columns.n = (int)i64_min(VOTED_KEYS, end - columns.first);
        load(b, layer, rope, tile->kv_head, &columns);
        for (int g = 0; g < group; g++) {
            int64_t sums[VOTED_KEYS] = {0};
            struct voter voter;
            for (int r = g; r < tile->rows; r += group) {
                voter.position = first + r / group;
                voter.lse = lse[r];
                row_to_f32(b->options.kernel->dtype, queries + (size_t)r * row, voter.q, dim);
                add_row(layer, &columns, &voter, sums);
            }
            _Atomic int64_t *total =
                layer->attention + (tile->kv_head * group + g) * stride + columns.first - layer->near.first;
            for (int j = 0; j < columns.n; j++)
                atomic_fetch_add_explicit(&total[j], sums[j], memory_order_relaxed);
        }
    }
}

/* What is known of the tokens that leave goes; the others move up. */
static void forget(const struct bounded *b, struct bounded_layer *layer, int64_t gone)
{
    const int64_t stride = layer->near.shape.capacity, left = layer->near.length - gone;
    for (int head = 0; head < b->options.heads; head++) {
        int64_t *run = (int64_t *)layer->attention + head * stride;
        memmove(run, run + gone, (size_t)left * sizeof *run);
        memset(run + left, 0, (size_t)gone * sizeof *run);
    }
}

int bounded_blocks_keep(struct bounded *b, struct bounded_layer *layer, int64_t leave, struct error *err)
{
    const int64_t stride = layer->near.shape.capacity, first = i64_max(layer->near.first, layer->sinks);
    const int64_t n = leave - first;
    if (leave <= layer->near.first)
        return 0;
    for (int head = 0; head < b->options.heads && n > 0; head++)
        memcpy(b->blocks.totals + head * n, (int64_t *)layer->attention + head * stride + first - layer->near.first,
               (size_t)n * sizeof(int64_t));
    if (n > 0 && comm_check(MPI_Allreduce(MPI_IN_PLACE, b->blocks.totals, (int)(b->options.heads * n), MPI_INT64_T,
                                          MPI_SUM, b->options.group->mpi),
                            "summing attention over ranks", err) < 0)
        return -1;
    for (int64_t at = first; at < leave; at += BLOCK_TOKENS)
        blocks_append(&layer->blocks, &layer->near, at, b->blocks.totals + at - first, n);
    forget(b, layer, leave - layer->near.first);
    return 0;
}
