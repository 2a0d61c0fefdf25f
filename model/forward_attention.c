#include <stdlib.h>

#include "attention/span.h"
#include "model/forward_attention_parts.h"
#include "model/forward_state.h"

/* ---- life ---- */

/* The places of all layers among their kind, and their key biases in the same order. */
static int sort_layers(struct forward_attention *a, struct error *err)
{
    const struct model *model = a->options->model;
    const int layers = model->shape.layers;
    const int kinds[] = {forward_attention_count(a->options, ATTENTION_FULL),
                         forward_attention_count(a->options, ATTENTION_WINDOW)};
    int placed[] = {0, 0, 0},
        begins[] = {0, kinds[ATTENTION_FULL], kinds[ATTENTION_FULL] + kinds[ATTENTION_WINDOW]};
    a->full_layers = kinds[ATTENTION_FULL];
    a->window_layers = kinds[ATTENTION_WINDOW];
    a->bounded_layers = layers - begins[ATTENTION_BOUNDED];
    a->places = calloc((size_t)layers, sizeof *a->places);
    a->bounded_specs = forward_attention_bounded_specs(a->options, err);
    a->convolutions = calloc((size_t)layers, sizeof *a->convolutions);
    if (model->layers[0].key_bias)
        a->key_offsets = calloc((size_t)layers, sizeof *a->key_offsets);
    if (!a->places || !a->bounded_specs || !a->convolutions || (model->layers[0].key_bias && !a->key_offsets))
        return error_set(err, ERROR_RESOURCE, "no memory for the order of %d layers", layers);
    for (int layer = 0; layer < layers; layer++) {
        const enum attention_kind kind = forward_attention_kind(a->options, layer);
        a->places[layer] = placed[kind]++;
        if (kind == ATTENTION_BOUNDED)
            a->convolutions[a->places[layer]] = &model->layers[layer].convolutions;
        if (a->key_offsets)
            a->key_offsets[begins[kind] + a->places[layer]] = model->layers[layer].key_bias;
    }
    return 0;
}

/* Of the ring, in a group of more than one. */
static int create_transport(struct forward_attention *a, struct error *err)
{
    const struct ring_options ring = forward_attention_ring_options(a->options, NULL);
    size_t most;
    if (ring_hop_bytes(&ring, &most, err) != 0)
        return -1;
    return (a->transport = transport_create(a->options->group, a->options->device, most, err)) ? 0 : -1;
}

/* What a device's memory gives one token. */
static int create_one(struct forward_attention *a, struct error *err)
{
    const struct device *device = a->options->device;
    const struct model_shape *shape = &a->options->model->shape;
    const size_t heads = (size_t)shape->heads, row = (size_t)shape->dim * sizeof(float);
    if (!(a->one_lse = device->alloc(heads * sizeof *a->one_lse, "a token's sums", err)))
        return -1;
    if (a->options->group->size == 1)
        return 0;
    a->one_host = device->host_alloc(heads * (row + sizeof(float)), "the attention of one token", err);
    return a->one_host ? 0 : -1;
}

static int create_memory(struct forward_attention *a, enum attention_kind kind, struct memory **out,
                         struct error *err)
{
    struct memory_shape shape = forward_attention_memory_shape(a->options, kind);
    if (shape.layers == 0)
        return 0;
    shape.key_offsets =
        a->key_offsets && kind == ATTENTION_WINDOW ? a->key_offsets + a->full_layers : a->key_offsets;
    return (*out = memory_create(&shape, a->options->device, err)) ? 0 : -1;
}

static int create_ring(struct forward_attention *a, struct error *err)
{
    if (a->options->group->size > 1 && create_transport(a, err) != 0)
        return -1;
    const struct ring_options ring = forward_attention_ring_options(a->options, a->transport);
    if (!a->options->device->host_visible && create_one(a, err) != 0)
        return -1;
    return (a->ring = ring_create(&ring, err)) && create_memory(a, ATTENTION_FULL, &a->memory, err) == 0 &&
                   create_memory(a, ATTENTION_WINDOW, &a->windows, err) == 0
               ? 0
               : -1;
}

static int create_ropes(struct forward_attention *a, struct error *err)
{
    const struct model *model = a->options->model;
    const int64_t positions = forward_attention_positions(a->options, a->bounded_specs, a->bounded_layers);
    struct rope_options rope = model_rope_options(model, positions);
    if (a->options->positions)
        rope.method = *a->options->positions;
    if (!(a->rope = rope_create(&rope, err)))
        return -1;
    if (model->shape.local_rope_base == 0)
        return 0;
    const struct rope_options local = model_local_rope_options(model, positions);
    return (a->local_rope = rope_create(&local, err)) ? 0 : -1;
}

/* What needs no other rank. */
static int create_alone(struct forward_attention *a, struct error *err)
{
    if (sort_layers(a, err) != 0 || create_ropes(a, err) != 0)
        return -1;
    const struct decoder_options decoder = forward_attention_decoder_options(a->options, a->bounded_specs);
    return (a->decoder = decoder_create(&decoder, err)) ? 0 : -1;
}

int forward_attention_create(struct forward_attention *a, const struct forward_options *options, struct error *err)
{
    *a = (struct forward_attention){.options = options};
    /* Ranks make the transport together, so all of them get there or none does. */
    if (comm_agree(options->group, create_alone(a, err), err) != 0 ||
        (a->full_layers + a->window_layers > 0 && create_ring(a, err) != 0))
        return -1;
    struct bounded_options bounded = forward_attention_bounded_options(options, a->bounded_specs);
    bounded.decoder = a->decoder;
    bounded.convolutions = a->convolutions;
    bounded.key_offsets = a->key_offsets ? a->key_offsets + a->full_layers + a->window_layers : NULL;
    return a->bounded_layers == 0 || (a->bounded = bounded_create(&bounded, err)) ? 0 : -1;
}

void forward_attention_free(struct forward_attention *a)
{
    if (a->transport) /* first: while a hop waits for a peer that has died, a GPU frees no memory */
        a->transport->free(a->transport);
    bounded_free(a->bounded);
    memory_free(a->memory);
    memory_free(a->windows);
    ring_free(a->ring);
    decoder_free(a->decoder);
    rope_free(a->rope);
    rope_free(a->local_rope);
    a->options->device->free(a->one_lse);
    a->options->device->host_free(a->one_host);
    free(a->places);
    free(a->bounded_specs);
    free(a->convolutions);
    free(a->key_offsets);
    *a = (struct forward_attention){0};
}

void forward_attention_reset(struct forward_attention *a)
{
    a->prefilled = a->length = 0;
    if (a->memory)
        memory_reset(a->memory);
    if (a->windows)
        memory_reset(a->windows);
    if (a->bounded)
        bounded_reset(a->bounded);
}

/* The first token that any window reaches from that position. */
static int64_t windows_first(const struct forward_attention *a, int64_t position)
{
    const struct forward_options *o = a->options;
    int64_t first = INT64_MAX;
    for (int layer = 0; layer < o->model->shape.layers; layer++)
        if (forward_attention_kind(o, layer) == ATTENTION_WINDOW)
            first = i64_min(first, policy_near_first(&o->policies[layer], position, position));
    return first;
}

/* The fewest tokens that the layers of windows cannot reach any more. */
static int64_t windows_forgotten(const struct forward_attention *a)
{
    return windows_first(a, a->length);
}

static size_t memory_resident(const struct memory *memory, int64_t tokens)
{
    const struct memory_shape *s = &memory->shape;
    return 2 * (size_t)tokens * (size_t)(s->layers * s->kv_heads * s->dim) * dtype_size(s->dtype);
}

/* What a window has left behind does not count, though it makes way only when its place is wanted. */
size_t forward_attention_resident(const struct forward_attention *a)
{
    const struct memory *windows = a->windows;
    size_t bytes = a->bounded ? bounded_resident(a->bounded) : 0;
    if (a->memory)
        bytes += memory_resident(a->memory, a->memory->length);
    if (windows)
        bytes += memory_resident(
            windows,
            windows->length - causal_span(windows_forgotten(a) - 1, windows->positions, windows->length).end);
    return bytes;
}

int64_t forward_attention_forgotten(const struct forward_attention *a)
{
    if (a->full_layers > 0)
        return 0;
    const int64_t of_windows = windows_forgotten(a);
    return a->bounded ? i64_min(of_windows, bounded_forgotten(a->bounded)) : of_windows;
}

/* ---- a segment ---- */

static float scale_of(const struct forward_attention *a)
{
    return (float)a->options->model->shape.attention_scale;
}

static const struct rope *rope_of(const struct forward_attention *a, int layer)
{
    return a->local_rope && model_layer_is_local(a->options->model, layer) ? a->local_rope : a->rope;
}

/* Positions that the layers of a rope reach in a segment. */
static int64_t length_reached(const struct forward_attention *a, const struct rope *rope, struct stretch segment)
{
    const struct policy_spec *policies = a->options->policies;
    int64_t most = 0;
    for (int layer = 0; layer < a->options->model->shape.layers; layer++)
        if (rope_of(a, layer) == rope)
            most =
                i64_max(most, policies ? policy_reach(&policies[layer], segment.first, segment.end) : segment.end);
    return most;
}

static void set_length(struct forward_attention *a, struct stretch segment)
{
    rope_set_length(a->rope, length_reached(a, a->rope, segment));
    if (a->local_rope)
        rope_set_length(a->local_rope, length_reached(a, a->local_rope, segment));
}

/* Room for n more tokens of this rank in the windows' memory, the first of all ranks' at `position`: what no window
 * reaches any more makes way. */
static int extend_windows(struct forward_attention *a, int64_t position, const int64_t *positions, int64_t n,
                          struct error *err)
{
    struct memory *windows = a->windows;
    if (!windows)
        return 0;
    if (windows->length + n > windows->shape.capacity) {
        const int64_t gone = causal_span(windows_first(a, position) - 1, windows->positions, windows->length).end;
        if (memory_keep_last(windows, windows->length - gone, err) != 0)
            return -1;
    }
    a->windows_begun = windows->length;
    return memory_extend(windows, positions, n, err);
}

int forward_attention_begin(struct forward_attention *a, struct stretch segment, const int64_t *positions,
                            int64_t rows, struct error *err)
{
    a->positions = positions;
    a->rows = rows;
    a->prefilled = a->length = segment.end;
    set_length(a, segment);
    if (a->memory) {
        a->begun = a->memory->length;
        if (memory_extend(a->memory, positions, rows, err) != 0)
            return -1;
    }
    if (extend_windows(a, segment.first, positions, rows, err) != 0)
        return -1;
    return a->bounded ? bounded_begin(a->bounded, segment.first, segment.end, err) : 0;
}

void forward_attention_put(struct forward_attention *a, int layer, int64_t row, const float *k, const float *v)
{
    const int place = a->places[layer];
    if (forward_attention_kind(a->options, layer) == ATTENTION_FULL)
        memory_put(a->memory, place, a->begun + row, k, v);
    else
        bounded_put(a->bounded, place, a->positions[row], k, v);
}

struct forward_attention_place forward_attention_place(const struct forward_attention *a, int layer, int64_t row)
{
    const bool window = forward_attention_kind(a->options, layer) == ATTENTION_WINDOW;
    const struct memory *memory = window ? a->windows : a->memory;
    return (struct forward_attention_place){
        .keys = (void *)memory_keys(memory, a->places[layer], 0),
        .values = (void *)memory_values(memory, a->places[layer], 0),
        .capacity = memory->shape.capacity,
        .first = (window ? a->windows_begun : a->begun) + row,
    };
}

/* 0: all of the past. */
static int64_t window_of(const struct forward_attention *a, int layer)
{
    return forward_attention_kind(a->options, layer) == ATTENTION_WINDOW ? a->options->policies[layer].window : 0;
}

int forward_attention_attend(struct forward_attention *a, int layer, const float *q, void *out, struct error *err)
{
    const int64_t stride = forward_q_width(&a->options->model->shape);
    const enum attention_kind kind = forward_attention_kind(a->options, layer);
    if (kind != ATTENTION_BOUNDED) {
        const struct ring_queries queries = {.q = q,
                                             .stride = stride,
                                             .tokens = a->rows,
                                             .scale = scale_of(a),
                                             .rope = rope_of(a, layer),
                                             .window = window_of(a, layer),
                                             .out = out};
        return ring_attend(a->ring, kind == ATTENTION_FULL ? a->memory : a->windows, a->places[layer], &queries,
                           err);
    }
    const struct bounded_queries queries = {
        .q = q, .stride = stride, .scale = scale_of(a), .rope = rope_of(a, layer), .out = out};
    return bounded_attend(a->bounded, a->places[layer], &queries, err);
}

/* ---- one token ---- */

int forward_attention_begin_one(struct forward_attention *a, int64_t position, bool owned, struct error *err)
{
    set_length(a, (struct stretch){a->prefilled, position + 1});
    a->length = position + 1;
    if (owned && ((a->memory && memory_extend(a->memory, &position, 1, err) != 0) ||
                  extend_windows(a, position, &position, 1, err) != 0))
        return -1;
    return a->bounded ? bounded_begin_one(a->bounded, err) : 0;
}

/* The whole shard of a full layer, as decode reads it: the one token is behind all others. */
static struct decoder_part shard_part(const struct memory *memory, int layer, int64_t position)
{
    const size_t row = (size_t)memory->shape.dim * dtype_size(memory->shape.dtype);
    return (struct decoder_part){
        .keys = memory_keys(memory, layer, 0),
        .values = memory_values(memory, layer, 0),
        .head_stride_bytes = (size_t)memory->shape.capacity * row,
        .positions = memory->positions,
        .n = memory->length,
        .query_position = position,
        .key_offset = memory_key_offset(memory, layer, 0),
        .weight = 1,
    };
}

/* What ranks have made of their shards, on their devices, is merged by the host. */
static int merge_one(struct forward_attention *a, const struct decoder_query *query, struct error *err)
{
    const struct device *device = a->options->device;
    const size_t heads = (size_t)a->options->model->shape.heads,
                 rows = heads * (size_t)a->options->model->shape.dim;
    float *o = a->one_host, *lse = o + rows;
    const struct decoder_result result = {o, lse};
    struct decoder_query merging = *query;
    merging.beside = &result;
    merging.out = o;
    return device->copy(o, query->out, rows * sizeof *o, DEVICE_TO_HOST, NULL, err) == 0 &&
                   device->copy(lse, a->one_lse, heads * sizeof *lse, DEVICE_TO_HOST, NULL, err) == 0 &&
                   device->stream_wait(NULL, err) == 0 && decoder_attend(a->decoder, &merging, NULL, 0, err) == 0 &&
                   device->copy(query->out, o, rows * sizeof *o, DEVICE_FROM_HOST, NULL, err) == 0
               ? device->stream_wait(NULL, err)
               : -1;
}

/* The shard is the device's. */
static int attend_one_on_device(struct forward_attention *a, int layer, const struct forward_one *one,
                                const struct decoder_query *query, struct error *err)
{
    const struct model_shape *shape = &a->options->model->shape;
    const float *k = one->qkv + forward_q_width(shape), *v = k + (int64_t)shape->kv_heads * shape->dim;
    const struct ring_one own = {.q = query->q,
                                 .k = one->owned ? k : NULL,
                                 .v = one->owned ? v : NULL,
                                 .position = one->position,
                                 .window = window_of(a, layer),
                                 .scale = query->scale,
                                 .rope = query->rope,
                                 .o = query->out,
                                 .lse = a->one_lse};
    const struct memory *memory = own.window > 0 ? a->windows : a->memory;
    if (ring_attend_one(a->ring, memory, a->places[layer], &own, err) != 0)
        return -1;
    return a->options->group->size > 1 ? merge_one(a, query, err) : 0;
}

int forward_attention_attend_one(struct forward_attention *a, int layer, const struct forward_one *one,
                                 struct error *err)
{
    const struct model_shape *shape = &a->options->model->shape;
    const float *k = one->qkv + forward_q_width(shape), *v = k + (int64_t)shape->kv_heads * shape->dim;
    const struct decoder_query query = {
        .q = one->qkv, .scale = scale_of(a), .rope = rope_of(a, layer), .out = one->out};
    const int place = a->places[layer];
    if (forward_attention_kind(a->options, layer) == ATTENTION_BOUNDED) {
        bounded_put(a->bounded, place, one->position, k, v);
        return bounded_attend_one(a->bounded, place, &query, err);
    }
    if (!a->options->device->host_visible)
        return attend_one_on_device(a, layer, one, &query, err);
    if (one->owned)
        memory_put(a->memory, place, a->memory->length - 1, k, v);
    const struct decoder_part part = shard_part(a->memory, place, one->position);
    return decoder_attend(a->decoder, &query, &part, 1, err);
}
