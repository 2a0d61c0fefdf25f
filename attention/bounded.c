#include "attention/bounded_parts.h"

#include <stdlib.h>
#include <string.h>

#include "attention/ring.h"

/* ---- sizes ---------------------------------------------------------------------------------------------- */

static struct near_shape near_shape(const struct bounded_options *o, const struct policy_spec *spec)
{
    return (struct near_shape){o->kv_heads, o->dim, o->kernel->dtype, bounded_near_capacity(o, spec)};
}

static struct slots_shape slots_shape(const struct bounded_options *o, const struct policy_spec *spec)
{
    return (struct slots_shape){o->kv_heads, o->dim, o->kernel->dtype, spec->slots};
}

static size_t sink_bytes(const struct bounded_options *o, const struct policy_spec *spec)
{
    return 2 * (size_t)o->kv_heads * (size_t)spec->sinks * bounded_row_bytes(o);
}

/* The largest of all layers, in tokens and bytes. */
struct largest {
    int64_t near, kept, slots, chosen;
    size_t stage;
};

static struct largest find_largest(const struct bounded_options *o)
{
    struct largest most = {0};
    for (int i = 0; i < o->layers; i++) {
        const struct policy_spec *spec = &o->specs[i];
        const struct near_shape near = near_shape(o, spec);
        const struct slots_shape slots = slots_shape(o, spec);
        const size_t stages[] = {near_exchange_bytes(&near, o->max_segment),
                                 slots_stage_bytes(&slots, o->group->size)};
        if (policy_past(spec) != PAST_LANDMARKS) /* whose keys are not packed */
            most.near = i64_max(most.near, near.capacity);
        most.kept = i64_max(most.kept, spec->sinks + spec->slots);
        if (policy_past(spec) == PAST_FAR)
            most.chosen = i64_max(most.chosen, spec->top * FAR_BLOCK);
        most.slots = i64_max(most.slots, spec->slots);
        for (int s = 0; s < 2 && o->group->size > 1; s++)
            most.stage = stages[s] > most.stage ? stages[s] : most.stage;
    }
    return most;
}

/* What the layers share. */
static size_t shared_bytes(const struct bounded_options *o)
{
    const struct largest most = find_largest(o);
    const int64_t tiles = i64_ceil_div(most.near, ATTN_KEY_TILE) + i64_ceil_div(most.kept, ATTN_KEY_TILE);
    const size_t rows = ATTN_QUERY_ROWS * ((size_t)o->dim * (sizeof(float) + dtype_size(o->kernel->dtype)));
    return (size_t)tiles * (size_t)o->kv_heads * o->kernel->tile_bytes(o->dim) +
           2 * (size_t)o->kv_heads * (size_t)most.kept * bounded_row_bytes(o) + most.stage +
           (size_t)pool_threads(o->pool) * (rows + o->kernel->scratch_bytes(o->dim)) +
           (size_t)o->kv_heads * (size_t)most.slots * sizeof(struct slot_recipe);
}

int bounded_bytes(const struct bounded_options *options, size_t *out, struct error *err)
{
    if (attn_check_heads(options->heads, options->kv_heads, options->dim, err) < 0)
        return -1;
    size_t total = shared_bytes(options);
    for (int i = 0; i < options->layers; i++) {
        const struct policy_spec *spec = &options->specs[i];
        const struct near_shape near = near_shape(options, spec);
        const struct slots_shape slots = slots_shape(options, spec);
        size_t of_near, of_slots;
        if (!near_bytes(&near, &of_near) || !slots_bytes(&slots, options->group->size, &of_slots) ||
            !size_add(total, of_near, &total) || !size_add(total, of_slots, &total) ||
            !size_add(total, sink_bytes(options, spec), &total))
            return error_set(err, ERROR_RESOURCE, "a memory this large has more bytes than can be counted");
    }
    size_t far;
    if (bounded_far_bytes(options, &far, err) != 0)
        return -1;
    *out = total + far + bounded_groups_bytes(options) + bounded_observe_bytes(options) +
           bounded_nearest_bytes(options) + bounded_blocks_bytes(options) + bounded_landmark_bytes(options);
    return 0;
}

/* ---- life ----------------------------------------------------------------------------------------------- */

static int create_layer(struct bounded *b, int index, struct error *err)
{
    const struct bounded_options *o = &b->options;
    struct bounded_layer *layer = &b->layers[index];
    layer->spec = o->specs[index];
    layer->key_offset = o->key_offsets ? o->key_offsets[index] : NULL;
    layer->convolutions = o->convolutions ? o->convolutions[index] : NULL;
    const struct near_shape near = near_shape(o, &layer->spec);
    const struct slots_shape slots = slots_shape(o, &layer->spec);
    if (near_create(&layer->near, &near, o->device, err) != 0 ||
        slots_create(&layer->slots, &slots, o->group, o->device, err) != 0)
        return -1;
    if (layer->spec.sinks == 0)
        return 0;
    const size_t bytes = sink_bytes(o, &layer->spec);
    if (!(layer->sink_keys = o->device->alloc(bytes, "the first tokens of a layer", err)))
        return -1;
    layer->sink_values = layer->sink_keys + bytes / 2;
    return 0;
}

static int create_scratch(struct bounded *b, struct error *err)
{
    const struct bounded_options *o = &b->options;
    const size_t rows = ATTN_QUERY_ROWS, dim = (size_t)o->dim;
    if (!(b->scratch = calloc((size_t)pool_threads(o->pool), sizeof *b->scratch)))
        return error_set(err, ERROR_RESOURCE, "no memory for %d threads", pool_threads(o->pool));
    for (int i = 0; i < pool_threads(o->pool); i++) {
        struct bounded_scratch *s = &b->scratch[i];
        if (!(s->o = o->device->alloc(rows * (dim + 2) * sizeof *s->o, "a thread's sums", err)) ||
            !(s->q = o->device->alloc(rows * bounded_row_bytes(o), "a thread's queries", err)) ||
            !(s->kernel = o->device->alloc(o->kernel->scratch_bytes(o->dim), "a thread's scores", err)))
            return -1;
        s->m = s->o + rows * dim;
        s->l = s->m + rows;
    }
    return 0;
}

static int create_shared(struct bounded *b, struct error *err)
{
    const struct bounded_options *o = &b->options;
    const struct largest most = find_largest(o);
    const size_t kept = (size_t)o->kv_heads * (size_t)most.kept * bounded_row_bytes(o);
    const size_t tile = (size_t)o->kv_heads * o->kernel->tile_bytes(o->dim);
    b->most_kept = most.kept;
    const int64_t near_tiles = i64_ceil_div(most.near, ATTN_KEY_TILE);
    b->packed_near = o->device->alloc((size_t)near_tiles * tile, "packed recent keys", err);
    if (!b->packed_near || create_scratch(b, err) != 0)
        return -1;
    if (most.stage > 0 && !(b->stage = o->device->alloc(most.stage, "exchanges between ranks", err)))
        return -1;
    if (most.kept > 0) {
        b->packed_kept =
            o->device->alloc((size_t)i64_ceil_div(most.kept, ATTN_KEY_TILE) * tile, "packed slots", err);
        b->kept_keys = o->device->alloc(2 * kept, "sinks and slots", err);
        if (!b->packed_kept || !b->kept_keys)
            return -1;
        b->kept_values = b->kept_keys + kept;
    }
    b->shares = calloc((size_t)o->group->size, sizeof *b->shares);
    b->recipes = calloc((size_t)o->kv_heads * (size_t)most.slots + 1, sizeof *b->recipes);
    b->chosen_positions = calloc((size_t)most.chosen + 1, sizeof *b->chosen_positions);
    return b->shares && b->recipes && b->chosen_positions
               ? 0
               : error_set(err, ERROR_RESOURCE, "no memory for the tables of %d layers", o->layers);
}

struct bounded *bounded_create(const struct bounded_options *options, struct error *err)
{
    if (attn_check_heads(options->heads, options->kv_heads, options->dim, err) < 0)
        return NULL;
    struct bounded *b = calloc(1, sizeof *b);
    if (!b || !(b->layers = calloc((size_t)options->layers, sizeof *b->layers))) {
        free(b);
        error_set(err, ERROR_RESOURCE, "no memory for the description of %d layers", options->layers);
        return NULL;
    }
    b->options = *options;
    b->heads_per_kv = options->heads / options->kv_heads;
    int status = create_shared(b, err);
    for (int i = 0; i < options->layers && status == 0; i++)
        status = create_layer(b, i, err);
    if (status == 0)
        status = bounded_groups_create(b, err);
    if (status == 0)
        status = bounded_far_create(b, err);
    if (status == 0)
        status = bounded_observe_create(b, err);
    if (status == 0)
        status = bounded_nearest_create(b, err);
    if (status == 0)
        status = bounded_blocks_create(b, err);
    if (status == 0)
        status = bounded_landmark_create(b, err);
    if (status == 0)
        return b;
    bounded_free(b);
    return NULL;
}

void bounded_free(struct bounded *b)
{
    if (!b)
        return;
    const struct device *device = b->options.device;
    bounded_groups_free(b);
    bounded_far_free(b);
    bounded_observe_free(b);
    bounded_nearest_free(b);
    bounded_blocks_free(b);
    bounded_landmark_free(b);
    for (int i = 0; i < b->options.layers; i++) {
        near_free(&b->layers[i].near);
        slots_free(&b->layers[i].slots);
        device->free(b->layers[i].sink_keys);
    }
    for (int i = 0; b->scratch && i < pool_threads(b->options.pool); i++) {
        device->free(b->scratch[i].o);
        device->free(b->scratch[i].q);
        device->free(b->scratch[i].kernel);
    }
    device->free(b->packed_near);
    device->free(b->packed_kept);
    device->free(b->kept_keys);
    device->free(b->stage);
    free(b->scratch);
    free(b->shares);
    free(b->recipes);
    free(b->chosen_positions);
    free(b->layers);
    free(b);
}

void bounded_reset(struct bounded *b)
{
    b->first = b->end = 0;
    for (int i = 0; i < b->options.layers; i++) {
        near_reset(&b->layers[i].near);
        slots_reset(&b->layers[i].slots);
        far_reset(&b->layers[i].far);
        if (policy_past(&b->layers[i].spec) == PAST_BLOCKS)
            blocks_reset(&b->layers[i].blocks);
        b->layers[i].sinks = 0;
        b->layers[i].one_position = -1;
        if (b->layers[i].received)
            bounded_observe_reset(&b->layers[i]);
    }
}

size_t bounded_resident(const struct bounded *b)
{
    size_t rows = 0, far = 0;
    for (int i = 0; i < b->options.layers; i++) {
        const struct bounded_layer *layer = &b->layers[i];
        far += policy_past(&layer->spec) == PAST_FAR ? far_resident(&layer->far) : 0;
        far += policy_past(&layer->spec) == PAST_BLOCKS ? blocks_resident(&layer->blocks) : 0;
        rows += (size_t)(layer->near.length + layer->sinks + slots_own(&layer->slots));
    }
    return far + 2 * rows * (size_t)b->options.kv_heads * bounded_row_bytes(&b->options);
}

/* Past tokens that a layer can still reach, beside the sinks: what a far memory or blocks have room for, what slots
 * hold now. */
static int64_t tokens_kept(const struct bounded_layer *layer)
{
    const struct policy_spec *spec = &layer->spec;
    if (policy_past(spec) == PAST_FAR)
        return layer->far.shape.capacity * FAR_BLOCK;
    if (policy_past(spec) == PAST_BLOCKS)
        return layer->blocks.shape.capacity * BLOCK_TOKENS;
    return layer->slots.count * (spec->rate > 0 && spec->pool != POOL_USED ? spec->rate : 1);
}

int64_t bounded_forgotten(const struct bounded *b)
{
    int64_t fewest = INT64_MAX;
    for (int i = 0; i < b->options.layers; i++) {
        const struct bounded_layer *layer = &b->layers[i];
        const int64_t next = layer->near.first + layer->near.length;
        const int64_t left = policy_near_first(&layer->spec, next, b->end) - layer->spec.sinks;
        fewest = i64_min(fewest, i64_max(0, left - tokens_kept(layer)));
    }
    return fewest;
}

/* ---- a segment's rows ----------------------------------------------------------------------------------- */

int bounded_begin(struct bounded *b, int64_t first, int64_t end, struct error *err)
{
    b->first = first;
    b->end = end;
    for (int i = 0; i < b->options.layers; i++)
        if (near_extend(&b->layers[i].near, end - first, err) != 0)
            return -1;
    bounded_groups_find(b);
    return 0;
}

void bounded_put(struct bounded *b, int layer, int64_t position, const float *k, const float *v)
{
    near_put(&b->layers[layer].near, position, k, v);
}

/* Append a stretch to rising, disjoint ones, where it is not empty; it begins no earlier than the last of them. */
static void append_stretch(struct stretch *all, int *n, struct stretch next)
{
    if (*n > 0)
        next.first = i64_max(next.first, all[*n - 1].end);
    if (next.first < next.end)
        all[(*n)++] = next;
}

/* What rank `rank` has of the segment, and what it needs: where slots are filled from it, all; else the first
 * tokens, the window before each of its two blocks, and the window that the next segment looks back on. */
static struct near_share share_of(const struct bounded *b, const struct bounded_layer *layer, int rank)
{
    const struct policy_spec *spec = &layer->spec;
    const struct zigzag block = zigzag_block(b->first, b->end, rank, b->options.group->size);
    struct near_share share = {0};
    int n = 0;
    for (int part = 0; part < 2; part++)
        share.owned[part] = (struct stretch){block.first[part], block.end[part]};
    if (spec->slots > 0 || policy_past(spec) != PAST_SLOTS) {
        share.needed[0] = (struct stretch){b->first, b->end};
        return share;
    }
    append_stretch(share.needed, &n, (struct stretch){b->first, i64_min(b->end, spec->sinks)});
    for (int part = 0; part < 2; part++)
        if (block.first[part] < block.end[part])
            append_stretch(share.needed, &n,
                           (struct stretch){i64_max(b->first, policy_near_first(spec, block.first[part], b->first)),
                                            block.end[part]});
    append_stretch(share.needed, &n,
                   (struct stretch){i64_max(b->first, policy_near_first(spec, b->end, b->end)), b->end});
    return share;
}

void bounded_take_sinks(struct bounded *b, struct bounded_layer *layer, int64_t end)
{
    const size_t row = bounded_row_bytes(&b->options);
    end = i64_min(layer->spec.sinks, end);
    for (int head = 0; head < b->options.kv_heads && layer->sinks < end; head++) {
        const size_t at = (size_t)((int64_t)head * layer->spec.sinks + layer->sinks) * row;
        const size_t bytes = (size_t)(end - layer->sinks) * row;
        memcpy(layer->sink_keys + at, near_keys(&layer->near, head, layer->sinks), bytes);
        memcpy(layer->sink_values + at, near_values(&layer->near, head, layer->sinks), bytes);
    }
    layer->sinks = i64_max(layer->sinks, end);
}

int bounded_gather_kept(struct bounded *b, struct bounded_layer *layer, struct error *err)
{
    const size_t row = bounded_row_bytes(&b->options), head_bytes = (size_t)b->most_kept * row;
    const size_t sinks = (size_t)layer->sinks * row;
    for (int head = 0; head < b->options.kv_heads; head++) {
        const size_t at = (size_t)head * head_bytes;
        bounded_copy_sinks(b, layer, head, layer->sinks,
                           &(struct bounded_raw){.keys = b->kept_keys + at, .values = b->kept_values + at});
    }
    b->kept = layer->sinks + layer->slots.count;
    const struct rows_view behind = {b->kept_keys + sinks, b->kept_values + sinks, head_bytes};
    return slots_gather(&layer->slots, b->options.group, &behind, b->stage, err);
}

/* ---- the end of a segment ------------------------------------------------------------------------------- */

/* What leaves the near part becomes slots, as the policy has it. */
static int fill_slots(struct bounded *b, struct bounded_layer *layer, int64_t leave, struct error *err)
{
    const struct policy *policy = policy_of(layer->spec.kind);
    const size_t row = bounded_row_bytes(&b->options), sinks = (size_t)layer->sinks * row;
    const int64_t first = i64_max(layer->near.first, layer->sinks);
    if (!policy->keep || leave <= first)
        return 0;
    const struct slots_source source = {
        .old = {b->kept_keys + sinks, b->kept_values + sinks, (size_t)b->most_kept * row},
        .leaving = {near_keys(&layer->near, 0, first), near_values(&layer->near, 0, first),
                    (size_t)layer->near.shape.capacity * row},
        .convolutions = layer->convolutions,
        .key_offset = layer->key_offset,
    };
    struct keep keep = {
        .spec = &layer->spec,
        .kv_heads = b->options.kv_heads,
        .slots = layer->slots.count,
        .leaving = leave - first,
        .recipes = b->recipes,
    };
    if (layer->received && bounded_observe_score(b, layer, first, &keep, err) != 0)
        return -1;
    if (policy->keep(&keep, err) != 0)
        return -1;
    slots_apply(&layer->slots, &keep, &source);
    if (layer->received)
        bounded_observe_kept(layer, first, &keep);
    return 0;
}

/* The kept rows of a layer for the segment in hand: all of them, or each group's choice. */
static int find_kept(struct bounded *b, struct bounded_layer *layer, const struct bounded_queries *queries,
                     struct error *err)
{
    switch (policy_past(&layer->spec)) {
    case PAST_FAR:
        return bounded_far_choose(b, layer, queries, err);
    case PAST_BLOCKS:
        return bounded_blocks_choose(b, layer, queries, err);
    default:
        return bounded_gather_kept(b, layer, err);
    }
}

int bounded_attend(struct bounded *b, int index, const struct bounded_queries *queries, struct error *err)
{
    struct bounded_layer *layer = &b->layers[index];
    for (int rank = 0; rank < b->options.group->size; rank++)
        b->shares[rank] = share_of(b, layer, rank);
    if (near_exchange(&layer->near, b->options.group, b->shares, b->stage, err) != 0)
        return -1;
    bounded_take_sinks(b, layer, b->end);
    if (layer->received)
        bounded_observe_begin(layer);
    if (find_kept(b, layer, queries, err) != 0)
        return -1;
    if (policy_past(&layer->spec) == PAST_LANDMARKS)
        bounded_landmark_attend(b, layer, queries);
    else
        bounded_attend_block(b, layer, queries);
    const int64_t leave = policy_near_first(&layer->spec, b->end, b->end);
    if (policy_past(&layer->spec) == PAST_BLOCKS ? bounded_blocks_keep(b, layer, leave, err) != 0
                                                 : fill_slots(b, layer, leave, err) != 0)
        return -1;
    if (layer->received)
        bounded_observe_drop(layer, leave);
    near_drop(&layer->near, leave);
    return 0;
}
