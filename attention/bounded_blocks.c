#include "attention/bounded_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- sizes and life ------------------------------------------------------------------------------------- */

static struct blocks_shape blocks_shape(const struct bounded_options *o, const struct policy_spec *spec)
{
    const int64_t tokens = spec->far > 0 ? i64_min(spec->far, o->max_tokens) : o->max_tokens;
    return (struct blocks_shape){o->heads, o->kv_heads, o->dim, o->kernel->dtype,
                                 i64_max(1, tokens / BLOCK_TOKENS)};
}

/* Of all layers that have blocks. */
struct largest {
    int64_t layers, top, blocks, rest;
};

static struct largest find_largest(const struct bounded_options *o)
{
    struct largest most = {0};
    for (int i = 0; i < o->layers; i++) {
        const struct policy_spec *spec = &o->specs[i];
        if (policy_past(spec) != PAST_BLOCKS)
            continue;
        most.layers++;
        most.top = i64_max(most.top, spec->top);
        most.blocks = i64_max(most.blocks, blocks_shape(o, spec).capacity);
        most.rest = i64_max(most.rest, bounded_near_capacity(o, spec) - spec->window);
    }
    return most;
}

/* Bytes of what the layers share, part by part. */
struct parts {
    size_t fetched, stage, rest, one, means, scores;
};

static struct parts find_parts(const struct bounded_options *o)
{
    const struct largest most = find_largest(o);
    const struct blocks_shape shape = {o->heads, o->kv_heads, o->dim, o->kernel->dtype, 0};
    const size_t tile = (size_t)o->kv_heads * o->kernel->tile_bytes(o->dim);
    return (struct parts){
        .fetched = (size_t)(bounded_groups_most_own(o) * most.top) * blocks_record_bytes(&shape),
        .stage = (size_t)(bounded_groups_most(o) * most.top) * blocks_record_bytes(&shape),
        .rest = (size_t)i64_ceil_div(most.rest, ATTN_KEY_TILE) * tile,
        .one = (size_t)most.top * blocks_record_bytes(&shape),
        .means = (size_t)(bounded_groups_most(o) * o->heads * o->dim) * sizeof(float),
        .scores = (size_t)(bounded_groups_most(o) * most.blocks) * sizeof(double),
    };
}

size_t bounded_blocks_bytes(const struct bounded_options *o)
{
    const struct parts p = find_parts(o);
    size_t total = p.fetched + p.stage + p.rest + p.one + p.means + p.scores;
    if (find_largest(o).layers == 0)
        return 0;
    for (int i = 0; i < o->layers; i++) {
        const struct blocks_shape shape = blocks_shape(o, &o->specs[i]);
        if (policy_past(&o->specs[i]) == PAST_BLOCKS)
            total += blocks_bytes(&shape, o->group->size);
    }
    return total;
}

static int create_tables(struct bounded *b, struct error *err)
{
    const struct bounded_options *o = &b->options;
    const struct largest most = find_largest(o);
    const struct parts parts = find_parts(o);
    const size_t groups = (size_t)bounded_groups_most(o), ranks = (size_t)o->group->size;
    struct bounded_blocks *s = &b->blocks;
    s->means = calloc(1, parts.means);
    s->scores = calloc(1, parts.scores);
    s->chosen = calloc(groups * (size_t)most.top, sizeof *s->chosen);
    s->counts = calloc(4 * ranks, sizeof *s->counts);
    return s->means && s->scores && s->chosen && s->counts
               ? 0
               : error_set(err, ERROR_RESOURCE, "no memory for the choices of %lld groups", (long long)groups);
}

int bounded_blocks_create(struct bounded *b, struct error *err)
{
    const struct bounded_options *o = &b->options;
    const struct largest most = find_largest(o);
    const struct parts parts = find_parts(o);
    struct bounded_blocks *s = &b->blocks;
    if (most.layers == 0)
        return 0;
    s->rest_tiles = i64_ceil_div(most.rest, ATTN_KEY_TILE);
    if (create_tables(b, err) != 0 || !(s->fetched = o->device->alloc(parts.fetched, "chosen blocks", err)) ||
        !(s->stage = o->device->alloc(parts.stage, "blocks on their way", err)) ||
        !(s->packed_rest = o->device->alloc(parts.rest, "packed tokens before the window", err)) ||
        !(s->one = o->device->alloc(parts.one, "one token's blocks", err)))
        return -1;
    for (int i = 0; i < o->layers; i++) {
        const struct blocks_shape shape = blocks_shape(o, &b->layers[i].spec);
        if (policy_past(&b->layers[i].spec) == PAST_BLOCKS &&
            blocks_create(&b->layers[i].blocks, &shape, o->group, o->device, err) != 0)
            return -1;
    }
    return 0;
}

void bounded_blocks_free(struct bounded *b)
{
    const struct device *device = b->options.device;
    struct bounded_blocks *s = &b->blocks;
    for (int i = 0; i < b->options.layers; i++)
        blocks_free(&b->layers[i].blocks);
    device->free(s->fetched);
    device->free(s->stage);
    device->free(s->packed_rest);
    device->free(s->one);
    free(s->means);
    free(s->scores);
    free(s->chosen);
    free(s->counts);
}

/* ---- choosing ------------------------------------------------------------------------------------------- */

/* n queries, row t at q + t * stride. */
struct asking {
    const struct rope *rope;
    const float *q;
    int64_t stride, n;
};

/* mean [heads][dim] += the mean of the queries, rotated to the one distance. */
static void add_mean(const struct bounded *b, const struct bounded_layer *layer, const struct asking *asking,
                     float *mean)
{
    const int dim = b->options.dim, width = b->options.heads * dim;
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2];
    rope_angles(asking->rope, layer->spec.window, cosines, sines);
    for (int64_t t = 0; t < asking->n; t++)
        for (int e = 0; e < width; e++)
            mean[e] += asking->q[t * asking->stride + e] / (float)asking->n;
    for (int head = 0; head < b->options.heads; head++)
        rope_rotate(asking->rope, cosines, sines, mean + head * dim, mean + head * dim, dim, 1);
}

/* chosen [top] := the blocks with the largest scores, rising; of equal ones the earlier. */
static void pick(const struct blocks *blocks, double *scores, int64_t top, int64_t *chosen)
{
    const int64_t oldest = blocks_oldest(blocks), n = blocks->count - oldest, count = i64_min(top, n);
    for (int64_t i = 0; i < count; i++) {
        int64_t best = 0, at = i;
        for (int64_t c = 1; c < n; c++)
            if (scores[c] > scores[best])
                best = c;
        scores[best] = -INFINITY;
        for (; at > 0 && chosen[at - 1] > oldest + best; at--)
            chosen[at] = chosen[at - 1];
        chosen[at] = oldest + best;
    }
}

struct choice {
    struct bounded *bounded;
    const struct bounded_layer *layer;
    int64_t n; /* blocks there are, on all ranks */
};

/* Items: groups. */
static void score_item(void *context, int64_t group, int thread)
{
    const struct choice *choice = context;
    const struct bounded *b = choice->bounded;
    (void)thread;
    blocks_score(&choice->layer->blocks, b->blocks.means + group * b->options.heads * b->options.dim,
                 b->blocks.scores + group * choice->n);
}

static void pick_item(void *context, int64_t group, int thread)
{
    const struct choice *choice = context;
    const struct bounded_blocks *s = &choice->bounded->blocks;
    const int64_t top = choice->layer->spec.top;
    (void)thread;
    pick(&choice->layer->blocks, s->scores + group * choice->n, top, s->chosen + group * top);
}

/* The choices of n_groups, out of their means. Only one rank adds to each score, the others 0. */
static int choose_all(struct bounded *b, const struct bounded_layer *layer, int64_t n_groups, struct error *err)
{
    const struct blocks *blocks = &layer->blocks;
    struct bounded_blocks *s = &b->blocks;
    const int64_t n = blocks->count - blocks_oldest(blocks);
    struct choice choice = {b, layer, n};
    struct pool_job job = {n_groups, score_item, &choice, b->options.poll, b->options.poll_context};
    pool_run(b->options.pool, &job);
    if (comm_check(
            MPI_Allreduce(MPI_IN_PLACE, s->scores, (int)(n_groups * n), MPI_DOUBLE, MPI_SUM, b->options.group->mpi),
            "scoring the blocks of all ranks", err) < 0)
        return -1;
    job.work = pick_item;
    pool_run(b->options.pool, &job);
    s->count = i64_min(layer->spec.top, n);
    return 0;
}

static int share_means(struct bounded *b, const struct bounded_layer *layer, const struct bounded_queries *queries,
                       struct error *err)
{
    const struct bounded_groups *groups = &b->groups;
    const int64_t width = b->options.heads * b->options.dim;
    float *means = b->blocks.means;
    memset(means, 0, (size_t)(groups->n * width) * sizeof *means);
    for (int64_t g = groups->own_first; g < groups->own_first + groups->own; g++) {
        const struct bounded_group *group = &groups->items[g];
        const struct asking asking = {queries->rope, queries->q + group->row * queries->stride, queries->stride,
                                      group->end - group->first};
        add_mean(b, layer, &asking, means + g * width);
    }
    return comm_check(
        MPI_Allreduce(MPI_IN_PLACE, means, (int)(groups->n * width), MPI_FLOAT, MPI_SUM, b->options.group->mpi),
        "putting the queries of all ranks together", err);
}

/* ---- fetching ------------------------------------------------------------------------------------------- */

/* How many records each rank sends this one, and this one each, and where they begin: the four runs of counts. */
static void count_records(struct bounded *b, const struct bounded_layer *layer)
{
    struct bounded_blocks *s = &b->blocks;
    const int ranks = b->options.group->size, self = b->options.group->rank;
    int *sent = s->counts, *sent_at = sent + ranks, *got = sent_at + ranks, *got_at = got + ranks;
    memset(s->counts, 0, (size_t)(4 * ranks) * sizeof *s->counts);
    for (int64_t g = 0; g < b->groups.n; g++)
        for (int64_t i = 0; i < s->count; i++) {
            const int holder = (int)(s->chosen[g * layer->spec.top + i] % ranks);
            sent[b->groups.items[g].rank] += holder == self;
            got[holder] += b->groups.items[g].rank == self;
        }
    for (int rank = 1; rank < ranks; rank++) {
        sent_at[rank] = sent_at[rank - 1] + sent[rank - 1];
        got_at[rank] = got_at[rank - 1] + got[rank - 1];
    }
}

/* Each rank gets what its groups chose, by the ranks that held it and then in the order of choices. */
static int fetch(struct bounded *b, const struct bounded_layer *layer, struct error *err)
{
    struct bounded_blocks *s = &b->blocks;
    const int ranks = b->options.group->size, self = b->options.group->rank;
    const size_t bytes = blocks_record_bytes(&layer->blocks.shape);
    size_t n = 0;
    count_records(b, layer);
    for (int64_t g = 0; g < b->groups.n; g++) /* in the order of the ranks that get them */
        for (int64_t i = 0; i < s->count; i++) {
            const int64_t block = s->chosen[g * layer->spec.top + i];
            if (block % ranks == self)
                memcpy(s->stage + n++ * bytes, blocks_record(&layer->blocks, block), bytes);
        }
    MPI_Datatype record;
    if (comm_record_type(bytes, "blocks", &record, err) < 0)
        return -1;
    const int status =
        comm_check(MPI_Alltoallv(s->stage, s->counts, s->counts + ranks, record, s->fetched, s->counts + 2 * ranks,
                                 s->counts + 3 * ranks, record, b->options.group->mpi),
                   "fetching chosen blocks", err);
    MPI_Type_free(&record);
    return status < 0 ? -1 : 0;
}

/* ---- packing -------------------------------------------------------------------------------------------- */

/* Where the record of choice i of an own group lies among what was fetched. */
static const char *fetched_record(const struct bounded_packing *p, int64_t own, int64_t i)
{
    const struct bounded_blocks *s = &p->bounded->blocks;
    const int ranks = p->bounded->options.group->size;
    const int64_t top = p->layer->spec.top, *chosen = s->chosen + p->bounded->groups.own_first * top;
    const int holder = (int)(chosen[own * top + i] % ranks);
    int64_t at = s->counts[3 * ranks + holder];
    for (int64_t g = 0; g <= own; g++)
        for (int64_t c = 0; c < (g < own ? s->count : i); c++)
            at += chosen[g * top + c] % ranks == holder;
    return s->fetched + (size_t)at * blocks_record_bytes(&p->layer->blocks.shape);
}

/* First tokens and chosen blocks of a group in one kv head, in a thread's memory; all stand at position 0. */
static struct bounded_raw unpack(const struct bounded_packing *p, int64_t own, int kv_head, int thread)
{
    const struct bounded *b = p->bounded;
    const struct bounded_layer *layer = p->layer;
    const struct blocks_shape *shape = &layer->blocks.shape;
    const size_t block = BLOCK_TOKENS * bounded_row_bytes(&b->options);
    const int64_t sinks = i64_min(layer->sinks, layer->near.first);
    char *keys = b->groups.raw[thread];
    const struct bounded_raw raw = {keys, keys + b->groups.raw_bytes / 2, sinks + b->blocks.count * BLOCK_TOKENS,
                                    0};
    size_t at = bounded_copy_sinks(b, layer, kv_head, sinks, &raw);
    for (int64_t i = 0; i < b->blocks.count; i++, at += block) {
        const char *record = fetched_record(p, own, i);
        memcpy(raw.keys + at, record + blocks_keys_at(shape, kv_head), block);
        memcpy(raw.values + at, record + blocks_values_at(shape, kv_head), block);
    }
    return raw;
}

/* Tokens before the window of the segment's last query. */
static int64_t rest_rows(const struct bounded *b, const struct bounded_layer *layer)
{
    return i64_max(0, b->end - layer->spec.window - layer->near.first);
}

/* Item: one kv head's run of an own group, or behind these of the tokens before the window. */
static void pack_item(void *context, int64_t item, int thread)
{
    const struct bounded_packing *p = context;
    const struct bounded *b = p->bounded;
    const int head = (int)(item % b->options.kv_heads);
    const int64_t own = item / b->options.kv_heads;
    const int64_t first = p->layer->near.first;
    const bool rest = own == b->groups.own;
    const struct bounded_raw raw =
        rest ? (struct bounded_raw){near_keys(&p->layer->near, head, first),
                                    near_values(&p->layer->near, head, first), rest_rows(b, p->layer), 0}
             : unpack(p, own, head, thread);
    bounded_pack(p, &raw, head, rest ? (char *)bounded_blocks_rest(b, head) : bounded_groups_run(b, own, head));
}

int bounded_blocks_choose(struct bounded *b, struct bounded_layer *layer, const struct bounded_queries *queries,
                          struct error *err)
{
    b->blocks.count = 0;
    if (layer->blocks.count > 0 && (share_means(b, layer, queries, err) < 0 ||
                                    choose_all(b, layer, b->groups.n, err) != 0 || fetch(b, layer, err) != 0))
        return -1;
    struct bounded_packing packing = {b, layer, queries->rope};
    const struct pool_job job = {(b->groups.own + 1) * b->options.kv_heads, pack_item, &packing, b->options.poll,
                                 b->options.poll_context};
    pool_run(b->options.pool, &job);
    return 0;
}

const void *bounded_blocks_run(const struct bounded *b, int kv_head, int64_t first, int64_t *slots)
{
    *slots = b->blocks.count * BLOCK_TOKENS;
    return bounded_groups_run(b, bounded_groups_own(b, first), kv_head);
}

const void *bounded_blocks_rest(const struct bounded *b, int kv_head)
{
    return b->blocks.packed_rest +
           (size_t)(kv_head * b->blocks.rest_tiles) * b->options.kernel->tile_bytes(b->options.dim);
}

/* ---- the end of a segment ------------------------------------------------------------------------------- */

int bounded_blocks_keep(struct bounded *b, struct bounded_layer *layer, int64_t leave, struct error *err)
{
    const int64_t first = i64_max(layer->near.first, layer->sinks), n = leave - first;
    if (n <= 0)
        return 0;
    const int64_t *attention = bounded_observed(b, layer, (struct stretch){first, leave}, err);
    if (!attention)
        return -1;
    for (int64_t at = first; at < leave; at += BLOCK_TOKENS)
        blocks_append(&layer->blocks, &layer->near, at, attention + at - first, n);
    return 0;
}

/* ---- one token ------------------------------------------------------------------------------------------ */

int bounded_blocks_choose_one(struct bounded *b, struct bounded_layer *layer, const struct decoder_query *query,
                              struct error *err)
{
    struct bounded_blocks *s = &b->blocks;
    const struct blocks_shape *shape = &layer->blocks.shape;
    const int width = b->options.heads * b->options.dim;
    const size_t block = BLOCK_TOKENS * bounded_row_bytes(&b->options), run = (size_t)layer->spec.top * block;
    s->count = s->one_count = 0;
    memset(s->means, 0, (size_t)width * sizeof *s->means);
    if (layer->blocks.count > 0) { /* or the one distance may be beyond all positions of the text */
        add_mean(b, layer, &(struct asking){query->rope, query->q, width, 1}, s->means);
        if (choose_all(b, layer, 1, err) != 0)
            return -1;
    }
    for (int64_t i = 0; i < s->count; i++) {
        if (s->chosen[i] % b->options.group->size != b->options.group->rank)
            continue;
        const char *record = blocks_record(&layer->blocks, s->chosen[i]);
        const size_t at = (size_t)s->one_count++ * block;
        for (int head = 0; head < b->options.kv_heads; head++) {
            char *keys = s->one + (size_t)head * run, *values = keys + (size_t)b->options.kv_heads * run;
            memcpy(keys + at, record + blocks_keys_at(shape, head), block);
            memcpy(values + at, record + blocks_values_at(shape, head), block);
        }
    }
    return 0;
}
