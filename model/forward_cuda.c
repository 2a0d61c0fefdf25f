/* The forward pass's arithmetic on a GPU. Of a segment: all rows at once, in chunks that bound what lies between
 * two matrices. One stream; each function waits for it, and polls meanwhile.
 *
 * The host looks up the tokens' embeddings, and keeps the memory of bounded layers: their keys, values and queries
 * are brought to it and what they attended to is taken back.
 */
#include <stdlib.h>
#include <string.h>

#include "attention/rotate_cuda.h"
#include "attention/rows.h"
#include "base/gpu.h"
#include "model/forward_cuda_parts.h"
#include "model/linear_cuda.h"
#include "model/model_cuda.h"
#include "model/ops_cuda.h"

/* Rows that go through the matrices together, and logits that are there together: enough to fill a GPU. */
enum { CHUNK_ROWS = 8192, SCORED_ROWS = 1024 };

/* ---- sizes ---- */

static int64_t chunk_rows(const struct forward_options *options)
{
    return i64_min(CHUNK_ROWS, i64_max(1, forward_attention_block(options)));
}

static int64_t scored_rows(const struct forward_options *options)
{
    return options->scores ? i64_min(SCORED_ROWS, chunk_rows(options)) : 0;
}

static size_t in_elements(const struct forward_options *options)
{
    const struct model_shape *shape = &options->model->shape;
    return (size_t)chunk_rows(options) * (size_t)i64_max(shape->width, shape->ffn);
}

static size_t y_floats(const struct forward_options *options)
{
    const struct model_shape *shape = &options->model->shape;
    const int64_t widest = i64_max(i64_max(forward_qkv_width(shape), 2 * (int64_t)shape->ffn), shape->width);
    return (size_t)i64_max(chunk_rows(options) * widest, scored_rows(options) * shape->vocab);
}

/* The vectors of a token go through the same room. */
static size_t host_floats(const struct forward_options *options)
{
    const struct model_shape *shape = &options->model->shape;
    const int64_t rows = chunk_rows(options) * i64_max(shape->width, forward_qkv_width(shape));
    return (size_t)i64_max(rows, shape->ffn);
}

static bool any_bounded(const struct forward_options *options)
{
    for (int layer = 0; layer < options->model->shape.layers; layer++)
        if (forward_attention_is_bounded(options, layer))
            return true;
    return false;
}

/* Of q and attended, and of a token's qkv and attended, where the host needs its own. */
static size_t beside_floats(const struct forward_options *options)
{
    const struct model_shape *shape = &options->model->shape;
    const int64_t q = forward_q_width(shape), rows = forward_attention_block(options);
    return any_bounded(options) ? (size_t)(2 * rows * q + forward_qkv_width(shape) + q) : 0;
}

static struct forward_memory gpu_bytes(const struct forward_options *options)
{
    const size_t a_score = sizeof(int32_t) + sizeof(struct ops_logprob);
    const size_t of_scores = (size_t)scored_rows(options) * a_score;
    return (struct forward_memory){
        .host = (host_floats(options) + beside_floats(options)) * sizeof(float) + of_scores,
        .device = in_elements(options) * sizeof(bf16) +
                  (y_floats(options) + (size_t)options->model->shape.vocab) * sizeof(float) + of_scores,
    };
}

/* ---- life ---- */

static int create_scores(struct forward *f, struct error *err)
{
    const struct device *device = f->options.device;
    struct gpu_forward *gpu = gpu_of(f);
    const size_t n = (size_t)gpu->scored;
    if (n == 0)
        return 0;
    return (gpu->ids = device->alloc(n * sizeof *gpu->ids, "targets", err)) &&
                   (gpu->said = device->alloc(n * sizeof *gpu->said, "scores", err)) &&
                   (gpu->host_ids = device->host_alloc(n * sizeof *gpu->host_ids, "targets", err)) &&
                   (gpu->host_said = device->host_alloc(n * sizeof *gpu->host_said, "scores", err))
               ? 0
               : -1;
}

/* For the layers whose memory is the host's. */
static int create_beside(struct forward *f, struct error *err)
{
    const struct model_shape *shape = &f->model->shape;
    const int64_t rows = forward_attention_block(&f->options);
    const size_t floats = beside_floats(&f->options);
    if (floats == 0)
        return 0;
    if (!(f->host_q = f->options.device->host_alloc(floats * sizeof(float), "queries of bounded layers", err)))
        return -1;
    f->host_attended = f->host_q + rows * forward_q_width(shape);
    f->token.host_qkv = f->host_q + 2 * rows * forward_q_width(shape);
    f->token.host_attended = f->token.host_qkv + forward_qkv_width(shape);
    return 0;
}

static int gpu_create(struct forward *f, struct error *err)
{
    const struct device *device = f->options.device;
    struct gpu_forward *gpu = calloc(1, sizeof *gpu);
    if (!gpu)
        return error_set(err, ERROR_RESOURCE, "no memory for a forward pass on a GPU");
    f->own = gpu;
    gpu->chunk = chunk_rows(&f->options);
    gpu->scored = scored_rows(&f->options);
    return device->stream_create(&gpu->stream, err) == 0 && device->event_create(&gpu->over, err) == 0 &&
                   (gpu->in = device->alloc(in_elements(&f->options) * sizeof(bf16), "inputs", err)) &&
                   (gpu->y = device->alloc(y_floats(&f->options) * sizeof(float), "outputs", err)) &&
                   (gpu->host_rows =
                        device->host_alloc(host_floats(&f->options) * sizeof(float), "rows of the host", err)) &&
                   (gpu->logits = device->alloc((size_t)f->model->shape.vocab * sizeof(float), "logits", err)) &&
                   create_scores(f, err) == 0 && create_beside(f, err) == 0
               ? 0
               : -1;
}

static void gpu_free(struct forward *f)
{
    const struct device *device = f->options.device;
    struct gpu_forward *gpu = f->own;
    if (!gpu)
        return;
    device->host_free(f->host_q);
    device->host_free(gpu->host_rows);
    device->host_free(gpu->host_ids);
    device->host_free(gpu->host_said);
    device->free(gpu->in);
    device->free(gpu->y);
    device->free(gpu->ids);
    device->free(gpu->said);
    device->free(gpu->logits);
    device->event_free(gpu->over);
    device->stream_free(gpu->stream);
    free(gpu);
}

/* ---- moving and waiting ---- */

int forward_cuda_settle(struct forward *f, struct error *err)
{
    const struct forward_options *o = &f->options;
    struct gpu_forward *gpu = gpu_of(f);
    bool over = false;
    if (o->device->event_record(gpu->over, gpu->stream, err) != 0)
        return -1;
    while (!over) {
        if (o->device->event_query(gpu->over, &over, err) != 0)
            return -1;
        if (o->poll)
            o->poll(o->poll_context);
    }
    return 0;
}

int forward_cuda_copy(struct forward *f, void *to, const void *from, size_t bytes, enum device_copy direction,
                      struct error *err)
{
    return f->options.device->copy(to, from, bytes, direction, gpu_of(f)->stream, err);
}

/* Rows of a segment that the host works on, shared over the threads. */
enum { HOST_ROWS = 64 }; /* of a work item */

struct host_job {
    struct forward *forward;
    const struct layer_step *step;
    int64_t first, rows; /* of the block */
};

static int64_t item_end(const struct host_job *job, int64_t item)
{
    return i64_min((item + 1) * HOST_ROWS, job->rows);
}

static void run_rows(const struct host_job *job, void (*work)(void *, int64_t, int))
{
    const struct forward_options *o = &job->forward->options;
    const struct pool_job items = {i64_ceil_div(job->rows, HOST_ROWS), work, (void *)job, o->poll, o->poll_context};
    pool_run(o->pool, &items);
}

/* ---- a layer's beginning and end on a chunk of rows ---- */

static int apply(struct forward *f, struct linear_cuda *linear, const void *x, int64_t rows, struct error *err)
{
    const struct linear_rows of_chunk = {x, gpu_of(f)->y, rows};
    return linear_cuda_apply(linear, &of_chunk, stream_of(f), err);
}

/* The block's row, of what lies there in floats or bf16 of the width of all queries. */
static float *stream_row(const struct forward *f, int64_t row)
{
    return f->x + row * f->model->shape.width;
}

static char *attended_row(const struct forward *f, int64_t row)
{
    return (char *)f->attended + (size_t)(row * forward_q_width(&f->model->shape)) * sizeof(bf16);
}

static void embed_item(void *context, int64_t item, int thread)
{
    const struct host_job *job = context;
    const struct forward *f = job->forward;
    const int64_t row = item * HOST_ROWS;
    (void)thread;
    ops_embed(f->model->embedding, job->step->tokens + job->first + row, item_end(job, item) - row,
              f->model->shape.embedding_scale, gpu_of(f)->host_rows + row * f->model->shape.width);
}

/* The tokens' rows of the embedding to x, and these normed to in. */
static int embed(const struct host_job *job, const float *norm, struct error *err)
{
    struct forward *f = job->forward;
    const size_t bytes = (size_t)(job->rows * f->model->shape.width) * sizeof(float);
    const struct ops_cuda_rms_norm normed = {norm_of(f, norm), stream_row(f, job->first), gpu_of(f)->in, DTYPE_BF16,
                                             job->rows};
    run_rows(job, embed_item);
    return forward_cuda_copy(f, stream_row(f, job->first), gpu_of(f)->host_rows, bytes, DEVICE_FROM_HOST, err) == 0
               ? ops_cuda_rms_norm(&normed, stream_of(f), err)
               : -1;
}

/* What a bounded layer's queries have attended to, to the device. */
static int take_attended(const struct host_job *job, struct error *err)
{
    struct forward *f = job->forward;
    const int64_t width = forward_q_width(&f->model->shape), n = job->rows * width;
    row_from_f32(DTYPE_BF16, (const float *)f->host_attended + job->first * width, gpu_of(f)->host_rows, n);
    return forward_cuda_copy(f, attended_row(f, job->first), gpu_of(f)->host_rows, (size_t)n * sizeof(bf16),
                             DEVICE_FROM_HOST, err);
}

/* y is added to x, normed where the layer norms it; the sum, normed by the next weight, goes to in. */
static int add_norm(const struct host_job *job, const float *post_norm, const float *next, struct error *err)
{
    const struct forward *f = job->forward;
    const struct ops_cuda_add_norm call = {
        norm_of(f, next), post_norm, stream_row(f, job->first), gpu_of(f)->y, gpu_of(f)->in, DTYPE_BF16, job->rows};
    return ops_cuda_add_norm(&call, stream_of(f), err);
}

/* Attention output, feed-forward; `next` is the norm of what follows, NULL behind the last layer. */
static int finish_layer(const struct host_job *job, int index, const float *next, struct error *err)
{
    struct forward *f = job->forward;
    const struct layer_cuda *layer = &f->model->cuda->layers[index];
    struct gpu_forward *gpu = gpu_of(f);
    const struct ops_cuda_gate gate = {
        {f->model->arch->activation, f->model->shape.ffn}, gpu->y, gpu->in, DTYPE_BF16, job->rows};
    if (forward_attention_is_bounded(&f->options, index) && take_attended(job, err) != 0)
        return -1;
    return apply(f, layer->linears[LINEAR_OUT], attended_row(f, job->first), job->rows, err) == 0 &&
                   add_norm(job, layer->attention_post_norm, layer->ffn_norm, err) == 0 &&
                   apply(f, layer->linears[LINEAR_GATE_UP], gpu->in, job->rows, err) == 0 &&
                   ops_cuda_gate(&gate, stream_of(f), err) == 0 &&
                   apply(f, layer->linears[LINEAR_DOWN], gpu->in, job->rows, err) == 0
               ? add_norm(job, layer->ffn_post_norm, next, err)
               : -1;
}

/* The queries of a layer that goes round to their buffer, its keys and values to memory. */
static int keep_on_device(const struct host_job *job, struct error *err)
{
    struct forward *f = job->forward;
    const struct model_shape *shape = &f->model->shape;
    const int64_t q_width = forward_q_width(shape), qkv_width = forward_qkv_width(shape);
    const struct forward_attention_place place =
        forward_attention_place(&f->attention, job->step->begun_index, job->first);
    const float *y = gpu_of(f)->y;
    const struct memory_cuda_put put = {
        .kv_heads = shape->kv_heads,
        .dim = shape->dim,
        .rows = job->rows,
        .k = y + q_width,
        .v = y + q_width + (int64_t)shape->kv_heads * shape->dim,
        .stride = qkv_width,
        .capacity = place.capacity,
        .first = place.first,
        .keys = place.keys,
        .values = place.values,
    };
    const size_t q_bytes = (size_t)q_width * sizeof *y;
    return memory_cuda_put(&put, stream_of(f), err) == 0
               ? gpu_check(cudaMemcpy2DAsync(f->q + job->first * q_width, q_bytes, y, (size_t)qkv_width * sizeof *y,
                                             q_bytes, (size_t)job->rows, cudaMemcpyDeviceToDevice, stream_of(f)),
                           "copying queries on the GPU", err)
               : -1;
}

static void keep_item(void *context, int64_t item, int thread)
{
    const struct host_job *job = context;
    struct forward *f = job->forward;
    const struct model_shape *shape = &f->model->shape;
    const int64_t q_width = forward_q_width(shape), qkv_width = forward_qkv_width(shape);
    (void)thread;
    for (int64_t i = item * HOST_ROWS; i < item_end(job, item); i++) {
        const float *qkv = gpu_of(f)->host_rows + i * qkv_width;
        memcpy(f->host_q + (job->first + i) * q_width, qkv, (size_t)q_width * sizeof *qkv);
        forward_attention_put(&f->attention, job->step->begun_index, job->first + i, qkv + q_width,
                              qkv + q_width + (int64_t)shape->kv_heads * shape->dim);
    }
}

/* The same for a bounded layer, which is the host's. */
static int keep_on_host(const struct host_job *job, struct error *err)
{
    struct forward *f = job->forward;
    const size_t bytes = (size_t)(job->rows * forward_qkv_width(&f->model->shape)) * sizeof(float);
    if (forward_cuda_copy(f, gpu_of(f)->host_rows, gpu_of(f)->y, bytes, DEVICE_TO_HOST, err) != 0 ||
        forward_cuda_settle(f, err) != 0)
        return -1;
    run_rows(job, keep_item);
    return 0;
}

static int begin_layer(const struct host_job *job, struct error *err)
{
    struct forward *f = job->forward;
    const struct model_shape *shape = &f->model->shape;
    const struct layer_cuda *layer = &f->model->cuda->layers[job->step->begun_index];
    const struct ops_cuda_head_norms norms = {
        gpu_of(f)->y,      forward_qkv_width(shape), shape->heads,           shape->kv_heads, shape->dim,
        layer->query_norm, layer->key_norm,          (float)shape->norm_eps, job->rows};
    if (model_cuda_await(f->model->cuda, job->step->begun_index, gpu_of(f)->stream, err) != 0 ||
        apply(f, layer->linears[LINEAR_QKV], gpu_of(f)->in, job->rows, err) != 0 ||
        ((layer->query_norm || layer->key_norm) && ops_cuda_head_norms(&norms, stream_of(f), err) != 0))
        return -1;
    return forward_attention_is_bounded(&f->options, job->step->begun_index) ? keep_on_host(job, err)
                                                                             : keep_on_device(job, err);
}

/* Where the matrices are streamed: the first two layers' come at the beginning, and those of the layer behind the
 * next while the next is attended to, which is when the finished layer's are of no more use. */
static int bring_first(struct forward *f, struct error *err)
{
    const struct model_cuda *cuda = f->model->cuda;
    return model_cuda_bring(cuda, 0, err) == 0 ? (cuda->n_layers > 1 ? model_cuda_bring(cuda, 1, err) : 0) : -1;
}

static int bring_next(struct forward *f, const struct layer_step *step, struct error *err)
{
    const int next = step->begun_index + 1;
    return step->finished && next < f->model->cuda->n_layers ? model_cuda_bring(f->model->cuda, next, err) : 0;
}

static int gpu_carry(struct forward *f, const struct layer_step *step, struct error *err)
{
    if (!step->finished && bring_first(f, err) != 0)
        return -1;
    const float *next = step->begun ? f->model->cuda->layers[step->begun_index].attention_norm : NULL;
    for (int64_t first = 0; first < f->rows; first += gpu_of(f)->chunk) {
        const struct host_job job = {f, step, first, i64_min(gpu_of(f)->chunk, f->rows - first)};
        const int status =
            step->finished ? finish_layer(&job, step->begun_index - 1, next, err) : embed(&job, next, err);
        if (status != 0 || (step->begun && begin_layer(&job, err) != 0) || forward_cuda_settle(f, err) != 0)
            return -1;
    }
    return bring_next(f, step, err);
}

/* ---- what the segment says ---- */

/* The targets of some rows; landmarks and rows without a target ask for id 0. */
static void choose_ids(const struct forward *f, const struct forward_scores *scores, int64_t first, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++) {
        const int64_t at = forward_scored(f, first + i);
        gpu_of(f)->host_ids[i] = at >= 0 && scores->target[at] >= 0 ? scores->target[at] : 0;
    }
}

static void hand_out(const struct forward *f, const struct forward_scores *scores, int64_t first, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++) {
        const int64_t at = forward_scored(f, first + i);
        if (at >= 0 && scores->target[at] >= 0)
            scores->logprob[at] = gpu_of(f)->host_said[i].logprob;
        if (at >= 0)
            scores->top1[at] = gpu_of(f)->host_said[i].top;
    }
}

static int gpu_score(struct forward *f, const struct forward_scores *scores, struct error *err)
{
    struct gpu_forward *gpu = gpu_of(f);
    for (int64_t first = 0; first < f->rows; first += gpu->scored) {
        const int64_t rows = i64_min(gpu->scored, f->rows - first);
        const struct ops_cuda_rms_norm norm = {norm_of(f, f->model->cuda->output_norm), stream_row(f, first),
                                               gpu->in, DTYPE_BF16, rows};
        const struct ops_cuda_log_softmax softmax = {gpu->y, f->model->shape.vocab, gpu->ids, gpu->said, rows};
        choose_ids(f, scores, first, rows);
        if (forward_cuda_copy(f, gpu->ids, gpu->host_ids, (size_t)rows * sizeof *gpu->ids, DEVICE_FROM_HOST, err) !=
                0 ||
            ops_cuda_rms_norm(&norm, stream_of(f), err) != 0 ||
            apply(f, f->model->cuda->head, gpu->in, rows, err) != 0 ||
            ops_cuda_log_softmax(&softmax, stream_of(f), err) != 0 ||
            forward_cuda_copy(f, gpu->host_said, gpu->said, (size_t)rows * sizeof *gpu->said, DEVICE_TO_HOST,
                              err) != 0 ||
            forward_cuda_settle(f, err) != 0)
            return -1;
        hand_out(f, scores, first, rows);
    }
    return 0;
}

const struct forward_arithmetic *forward_on_cuda(void)
{
    static const struct forward_arithmetic on_cuda = {
        .bytes = gpu_bytes,
        .create = gpu_create,
        .free = gpu_free,
        .carry = gpu_carry,
        .score = gpu_score,
        .one = &forward_one_on_cuda,
    };
    return &on_cuda;
}
