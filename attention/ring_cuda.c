/* A ring's arithmetic on a GPU: kernels of rotate_cuda.h and attend_cuda.h in one stream, waited for at the end of
 * each function; the hop in flight is pushed on meanwhile.
 *
 * A message's packed part holds the keys of all kv heads, then their values: [kv_heads][tiles * ATTN_KEY_TILE][dim]
 * bf16 each, as many bytes as tile_bytes says. A block lies as ring_block.h has it.
 */
#include <stdlib.h>

#include "attention/attend_cuda.h"
#include "attention/ring_parts.h"
#include "attention/rotate_cuda.h"
#include "attention/rows.h"
#include "base/gpu.h"

/* The ropes of a model's layers: global and local ones. */
enum { MOST_ROPES = 2 };

struct gpu_ring {
    const struct attend_cuda_kernel *kernel;
    struct device_stream *stream;
    struct device_event *over;
    struct attend_span *spans;      /* [max_block] on the device: in the ring's scratch, as are the next two */
    float *offset;                  /* [kv_heads][dim] */
    float *still;                   /* [dim] */
    struct attend_span *host_spans; /* [max_block] */
    float *one_q, *one_lse;         /* of one token, on the device: [heads][dim], [heads] */
    void *one_out;                  /* [heads][dim] bf16 */
    void *host_out;                 /* the same, and [heads] f32 behind it, of the host */
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

static int64_t key_rows(const struct ring_message *message)
{
    return message->tiles * ATTN_KEY_TILE;
}

static void *values_of(const struct ring *ring, const struct ring_message *message)
{
    return message->packed + (size_t)ring->options.kv_heads * (size_t)message->tiles * message->tile_bytes / 2;
}

/* ---- life ----------------------------------------------------------------------------------------------- */

static bool gpu_scratch_bytes(const struct ring_options *options, size_t *out)
{
    const size_t heads = (size_t)options->heads;
    const size_t floats = ((size_t)options->kv_heads + 1 + 2 * heads) * (size_t)options->dim + heads;
    return size_mul((size_t)options->max_block, sizeof(struct attend_span), out) &&
           size_add(*out, floats * sizeof(float), out);
}

static int gpu_create(struct ring *ring, struct error *err)
{
    const struct ring_options *o = &ring->options;
    const size_t one = (size_t)o->heads * (size_t)o->dim;
    struct gpu_ring *gpu = calloc(1, sizeof *gpu);
    if (!gpu)
        return error_set(err, ERROR_RESOURCE, "no memory for the ring of a GPU");
    ring->own = gpu;
    gpu->offset = (float *)(ring->memory + ring->plan.scratch);
    gpu->still = gpu->offset + (size_t)o->kv_heads * (size_t)o->dim;
    gpu->one_q = gpu->still + o->dim;
    gpu->one_out = gpu->one_q + one;
    gpu->one_lse = gpu->one_q + 2 * one;
    gpu->spans = (struct attend_span *)(gpu->one_lse + o->heads);
    gpu->host_out = o->device->host_alloc(one * sizeof(bf16) + (size_t)o->heads * sizeof(float), "a token", err);
    gpu->host_spans = o->device->host_alloc((size_t)o->max_block * sizeof *gpu->host_spans, "spans", err);
    return gpu->host_out && gpu->host_spans && (gpu->kernel = attend_cuda_choose(o->dim, err)) &&
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
    device->host_free(gpu->host_out);
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
    struct gpu_ring *gpu = gpu_of(ring);
    const float *on_host = memory_key_offset(source->memory, source->layer, 0);
    const size_t row = (size_t)o->dim * sizeof(float);
    *offset = on_host ? gpu->offset : NULL;
    if (!on_host)
        return 0;
    return upload(ring, gpu->offset, on_host, (size_t)o->kv_heads * row, err) |
           upload(ring, gpu->still, source->still, row, err);
}

static int gpu_pack(struct ring *ring, const struct ring_message *message, const struct ring_message_source *source,
                    struct error *err)
{
    const struct ring_options *o = &ring->options;
    const struct memory *memory = source->memory;
    const float *offset;
    if (upload_offset(ring, source, &offset, err) < 0 ||
        upload(ring, message->positions, memory->positions + source->first,
               (size_t)message->tokens * sizeof *message->positions, err) < 0)
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
        .still = gpu_of(ring)->still,
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
        pairs += gpu_of(ring)->host_spans[t].end;
    return (double)pairs;
}

static int gpu_attend(struct ring *ring, const struct ring_block *block, const struct ring_message *message,
                      double *pairs, struct error *err)
{
    const struct ring_options *o = &ring->options;
    struct gpu_ring *gpu = gpu_of(ring);
    const struct rotate_cuda_spans spans = {block->positions, block->tokens, message->positions, message->tokens,
                                            gpu->spans};
    const struct attend_cuda call = {
        .kv_heads = o->kv_heads,
        .group = o->heads / o->kv_heads,
        .dim = o->dim,
        .tokens = block->tokens,
        .key_rows = key_rows(message),
        .q = block->q,
        .k = message->packed,
        .v = values_of(ring, message),
        .spans = gpu->spans,
        .o = block->state.o,
        .m = block->state.m,
        .l = block->state.l,
    };
    if (rotate_cuda_spans(&spans, stream_of(ring), err) < 0 ||
        o->device->copy(gpu->host_spans, gpu->spans, (size_t)block->tokens * sizeof *gpu->spans, DEVICE_TO_HOST,
                        gpu->stream, err) < 0 ||
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
        .m = block->state.m,
        .l = block->state.l,
        .out = out,
    };
    return rotate_cuda_finish(&call, stream_of(ring), err) == 0 ? settle(ring, err) : -1;
}

static int gpu_begin_one(struct ring *ring, const struct ring_block *block, const struct ring_one *one,
                         struct error *err)
{
    const struct ring_options *o = &ring->options;
    const struct ring_queries queries = {
        .q = gpu_of(ring)->one_q, .stride = (int64_t)o->heads * o->dim, .scale = one->scale, .rope = one->rope};
    return upload(ring, gpu_of(ring)->one_q, one->q, (size_t)queries.stride * sizeof *one->q, err) == 0
               ? gpu_begin(ring, block, &queries, &one->position, err)
               : -1;
}

static int gpu_finish_one(struct ring *ring, const struct ring_block *block, const struct ring_one *one,
                          struct error *err)
{
    const struct ring_options *o = &ring->options;
    struct gpu_ring *gpu = gpu_of(ring);
    const size_t n = (size_t)o->heads * (size_t)o->dim;
    float *lse = (float *)((char *)gpu->host_out + n * sizeof(bf16));
    const struct rotate_cuda_finish call = {
        .heads = o->heads,
        .kv_heads = o->kv_heads,
        .dim = o->dim,
        .tokens = 1,
        .o = block->state.o,
        .m = block->state.m,
        .l = block->state.l,
        .out = gpu->one_out,
        .lse = gpu->one_lse,
    };
    if (rotate_cuda_finish(&call, stream_of(ring), err) < 0 ||
        o->device->copy(gpu->host_out, gpu->one_out, n * sizeof(bf16), DEVICE_TO_HOST, gpu->stream, err) < 0 ||
        o->device->copy(lse, gpu->one_lse, (size_t)o->heads * sizeof *lse, DEVICE_TO_HOST, gpu->stream, err) < 0 ||
        settle(ring, err) < 0)
        return -1;
    row_to_f32(DTYPE_BF16, gpu->host_out, one->o, (int64_t)n);
    memcpy(one->lse, lse, (size_t)o->heads * sizeof *lse);
    return 0;
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
        .begin_one = gpu_begin_one,
        .finish_one = gpu_finish_one,
    };
    return &on_cuda;
}
