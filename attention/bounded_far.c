#include "attention/bounded_parts.h"

#include <stdlib.h>
#include <string.h>

enum { CHOICE_TOKENS = 16 }; /* in decode a choice serves so many tokens */

/* ---- sizes and life ------------------------------------------------------------------------------------- */

static struct far_shape far_shape(const struct bounded_options *o, const struct policy_spec *spec)
{
    const int64_t all = i64_ceil_div(o->max_tokens, FAR_BLOCK);
    const int64_t seen = spec->far > 0 ? i64_min(all, i64_ceil_div(spec->far, FAR_BLOCK)) : all;
    const int64_t of_segment = i64_round_up(o->max_segment, POLICY_GROUP) / FAR_BLOCK;
    return (struct far_shape){o->kv_heads, o->dim, spec->sinks, seen, i64_min(of_segment, all - seen)};
}

/* Of all layers that retrieve. */
struct largest {
    int64_t layers, top, blocks;
};

static struct largest find_largest(const struct bounded_options *o)
{
    struct largest most = {0};
    for (int i = 0; i < o->layers; i++) {
        if (policy_past(&o->specs[i]) != PAST_FAR)
            continue;
        most.layers++;
        most.top = i64_max(most.top, o->specs[i].top);
        most.blocks = i64_max(most.blocks, far_shape(o, &o->specs[i]).capacity);
    }
    return most;
}

static struct retrieve_options retrieve_options(const struct bounded_options *o)
{
    return (struct retrieve_options){
        .group = o->group,
        .pool = o->pool,
        .device = o->device,
        .heads = o->heads,
        .kv_heads = o->kv_heads,
        .dim = o->dim,
        .max_groups = bounded_groups_most(o),
        .max_count = POLICY_GROUP,
        .max_blocks = find_largest(o).blocks,
        .poll = o->poll,
        .poll_context = o->poll_context,
    };
}

/* Of all that so many groups can choose. */
static size_t records_bytes(const struct bounded_options *o, int64_t groups)
{
    return (size_t)(groups * o->kv_heads * find_largest(o).top) * far_record_bytes(o->dim);
}

/* On their way are those that others want, and those that this rank does. */
static size_t stage_bytes(const struct bounded_options *o)
{
    return 2 * records_bytes(o, bounded_groups_most(o));
}

/* Rows of a kv head that a rank attends to in decode, at most. */
static int64_t one_held(const struct bounded_options *o, const struct policy_spec *spec)
{
    return i64_ceil_div(spec->top, o->group->size) * FAR_BLOCK;
}

int bounded_far_bytes(const struct bounded_options *o, size_t *out, struct error *err)
{
    *out = 0;
    if (find_largest(o).layers == 0)
        return 0;
    const struct retrieve_options options = retrieve_options(o);
    if (retrieve_bytes(&options, out, err) != 0)
        return -1;
    *out += stage_bytes(o) + records_bytes(o, bounded_groups_most_own(o));
    for (int i = 0; i < o->layers; i++) {
        const struct far_shape shape = far_shape(o, &o->specs[i]);
        size_t bytes;
        if (policy_past(&o->specs[i]) != PAST_FAR)
            continue;
        if (!far_bytes(&shape, o->group->size, &bytes) || !size_add(*out, bytes, out))
            return error_set(err, ERROR_RESOURCE, "a far memory this large has more bytes than can be counted");
        *out += 2 * (size_t)(o->kv_heads * one_held(o, &o->specs[i])) * bounded_row_bytes(o);
    }
    return 0;
}

static int create_layer(struct bounded *b, struct bounded_layer *layer, struct error *err)
{
    const struct bounded_options *o = &b->options;
    const struct far_shape shape = far_shape(o, &layer->spec);
    layer->one_held = one_held(o, &layer->spec);
    layer->one_position = -1;
    const size_t bytes = 2 * (size_t)(o->kv_heads * layer->one_held) * bounded_row_bytes(o);
    if (far_create(&layer->far, &shape, o->group, o->device, err) != 0 ||
        !(layer->one_keys = o->device->alloc(bytes, "the chosen blocks of a layer", err)))
        return -1;
    layer->one_values = layer->one_keys + bytes / 2;
    return 0;
}

int bounded_far_create(struct bounded *b, struct error *err)
{
    const struct bounded_options *o = &b->options;
    const struct largest most = find_largest(o);
    const struct retrieve_options options = retrieve_options(o);
    const size_t groups = (size_t)bounded_groups_most(o), wants = groups * (size_t)(o->kv_heads * most.top);
    struct bounded_far *far = &b->far;
    if (most.layers == 0)
        return 0;
    far->groups = calloc(groups, sizeof *far->groups);
    far->counts = calloc(groups, sizeof *far->counts);
    far->chosen = calloc(wants, sizeof *far->chosen);
    far->wants = calloc(wants, sizeof *far->wants);
    if (!far->groups || !far->counts || !far->chosen || !far->wants)
        return error_set(err, ERROR_RESOURCE, "no memory for the choices of %lld groups", (long long)groups);
    if (!(far->retrieve = retrieve_create(&options, err)) ||
        !(far->records =
              o->device->alloc(records_bytes(o, bounded_groups_most_own(o)), "chosen far blocks", err)) ||
        !(far->stage = o->device->alloc(stage_bytes(o), "far blocks on their way", err)))
        return -1;
    for (int i = 0; i < o->layers; i++)
        if (policy_past(&b->layers[i].spec) == PAST_FAR && create_layer(b, &b->layers[i], err) != 0)
            return -1;
    return 0;
}

void bounded_far_free(struct bounded *b)
{
    const struct device *device = b->options.device;
    struct bounded_far *far = &b->far;
    for (int i = 0; i < b->options.layers; i++) {
        far_free(&b->layers[i].far);
        device->free(b->layers[i].one_keys);
    }
    retrieve_free(far->retrieve);
    device->free(far->records);
    device->free(far->stage);
    free(far->groups);
    free(far->counts);
    free(far->chosen);
    free(far->wants);
}

/* ---- the groups of a segment ---------------------------------------------------------------------------- */

/* Blocks before the near part of the query at `position`. */
static int64_t blocks_before(const struct bounded *b, const struct bounded_layer *layer, int64_t position)
{
    const int64_t tokens = policy_near_first(&layer->spec, position, b->first) - layer->spec.sinks;
    return i64_max(0, tokens) / FAR_BLOCK;
}

/* The segment's groups as the search wants them: rows of queries, and the blocks before them. */
static void describe_groups(struct bounded *b, const struct bounded_layer *layer)
{
    for (int64_t g = 0; g < b->groups.n; g++) {
        const struct bounded_group *group = &b->groups.items[g];
        const int64_t before = blocks_before(b, layer, group->first);
        b->far.groups[g] = (struct retrieve_group){
            .rank = group->rank,
            .row = group->row,
            .count = group->end - group->first,
            .first = far_first_seen(&layer->far, before),
            .end = before,
        };
    }
}

/* ---- choosing ------------------------------------------------------------------------------------------- */

static int64_t *chosen_by(const struct bounded *b, const struct bounded_layer *layer, int64_t group, int kv_head)
{
    return b->far.chosen + (group * b->options.kv_heads + kv_head) * layer->spec.top;
}

/* Every rank wants what its groups chose. */
static int fetch(struct bounded *b, const struct bounded_layer *layer, struct error *err)
{
    struct bounded_far *far = &b->far;
    int64_t n = 0;
    for (int64_t g = 0; g < b->groups.n; g++)
        for (int head = 0; head < b->options.kv_heads; head++)
            for (int64_t i = 0; i < far->counts[g]; i++)
                far->wants[n++] = (struct far_want){far->groups[g].rank, head, chosen_by(b, layer, g, head)[i]};
    return far_fetch(&layer->far, b->options.group, &(struct far_wants){far->wants, n, far->stage, far->records},
                     err);
}

/* The record that own group `own` fetched first for a kv head. */
static const char *fetched(const struct bounded *b, int64_t own, int kv_head)
{
    const struct bounded_far *far = &b->far;
    int64_t before = 0;
    for (int64_t g = 0; g < own; g++)
        before += far->counts[b->groups.own_first + g] * b->options.kv_heads;
    before += kv_head * far->counts[b->groups.own_first + own];
    return far->records + (size_t)before * far_record_bytes(b->options.dim);
}

/* Sinks and chosen blocks of a group in one kv head, in a thread's memory. */
static struct bounded_raw unpack(const struct bounded_packing *p, int64_t own, int kv_head, int thread)
{
    const struct bounded *b = p->bounded;
    const struct bounded_options *o = &b->options;
    const int64_t count = b->far.counts[b->groups.own_first + own];
    char *keys = b->groups.raw[thread];
    const struct bounded_raw raw = {keys, keys + b->groups.raw_bytes / 2, p->layer->sinks + count * FAR_BLOCK, 1};
    const char *record = fetched(b, own, kv_head);
    size_t at = bounded_copy_sinks(b, p->layer, kv_head, p->layer->sinks, &raw);
    for (int64_t i = 0; i < count; i++, record += far_record_bytes(o->dim), at += FAR_BLOCK * bounded_row_bytes(o))
        far_record_read(record, o->kernel->dtype, o->dim, raw.keys + at, raw.values + at);
    return raw;
}

/* Item: the run of one of this rank's groups in one kv head. */
static void pack_item(void *context, int64_t item, int thread)
{
    const struct bounded_packing *p = context;
    const int head = (int)(item % p->bounded->options.kv_heads);
    const int64_t own = item / p->bounded->options.kv_heads;
    const struct bounded_raw raw = unpack(p, own, head, thread);
    bounded_pack(p, &raw, head, bounded_groups_run(p->bounded, own, head));
}

int bounded_far_choose(struct bounded *b, struct bounded_layer *layer, const struct bounded_queries *queries,
                       struct error *err)
{
    struct bounded_far *far = &b->far;
    far_append(&layer->far, &layer->near, policy_near_first(&layer->spec, b->end, b->end), b->options.pool);
    describe_groups(b, layer);
    layer->one_position = -1;
    const struct retrieve_call call = {
        .far = &layer->far,
        .groups = far->groups,
        .n_groups = b->groups.n,
        .q = queries->q,
        .stride = queries->stride,
        .scale = queries->scale,
        .top = layer->spec.top,
    };
    if (retrieve_choose(far->retrieve, &call, far->chosen, far->counts, err) != 0 || fetch(b, layer, err) != 0)
        return -1;
    far_settle(&layer->far);
    struct bounded_packing packing = {b, layer, queries->rope};
    const struct pool_job job = {b->groups.own * b->options.kv_heads, pack_item, &packing, b->options.poll,
                                 b->options.poll_context};
    if (job.n_items > 0)
        pool_run(b->options.pool, &job);
    return 0;
}

const void *bounded_far_run(const struct bounded *b, int kv_head, int64_t first, int64_t *rows)
{
    const int64_t own = bounded_groups_own(b, first);
    *rows = b->far.counts[b->groups.own_first + own] * FAR_BLOCK;
    return bounded_groups_run(b, own, kv_head);
}

/* ---- one token ------------------------------------------------------------------------------------------ */

/* The blocks of a choice are shared out over the ranks, alike in every kv head. */
static int fetch_one(struct bounded *b, struct bounded_layer *layer, struct error *err)
{
    const struct bounded_options *o = &b->options;
    struct bounded_far *far = &b->far;
    int64_t n = 0, own = 0;
    for (int head = 0; head < o->kv_heads; head++)
        for (int64_t i = 0; i < far->counts[0]; i++)
            far->wants[n++] = (struct far_want){(int)(i % o->group->size), head, chosen_by(b, layer, 0, head)[i]};
    if (far_fetch(&layer->far, o->group, &(struct far_wants){far->wants, n, far->stage, far->records}, err) != 0)
        return -1;
    const char *record = far->records;
    layer->one_chosen = far->counts[0];
    for (int head = 0; head < o->kv_heads; head++) {
        own = head * layer->one_held;
        for (int64_t i = o->group->rank; i < far->counts[0]; i += o->group->size, own += FAR_BLOCK) {
            const size_t to = (size_t)own * bounded_row_bytes(o);
            far_record_read(record, o->kernel->dtype, o->dim, layer->one_keys + to, layer->one_values + to);
            record += far_record_bytes(o->dim);
        }
    }
    return 0;
}

int bounded_far_choose_one(struct bounded *b, struct bounded_layer *layer, const struct decoder_query *query,
                           int64_t position, struct error *err)
{
    const int64_t before = blocks_before(b, layer, position);
    if (layer->one_position >= 0 && position / CHOICE_TOKENS == layer->one_position / CHOICE_TOKENS)
        return 0;
    layer->one_position = position;
    far_append(&layer->far, &layer->near, policy_near_first(&layer->spec, position, b->end), b->options.pool);
    far_settle(&layer->far);
    const struct retrieve_group group = {
        .rank = RETRIEVE_EVERY, .count = 1, .first = far_first_seen(&layer->far, before), .end = before};
    const struct retrieve_call call = {
        .far = &layer->far,
        .groups = &group,
        .n_groups = 1,
        .q = query->q,
        .scale = query->scale,
        .top = layer->spec.top,
    };
    return retrieve_choose(b->far.retrieve, &call, b->far.chosen, b->far.counts, err) != 0
               ? -1
               : fetch_one(b, layer, err);
}
