#include "model/forward_attention.h"

#include <stdlib.h>

#include "model/forward_state.h"

/* ---- sizes ---- */

/* Most tokens of one rank in a segment of n tokens: an even share of 2R blocks, and each of the four borders of its
 * two blocks moved by half a grain at most. */
static int64_t block_bound(int64_t n, int ranks)
{
    return ranks == 1 ? n : i64_min(n, 2 * i64_ceil_div(n, 2 * (int64_t)ranks) + 2 * ZIGZAG_GRAIN);
}

/* Most tokens of any rank's memory: what whole segments give it, one broken off anywhere, and what is dealt. */
static int64_t shard_bound(const struct forward_options *options)
{
    const int ranks = options->group->size;
    if (ranks == 1)
        return options->max_tokens;
    int64_t most = 0;
    for (int rank = 0; rank < ranks; rank++) {
        int64_t tokens = 0;
        for (int64_t first = 0; first + options->segment <= options->max_tokens; first += options->segment) {
            const struct zigzag z = zigzag_block(first, first + options->segment, rank, ranks);
            tokens += z.end[0] - z.first[0] + z.end[1] - z.first[1];
        }
        most = i64_max(most, tokens);
    }
    return i64_min(options->max_tokens, most + block_bound(options->segment, ranks) + 1);
}

int64_t forward_attention_block(const struct forward_options *options)
{
    return block_bound(i64_min(options->segment, options->max_tokens), options->group->size);
}

static bool is_full(const struct forward_options *options, int layer)
{
    return !options->policies || options->policies[layer].kind == POLICY_FULL;
}

/* Of bounded memory and of decode, which are the host's. */
static const struct attn_kernel *host_kernel(const struct forward_options *options)
{
    return options->device->host_visible ? options->kernel : options->host_kernel;
}

static int count_full(const struct forward_options *options)
{
    int n = 0;
    for (int layer = 0; layer < options->model->shape.layers; layer++)
        n += is_full(options, layer);
    return n;
}

static struct memory_shape memory_shape(const struct forward_options *options)
{
    const struct model_shape *shape = &options->model->shape;
    return (struct memory_shape){
        .layers = count_full(options),
        .kv_heads = shape->kv_heads,
        .dim = shape->dim,
        .dtype = options->kernel->dtype,
        .capacity = shard_bound(options),
        .on_host = options->keys_on_host,
    };
}

static struct ring_options ring_options(const struct forward_options *options, struct transport *transport)
{
    const struct model_shape *shape = &options->model->shape;
    return (struct ring_options){
        .group = options->group,
        .pool = options->pool,
        .device = options->device,
        .kernel = options->kernel,
        .transport = transport,
        .heads = shape->heads,
        .kv_heads = shape->kv_heads,
        .dim = shape->dim,
        .max_block = forward_attention_block(options),
        .max_shard = shard_bound(options),
        .poll = options->poll,
        .poll_context = options->poll_context,
    };
}

/* Without the specs, offsets and the decoder, which count nothing. */
static struct bounded_options bounded_options(const struct forward_options *options,
                                              const struct policy_spec *specs)
{
    const struct model_shape *shape = &options->model->shape;
    return (struct bounded_options){
        .group = options->group,
        .pool = options->pool,
        .device = device_cpu(),
        .kernel = host_kernel(options),
        .specs = specs,
        .layers = shape->layers - count_full(options),
        .heads = shape->heads,
        .kv_heads = shape->kv_heads,
        .dim = shape->dim,
        .max_tokens = options->max_tokens,
        .max_segment = i64_min(options->segment, options->max_tokens),
        .max_generated = options->max_generated,
        .poll = options->poll,
        .poll_context = options->poll_context,
    };
}

/* The policies of the bounded layers, to be freed; none keeps more than there can be tokens. NULL: out of memory.
 */
static struct policy_spec *bounded_specs(const struct forward_options *options, struct error *err)
{
    const int layers = options->model->shape.layers;
    struct policy_spec *specs = calloc((size_t)layers, sizeof *specs);
    if (!specs) {
        error_set(err, ERROR_RESOURCE, "no memory for the policies of %d layers", layers);
        return NULL;
    }
    for (int layer = 0, n = 0; layer < layers; layer++)
        if (!is_full(options, layer))
            specs[n++] = options->policies[layer];
    for (int i = 0; i < layers; i++) {
        specs[i].slots = i64_min(specs[i].slots, options->max_tokens);
        specs[i].window = i64_min(specs[i].window, options->max_tokens);
    }
    return specs;
}

static int64_t most_decoded_keys(const struct forward_options *options, const struct policy_spec *specs, int n)
{
    int64_t most = count_full(options) > 0 && options->device->host_visible ? shard_bound(options) : 0;
    for (int i = 0; i < n; i++)
        most = i64_max(most, policy_near_reach(&specs[i]) + options->segment + options->max_generated +
                                 policy_kept(&specs[i]));
    return most;
}

static struct decoder_options decoder_options(const struct forward_options *options,
                                              const struct policy_spec *specs)
{
    const struct model_shape *shape = &options->model->shape;
    return (struct decoder_options){
        .group = options->group,
        .pool = options->pool,
        .device = device_cpu(),
        .dtype = host_kernel(options)->dtype,
        .heads = shape->heads,
        .kv_heads = shape->kv_heads,
        .dim = shape->dim,
        .max_keys = most_decoded_keys(options, specs, shape->layers - count_full(options)),
        .poll = options->poll,
        .poll_context = options->poll_context,
    };
}

int forward_attention_bytes(const struct forward_options *options, struct forward_memory *out, struct error *err)
{
    size_t of_ring = 0, of_bounded = 0, of_decoder = 0;
    struct memory_sizes of_memory = {0};
    struct policy_spec *specs = bounded_specs(options, err);
    if (!specs)
        return -1;
    const struct memory_shape memory = memory_shape(options);
    const struct ring_options ring = ring_options(options, NULL);
    const struct bounded_options bounded = bounded_options(options, specs);
    const struct decoder_options decoder = decoder_options(options, specs);
    int status = decoder_bytes(&decoder, &of_decoder, err);
    if (status == 0 && memory.layers > 0)
        status = memory_bytes(&memory, &of_memory, err) | ring_bytes(&ring, &of_ring, err);
    if (status == 0 && bounded.layers > 0)
        status = bounded_bytes(&bounded, &of_bounded, err);
    free(specs);
    size_t staged = 0;
    if (status == 0 && memory.layers > 0 && options->group->size > 1 && !options->device->host_visible)
        status = ring_hop_bytes(&ring, &staged, err);
    const size_t device_keys = memory.on_host ? 0 : of_memory.keys;
    *out = (struct forward_memory){
        .host = of_bounded + of_decoder + 2 * staged + of_memory.keys - device_keys,
        .device = device_keys + of_memory.positions + of_ring,
        .device_keys = device_keys,
        .token_keys = of_memory.token,
    };
    return status;
}

/* ---- life ---- */

/* The places of all layers among their kind, and their key biases in the same order. */
static int sort_layers(struct forward_attention *a, struct error *err)
{
    const struct model *model = a->options->model;
    const int layers = model->shape.layers;
    a->full_layers = count_full(a->options);
    a->bounded_layers = layers - a->full_layers;
    a->places = calloc((size_t)layers, sizeof *a->places);
    a->bounded_specs = bounded_specs(a->options, err);
    a->convolutions = calloc((size_t)layers, sizeof *a->convolutions);
    if (model->layers[0].key_bias)
        a->key_offsets = calloc((size_t)layers, sizeof *a->key_offsets);
    if (!a->places || !a->bounded_specs || !a->convolutions || (model->layers[0].key_bias && !a->key_offsets))
        return error_set(err, ERROR_RESOURCE, "no memory for the order of %d layers", layers);
    for (int layer = 0, full = 0, bounded = 0; layer < layers; layer++) {
        if (!is_full(a->options, layer))
            a->convolutions[bounded] = &model->layers[layer].convolutions;
        a->places[layer] = is_full(a->options, layer) ? full++ : bounded++;
        if (a->key_offsets)
            a->key_offsets[a->places[layer] + (is_full(a->options, layer) ? 0 : a->full_layers)] =
                model->layers[layer].key_bias;
    }
    return 0;
}

/* Of the ring, in a group of more than one. */
static int create_transport(struct forward_attention *a, struct error *err)
{
    const struct ring_options ring = ring_options(a->options, NULL);
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

static int create_full(struct forward_attention *a, struct error *err)
{
    struct memory_shape shape = memory_shape(a->options);
    shape.key_offsets = a->key_offsets;
    if (a->options->group->size > 1 && create_transport(a, err) != 0)
        return -1;
    const struct ring_options ring = ring_options(a->options, a->transport);
    if (!a->options->device->host_visible && create_one(a, err) != 0)
        return -1;
    return (a->ring = ring_create(&ring, err)) && (a->memory = memory_create(&shape, a->options->device, err)) ? 0
                                                                                                               : -1;
}

/* Positions that the layers ask for, those of one rope and of the other alike. */
static int64_t most_positions(const struct forward_attention *a)
{
    int64_t most = a->options->max_tokens;
    for (int i = 0; i < a->bounded_layers; i++)
        most = i64_max(most, policy_positions(&a->bounded_specs[i], a->options->max_tokens));
    return most;
}

static int create_ropes(struct forward_attention *a, struct error *err)
{
    const struct model *model = a->options->model;
    struct rope_options rope = model_rope_options(model, most_positions(a));
    if (a->options->positions)
        rope.method = *a->options->positions;
    if (!(a->rope = rope_create(&rope, err)))
        return -1;
    if (model->shape.local_rope_base == 0)
        return 0;
    const struct rope_options local = model_local_rope_options(model, most_positions(a));
    return (a->local_rope = rope_create(&local, err)) ? 0 : -1;
}

/* What needs no other rank. */
static int create_alone(struct forward_attention *a, struct error *err)
{
    if (sort_layers(a, err) != 0 || create_ropes(a, err) != 0)
        return -1;
    const struct decoder_options decoder = decoder_options(a->options, a->bounded_specs);
    return (a->decoder = decoder_create(&decoder, err)) ? 0 : -1;
}

int forward_attention_create(struct forward_attention *a, const struct forward_options *options, struct error *err)
{
    *a = (struct forward_attention){.options = options};
    /* Ranks make the transport together, so all of them get there or none does. */
    if (comm_agree(options->group, create_alone(a, err), err) != 0 ||
        (a->full_layers > 0 && create_full(a, err) != 0))
        return -1;
    struct bounded_options bounded = bounded_options(options, a->bounded_specs);
    bounded.decoder = a->decoder;
    bounded.convolutions = a->convolutions;
    bounded.key_offsets = a->key_offsets ? a->key_offsets + a->full_layers : NULL;
    return a->bounded_layers == 0 || (a->bounded = bounded_create(&bounded, err)) ? 0 : -1;
}

void forward_attention_free(struct forward_attention *a)
{
    bounded_free(a->bounded);
    memory_free(a->memory);
    ring_free(a->ring);
    decoder_free(a->decoder);
    if (a->transport)
        a->transport->free(a->transport);
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
    a->prefilled = 0;
    if (a->memory)
        memory_reset(a->memory);
    if (a->bounded)
        bounded_reset(a->bounded);
}

bool forward_attention_is_bounded(const struct forward_attention *a, int layer)
{
    return !is_full(a->options, layer);
}

size_t forward_attention_resident(const struct forward_attention *a)
{
    size_t bytes = a->bounded ? bounded_resident(a->bounded) : 0;
    if (a->memory) {
        const struct memory_shape *s = &a->memory->shape;
        bytes += 2 * (size_t)a->memory->length * (size_t)(s->layers * s->kv_heads * s->dim) * dtype_size(s->dtype);
    }
    return bytes;
}

int64_t forward_attention_forgotten(const struct forward_attention *a)
{
    return a->full_layers > 0 ? 0 : bounded_forgotten(a->bounded);
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

int forward_attention_begin(struct forward_attention *a, struct stretch segment, const int64_t *positions,
                            int64_t rows, struct error *err)
{
    a->positions = positions;
    a->rows = rows;
    a->prefilled = segment.end;
    set_length(a, segment);
    if (a->memory) {
        a->begun = a->memory->length;
        if (memory_extend(a->memory, positions, rows, err) != 0)
            return -1;
    }
    return a->bounded ? bounded_begin(a->bounded, segment.first, segment.end, err) : 0;
}

void forward_attention_put(struct forward_attention *a, int layer, int64_t row, const float *k, const float *v)
{
    const int place = a->places[layer];
    if (is_full(a->options, layer))
        memory_put(a->memory, place, a->begun + row, k, v);
    else
        bounded_put(a->bounded, place, a->positions[row], k, v);
}

struct forward_attention_place forward_attention_place(const struct forward_attention *a, int layer, int64_t row)
{
    const struct memory *memory = a->memory;
    return (struct forward_attention_place){
        .keys = (void *)memory_keys(memory, a->places[layer], 0),
        .values = (void *)memory_values(memory, a->places[layer], 0),
        .capacity = memory->shape.capacity,
        .first = a->begun + row,
    };
}

int forward_attention_attend(struct forward_attention *a, int layer, const float *q, void *out, struct error *err)
{
    const int64_t stride = forward_q_width(&a->options->model->shape);
    if (is_full(a->options, layer)) {
        const struct ring_queries queries = {.q = q,
                                             .stride = stride,
                                             .tokens = a->rows,
                                             .scale = scale_of(a),
                                             .rope = rope_of(a, layer),
                                             .out = out};
        return ring_attend(a->ring, a->memory, a->places[layer], &queries, err);
    }
    const struct bounded_queries queries = {
        .q = q, .stride = stride, .scale = scale_of(a), .rope = rope_of(a, layer), .out = out};
    return bounded_attend(a->bounded, a->places[layer], &queries, err);
}

/* ---- one token ---- */

int forward_attention_begin_one(struct forward_attention *a, int64_t position, bool owned, struct error *err)
{
    set_length(a, (struct stretch){a->prefilled, position + 1});
    if (a->memory && owned && memory_extend(a->memory, &position, 1, err) != 0)
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
static int attend_one_on_device(struct forward_attention *a, int place, const struct forward_one *one,
                                const struct decoder_query *query, struct error *err)
{
    const struct model_shape *shape = &a->options->model->shape;
    const float *k = one->qkv + forward_q_width(shape), *v = k + (int64_t)shape->kv_heads * shape->dim;
    const struct ring_one own = {.q = query->q,
                                 .k = one->owned ? k : NULL,
                                 .v = one->owned ? v : NULL,
                                 .position = one->position,
                                 .scale = query->scale,
                                 .rope = query->rope,
                                 .o = query->out,
                                 .lse = a->one_lse};
    if (ring_attend_one(a->ring, a->memory, place, &own, err) != 0)
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
    if (!is_full(a->options, layer)) {
        bounded_put(a->bounded, place, one->position, k, v);
        return bounded_attend_one(a->bounded, place, &query, err);
    }
    if (!a->options->device->host_visible)
        return attend_one_on_device(a, place, one, &query, err);
    if (one->owned)
        memory_put(a->memory, place, a->memory->length - 1, k, v);
    const struct decoder_part part = shard_part(a->memory, place, one->position);
    return decoder_attend(a->decoder, &query, &part, 1, err);
}
