#include "attention/bounded_parts.h"

#include <stdlib.h>

#include "attention/landmark.h"
#include "attention/ring.h"
#include "attention/rows.h"

/* ---- sizes and life ------------------------------------------------------------------------------------- */

/* Of all layers with landmarks: blocks that a query chooses from, blocks it sees, tokens of one. */
struct largest {
    int64_t blocks, top, length;
};

static struct largest find_largest(const struct bounded_options *o)
{
    struct largest most = {0};
    for (int i = 0; i < o->layers; i++) {
        const struct policy_spec *spec = &o->specs[i];
        if (policy_past(spec) != PAST_LANDMARKS)
            continue;
        const int64_t tokens = bounded_near_capacity(o, spec);
        most.blocks = i64_max(most.blocks, tokens / spec->rate + 1);
        most.top = i64_max(most.top, spec->top);
        most.length = i64_max(most.length, spec->rate);
    }
    return most;
}

/* Of a thread: the scores of all blocks, then of what is seen; the choice. */
static size_t score_floats(const struct largest *most)
{
    return (size_t)i64_max(most->blocks, 2 * most->length + most->top);
}

static size_t thread_bytes(const struct largest *most)
{
    return score_floats(most) * sizeof(float) + (size_t)most->top * sizeof(int64_t);
}

size_t bounded_landmark_bytes(const struct bounded_options *options)
{
    const struct largest most = find_largest(options);
    return (size_t)pool_threads(options->pool) * thread_bytes(&most);
}

int bounded_landmark_create(struct bounded *b, struct error *err)
{
    const struct bounded_options *o = &b->options;
    const struct largest most = find_largest(o);
    if (most.top == 0)
        return 0;
    if (!(b->landmarks = calloc((size_t)pool_threads(o->pool), sizeof *b->landmarks)))
        return error_set(err, ERROR_RESOURCE, "no memory for %d threads", pool_threads(o->pool));
    for (int i = 0; i < pool_threads(o->pool); i++) {
        struct bounded_landmarks *own = &b->landmarks[i];
        if (!(own->chosen = o->device->alloc(thread_bytes(&most), "a thread's choice of blocks", err)))
            return -1;
        own->scores = (float *)(own->chosen + most.top);
    }
    return 0;
}

void bounded_landmark_free(struct bounded *b)
{
    for (int i = 0; b->landmarks && i < pool_threads(b->options.pool); i++)
        b->options.device->free(b->landmarks[i].chosen);
    free(b->landmarks);
}

/* ---- attention ------------------------------------------------------------------------------------------ */

struct pass {
    struct bounded *bounded;
    const struct bounded_layer *layer;
    const struct rope *rope;
    float scale;
};

/* out [dim] f32 = what head `head` of the token at `position` sees; q [dim] raw. */
static void attend_head(const struct pass *pass, int64_t position, int head, const float *q, int thread, float *out)
{
    const struct bounded_options *o = &pass->bounded->options;
    const struct bounded_layer *layer = pass->layer;
    const int kv_head = head / pass->bounded->heads_per_kv;
    const struct bounded_landmarks *own = &pass->bounded->landmarks[thread];
    const struct landmark_rows rows = {
        .dtype = o->kernel->dtype,
        .keys = near_keys(&layer->near, kv_head, layer->near.first),
        .values = near_values(&layer->near, kv_head, layer->near.first),
        .key_offset = key_offset_of(layer->key_offset, kv_head, o->dim),
        .n = position + 1 - layer->near.first,
        .dim = o->dim,
        .block = layer->spec.rate - 1,
    };
    const struct landmark_query query = {q, pass->scale, pass->rope, layer->spec.top};
    const int64_t n = landmark_choose(&rows, &query, own->chosen, own->scores);
    landmark_attend(&rows, &query, own->chosen, n, own->scores, out);
}

struct block_pass {
    struct pass pass;
    const struct bounded_queries *queries;
    struct zigzag block;
};

/* Item: a token of this rank's block. */
static void attend_item(void *context, int64_t item, int thread)
{
    const struct block_pass *p = context;
    const struct bounded_options *o = &p->pass.bounded->options;
    const int64_t early = p->block.end[0] - p->block.first[0];
    const int64_t position = item < early ? p->block.first[0] + item : p->block.first[1] + item - early;
    float out[ATTN_MAX_DIM];
    for (int head = 0; head < o->heads; head++) {
        const size_t to = (size_t)(item * o->heads + head) * bounded_row_bytes(o);
        attend_head(&p->pass, position, head, p->queries->q + item * p->queries->stride + head * o->dim, thread,
                    out);
        row_from_f32(o->kernel->dtype, out, (char *)p->queries->out + to, o->dim);
    }
}

void bounded_landmark_attend(struct bounded *b, const struct bounded_layer *layer,
                             const struct bounded_queries *queries)
{
    const struct zigzag block = zigzag_block(b->first, b->end, b->options.group->rank, b->options.group->size);
    struct block_pass pass = {{b, layer, queries->rope, queries->scale}, queries, block};
    const struct pool_job job = {block.end[0] - block.first[0] + block.end[1] - block.first[1], attend_item, &pass,
                                 b->options.poll, b->options.poll_context};
    if (job.n_items > 0)
        pool_run(b->options.pool, &job);
}

struct one_pass {
    struct pass pass;
    const struct decoder_query *query;
    int64_t position;
};

/* Item: a head. */
static void attend_one_item(void *context, int64_t item, int thread)
{
    const struct one_pass *p = context;
    const int64_t at = item * p->pass.bounded->options.dim;
    attend_head(&p->pass, p->position, (int)item, p->query->q + at, thread, p->query->out + at);
}

void bounded_landmark_attend_one(struct bounded *b, const struct bounded_layer *layer,
                                 const struct decoder_query *query, int64_t position)
{
    struct one_pass pass = {{b, layer, query->rope, query->scale}, query, position};
    const struct pool_job job = {b->options.heads, attend_one_item, &pass, b->options.poll,
                                 b->options.poll_context};
    pool_run(b->options.pool, &job);
}
