/* A ring's arithmetic on the CPU: work items in the pool's threads, through the kernel's tiles. */
#include "attention/ring_parts.h"
#include "attention/rows.h"
#include "attention/span.h"

enum {
    ROTATE_TOKENS = 16, /* tokens of one work item when queries are rotated and results handed out */
    CALL_KEYS = 1024,   /* keys between two looks at the hop in flight; a multiple of ATTN_KEY_TILE */
    LEAST_ROWS = 24,    /* rows of a kernel call where there are few: below, keys are read for too little work */
    ITEMS_A_THREAD = 4  /* work items that a thread should find at least, so that none is idle for long */
};

/* ---- threads and their scratch -------------------------------------------------------------------------- */

/* The angles of a tile's keys, which all heads share, and the rotated keys of one head. */
struct pack_scratch {
    float cosines[ATTN_KEY_TILE][ATTN_MAX_DIM / 2], sines[ATTN_KEY_TILE][ATTN_MAX_DIM / 2];
    float raw[ATTN_MAX_DIM];
    float keys[ATTN_KEY_TILE * ATTN_MAX_DIM];
};

/* The most that any kind of work item needs. */
static size_t thread_scratch_bytes(const struct ring_options *options)
{
    const size_t pack = sizeof(struct pack_scratch), attend = options->kernel->scratch_bytes(options->dim);
    return (size_t)i64_round_up((int64_t)(pack > attend ? pack : attend), ATTN_ALIGN);
}

static bool cpu_scratch_bytes(const struct ring_options *options, size_t *out)
{
    return size_mul(thread_scratch_bytes(options), (size_t)pool_threads(options->pool), out);
}

static void *scratch_of(const struct ring *ring, int thread)
{
    return ring->memory + ring->plan.scratch + (size_t)thread * thread_scratch_bytes(&ring->options);
}

static void push_on(void *context)
{
    ring_poll(context);
}

/* Do the work items in the pool; the calling thread polls between them. */
static void run_items(struct ring *ring, int64_t items, void (*work)(void *context, int64_t item, int thread),
                      void *context)
{
    const struct pool_job job = {
        .n_items = items, .work = work, .context = context, .poll = push_on, .poll_context = ring};
    pool_run(ring->options.pool, &job);
}

/* ---- packing -------------------------------------------------------------------------------------------- */

/* A key of a tile and where it lies. */
struct key_place {
    int head, index;
    const void *raw;
};

/* One key of a head, rotated. Of its offset the part that rotation leaves where it is goes off again: it adds the
 * same to all scores of a query, which the softmax does not see, and the packed key is rounded more finely. */
static void rotate_key(const struct ring_options *options, const struct ring_message_source *source,
                       const struct key_place *place, struct pack_scratch *s)
{
    const int dim = options->dim;
    const float *offset = memory_key_offset(source->memory, source->layer, place->head);
    float *key = s->keys + place->index * dim;
    key_to_f32(source->memory->shape.dtype, place->raw, offset, s->raw, dim);
    rope_rotate(source->rope, s->cosines[place->index], s->sines[place->index], s->raw, key, dim, 1.0f);
    for (int e = 0; offset && e < dim; e++)
        key[e] -= offset[e] * source->slow_cosine[e];
}

/* What the work items that pack a message see. */
struct packing {
    struct ring *ring;
    const struct ring_message *message;
    const struct ring_message_source *source;
};

/* Rotate and pack one tile of every kv head. */
static void pack_item(void *context, int64_t tile, int thread)
{
    const struct packing *packing = context;
    const struct ring_options *o = &packing->ring->options;
    const struct ring_message_source *source = packing->source;
    const struct memory *memory = source->memory;
    struct pack_scratch *s = scratch_of(packing->ring, thread);
    const int64_t first = source->first + tile * ATTN_KEY_TILE;
    const int n = (int)i64_min(ATTN_KEY_TILE, packing->message->tokens - tile * ATTN_KEY_TILE);
    const size_t row_bytes = (size_t)o->dim * dtype_size(memory->shape.dtype);
    for (int i = 0; i < n; i++)
        rope_angles(source->rope, memory->positions[first + i], s->cosines[i], s->sines[i]);
    for (int head = 0; head < o->kv_heads; head++) {
        const char *k = (const char *)memory_keys(memory, source->layer, head) + (size_t)first * row_bytes;
        const char *v = (const char *)memory_values(memory, source->layer, head) + (size_t)first * row_bytes;
        for (int i = 0; i < n; i++)
            rotate_key(o, source, &(struct key_place){head, i, k + (size_t)i * row_bytes}, s);
        o->kernel->pack(ring_message_run(packing->message, head, tile * ATTN_KEY_TILE), s->keys, v, n, o->dim);
    }
}

static int cpu_pack(struct ring *ring, const struct ring_message *message, const struct ring_message_source *source,
                    struct error *err)
{
    struct packing packing = {ring, message, source};
    (void)err;
    if (message->tokens > 0)
        memcpy(message->positions, source->memory->positions + source->first,
               (size_t)message->tokens * sizeof *message->positions);
    run_items(ring, message->tiles, pack_item, &packing);
    return 0;
}

/* ---- one call's work items ------------------------------------------------------------------------------ */

/* What the work items on a block see; of the last three each kind of item needs one. */
struct job {
    struct ring *ring;
    const struct ring_block *block;
    int heads_per_kv; /* query heads of a kv head */
    const struct ring_queries *queries;
    const struct ring_message *message;
    char *out;
    int64_t tile_tokens, tiles; /* query tokens of a kernel call, and how many calls cover them */
};

static struct job job_of(struct ring *ring, const struct ring_block *block)
{
    return (struct job){.ring = ring, .block = block, .heads_per_kv = ring->options.heads / ring->options.kv_heads};
}

/* Index of the first row of a token in a kv head. */
static size_t row_of(const struct job *job, int kv_head, int64_t token)
{
    return (size_t)(((int64_t)kv_head * job->block->tokens + token) * job->heads_per_kv);
}

static struct attn_state state_at(const struct job *job, size_t row)
{
    const struct attn_state *s = &job->block->state;
    return (struct attn_state){s->o + row * (size_t)job->ring->options.dim, s->m + row, s->l + row};
}

static void *query_at(const struct job *job, size_t row)
{
    const struct ring_options *o = &job->ring->options;
    return job->block->q + row * (size_t)o->dim * dtype_size(o->kernel->dtype);
}

/* ---- beginning ------------------------------------------------------------------------------------------ */

static void rotate_token(const struct job *job, int64_t token)
{
    const struct ring_options *o = &job->ring->options;
    const struct ring_queries *queries = job->queries;
    const float *q = queries->q + token * queries->stride;
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2], rotated[ATTN_MAX_DIM];
    rope_angles(queries->rope, job->block->positions[token], cosines, sines);
    for (int head = 0; head < o->heads; head++, q += o->dim) {
        const size_t row = row_of(job, head / job->heads_per_kv, token) + (size_t)(head % job->heads_per_kv);
        const struct attn_state state = state_at(job, row);
        rope_rotate(queries->rope, cosines, sines, q, rotated, o->dim, queries->scale * ATTN_LOG2_E);
        row_from_f32(o->kernel->dtype, rotated, query_at(job, row), o->dim);
        attn_state_reset(&state, 1, o->dim);
    }
}

static void rotate_item(void *context, int64_t item, int thread)
{
    const struct job *job = context;
    const int64_t end = i64_min((item + 1) * ROTATE_TOKENS, job->block->tokens);
    (void)thread;
    for (int64_t token = item * ROTATE_TOKENS; token < end; token++)
        rotate_token(job, token);
}

static int cpu_begin(struct ring *ring, const struct ring_block *block, const struct ring_queries *queries,
                     const int64_t *positions, struct error *err)
{
    struct job job = job_of(ring, block);
    (void)err;
    job.queries = queries;
    if (block->tokens > 0)
        memcpy(block->positions, positions, (size_t)block->tokens * sizeof *positions);
    run_items(ring, i64_ceil_div(block->tokens, ROTATE_TOKENS), rotate_item, &job);
    return 0;
}

/* ---- attending ------------------------------------------------------------------------------------------ */

/* Which keys of the message the rows of a query tile see; returns the number of rows. */
static int tile_spans(const struct job *job, int64_t first, int64_t tokens, struct attn_span *spans)
{
    int row = 0;
    for (int64_t t = first; t < first + tokens; t++) {
        const struct attn_span span =
            causal_span(job->block->positions[t], job->message->positions, job->message->tokens);
        for (int g = 0; g < job->heads_per_kv; g++)
            spans[row++] = span;
    }
    return row;
}

/* One query tile of one kv head over the message. The late tiles, which see most, come first. */
static void attend_item(void *context, int64_t item, int thread)
{
    const struct job *job = context;
    struct ring *ring = job->ring;
    const struct ring_options *o = &ring->options;
    const int kv_head = (int)(item / job->tiles);
    const int64_t first = (job->tiles - 1 - item % job->tiles) * job->tile_tokens;
    const int64_t tokens = i64_min(job->tile_tokens, job->block->tokens - first);
    struct attn_span seen[ATTN_QUERY_ROWS], spans[ATTN_QUERY_ROWS];
    const int rows = tile_spans(job, first, tokens, seen);
    const size_t row = row_of(job, kv_head, first);
    const struct attn_tile tile = {.q = query_at(job, row), .spans = spans, .rows = rows, .dim = o->dim};
    const struct attn_state state = state_at(job, row);
    for (int64_t at = 0; at < seen[rows - 1].end; at += CALL_KEYS) {
        for (int r = 0; r < rows; r++)
            spans[r] = (struct attn_span){0, i64_min(seen[r].end - at, CALL_KEYS)};
        attn_attend(o->kernel, &tile, ring_message_run(job->message, kv_head, at), &state,
                    scratch_of(ring, thread));
        if (thread == 0)
            ring_poll(ring);
    }
}

/* Query tokens of a work item: as many as a kernel call takes, fewer where threads would stay idle. */
static int64_t tile_tokens_for(const struct job *job)
{
    const struct ring_options *o = &job->ring->options;
    const int64_t items = (int64_t)ITEMS_A_THREAD * pool_threads(o->pool);
    const int64_t even = i64_ceil_div(job->block->tokens * o->kv_heads, items);
    const int64_t least = i64_ceil_div(LEAST_ROWS, job->heads_per_kv), most = ATTN_QUERY_ROWS / job->heads_per_kv;
    return i64_min(i64_max(even, least), most);
}

/* Queries times keys that they see, in one head. */
static double count_pairs(const struct ring_block *block, const struct ring_message *message)
{
    int64_t pairs = 0;
    for (int64_t t = 0; t < block->tokens; t++)
        pairs += causal_span(block->positions[t], message->positions, message->tokens).end;
    return (double)pairs;
}

static int cpu_attend(struct ring *ring, const struct ring_block *block, const struct ring_message *message,
                      double *pairs, struct error *err)
{
    struct job job = job_of(ring, block);
    (void)err;
    job.message = message;
    job.tile_tokens = tile_tokens_for(&job);
    job.tiles = i64_ceil_div(block->tokens, job.tile_tokens);
    run_items(ring, job.tiles * ring->options.kv_heads, attend_item, &job);
    *pairs = count_pairs(block, message);
    return 0;
}

/* ---- finishing ------------------------------------------------------------------------------------------ */

static void finish_item(void *context, int64_t item, int thread)
{
    const struct job *job = context;
    const struct ring_options *o = &job->ring->options;
    const size_t row_bytes = (size_t)o->dim * dtype_size(o->kernel->dtype);
    const int64_t first = item * ROTATE_TOKENS, end = i64_min(first + ROTATE_TOKENS, job->block->tokens);
    (void)thread;
    for (int kv_head = 0; kv_head < o->kv_heads; kv_head++) {
        struct attn_state state = state_at(job, row_of(job, kv_head, first));
        attn_state_finish(&state, (int)(end - first) * job->heads_per_kv, o->dim, NULL);
        for (int64_t token = first; token < end; token++) {
            /* the heads of a group are neighbours in the state and in the output */
            const size_t head = (size_t)token * (size_t)o->heads + (size_t)kv_head * (size_t)job->heads_per_kv;
            row_from_f32(o->kernel->dtype, state_at(job, row_of(job, kv_head, token)).o,
                         job->out + head * row_bytes, (int64_t)job->heads_per_kv * o->dim);
        }
    }
}

static int cpu_finish(struct ring *ring, const struct ring_block *block, void *out, struct error *err)
{
    struct job job = job_of(ring, block);
    (void)err;
    job.out = out;
    run_items(ring, i64_ceil_div(block->tokens, ROTATE_TOKENS), finish_item, &job);
    return 0;
}

const struct ring_arithmetic ring_on_cpu = {
    .scratch_bytes = cpu_scratch_bytes,
    .pack = cpu_pack,
    .begin = cpu_begin,
    .attend = cpu_attend,
    .finish = cpu_finish,
};
