/* The forward pass's arithmetic on the CPU. Of a segment: tiles of rows dealt to the pool's threads. A tile goes
 * through a layer's end and the next one's beginning while it is in the cache. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/forward_state.h"
#include "model/linear.h"

/* A thread's workspace for one tile of rows. */
struct tile_scratch {
    void *in;         /* [LINEAR_TILE_ROWS][widest input of a matrix] in the model's dtype */
    float *y;         /* [LINEAR_TILE_ROWS][widest output] */
    void *linear;     /* linear_scratch_bytes() */
    struct error err; /* the first failure of this thread, ERROR_NONE while all is well */
};

/* ---- sizes ---- */

/* Elements of a thread's two tile buffers. Only scoring has outputs as wide as the vocabulary. */
static size_t scratch_in(const struct model *model)
{
    const int64_t widest = i64_max(i64_max(model->shape.width, model->shape.ffn), forward_q_width(&model->shape));
    return (size_t)LINEAR_TILE_ROWS * (size_t)widest;
}

static size_t scratch_out(const struct forward_options *options)
{
    const struct model *model = options->model;
    int64_t widest = i64_max(forward_qkv_width(&model->shape), 2 * (int64_t)model->shape.ffn);
    if (options->scores)
        widest = i64_max(widest, model->shape.vocab);
    return (size_t)LINEAR_TILE_ROWS * (size_t)widest;
}

/* All layers have the same shapes. */
static size_t linear_scratch(const struct model *model)
{
    size_t most = model->packed_head ? linear_scratch_bytes(model->packed_head) : 0;
    for (int k = 0; k < LINEARS_PER_LAYER; k++) {
        const size_t bytes = linear_scratch_bytes(model->layers[0].linears[k]);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static struct forward_memory cpu_bytes(const struct forward_options *options)
{
    const size_t element = dtype_size(options->kernel->dtype);
    /* The scratch of products has rows of the widest, too; what oneDNN takes beside them are some hundred bytes. */
    const size_t tile = element * scratch_in(options->model) + sizeof(float) * scratch_out(options);
    const size_t per_thread = tile / LINEAR_TILE_ROWS * (LINEAR_TILE_ROWS + LINEAR_LEAST_ROWS);
    return (struct forward_memory){.host = per_thread * (size_t)pool_threads(options->pool)};
}

/* ---- life ---- */

static int cpu_create(struct forward *f, struct error *err)
{
    const struct device *device = f->options.device;
    const size_t element = dtype_size(f->options.kernel->dtype);
    const int threads = pool_threads(f->options.pool);
    struct tile_scratch *all = calloc((size_t)threads, sizeof *all);
    if (!all)
        return error_set(err, ERROR_RESOURCE, "no memory for %d threads", threads);
    f->own = all;
    f->host_q = f->q;
    f->host_attended = f->attended;
    for (struct tile_scratch *scratch = all; scratch < all + threads; scratch++) {
        scratch->in = device->alloc(scratch_in(f->model) * element, "a thread's inputs", err);
        scratch->y = device->alloc(scratch_out(&f->options) * sizeof(float), "a thread's outputs", err);
        scratch->linear = device->alloc(linear_scratch(f->model), "a thread's matrix products", err);
        if (!scratch->in || !scratch->y || !scratch->linear)
            return -1;
    }
    return 0;
}

static void cpu_free(struct forward *f)
{
    const struct device *device = f->options.device;
    struct tile_scratch *all = f->own;
    for (int i = 0; all && i < pool_threads(f->options.pool); i++) {
        device->free(all[i].in);
        device->free(all[i].y);
        device->free(all[i].linear);
    }
    free(all);
}

/* ---- tiles ---- */

/* What the work items of a call see; of the last two each kind of item needs one. */
struct tile_job {
    struct forward *forward;
    int64_t tile_rows; /* at most LINEAR_TILE_ROWS: what a thread takes at a time */
    const struct layer_step *step;
    const struct forward_scores *scores;
};

static struct tile_scratch *scratch_of(const struct tile_job *job, int thread)
{
    return (struct tile_scratch *)job->forward->own + thread;
}

/* Rows of a tile: the size that ends soonest when the tiles are dealt to the threads. A whole tile is the fastest a
 * row; 128 and 64 rows take about 7% and 25% more (bench_linear), but may leave no thread idle at the end. */
static int64_t choose_tile_rows(int64_t rows, int threads)
{
    static const struct {
        int64_t rows;
        double cost; /* of a row */
    } sizes[] = {{LINEAR_TILE_ROWS, 1.0}, {128, 1.07}, {64, 1.25}};
    int64_t best = LINEAR_TILE_ROWS;
    double least = INFINITY;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t rounds = i64_ceil_div(i64_ceil_div(rows, sizes[i].rows), threads);
        const double time = (double)(rounds * sizes[i].rows) * sizes[i].cost;
        if (time < least) {
            least = time;
            best = sizes[i].rows;
        }
    }
    return best;
}

static int run_tiles(struct tile_job *job, void (*work)(void *, int64_t, int), struct error *err)
{
    struct forward *f = job->forward;
    const int threads = pool_threads(f->options.pool);
    job->tile_rows = choose_tile_rows(f->rows, threads);
    const struct pool_job tiles = {i64_ceil_div(f->rows, job->tile_rows), work, job, f->options.poll,
                                   f->options.poll_context};
    pool_run(f->options.pool, &tiles);
    for (int i = 0; i < threads; i++)
        if (scratch_of(job, i)->err.code != ERROR_NONE) {
            *err = scratch_of(job, i)->err;
            return -1;
        }
    return 0;
}

/* scratch->y = the linear layer of x; the first failure of a thread is kept for run_tiles. */
static void apply(const struct linear *linear, const void *x, int64_t rows, struct tile_scratch *scratch)
{
    struct error err;
    const struct linear_rows of_tile = {x, scratch->y, rows};
    if (linear_apply(linear, &of_tile, scratch->linear, &err) != 0 && scratch->err.code == ERROR_NONE)
        scratch->err = err;
}

/* Attention output, feed-forward. */
static void finish_layer(struct forward *f, const struct layer *layer, int64_t row, int64_t rows,
                         struct tile_scratch *scratch)
{
    const struct model_shape *shape = &f->model->shape;
    const enum dtype dtype = f->model->dtype;
    const size_t q_bytes = (size_t)forward_q_width(shape) * dtype_size(dtype);
    float *x = f->x + row * shape->width;
    const struct rms_norm norm = {layer->ffn_norm, shape->width, (float)shape->norm_eps};
    const struct ops_gate gate = {f->model->arch->activation, shape->ffn};

    apply(layer->linears[LINEAR_OUT], (const char *)f->attended + (size_t)row * q_bytes, rows, scratch);
    forward_norm(f->model, layer->attention_post_norm, scratch->y, rows);
    ops_add(x, scratch->y, rows * shape->width);
    ops_rms_norm(&norm, x, scratch->in, dtype, rows);
    apply(layer->linears[LINEAR_GATE_UP], scratch->in, rows, scratch);
    ops_gate(&gate, scratch->y, scratch->in, dtype, rows);
    apply(layer->linears[LINEAR_DOWN], scratch->in, rows, scratch);
    forward_norm(f->model, layer->ffn_post_norm, scratch->y, rows);
    ops_add(x, scratch->y, rows * shape->width);
}

/* Queries to their buffer, keys and values to memory. */
static void begin_layer(struct forward *f, const struct layer_step *step, int64_t row, int64_t rows,
                        struct tile_scratch *scratch)
{
    const struct model_shape *shape = &f->model->shape;
    const int64_t q_width = forward_q_width(shape), qkv_width = forward_qkv_width(shape);
    const struct rms_norm norm = {step->begun->attention_norm, shape->width, (float)shape->norm_eps};

    ops_rms_norm(&norm, f->x + row * shape->width, scratch->in, f->model->dtype, rows);
    apply(step->begun->linears[LINEAR_QKV], scratch->in, rows, scratch);
    for (int64_t i = 0; i < rows; i++) {
        float *qkv = scratch->y + i * qkv_width;
        forward_head_norms(f->model, step->begun, qkv);
        memcpy(f->q + (row + i) * q_width, qkv, (size_t)q_width * sizeof *qkv);
        forward_attention_put(&f->attention, step->begun_index, row + i, qkv + q_width,
                              qkv + q_width + (int64_t)shape->kv_heads * shape->dim);
    }
}

static void layer_tile(void *context, int64_t item, int thread)
{
    const struct tile_job *job = context;
    const struct layer_step *step = job->step;
    struct forward *f = job->forward;
    struct tile_scratch *scratch = scratch_of(job, thread);
    const int64_t row = item * job->tile_rows, rows = i64_min(job->tile_rows, f->rows - row);
    if (step->finished)
        finish_layer(f, step->finished, row, rows, scratch);
    else
        ops_embed(f->model->embedding, step->tokens + row, rows, f->model->shape.embedding_scale,
                  f->x + row * f->model->shape.width);
    if (step->begun)
        begin_layer(f, step, row, rows, scratch);
}

static int cpu_carry(struct forward *f, const struct layer_step *step, struct error *err)
{
    struct tile_job job = {.forward = f, .step = step};
    return run_tiles(&job, layer_tile, err);
}

/* ---- what the segment says ---- */

static void score_tile(void *context, int64_t item, int thread)
{
    const struct tile_job *job = context;
    struct forward *f = job->forward;
    struct tile_scratch *scratch = scratch_of(job, thread);
    const int32_t vocab = f->model->shape.vocab;
    const int64_t row = item * job->tile_rows, rows = i64_min(job->tile_rows, f->rows - row);
    const struct rms_norm norm = {f->model->output_norm, f->model->shape.width, (float)f->model->shape.norm_eps};
    ops_rms_norm(&norm, f->x + row * f->model->shape.width, scratch->in, f->model->dtype, rows);
    apply(f->model->packed_head, scratch->in, rows, scratch);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t at = forward_scored(f, row + i);
        if (at < 0)
            continue;
        const int32_t target = job->scores->target[at];
        const struct ops_logprob said = ops_log_softmax(scratch->y + i * vocab, vocab, target < 0 ? 0 : target);
        if (target >= 0)
            job->scores->logprob[at] = said.logprob;
        job->scores->top1[at] = said.top;
    }
}

static int cpu_score(struct forward *f, const struct forward_scores *scores, struct error *err)
{
    struct tile_job job = {.forward = f, .scores = scores};
    return run_tiles(&job, score_tile, err);
}

const struct forward_arithmetic forward_on_cpu = {
    .bytes = cpu_bytes,
    .create = cpu_create,
    .free = cpu_free,
    .carry = cpu_carry,
    .score = cpu_score,
    .one = &forward_one_on_cpu,
};
