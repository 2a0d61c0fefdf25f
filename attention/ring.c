#include "attention/ring.h"

#include <math.h>
#include <stdlib.h>

#include "attention/layout.h"
#include "attention/ring_message.h"
#include "attention/ring_parts.h"
#include "attention/rows.h"
#include "attention/span.h"
#include "base/clock.h"

enum {
    ROTATE_TOKENS = 16, /* tokens of one work item when queries are rotated and results handed out */
    CALL_KEYS = 1024,   /* keys between two looks at the hop in flight; a multiple of ATTN_KEY_TILE */
    LEAST_ROWS = 24,    /* rows of a kernel call where there are few: below, keys are read for too little work */
    ITEMS_A_THREAD = 4  /* work items that a thread should find at least, so that none is idle for long */
};

/* ---- making a ring -------------------------------------------------------------------------------------- */

/* The most that any kind of work item needs. */
static size_t scratch_bytes(const struct ring_options *o)
{
    const size_t pack = message_scratch_bytes(), attend = o->kernel->scratch_bytes(o->dim);
    return ((pack > attend ? pack : attend) + ATTN_ALIGN - 1) / ATTN_ALIGN * ATTN_ALIGN;
}

static bool plan_make(const struct ring_options *o, struct ring_plan *plan)
{
    const size_t ranks = (size_t)o->group->size, heads = (size_t)o->heads, dim = (size_t)o->dim;
    size_t rows, message, total = 0;
    *plan = (struct ring_plan){0};
    if (!size_mul((size_t)o->max_block, heads, &rows) || !message_bytes_max(o, &message))
        return false;
    plan->scratch_bytes = scratch_bytes(o);
    bool fits = layout_reserve(&total, 1, message, &plan->messages[0]) &&
                layout_reserve(&total, ranks > 1, message, &plan->messages[1]) &&
                layout_reserve(&total, rows, dim * dtype_size(o->kernel->dtype), &plan->q) &&
                layout_reserve(&total, rows, dim * sizeof(float), &plan->o) &&
                layout_reserve(&total, rows, sizeof(float), &plan->m) &&
                layout_reserve(&total, rows, sizeof(float), &plan->l) &&
                layout_reserve(&total, ranks, sizeof(int64_t), &plan->lengths) &&
                layout_reserve(&total, (size_t)pool_threads(o->pool), plan->scratch_bytes, &plan->scratch);
    plan->total = total;
    return fits;
}

static int check_options(const struct ring_options *o, struct ring_plan *plan, struct error *err)
{
    if (o->heads < 1 || o->kv_heads < 1 || o->heads % o->kv_heads != 0 || o->heads / o->kv_heads > ATTN_QUERY_ROWS)
        return error_set(err, ERROR_INPUT, "attention with %d heads over %d key heads is not supported", o->heads,
                         o->kv_heads);
    if (o->dim < 16 || o->dim % 16 != 0 || o->dim > ATTN_MAX_DIM)
        return error_set(err, ERROR_INPUT, "attention heads of %d dimensions are not supported", o->dim);
    if (o->max_block < 0 || o->max_shard < 0 || !plan_make(o, plan))
        return error_set(err, ERROR_RESOURCE, "a ring for %lld tokens a rank is too large to count its bytes",
                         (long long)o->max_shard);
    return 0;
}

int ring_bytes(const struct ring_options *options, size_t *out, struct error *err)
{
    struct ring_plan plan;
    if (check_options(options, &plan, err) < 0)
        return -1;
    *out = plan.total;
    return 0;
}

/* Elements that turn by less than a radian in STILL_TURN positions: one position moves hardly anything of them into
 * their partner. */
static void find_still(struct ring *ring, const struct rope *rope)
{
    enum { STILL_TURN = 16384 };
    const int dim = ring->options.dim;
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2];
    rope_angles(rope, 1, cosines, sines);
    for (int e = 0; e < dim; e++) {
        float turned[ATTN_MAX_DIM] = {0}, moved = 0;
        turned[e] = 1;
        rope_rotate(rope, cosines, sines, turned, turned, dim, 1.0f);
        for (int other = 0; other < dim; other++)
            moved += other == e ? 0 : fabsf(turned[other]);
        ring->still[e] = moved < 1.0f / STILL_TURN;
    }
}

struct ring *ring_create(const struct ring_options *options, struct error *err)
{
    struct ring_plan plan;
    if (check_options(options, &plan, err) < 0)
        return NULL;
    if (options->group->size > 1 && !options->transport) {
        error_set(err, ERROR_INTERNAL, "a ring of %d ranks has no transport", options->group->size);
        return NULL;
    }
    struct ring *ring = calloc(1, sizeof *ring);
    if (!ring) {
        error_set(err, ERROR_RESOURCE, "no memory for the description of a ring");
        return NULL;
    }
    ring->options = *options;
    ring->plan = plan;
    ring->group = options->heads / options->kv_heads;
    ring->block = options->device->alloc(plan.total, "the buffers of the ring", err);
    if (!ring->block) {
        free(ring);
        return NULL;
    }
    return ring;
}

void ring_free(struct ring *ring)
{
    if (!ring)
        return;
    ring->options.device->free(ring->block);
    free(ring);
}

struct ring_stats ring_stats(const struct ring *ring)
{
    return ring->stats;
}

void *ring_scratch(const struct ring *ring, int thread)
{
    return ring->block + ring->plan.scratch + (size_t)thread * ring->plan.scratch_bytes;
}

int ring_check_memory(const struct ring *ring, const struct memory *memory, int layer, struct error *err)
{
    const struct ring_options *o = &ring->options;
    const struct memory_shape *shape = &memory->shape;
    if (shape->kv_heads != o->kv_heads || shape->dim != o->dim || shape->dtype != o->kernel->dtype || layer < 0 ||
        layer >= shape->layers)
        return error_set(err, ERROR_INTERNAL, "the ring was not made for this memory, or layer %d is not in it",
                         layer);
    if (memory->length > o->max_shard)
        return error_set(err, ERROR_INTERNAL, "%lld tokens in memory, but the ring was made for %lld",
                         (long long)memory->length, (long long)o->max_shard);
    return 0;
}

/* ---- hops ----------------------------------------------------------------------------------------------- */

static void hop_over(struct ring *ring)
{
    ring->in_flight = false;
    ring->stats.transfer_seconds += clock_seconds() - ring->hop_started;
}

static void poll(void *context)
{
    struct ring *ring = context;
    const struct ring_options *o = &ring->options;
    if (ring->in_flight && !ring->poll_failed) {
        bool over = false;
        if (o->transport->test(o->transport, &over, &ring->poll_error) < 0)
            ring->poll_failed = true;
        else if (over)
            hop_over(ring);
    }
    if (o->poll)
        o->poll(o->poll_context);
}

void ring_run(struct ring *ring, int64_t items, void (*work)(void *context, int64_t item, int thread),
              void *context)
{
    const struct pool_job job = {
        .n_items = items, .work = work, .context = context, .poll = poll, .poll_context = ring};
    pool_run(ring->options.pool, &job);
}

static int hop_start(struct ring *ring, const struct transport_hop *hop, struct error *err)
{
    ring->hop_started = clock_seconds();
    ring->in_flight = true;
    ring->stats.hops++;
    ring->stats.bytes_sent += hop->send_bytes;
    return ring->options.transport->start(ring->options.transport, hop, err);
}

static int hop_finish(struct ring *ring, struct error *err)
{
    if (ring->poll_failed) {
        *err = ring->poll_error;
        return -1;
    }
    if (!ring->in_flight)
        return 0;
    double start = clock_seconds();
    if (ring->options.transport->finish(ring->options.transport, err) < 0)
        return -1;
    hop_over(ring);
    ring->stats.wait_seconds += clock_seconds() - start;
    return 0;
}

/* ---- one segment ---------------------------------------------------------------------------------------- */

/* One call of ring_attend, as its work items see it. */
struct pass {
    struct ring *ring;
    const struct memory *memory;
    const struct ring_queries *queries;
    int layer;
    const int64_t *positions;   /* [tokens], of the queries */
    struct message shard;       /* the keys in hand */
    int64_t tile_tokens, tiles; /* query tokens of a kernel call, and how many calls cover them */
};

/* Index of the first state row of a token in a kv head. */
static size_t row_of(const struct pass *pass, int kv_head, int64_t token)
{
    return (size_t)(((int64_t)kv_head * pass->queries->tokens + token) * pass->ring->group);
}

static struct attn_state state_at(const struct ring *ring, size_t row)
{
    char *block = ring->block;
    return (struct attn_state){.o = (float *)(block + ring->plan.o) + row * (size_t)ring->options.dim,
                               .m = (float *)(block + ring->plan.m) + row,
                               .l = (float *)(block + ring->plan.l) + row};
}

static void *query_at(const struct ring *ring, size_t row)
{
    return ring->block + ring->plan.q + row * (size_t)ring->options.dim * dtype_size(ring->options.kernel->dtype);
}

static void rotate_token(const struct pass *pass, int64_t token)
{
    const struct ring_options *o = &pass->ring->options;
    const float scale = pass->queries->scale * RING_LOG2_E;
    const float *q = pass->queries->q + token * pass->queries->stride;
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2], rotated[ATTN_MAX_DIM];
    rope_angles(pass->queries->rope, pass->positions[token], cosines, sines);
    for (int head = 0; head < o->heads; head++) {
        size_t row = row_of(pass, head / pass->ring->group, token) + (size_t)(head % pass->ring->group);
        struct attn_state state = state_at(pass->ring, row);
        rope_rotate(pass->queries->rope, cosines, sines, q + (size_t)head * (size_t)o->dim, rotated, o->dim, scale);
        row_from_f32(o->kernel->dtype, rotated, query_at(pass->ring, row), o->dim);
        attn_state_reset(&state, 1, o->dim);
    }
}

/* Rotate the queries of a few tokens, fold in the scale, and begin their sums. */
static void rotate_item(void *context, int64_t item, int thread)
{
    const struct pass *pass = context;
    (void)thread;
    int64_t end = i64_min((item + 1) * ROTATE_TOKENS, pass->queries->tokens);
    for (int64_t token = item * ROTATE_TOKENS; token < end; token++)
        rotate_token(pass, token);
}

static void pack_item(void *context, int64_t item, int thread)
{
    const struct pass *pass = context;
    const struct ring_options *o = &pass->ring->options;
    message_pack_tile(
        &pass->shard, o,
        &(struct message_source){pass->memory, pass->queries->rope, pass->layer, item, pass->ring->still},
        ring_scratch(pass->ring, thread));
}

/* Which keys of the shard in hand the rows of a query tile see; returns the number of rows. */
static int tile_spans(const struct pass *pass, int64_t first, int64_t tokens, struct attn_span *spans)
{
    const int group = pass->ring->group;
    for (int64_t t = 0; t < tokens; t++) {
        struct attn_span span = causal_span(pass->positions[first + t], pass->shard.positions, pass->shard.tokens);
        for (int g = 0; g < group; g++)
            spans[t * group + g] = span;
    }
    return (int)tokens * group;
}

/* One query tile of one kv head over the shard in hand. The late tiles, which see most, come first. */
static void attend_item(void *context, int64_t item, int thread)
{
    const struct pass *pass = context;
    struct ring *ring = pass->ring;
    const struct ring_options *o = &ring->options;
    const int kv_head = (int)(item / pass->tiles);
    const int64_t first = (pass->tiles - 1 - item % pass->tiles) * pass->tile_tokens;
    const int64_t tokens = i64_min(pass->tile_tokens, pass->queries->tokens - first);
    struct attn_span seen[ATTN_QUERY_ROWS], spans[ATTN_QUERY_ROWS];
    const int rows = tile_spans(pass, first, tokens, seen);
    const size_t row = row_of(pass, kv_head, first);
    const struct attn_tile tile = {.q = query_at(ring, row), .spans = spans, .rows = rows, .dim = o->dim};
    const struct attn_state state = state_at(ring, row);
    for (int64_t at = seen[0].first / CALL_KEYS * CALL_KEYS; at < seen[rows - 1].end; at += CALL_KEYS) {
        for (int r = 0; r < rows; r++)
            spans[r] = (struct attn_span){i64_max(seen[r].first - at, 0), i64_min(seen[r].end - at, CALL_KEYS)};
        o->kernel->attend(&tile, message_run(&pass->shard, kv_head, at), &state, ring_scratch(ring, thread));
        if (thread == 0)
            poll(ring);
    }
}

/* Close the sums of a few tokens and hand their rows out. */
static void finish_item(void *context, int64_t item, int thread)
{
    const struct pass *pass = context;
    const struct ring_options *o = &pass->ring->options;
    const size_t row_bytes = (size_t)o->dim * dtype_size(o->kernel->dtype);
    const int64_t first = item * ROTATE_TOKENS, end = i64_min(first + ROTATE_TOKENS, pass->queries->tokens);
    (void)thread;
    for (int kv_head = 0; kv_head < o->kv_heads; kv_head++) {
        struct attn_state state = state_at(pass->ring, row_of(pass, kv_head, first));
        attn_state_finish(&state, (int)(end - first) * pass->ring->group, o->dim, NULL);
        for (int64_t token = first; token < end; token++) {
            /* the heads of a group are neighbours in the state and in the output */
            size_t head = (size_t)token * (size_t)o->heads + (size_t)kv_head * (size_t)pass->ring->group;
            row_from_f32(o->kernel->dtype, state_at(pass->ring, row_of(pass, kv_head, token)).o,
                         (char *)pass->queries->out + head * row_bytes, (int64_t)pass->ring->group * o->dim);
        }
    }
}

/* lengths [ranks]: the tokens of each rank's shard. */
static int gather_lengths(struct ring *ring, int64_t length, int64_t *lengths, struct error *err)
{
    const struct ring_options *o = &ring->options;
    lengths[0] = length;
    if (o->group->size == 1)
        return 0;
    int code = MPI_Allgather(&length, 1, MPI_INT64_T, lengths, 1, MPI_INT64_T, o->group->mpi);
    if (comm_check(code, "asking for the shards' lengths", err) < 0)
        return -1;
    for (int r = 0; r < o->group->size; r++) {
        if (lengths[r] > o->max_shard)
            return error_set(err, ERROR_INTERNAL, "rank %d of the ring has %lld tokens, but it was made for %lld",
                             r, (long long)lengths[r], (long long)o->max_shard);
    }
    return 0;
}

/* Query tokens of a work item: as many as a kernel call takes, fewer where threads would stay idle. */
static int64_t tile_tokens_for(const struct ring *ring, int64_t tokens)
{
    const int64_t items = (int64_t)ITEMS_A_THREAD * pool_threads(ring->options.pool);
    const int64_t even = i64_ceil_div(tokens * ring->options.kv_heads, items);
    const int64_t least = i64_ceil_div(LEAST_ROWS, ring->group), most = ATTN_QUERY_ROWS / ring->group;
    return i64_min(i64_max(even, least), most);
}

static void pack_shard(struct pass *pass)
{
    double start = clock_seconds();
    message_positions(&pass->shard, pass->memory->positions);
    ring_run(pass->ring, pass->shard.tiles, pack_item, pass);
    pass->ring->stats.pack_seconds += clock_seconds() - start;
}

static void attend_shard(struct pass *pass)
{
    double start = clock_seconds();
    ring_run(pass->ring, pass->tiles * pass->ring->options.kv_heads, attend_item, pass);
    pass->ring->stats.attend_seconds += clock_seconds() - start;
}

/* The way of all shards past this rank's queries; its own is packed in pass->shard. */
static int go_round(struct pass *pass, const int64_t *lengths, struct error *err)
{
    struct ring *ring = pass->ring;
    const int ranks = ring->options.group->size, rank = ring->options.group->rank;
    for (int hop = 0; hop < ranks; hop++) {
        struct message next = {0};
        if (hop + 1 < ranks) {
            int64_t tokens = lengths[(rank + 2 * ranks - hop - 1) % ranks];
            next = message_at(&ring->options, ring->block + ring->plan.messages[(hop + 1) % 2], tokens);
            struct transport_hop way = {pass->shard.start, pass->shard.bytes, next.start, next.bytes};
            if (hop_start(ring, &way, err) < 0)
                return -1;
        }
        if (hop == 0)
            ring_run(ring, i64_ceil_div(pass->queries->tokens, ROTATE_TOKENS), rotate_item, pass);
        attend_shard(pass);
        if (hop_finish(ring, err) < 0)
            return -1;
        pass->shard = next;
    }
    return 0;
}

int ring_attend(struct ring *ring, const struct memory *memory, int layer, const struct ring_queries *queries,
                struct error *err)
{
    int64_t *lengths = (int64_t *)(ring->block + ring->plan.lengths);
    if (ring_check_memory(ring, memory, layer, err) < 0)
        return -1;
    if (queries->tokens > ring->options.max_block || queries->tokens > memory->length)
        return error_set(err, ERROR_INTERNAL, "%lld queries, but %lld tokens in memory and a ring made for %lld",
                         (long long)queries->tokens, (long long)memory->length, (long long)ring->options.max_block);
    if (gather_lengths(ring, memory->length, lengths, err) < 0)
        return -1;
    const int64_t tile_tokens = tile_tokens_for(ring, queries->tokens);
    struct pass pass = {
        .ring = ring,
        .memory = memory,
        .queries = queries,
        .layer = layer,
        .positions = memory->positions + memory->length - queries->tokens,
        .shard = message_at(&ring->options, ring->block + ring->plan.messages[0], memory->length),
        .tile_tokens = tile_tokens,
        .tiles = i64_ceil_div(queries->tokens, tile_tokens),
    };
    find_still(ring, queries->rope);
    pack_shard(&pass);
    if (go_round(&pass, lengths, err) < 0)
        return -1;
    ring_run(ring, i64_ceil_div(queries->tokens, ROTATE_TOKENS), finish_item, &pass);
    return 0;
}
