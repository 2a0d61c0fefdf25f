/* What the attention of a forward pass is made of: which layers are of which kind, and how large all of it is. */
#include <stdlib.h>

#include "model/forward_attention_parts.h"
#include "model/forward_state.h"

/* Most tokens of one rank in a segment of n tokens: an even share of 2R blocks, and each of the four borders of its
 * two blocks moved by half a grain at most. */
static int64_t block_bound(int64_t n, int ranks)
{
    return ranks == 1 ? n : i64_min(n, 2 * i64_ceil_div(n, 2 * (int64_t)ranks) + 2 * ZIGZAG_GRAIN);
}

/* Most tokens of any rank's memory, wherever prefill ends: what whole segments give it, one broken off, and what is
 * dealt behind that. */
static int64_t shard_bound(const struct forward_options *options)
{
    const int ranks = options->group->size;
    int64_t most = 0;
    if (ranks == 1)
        return options->max_tokens;
    for (int rank = 0; rank < ranks; rank++) {
        int64_t tokens = 0;
        for (int64_t first = 0; first <= options->max_tokens; first += options->segment) {
            const int64_t rest = options->max_tokens - first, dealt = i64_min(rest, options->max_generated);
            const struct zigzag z = zigzag_block(first, first + options->segment, rank, ranks);
            most = i64_max(most, tokens + block_bound(i64_min(rest, options->segment), ranks) +
                                     i64_ceil_div(dealt, ranks));
            tokens += z.end[0] - z.first[0] + z.end[1] - z.first[1];
        }
    }
    return i64_min(options->max_tokens, most);
}

int64_t forward_attention_block(const struct forward_options *options)
{
    return block_bound(i64_min(options->segment, options->max_tokens), options->group->size);
}

enum attention_kind forward_attention_kind(const struct forward_options *options, int layer)
{
    const enum policy_kind policy = options->policies ? options->policies[layer].kind : POLICY_FULL;
    if (policy == POLICY_FULL)
        return ATTENTION_FULL;
    return policy_goes_round(policy) && !options->device->host_visible ? ATTENTION_WINDOW : ATTENTION_BOUNDED;
}

bool forward_attention_is_bounded(const struct forward_options *options, int layer)
{
    return forward_attention_kind(options, layer) == ATTENTION_BOUNDED;
}

/* Of bounded memory and of decode, which are the host's. */
static const struct attn_kernel *host_kernel(const struct forward_options *options)
{
    return options->device->host_visible ? options->kernel : options->host_kernel;
}

int forward_attention_count(const struct forward_options *options, enum attention_kind kind)
{
    int n = 0;
    for (int layer = 0; layer < options->model->shape.layers; layer++)
        n += forward_attention_kind(options, layer) == kind;
    return n;
}

/* Most tokens of a rank's memory of windows: from twice the widest on, what leaves can make way for what stays. All
 * of a window may lie on one rank. */
static int64_t window_bound(const struct forward_options *options)
{
    int64_t widest = 0;
    for (int layer = 0; layer < options->model->shape.layers; layer++)
        if (forward_attention_kind(options, layer) == ATTENTION_WINDOW)
            widest = i64_max(widest, i64_min(options->policies[layer].window, options->max_tokens));
    return i64_min(shard_bound(options), 2 * widest + forward_attention_block(options) + 1);
}

struct memory_shape forward_attention_memory_shape(const struct forward_options *options, enum attention_kind kind)
{
    const struct model_shape *shape = &options->model->shape;
    return (struct memory_shape){
        .layers = forward_attention_count(options, kind),
        .kv_heads = shape->kv_heads,
        .dim = shape->dim,
        .dtype = options->kernel->dtype,
        .capacity = kind == ATTENTION_FULL ? shard_bound(options) : window_bound(options),
        .on_host = options->keys_on_host,
    };
}

struct ring_options forward_attention_ring_options(const struct forward_options *options,
                                                   struct transport *transport)
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
        .max_shard =
            forward_attention_count(options, ATTENTION_FULL) > 0 ? shard_bound(options) : window_bound(options),
        .poll = options->poll,
        .poll_context = options->poll_context,
    };
}

struct bounded_options forward_attention_bounded_options(const struct forward_options *options,
                                                         const struct policy_spec *specs)
{
    const struct model_shape *shape = &options->model->shape;
    return (struct bounded_options){
        .group = options->group,
        .pool = options->pool,
        .device = device_cpu(),
        .kernel = host_kernel(options),
        .specs = specs,
        .layers = forward_attention_count(options, ATTENTION_BOUNDED),
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

/* That a policy can choose among; INT64_MAX where it chooses nothing. */
static int64_t most_blocks(const struct forward_options *options, const struct policy_spec *spec)
{
    const int64_t block = policy_block_tokens(spec);
    return block > 0 ? i64_max(1, i64_ceil_div(options->max_tokens, block)) : INT64_MAX;
}

struct policy_spec *forward_attention_bounded_specs(const struct forward_options *options, struct error *err)
{
    const int layers = options->model->shape.layers;
    struct policy_spec *specs = calloc((size_t)layers, sizeof *specs);
    if (!specs) {
        error_set(err, ERROR_RESOURCE, "no memory for the policies of %d layers", layers);
        return NULL;
    }
    for (int layer = 0, n = 0; layer < layers; layer++)
        if (forward_attention_kind(options, layer) == ATTENTION_BOUNDED)
            specs[n++] = options->policies[layer];
    /* The token behind the longest text is one more to look back from: what it has lost counts as forgotten. */
    for (int i = 0; i < layers; i++) {
        specs[i].slots = i64_min(specs[i].slots, options->max_tokens);
        specs[i].window = i64_min(specs[i].window, options->max_tokens + 1);
        specs[i].top = i64_min(specs[i].top, most_blocks(options, &specs[i]));
    }
    return specs;
}

static int64_t most_decoded_keys(const struct forward_options *options, const struct policy_spec *specs, int n)
{
    int64_t most = options->device->host_visible && forward_attention_count(options, ATTENTION_FULL) > 0
                       ? shard_bound(options)
                       : 0;
    for (int i = 0; i < n; i++)
        most = i64_max(most, policy_near_reach(&specs[i]) + options->segment + options->max_generated +
                                 policy_kept(&specs[i]));
    return most;
}

struct decoder_options forward_attention_decoder_options(const struct forward_options *options,
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
        .max_keys = most_decoded_keys(options, specs, forward_attention_count(options, ATTENTION_BOUNDED)),
        .poll = options->poll,
        .poll_context = options->poll_context,
    };
}

/* Of the ring and the memories that it goes over. */
static int ring_memory_bytes(const struct forward_options *options, struct forward_memory *out, struct error *err)
{
    const struct memory_shape full = forward_attention_memory_shape(options, ATTENTION_FULL),
                              window = forward_attention_memory_shape(options, ATTENTION_WINDOW);
    const struct ring_options ring = forward_attention_ring_options(options, NULL);
    struct memory_sizes of_full = {0}, of_window = {0};
    size_t of_ring = 0, staged = 0;
    *out = (struct forward_memory){0};
    if (full.layers + window.layers == 0)
        return 0;
    int status = memory_bytes(&full, &of_full, err) | memory_bytes(&window, &of_window, err) |
                 ring_bytes(&ring, &of_ring, err);
    if (status == 0 && options->group->size > 1 && !options->device->host_visible)
        status = ring_hop_bytes(&ring, &staged, err);
    const size_t positions =
        (full.layers > 0 ? of_full.positions : 0) + (window.layers > 0 ? of_window.positions : 0);
    const size_t keys = of_full.keys + of_window.keys;
    out->device_keys = options->keys_on_host ? 0 : keys;
    out->host = 2 * staged + keys - out->device_keys;
    out->device = out->device_keys + positions + of_ring;
    out->token_keys = of_full.token;
    return status;
}

int64_t forward_attention_positions(const struct forward_options *options, const struct policy_spec *bounded,
                                    int layers)
{
    int64_t most = options->max_tokens;
    for (int i = 0; i < layers; i++)
        most = i64_max(most, policy_positions(&bounded[i], options->max_tokens));
    return most;
}

static size_t ropes_bytes(const struct forward_options *options, const struct policy_spec *bounded, int layers)
{
    const struct model *model = options->model;
    const int64_t positions = forward_attention_positions(options, bounded, layers);
    const struct rope_options rope = model_rope_options(model, positions),
                              local = model_local_rope_options(model, positions);
    return rope_bytes(&rope) + (model->shape.local_rope_base == 0 ? 0 : rope_bytes(&local));
}

int forward_attention_bytes(const struct forward_options *options, struct forward_memory *out, struct error *err)
{
    size_t of_bounded = 0, of_decoder = 0;
    struct policy_spec *specs = forward_attention_bounded_specs(options, err);
    if (!specs)
        return -1;
    const struct bounded_options bounded = forward_attention_bounded_options(options, specs);
    const struct decoder_options decoder = forward_attention_decoder_options(options, specs);
    int status = decoder_bytes(&decoder, &of_decoder, err);
    if (status == 0 && bounded.layers > 0)
        status = bounded_bytes(&bounded, &of_bounded, err);
    const size_t of_ropes = ropes_bytes(options, specs, bounded.layers);
    free(specs);
    if (status != 0 || ring_memory_bytes(options, out, err) != 0)
        return -1;
    out->host += of_bounded + of_decoder + of_ropes;
    if (!options->device->host_visible && out->device > 0)
        out->device += of_ropes; /* the ring's copies of their tables */
    return 0;
}
