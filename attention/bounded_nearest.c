#include "attention/bounded_parts.h"

#include <stdlib.h>
#include <string.h>

#include "attention/rows.h"

/* ---- sizes and life ------------------------------------------------------------------------------------- */

static int64_t most_nearest(const struct bounded_options *o)
{
    int64_t most = 0;
    for (int i = 0; i < o->layers; i++)
        most = i64_max(most, o->specs[i].nearest);
    return most;
}

/* A thread's memory: queries, their nearest keys, the scan. */
static size_t thread_bytes(const struct bounded_options *o)
{
    return ATTN_QUERY_ROWS *
               ((size_t)o->dim * sizeof(float) + (size_t)most_nearest(o) * sizeof(struct nearest_key)) +
           nearest_scratch_bytes(o->dim);
}

/* In decode: each head's nearest of every rank and of all together, queries, this rank's sums. */
static size_t one_bytes(const struct bounded_options *o)
{
    const size_t heads = (size_t)o->heads, ranks = (size_t)o->group->size;
    return heads * ((ranks + 1) * (size_t)most_nearest(o) * sizeof(struct nearest_key) +
                    (2 * (size_t)o->dim + 3) * sizeof(float));
}

size_t bounded_nearest_bytes(const struct bounded_options *o)
{
    return most_nearest(o) > 0 ? (size_t)pool_threads(o->pool) * thread_bytes(o) + one_bytes(o) : 0;
}

int bounded_nearest_create(struct bounded *b, struct error *err)
{
    const struct bounded_options *o = &b->options;
    if (most_nearest(o) == 0)
        return 0;
    b->nearest.top = most_nearest(o);
    const size_t bytes = (size_t)pool_threads(o->pool) * thread_bytes(o) + one_bytes(o);
    if (!(b->nearest.memory = o->device->alloc(bytes, "the nearest keys of queries", err)))
        return -1;
    b->nearest.thread_bytes = thread_bytes(o);
    b->nearest.one = b->nearest.memory + (size_t)pool_threads(o->pool) * thread_bytes(o);
    return 0;
}

void bounded_nearest_free(struct bounded *b)
{
    b->options.device->free(b->nearest.memory);
}

/* ---- a tile of queries ---------------------------------------------------------------------------------- */

static struct nearest_rows rows_of(const struct bounded *b, const struct bounded_layer *layer,
                                   const struct rows_view *view, int kv_head)
{
    const size_t at = (size_t)kv_head * view->head_bytes;
    return (struct nearest_rows){
        .dtype = b->options.kernel->dtype,
        .keys = view->keys + at,
        .values = view->values + at,
        .key_offset = key_offset_of(layer->key_offset, kv_head, b->options.dim),
        .dim = b->options.dim,
    };
}

void bounded_nearest_attend(const struct bounded *b, const struct bounded_layer *layer, const struct rope *rope,
                            const struct bounded_tile *tile)
{
    const struct bounded_options *o = &b->options;
    const struct bounded_scratch *s = &b->scratch[tile->thread];
    const struct rows_view kept = {b->kept_keys, b->kept_values, (size_t)b->most_kept * bounded_row_bytes(o)};
    float *q = (void *)(b->nearest.memory + (size_t)tile->thread * b->nearest.thread_bytes);
    struct nearest_key *best = (void *)(q + ATTN_QUERY_ROWS * o->dim);
    struct nearest_rows keys = rows_of(b, layer, &kept, tile->kv_head);
    keys.rope = rope;
    keys.n = b->kept;
    row_to_f32(o->kernel->dtype, s->q, q, (int64_t)tile->rows * o->dim);
    const struct nearest_queries queries = {q, tile->rows, layer->spec.nearest};
    const int64_t n = nearest_find(&keys, &queries, best, best + ATTN_QUERY_ROWS * b->nearest.top);
    for (int row = 0; row < tile->rows; row++)
        nearest_sum(&keys, best + row * queries.top, n,
                    &(struct attn_state){s->o + row * o->dim, s->m + row, s->l + row});
}

/* ---- one token ------------------------------------------------------------------------------------------ */

/* What decode needs, in b->nearest.one. */
struct one {
    float *q, *o, *m, *l, *lse;     /* [heads][dim] twice, [heads] thrice */
    struct nearest_key *best, *all; /* [heads][top] of this rank; [ranks] of these, their indices among all slots */
};

static struct one one_of(const struct bounded *b)
{
    const int64_t heads = b->options.heads, dim = b->options.dim;
    struct one one = {.q = (void *)b->nearest.one};
    one.o = one.q + heads * dim;
    one.m = one.o + heads * dim;
    one.l = one.m + heads;
    one.lse = one.l + heads;
    one.best = (void *)(one.lse + heads);
    one.all = one.best + heads * b->nearest.top;
    return one;
}

static int further_last(const void *a, const void *b)
{
    const struct nearest_key *x = a, *y = b;
    return nearest_is_further(*x, *y) - nearest_is_further(*y, *x);
}

/* How many of a head's best on this rank are among the best of all ranks; they come first. */
static int64_t own_among_all(const struct bounded *b, const struct bounded_layer *layer, const struct one *one,
                             int head)
{
    const int64_t top = layer->spec.nearest, run = b->options.heads * top;
    const int ranks = b->options.group->size, self = b->options.group->rank;
    const struct nearest_key *own = one->all + self * run + head * top;
    int64_t n = 0;
    for (; n < top && own[n].index >= 0; n++) {
        int64_t before = 0;
        for (int rank = 0; rank < ranks; rank++) {
            const struct nearest_key *theirs = one->all + rank * run + head * top;
            for (int64_t i = 0; i < top && theirs[i].index >= 0 && nearest_is_further(own[n], theirs[i]); i++)
                before++;
        }
        if (before >= top)
            break;
    }
    return n;
}

/* Each head's best on this rank, nearest first, an index below 0 behind the last, are told to all ranks. */
static int share_best(const struct bounded *b, const struct bounded_layer *layer, const struct one *one, int64_t n,
                      struct error *err)
{
    const struct bounded_options *o = &b->options;
    const int64_t top = layer->spec.nearest, run = o->heads * top;
    struct nearest_key *own = one->all + o->group->rank * run;
    for (int head = 0; head < o->heads; head++) {
        qsort(one->best + head * top, (size_t)n, sizeof *one->best, further_last);
        for (int64_t i = 0; i < top; i++) {
            own[head * top + i] = i < n ? one->best[head * top + i] : (struct nearest_key){0, -1};
            if (i < n)
                own[head * top + i].index = own[head * top + i].index * o->group->size + o->group->rank;
        }
    }
    const int bytes = (int)((size_t)run * sizeof *own);
    return comm_check(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, one->all, bytes, MPI_BYTE, o->group->mpi),
                      "finding the nearest keys of all ranks", err);
}

/* One call of bounded_nearest_one, as its work items see it. */
struct call {
    const struct bounded *bounded;
    const struct bounded_layer *layer;
    const struct rope *rope;
    struct one one;
    struct rows_view own;
};

/* Item: the nearest of this rank's slots, for the heads of a kv head. */
static void find_item(void *context, int64_t kv_head, int thread)
{
    const struct call *call = context;
    const struct bounded *b = call->bounded;
    const int64_t head = kv_head * b->heads_per_kv, top = call->layer->spec.nearest;
    struct nearest_rows keys = rows_of(b, call->layer, &call->own, (int)kv_head);
    keys.rope = call->rope;
    keys.n = slots_own(&call->layer->slots);
    const struct nearest_queries queries = {call->one.q + head * b->options.dim, b->heads_per_kv, top};
    nearest_find(&keys, &queries, call->one.best + head * top,
                 b->nearest.memory + (size_t)thread * b->nearest.thread_bytes);
}

/* Item: one head's state over those of them that are among the nearest of all ranks. */
static void sum_item(void *context, int64_t head, int thread)
{
    const struct call *call = context;
    const struct bounded *b = call->bounded;
    const struct one *one = &call->one;
    const struct nearest_rows keys = rows_of(b, call->layer, &call->own, (int)head / b->heads_per_kv);
    (void)thread;
    nearest_sum(&keys, one->best + head * call->layer->spec.nearest, own_among_all(b, call->layer, one, (int)head),
                &(struct attn_state){one->o + head * b->options.dim, one->m + head, one->l + head});
}

const struct decoder_result *bounded_nearest_one(struct bounded *b, const struct bounded_layer *layer,
                                                 const struct decoder_query *query, int64_t position,
                                                 struct error *err)
{
    const struct bounded_options *o = &b->options;
    const size_t head_bytes = (size_t)layer->slots.held * bounded_row_bytes(o);
    struct call call = {b, layer, query->rope, one_of(b), {layer->slots.keys, layer->slots.values, head_bytes}};
    const struct one *one = &call.one;
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2];
    rope_angles(query->rope, position, cosines, sines);
    for (int head = 0; head < o->heads; head++)
        rope_rotate(query->rope, cosines, sines, query->q + head * o->dim, one->q + head * o->dim, o->dim,
                    query->scale * ATTN_LOG2_E);
    pool_run(o->pool, &(struct pool_job){o->kv_heads, find_item, &call, o->poll, o->poll_context});
    if (share_best(b, layer, one, i64_min(layer->spec.nearest, slots_own(&layer->slots)), err) < 0)
        return NULL;
    const struct attn_state all = {one->o, one->m, one->l};
    attn_state_reset(&all, o->heads, o->dim);
    pool_run(o->pool, &(struct pool_job){o->heads, sum_item, &call, o->poll, o->poll_context});
    attn_state_finish(&all, o->heads, o->dim, one->lse);
    b->nearest.result = (struct decoder_result){one->o, one->lse};
    return &b->nearest.result;
}
