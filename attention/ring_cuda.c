/* A ring's arithmetic on a GPU: kernels of rotate_cuda.h, attend_cuda.h and attend_one_cuda.h in one stream, waited
 * for at the end of each function; the hop in flight is pushed on meanwhile.
 *
 * A message's packed part holds the keys of all kv heads, then their values: [kv_heads][tiles * ATTN_KEY_TILE][dim]
 * bf16 each, as many bytes as tile_bytes says. A block lies as ring_block.h has it.
 */
#include <stdlib.h>

#include "attention/attend_cuda.h"
#include "attention/attend_one_cuda.h"
#include "attention/layout.h"
#include "attention/ring_parts.h"
#include "attention/rotate_cuda.h"
#include "attention/span.h"
#include "base/gpu.h"

/* The ropes of a model's layers: global and local ones. */
enum { MOST_ROPES = 2 };

/* Where the parts of the ring's scratch begin, which is the device's memory. */
struct gpu_plan {
    size_t spans;       /* [max_block] */
    size_t offset;      /* [kv_heads][dim] */
    size_t slow_cosine; /* [dim] */
    size_t parts;       /* attend_one_cuda_parts() numbers */
    size_t total;
};

struct gpu_ring {
    const struct attend_cuda_kernel *kernel;
    struct device_stream *stream;
    struct device_event *over;
    struct gpu_plan plan;
    struct attend_span *host_spans; /* [max_block] */
    const struct rope *ropes[MOST_ROPES];
    struct rope_cuda copies[MOST_ROPES];
    int n_ropes;
};

static struct gpu_ring *gpu_of(const struct ring *ring)
{
    return ring->own;
}

static cudaStream_t stream_of(const struct ring *ring)
{
    return (cudaStream_t)gpu_of(ring)->stream;
}

/* ---- the packed format ---------------------------------------------------------------------------------- */

static bool always(void)
{
    return true;
}

static size_t tile_bytes(int dim)
{
    return 2 * (size_t)ATTN_KEY_TILE * (size_t)dim * sizeof(bf16);
}

const struct attn_kernel *attn_kernel_cuda(void)
{
    static const struct attn_kernel packed = {
        .name = "cuda", .dtype = DTYPE_BF16, .supported = always, .tile_bytes = tile_bytes};
    return &packed;
}

const char *attn_kernel_cuda_name(int dim)
{
    struct error none;
    const struct attend_cuda_kernel *kernel = attend_cuda_choose(dim, &none);
    return kernel ? kernel->name : "none";
}

static int64_t key_rows(const struct ring_message *message)
{
    return message->tiles * ATTN_KEY_TILE;
}

static void *values_of(const struct ring *ring, const struct ring_message *message)
{
    return message->packed + (size_t)ring->options.kv_heads * (size_t)message->tiles * message->tile_bytes / 2;
}

/* ---- life ----------------------------------------------------------------------------------------------- */

static bool plan_make(const struct ring_options *o, struct gpu_plan *plan)
{
    const size_t row = (size_t)o->dim * sizeof(float);
    size_t total = 0;
    const bool fits = layout_reserve(&total, (size_t)o->max_block, sizeof(struct attend_span), &plan->spans) &&
                      layout_reserve(&total, (size_t)o->kv_heads, row, &plan->offset) &&
                      layout_reserve(&total, 1, row, &plan->slow_cosine) &&
                      layout_reserve(&total, attend_one_cuda_parts(o->heads, o->dim), sizeof(float), &plan->parts);
    plan->total = total;
    return fits;
}

static bool gpu_scratch_bytes(const struct ring_options *options, size_t *out)
{
    struct gpu_plan plan;
    const bool fits = plan_make(options, &plan);
    *out = plan.total;
    return fits;
}

static void *scratch_at(const struct ring *ring, size_t at)
{
    return ring->memory + ring->plan.scratch + at;
}

static int gpu_create(struct ring *ring, struct error *err)
{
    const struct ring_options *o = &ring->options;
    struct gpu_ring *gpu = calloc(1, sizeof *gpu);
    if (!gpu)
        return error_set(err, ERROR_RESOURCE, "no memory for the ring of a GPU");
    ring->own = gpu;
    plan_make(o, &gpu->plan);
    gpu->host_spans = o->device->host_alloc((size_t)o->max_block * sizeof *gpu->host_spans, "spans", err);
    return gpu->host_spans && (gpu->kernel = attend_cuda_choose(o->dim, err)) &&
                   o->device->stream_create(&gpu->stream, err) == 0 && o->device->event_create(&gpu->over, err) == 0
               ? 0
               : -1;
}

static void gpu_free(struct ring *ring)
{
    struct gpu_ring *gpu = ring->own;
    const struct device *device = ring->options.device;
    if (!gpu)
        return;
    for (int i = 0; i < gpu->n_ropes; i++)
        rope_cuda_free(&gpu->copies[i]);
    device->event_free(gpu->over);
    device->stream_free(gpu->stream);
    device->host_free(gpu->host_spans);
    free(gpu);
}

/* ---- moving and waiting --------------------------------------------------------------------------------- */

/* Until all that is queued is done. */
static int settle(struct ring *ring, struct error *err)
{
    const struct device *device = ring->options.device;
    struct gpu_ring *gpu = gpu_of(ring);
    bool over = false;
    if (device->event_record(gpu->over, gpu->stream, err) < 0)
        return -1;
    while (!over) {
        if (device->event_query(gpu->over, &over, err) < 0)
            return -1;
        ring_poll(ring);
    }
    return 0;
}

static int upload(struct ring *ring, void *to, const void *from, size_t bytes, struct error *err)
{
    return ring->options.device->copy(to, from, bytes, DEVICE_FROM_HOST, gpu_of(ring)->stream, err);
}

/* The GPU's copy of a rope, as it is now. */
static const struct rope_cuda *rope_of(struct ring *ring, const struct rope *rope, struct error *err)
{
    struct gpu_ring *gpu = gpu_of(ring);
    for (int i = 0; i < gpu->n_ropes; i++)
        if (gpu->ropes[i] == rope)
            return rope_cuda_update(&gpu->copies[i], rope, stream_of(ring), err) == 0 ? &gpu->copies[i] : NULL;
    if (gpu->n_ropes == MOST_ROPES) {
        error_set(err, ERROR_INTERNAL, "a ring on a GPU with more than %d ropes", MOST_ROPES);
        return NULL;
    }
    struct rope_cuda *copy = &gpu->copies[gpu->n_ropes];
    if (rope_cuda_create(copy, rope, ring->options.device, err) < 0)
        return NULL;
    gpu->ropes[gpu->n_ropes++] = rope;
    return copy;
}

/* ---- the arithmetic ------------------------------------------------------------------------------------- */

static int gpu_begin(struct ring *ring, const struct ring_block *block, const struct ring_queries *queries,
                     const int64_t *positions, struct error *err)
{
    const struct ring_options *o = &ring->options;
    const struct rotate_cuda_queries call = {
        .heads = o->heads,
        .kv_heads = o->kv_heads,
        .dim = o->dim,
        .tokens = block->tokens,
        .q = queries->q,
        .stride = queries->stride,
        .positions = block->positions,
        .scale = queries->scale,
        .out = block->q,
        .o = block->state.o,
        .m = block->state.m,
        .l = block->state.l,
    };
    const struct rope_cuda *rope = rope_of(ring, queries->rope, err);
    return rope && upload(ring, block->positions, positions, (size_t)block->tokens * sizeof *positions, err) == 0 &&
                   rotate_cuda_queries(rope, &call, stream_of(ring), err) == 0
               ? settle(ring, err)
               : -1;
}

/* What all keys of a layer have in common, to the device; NULL stays NULL. */
static int upload_offset(struct ring *ring, const struct ring_message_source *source, const float **offset,
                         struct error *err)
{
    const struct ring_options *o = &ring->options;
    const struct gpu_plan *plan = &gpu_of(ring)->plan;
    const float *on_host = memory_key_offset(source->memory, source->layer, 0);
    const size_t row = (size_t)o->dim * sizeof(float);
    *offset = on_host ? scratch_at(ring, plan->offset) : NULL;
    if (!on_host)
        return 0;
    if (upload(ring, scratch_at(ring, plan->offset), on_host, (size_t)o->kv_heads * row, err) != 0)
        return -1;
    return upload(ring, scratch_at(ring, plan->slow_cosine), source->slow_cosine, row, err);
}

static int gpu_pack(struct ring *ring, const struct ring_message *message, const struct ring_message_source *source,
                    struct error *err)
{
    const struct ring_options *o = &ring->options;
    const struct memory *memory = source->memory;
    const float *offset;
    if (upload_offset(ring, source, &offset, err) < 0 ||
        o->device->copy(message->positions, memory->device_positions + source->first,
                        (size_t)message->tokens * sizeof *message->positions, DEVICE_WITHIN, gpu_of(ring)->stream,
                        err) < 0)
        return -1;
    const struct rotate_cuda_keys call = {
        .kv_heads = o->kv_heads,
        .dim = o->dim,
        .capacity = memory->shape.capacity,
        .first = source->first,
        .n = message->tokens,
        .keys = memory_keys(memory, source->layer, 0),
        .values = memory_values(memory, source->layer, 0),
        .positions = message->positions,
        .offset = offset,
        .slow_cosine = scratch_at(ring, gpu_of(ring)->plan.slow_cosine),
        .key_rows = key_rows(message),
        .k = message->packed,
        .v = values_of(ring, message),
    };
    const struct rope_cuda *rope = rope_of(ring, source->rope, err);
    return rope && rotate_cuda_keys(rope, &call, stream_of(ring), err) == 0 ? settle(ring, err) : -1;
}

/* Queries times keys that they see: of the spans, which are brought to the host. */
static double count_pairs(const struct ring *ring, int64_t tokens)
{
    int64_t pairs = 0;
    for (int64_t t = 0; t < tokens; t++)
        pairs += gpu_of(ring)->host_spans[t].end - gpu_of(ring)->host_spans[t].first;
    return (double)pairs;
}

static int gpu_attend(struct ring *ring, const struct ring_block *block, const struct ring_message *message,
                      double *pairs, struct error *err)
{
    const struct ring_options *o = &ring->options;
    struct gpu_ring *gpu = gpu_of(ring);
    struct attend_span *const seen = scratch_at(ring, gpu->plan.spans);
    const struct rotate_cuda_spans spans = {block->positions,   block->tokens,   ring->window,
                                            message->positions, message->tokens, seen};
    const struct attend_cuda call = {
        .kv_heads = o->kv_heads,
        .group = o->heads / o->kv_heads,
        .dim = o->dim,
        .tokens = block->tokens,
        .key_rows = key_rows(message),
        .q = block->q,
        .k = message->packed,
        .v = values_of(ring, message),
        .spans = seen,
        .o = block->state.o,
        .m = block->state.m,
        .l = block->state.l,
    };
    if (rotate_cuda_spans(&spans, stream_of(ring), err) < 0 ||
        o->device->copy(gpu->host_spans, seen, (size_t)block->tokens * sizeof *seen, DEVICE_TO_HOST, gpu->stream,
                        err) < 0 ||
        gpu->kernel->attend(&call, stream_of(ring), err) < 0 || settle(ring, err) < 0)
        return -1;
    *pairs = count_pairs(ring, block->tokens);
    return 0;
}

static int gpu_finish(struct ring *ring, const struct ring_block *block, void *out, struct error *err)
{
    const struct ring_options *o = &ring->options;
    const struct rotate_cuda_finish call = {
        .heads = o->heads,
        .kv_heads = o->kv_heads,
        .dim = o->dim,
        .tokens = block->tokens,
        .o = block->state.o,
        .l = block->state.l,
        .out = out,
    };
    return rotate_cuda_finish(&call, stream_of(ring), err) == 0 ? settle(ring, err) : -1;
}

/* ---- one token ------------------------------------------------------------------------------------------ */

/* Its own key and value to the end of the memory. */
static int put_one(struct ring *ring, const struct ring_message_source *source, const struct ring_one *one,
                   struct error *err)
{
    const struct ring_options *o = &ring->options;
    const struct memory *memory = source->memory;
    const struct memory_cuda_put call = {
        .kv_heads = o->kv_heads,
        .dim = o->dim,
        .rows = 1,
        .k = one->k,
        .v = one->v,
        .stride = (int64_t)o->kv_heads * o->dim,
        .capacity = memory->shape.capacity,
        .first = memory->length - 1,
        .keys = (void *)memory_keys(memory, source->layer, 0),
        .values = (void *)memory_values(memory, source->layer, 0),
    };
    return one->k ? memory_cuda_put(&call, stream_of(ring), err) : 0;
}

/* The index of the first key in the token's window. */
static int64_t first_seen(const struct memory *memory, const struct ring_one *one)
{
    return one->window > 0 ? causal_span(one->position - one->window, memory->positions, memory->length).end : 0;
}

static int gpu_attend_one(struct ring *ring, const struct ring_message_source *source, const struct ring_one *one,
                          struct error *err)
{
    const struct ring_options *o = &ring->options;
    const struct gpu_plan *plan = &gpu_of(ring)->plan;
    const struct memory *memory = source->memory;
    const int64_t first = first_seen(memory, one), before = first * o->dim;
    const struct rope_cuda *rope = rope_of(ring, source->rope, err);
    struct attend_one_cuda call = {
        .heads = o->heads,
        .kv_heads = o->kv_heads,
        .dim = o->dim,
        .q = one->q,
        .position = one->position,
        .scale = one->scale,
        .n = memory->length - first,
        .capacity = memory->shape.capacity,
        .keys = (const bf16 *)memory_keys(memory, source->layer, 0) + before,
        .values = (const bf16 *)memory_values(memory, source->layer, 0) + before,
        .positions = memory->device_positions + first,
        .slow_cosine = scratch_at(ring, plan->slow_cosine),
        .parts = scratch_at(ring, plan->parts),
        .out = one->o,
        .lse = one->lse,
    };
    return rope && put_one(ring, source, one, err) == 0 && upload_offset(ring, source, &call.offset, err) == 0 &&
                   attend_one_cuda(rope, &call, stream_of(ring), err) == 0
               ? settle(ring, err)
               : -1;
}

const struct ring_arithmetic *ring_on_cuda(void)
{
    static const struct ring_arithmetic on_cuda = {
        .scratch_bytes = gpu_scratch_bytes,
        .create = gpu_create,
        .free = gpu_free,
        .pack = gpu_pack,
        .begin = gpu_begin,
        .attend = gpu_attend,
        .finish = gpu_finish,
        .attend_one = gpu_attend_one,
    };
    return &on_cuda;
}
