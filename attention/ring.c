#include "attention/ring.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "attention/layout.h"
#include "attention/ring_parts.h"
#include "base/clock.h"
#include "base/log.h"

/* Tokens of a piece, where the options do not say: many, so that a piece is long under way compared with the time
 * that it takes to begin one, and few beside the memory of all layers. */
static const int64_t PIECE_TOKENS = 32768;

/* ---- making a ring -------------------------------------------------------------------------------------- */

static const struct ring_arithmetic *arithmetic_of(const struct ring_options *options)
{
    return options->device->host_visible ? &ring_on_cpu : ring_on_cuda();
}

static bool plan_make(const struct ring_options *o, struct ring_plan *plan)
{
    const size_t others = o->group->size > 1;
    size_t message, block, scratch, total = 0;
    *plan = (struct ring_plan){0};
    if (!ring_message_bytes(o, i64_min(o->max_piece, o->max_shard), &message) ||
        !ring_block_bytes(o, o->max_block, &block) || !arithmetic_of(o)->scratch_bytes(o, &scratch))
        return false;
    bool fits = layout_reserve(&total, 1, message, &plan->messages[0]) &&
                layout_reserve(&total, others, message > block ? message : block, &plan->messages[1]) &&
                layout_reserve(&total, 1, block, &plan->blocks[0]) &&
                layout_reserve(&total, 1, scratch, &plan->scratch);
    plan->blocks[1] = plan->messages[1];
    plan->total = total;
    return fits;
}

/* The options with what they leave open filled in, and the plan that follows; ring_bytes and ring_create agree. */
static int settle(const struct ring_options *options, struct ring_options *o, struct ring_plan *plan,
                  struct error *err)
{
    *o = *options;
    if (o->max_piece == 0)
        o->max_piece = PIECE_TOKENS;
    if (attn_check_heads(o->heads, o->kv_heads, o->dim, err) < 0)
        return -1;
    if (o->max_block < 0 || o->max_shard < 0 || o->max_piece < 1 || !plan_make(o, plan))
        return error_set(err, ERROR_RESOURCE, "a ring for %lld tokens a rank is too large to count its bytes",
                         (long long)o->max_shard);
    return 0;
}

int ring_bytes(const struct ring_options *options, size_t *out, struct error *err)
{
    struct ring_options settled;
    struct ring_plan plan = {0};
    if (settle(options, &settled, &plan, err) < 0)
        return -1;
    *out = plan.total;
    return 0;
}

int ring_hop_bytes(const struct ring_options *options, size_t *out, struct error *err)
{
    struct ring_options settled;
    struct ring_plan plan = {0};
    size_t block = 0;
    if (settle(options, &settled, &plan, err) < 0)
        return -1;
    ring_message_bytes(&settled, i64_min(settled.max_piece, settled.max_shard), out);
    ring_block_bytes(&settled, settled.max_block, &block);
    *out = block > *out ? block : *out;
    return 0;
}

static int create_parts(struct ring *ring, struct error *err)
{
    const struct ring_options *o = &ring->options;
    if (o->group->size > 1 && !o->transport)
        return error_set(err, ERROR_INTERNAL, "a ring of %d ranks has no transport", o->group->size);
    if (!(ring->shares = calloc((size_t)o->group->size, sizeof *ring->shares)))
        return error_set(err, ERROR_RESOURCE, "no memory for the shares of %d ranks", o->group->size);
    if (!(ring->memory = o->device->alloc(ring->plan.total, "the buffers of the ring", err)))
        return -1;
    ring->rates = ring_rates_default(pool_threads(o->pool));
    return ring->arithmetic->create ? ring->arithmetic->create(ring, err) : 0;
}

struct ring *ring_create(const struct ring_options *options, struct error *err)
{
    struct ring *ring = calloc(1, sizeof *ring);
    if (!ring) {
        error_set(err, ERROR_RESOURCE, "no memory for the description of a ring");
        return NULL;
    }
    if (settle(options, &ring->options, &ring->plan, err) < 0) {
        free(ring);
        return NULL;
    }
    ring->arithmetic = arithmetic_of(options);
    if (create_parts(ring, err) < 0) {
        ring_free(ring);
        return NULL;
    }
    return ring;
}

void ring_free(struct ring *ring)
{
    if (!ring)
        return;
    if (ring->arithmetic->free)
        ring->arithmetic->free(ring);
    ring->options.device->free(ring->memory);
    free(ring->shares);
    free(ring);
}

struct ring_stats ring_stats(const struct ring *ring)
{
    return ring->stats;
}

int ring_rank_before(const struct ring *ring, int hops)
{
    const int ranks = ring->options.group->size;
    return (ring->options.group->rank + 2 * ranks - hops) % ranks;
}

/* ---- hops ----------------------------------------------------------------------------------------------- */

static void hop_over(struct ring *ring, bool waited)
{
    const double seconds = clock_seconds() - ring->hop_started;
    ring->in_flight = false;
    ring->stats.transfer_seconds += seconds;
    ring_rates_hop(&ring->rates, ring->hop_bytes, seconds, waited);
}

void ring_poll(struct ring *ring)
{
    const struct ring_options *o = &ring->options;
    if (ring->in_flight && !ring->poll_failed) {
        bool over = false;
        if (o->transport->test(o->transport, &over, &ring->poll_error) < 0)
            ring->poll_failed = true;
        else if (over)
            hop_over(ring, false);
    }
    if (o->poll)
        o->poll(o->poll_context);
}

/* The transport through the host's memory copies what is sent to the host before start() returns: time that counts
 * as waiting. */
int ring_hop_start(struct ring *ring, const struct transport_hop *hop, struct error *err)
{
    ring->hop_started = clock_seconds();
    ring->hop_bytes = hop->send_bytes > hop->receive_bytes ? hop->send_bytes : hop->receive_bytes;
    ring->in_flight = true;
    ring->stats.hops++;
    ring->stats.bytes_sent += hop->send_bytes;
    const int status = ring->options.transport->start(ring->options.transport, hop, err);
    ring->stats.wait_seconds += clock_seconds() - ring->hop_started;
    return status;
}

int ring_hop_finish(struct ring *ring, struct error *err)
{
    if (ring->poll_failed) {
        *err = ring->poll_error;
        return -1;
    }
    if (!ring->in_flight)
        return 0;
    const double start = clock_seconds();
    if (ring->options.transport->finish(ring->options.transport, err) < 0)
        return -1;
    ring->stats.wait_seconds += clock_seconds() - start;
    hop_over(ring, true);
    return 0;
}

/* ---- one segment ---------------------------------------------------------------------------------------- */

static int check_call(const struct ring *ring, const struct memory *memory, int layer,
                      const struct ring_queries *queries, struct error *err)
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
    if (queries->window > 0 && o->device->host_visible)
        return error_set(err, ERROR_INTERNAL, "the ring of a host has no windows");
    if (queries->tokens > o->max_block || queries->tokens > memory->length)
        return error_set(err, ERROR_INTERNAL, "%lld queries, but %lld tokens in memory and a ring made for %lld",
                         (long long)queries->tokens, (long long)memory->length, (long long)o->max_block);
    return 0;
}

/* shares [ranks]: what each rank holds, and how fast it has been. */
static int gather_shares(struct ring *ring, const struct ring_share *own, struct ring_share *shares,
                         struct error *err)
{
    const struct ring_options *o = &ring->options;
    const int bytes = (int)sizeof *own;
    shares[0] = *own;
    if (o->group->size == 1)
        return 0;
    int code = MPI_Allgather(own, bytes, MPI_BYTE, shares, bytes, MPI_BYTE, o->group->mpi);
    if (comm_check(code, "asking for the shards' lengths", err) < 0)
        return -1;
    for (int r = 0; r < o->group->size; r++) {
        if (shares[r].shard > o->max_shard || shares[r].block > o->max_block)
            return error_set(
                err, ERROR_INTERNAL,
                "rank %d of the ring has %lld tokens and %lld queries, but it was made for %lld and %lld", r,
                (long long)shares[r].shard, (long long)shares[r].block, (long long)o->max_shard,
                (long long)o->max_block);
    }
    return 0;
}

static int64_t longest_shard(const struct ring *ring, const struct ring_share *shares)
{
    int64_t longest = 0;
    for (int r = 0; r < ring->options.group->size; r++)
        longest = i64_max(longest, shares[r].shard);
    return longest;
}

/* A line a segment for the first layer of each memory: the others' differ by what the rates have learnt in between.
 */
static void log_way(const struct ring *ring, const struct ring_share *shares, enum ring_way way,
                    const struct ring_prediction *seconds)
{
    int64_t queries = 0, keys = 0;
    for (int rank = 0; rank < ring->options.group->size; rank++) {
        queries += shares[rank].block;
        keys += shares[rank].shard;
    }
    log_debug("ring: %s go round for %" PRId64 " queries and %" PRId64 " keys; predicted %.3f ms a layer by keys, "
              "%.3f ms by queries%s",
              way == RING_PASS_Q ? "queries" : "keys", queries, keys, 1e3 * seconds->pass_kv, 1e3 * seconds->pass_q,
              ring->options.way == RING_CHEAPER ? "" : " (not asked)");
}

/* Which way round, alike on all ranks. */
static enum ring_way choose_way(struct ring *ring, const struct ring_share *shares, int layer)
{
    const struct ring_options *o = &ring->options;
    const double dim = (double)o->dim, element = (double)dtype_size(o->kernel->dtype);
    if (o->group->size == 1)
        return RING_PASS_KV;
    const struct ring_cost cost = {
        .shares = shares,
        .ranks = o->group->size,
        .rounds = i64_ceil_div(longest_shard(ring, shares), o->max_piece),
        .key_bytes = (double)o->kernel->tile_bytes(o->dim) / ATTN_KEY_TILE * o->kv_heads + sizeof(int64_t),
        .query_bytes = (dim * (element + sizeof(float)) + 2 * sizeof(float)) * o->heads + sizeof(int64_t),
        .pair_flops = ring_pair_flops(o),
    };
    const struct ring_prediction seconds = ring_cost_predict(&cost);
    const enum ring_way cheaper = seconds.pass_q < seconds.pass_kv ? RING_PASS_Q : RING_PASS_KV;
    const enum ring_way way = o->way == RING_CHEAPER ? cheaper : o->way;
    ring->stats.predicted_kv_seconds += seconds.pass_kv;
    ring->stats.predicted_q_seconds += seconds.pass_q;
    ring->stats.passed_kv += way == RING_PASS_KV;
    ring->stats.passed_q += way == RING_PASS_Q;
    if (layer == 0 && o->group->rank == 0)
        log_way(ring, shares, way, &seconds);
    return way;
}

/* The piece of this rank's shard that is the round's. */
static int pack_piece(struct ring_round *round, const struct ring_message_source *source, struct error *err)
{
    struct ring *ring = round->ring;
    const int64_t rest = i64_max(0, source->memory->length - source->first);
    const double start = clock_seconds();
    round->first = source->first;
    round->piece = ring_message_at(&ring->options, ring->memory + ring->plan.messages[0],
                                   i64_min(rest, ring->options.max_piece));
    if (ring->arithmetic->pack(ring, &round->piece, source, err) < 0)
        return -1;
    ring->stats.pack_seconds += clock_seconds() - start;
    return 0;
}

int ring_attend_message(struct ring *ring, const struct ring_block *block, const struct ring_message *message,
                        struct error *err)
{
    double pairs = 0;
    const double start = clock_seconds();
    if (block->tokens > 0 && message->tokens > 0 && ring->arithmetic->attend(ring, block, message, &pairs, err) < 0)
        return -1;
    const double seconds = clock_seconds() - start;
    ring->stats.attend_seconds += seconds;
    if (ring->window == 0) /* a hop of which few keys are seen says nothing of the kernel's rate */
        ring_rates_attend(&ring->rates, pairs * ring_pair_flops(&ring->options), seconds);
    return 0;
}

/* All pieces of all shards, one round each. */
static int go_round(struct ring_round *round, struct ring_message_source *source, struct error *err)
{
    struct ring *ring = round->ring;
    const int64_t longest = longest_shard(ring, round->shares);
    const enum ring_way way = choose_way(ring, round->shares, source->layer);
    for (source->first = 0; source->first < longest; source->first += ring->options.max_piece) {
        if (pack_piece(round, source, err) < 0)
            return -1;
        const double start = clock_seconds();
        if ((way == RING_PASS_Q ? ring_pass_q : ring_pass_kv)(round, err) < 0)
            return -1;
        ring->stats.round_seconds += clock_seconds() - start;
    }
    return 0;
}

/* Where the keys of a layer share an offset (the bias of their projection), slow_cosine [dim] is what of it is
 * taken off again after rotation: the cosine of one position for elements that turn by less than 1 / SLOW_TURN
 * radian a position, 0 for the others. There the rotated offset adds nearly the same to all scores of a query,
 * which the softmax does not see, and a key without it is rounded more finely. */
static void find_slow_cosine(const struct memory *memory, int layer, const struct rope *rope, float *slow_cosine)
{
    enum { SLOW_TURN = 16384 };
    if (!memory_key_offset(memory, layer, 0))
        return;
    float sine[ATTN_MAX_DIM];
    rope_element_angles(rope, 1, memory->shape.dim, slow_cosine, sine);
    for (int e = 0; e < memory->shape.dim; e++)
        if (fabsf(sine[e]) >= 1.0f / SLOW_TURN)
            slow_cosine[e] = 0;
}

int ring_attend(struct ring *ring, const struct memory *memory, int layer, const struct ring_queries *queries,
                struct error *err)
{
    const struct ring_share own = {memory->length, queries->tokens, ring->rates};
    float slow_cosine[ATTN_MAX_DIM];
    if (check_call(ring, memory, layer, queries, err) < 0 || gather_shares(ring, &own, ring->shares, err) < 0)
        return -1;
    ring->window = queries->window;
    find_slow_cosine(memory, layer, queries->rope, slow_cosine);
    struct ring_message_source source = {
        .memory = memory, .rope = queries->rope, .slow_cosine = slow_cosine, .layer = layer};
    struct ring_round round = {
        .ring = ring,
        .block = ring_block_at(&ring->options, ring->memory + ring->plan.blocks[0], queries->tokens),
        .shares = ring->shares,
    };
    const int64_t *positions = memory->positions + memory->length - queries->tokens;
    if (ring->arithmetic->begin(ring, &round.block, queries, positions, err) < 0 ||
        go_round(&round, &source, err) < 0)
        return -1;
    return ring->arithmetic->finish(ring, &round.block, queries->out, err);
}

int ring_attend_one(struct ring *ring, const struct memory *memory, int layer, const struct ring_one *one,
                    struct error *err)
{
    const struct ring_queries none = {.rope = one->rope};
    const double start = clock_seconds();
    float slow_cosine[ATTN_MAX_DIM];
    if (check_call(ring, memory, layer, &none, err) < 0)
        return -1;
    if (one->k && memory->length == 0)
        return error_set(err, ERROR_INTERNAL, "a token to be kept in a memory that was not extended by it");
    find_slow_cosine(memory, layer, one->rope, slow_cosine);
    const struct ring_message_source source = {
        .memory = memory, .rope = one->rope, .slow_cosine = slow_cosine, .layer = layer};
    if (ring->arithmetic->attend_one(ring, &source, one, err) < 0)
        return -1;
    ring->stats.attend_seconds += clock_seconds() - start;
    return 0;
}
