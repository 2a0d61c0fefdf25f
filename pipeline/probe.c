#include "pipeline/probe.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "attention/far_score.h"
#include "attention/kernel.h"
#include "base/clock.h"
#include "base/device.h"
#include "model/matvec.h"

enum {
    TILES = 16,  /* of rows, in one measurement of a matrix */
    KEYS = 2048, /* that a tile of queries attends to       */
    MATVEC_ROWS = 64,
    BLOCKS = 1024, /* far blocks that are looked at in one item: those of all are too many for most caches */
    REPEATS = 5    /* the best counts: others use the machine, too */
};

/* Everything a measurement works on; each thread has its own slice where it writes. */
struct probe {
    const struct model *model;
    const struct stack *stack;
    struct linear *linear;
    const struct attn_kernel *kernel;
    const struct far_scorer *scorer;
    void *x, *packed, *keys, *records;
    char *scratch;
    float *y;
    size_t scratch_bytes, y_floats; /* of one thread */
    atomic_flag failed;             /* a thread has written err */
    struct error err;
};

static void linear_item(void *context, int64_t item, int thread)
{
    (void)item;
    struct probe *p = context;
    const struct linear_rows rows = {p->x, p->y + (size_t)thread * p->y_floats, LINEAR_TILE_ROWS};
    struct error err;
    if (linear_apply(p->linear, &rows, p->scratch + (size_t)thread * p->scratch_bytes, &err) != 0 &&
        !atomic_flag_test_and_set(&p->failed))
        p->err = err;
}

static void attention_item(void *context, int64_t item, int thread)
{
    (void)item;
    struct probe *p = context;
    const int dim = p->model->shape.dim;
    static const struct attn_span spans[ATTN_QUERY_ROWS] = {[0 ... ATTN_QUERY_ROWS - 1] = {0, KEYS}};
    float *y = p->y + (size_t)thread * p->y_floats;
    const struct attn_state state = {y, y + ATTN_QUERY_ROWS * dim, y + ATTN_QUERY_ROWS * (dim + 1)};
    const struct attn_tile tile = {p->x, spans, ATTN_QUERY_ROWS, dim};
    attn_state_reset(&state, ATTN_QUERY_ROWS, dim);
    attn_attend(p->kernel, &tile, p->keys, &state, p->scratch + (size_t)thread * p->scratch_bytes);
}

/* Blocks read and looked at by a group of queries, as retrieval does it in a memory that is in no cache. All
 * numbers are 0, which takes as long. */
static void search_item(void *context, int64_t item, int thread)
{
    struct probe *p = context;
    const char *records = (const char *)p->records + (size_t)item * BLOCKS * far_record_bytes(p->model->shape.dim);
    static const float ones[FAR_TILES * FAR_LANES] = {[0 ... FAR_TILES * FAR_LANES - 1] = 1};
    const struct far_rows rows = {ones, ones, ones};
    int32_t best[FAR_TILES * FAR_LANES];
    uint8_t k[FAR_BLOCK * ATTN_MAX_DIM];
    float *sum = p->y + (size_t)thread * p->y_floats;
    for (int i = 0; i < BLOCKS; i++) {
        struct far_keys8 keys = {.dim = p->model->shape.dim, .n = FAR_BLOCK, .k = k};
        p->scorer->read(&keys, records + (size_t)i * far_record_bytes(keys.dim));
        p->scorer->best(p->x, FAR_TILES, &keys, best);
        *sum += p->scorer->share(best, FAR_TILES, keys.scale, &rows);
    }
}

/* Rows that an item of decode takes: a small model has fewer. */
static int64_t decode_rows(const struct stack *stack)
{
    return i64_min(MATVEC_ROWS, tensor_rows(stack->parts[0]));
}

static void decode_item(void *context, int64_t item, int thread)
{
    struct probe *p = context;
    const struct tensor *matrix = p->stack->parts[0];
    const int64_t rows = decode_rows(p->stack), row = item % (tensor_rows(matrix) / rows) * rows;
    float *y = p->y + (size_t)thread * p->y_floats;
    matvec_rows(matrix, p->x, y, row, row + rows);
}

/* Items a second of the work, at best. */
static double measure(struct pool *pool, const struct pool_job *job)
{
    double best = 0;
    for (int i = 0; i < REPEATS; i++) {
        const double begun = clock_seconds();
        pool_run(pool, job);
        const double rate = (double)job->n_items / (clock_seconds() - begun);
        best = rate > best ? rate : best;
    }
    return best;
}

static int prepare(struct probe *p, const struct probe_options *options, struct error *err)
{
    const struct device *device = device_cpu();
    const struct model_shape *shape = &options->model->shape;
    const int64_t threads = options->threads;
    p->model = options->model;
    p->stack = &options->model->layers[0].stacks[LINEAR_GATE_UP];
    p->scorer = far_scorer_choose();
    const struct linear_shape linear = {p->stack->n_in, p->stack->n_out, options->dtype, NULL};
    size_t packed_bytes;
    if (!(p->kernel = attn_kernel_choose(options->dtype, NULL, err)) ||
        linear_packed_bytes(&linear, &packed_bytes, err) != 0 ||
        !(p->packed = device->alloc(packed_bytes, "a probe's matrix", err)) ||
        !(p->linear = linear_attach(&linear, p->packed, err)) ||
        linear_pack(p->linear, p->stack->parts, p->stack->n_parts, err) != 0)
        return -1;
    /* in numbers; as queries of eight bits for search_item, too */
    _Static_assert(16 * ATTN_QUERY_ROWS * sizeof(float) >= FAR_TILES * FAR_LANES * (16 + sizeof(int32_t)),
                   "no room for the queries of a search");
    const int64_t x = i64_max(LINEAR_TILE_ROWS * p->stack->n_in, (int64_t)ATTN_QUERY_ROWS * shape->dim);
    const int64_t y = i64_max(LINEAR_TILE_ROWS * p->stack->n_out, (int64_t)ATTN_QUERY_ROWS * (shape->dim + 2));
    const size_t of_linear = linear_scratch_bytes(p->linear), of_kernel = p->kernel->scratch_bytes(shape->dim);
    p->y_floats = (size_t)i64_round_up(y, 16);
    p->scratch_bytes = (size_t)i64_round_up((int64_t)(of_linear > of_kernel ? of_linear : of_kernel), 64);
    const size_t key_bytes = p->kernel->tile_bytes(shape->dim) * (KEYS / ATTN_KEY_TILE);
    if (!(p->x = device->alloc((size_t)x * sizeof(float), "a probe's inputs", err)) ||
        !(p->keys = device->alloc(key_bytes, "a probe's keys", err)) ||
        !(p->records = device->alloc(TILES * BLOCKS * far_record_bytes(shape->dim), "a probe's records", err)) ||
        !(p->y = device->alloc(p->y_floats * (size_t)threads * sizeof(float), "a probe's outputs", err)) ||
        !(p->scratch = device->alloc(p->scratch_bytes * (size_t)threads, "a probe's scratch", err)))
        return -1;
    return 0;
}

static void release(struct probe *p)
{
    const struct device *device = device_cpu();
    linear_free(p->linear);
    device->free(p->packed);
    device->free(p->x);
    device->free(p->keys);
    device->free(p->records);
    device->free(p->y);
    device->free(p->scratch);
}

int probe_rates(const struct probe_options *options, struct probe_rates *out, struct error *err)
{
    struct probe p = {.failed = ATOMIC_FLAG_INIT};
    struct pool *pool = pool_create(options->threads, err);
    int status = pool ? prepare(&p, options, err) : -1;
    if (status == 0) {
        const struct pool_job linear = {.n_items = TILES, .work = linear_item, .context = &p};
        const struct pool_job attention = {.n_items = TILES, .work = attention_item, .context = &p};
        const struct pool_job search = {.n_items = TILES, .work = search_item, .context = &p};
        const struct pool_job decode = {.n_items = 8 * TILES, .work = decode_item, .context = &p};
        const double n_in = (double)p.stack->n_in, n_out = (double)p.stack->n_out;
        out->linear = measure(pool, &linear) * 2 * LINEAR_TILE_ROWS * n_in * n_out;
        out->attention = measure(pool, &attention) * 4 * ATTN_QUERY_ROWS * KEYS * options->model->shape.dim;
        out->search = measure(pool, &search) * BLOCKS * FAR_BLOCK * FAR_TILES * FAR_LANES;
        out->decode = measure(pool, &decode) * (double)decode_rows(p.stack) * n_in;
        if (p.err.code != ERROR_NONE) {
            *err = p.err;
            status = -1;
        }
    }
    release(&p);
    pool_free(pool);
    return status;
}

/* Seconds of all heads. */
static double attention_seconds(const struct probe_rates *rates, const struct model_shape *shape,
                                const struct probe_keys *keys)
{
    const double products = 2.0 * 2 * shape->dim; /* flops of a key that is seen */
    return shape->heads * (products * keys->seen / rates->attention + keys->searched / rates->search);
}

double probe_seconds(const struct probe_rates *rates, const struct probe_work *work)
{
    const struct model_shape *s = &work->model->shape;
    const double layers = (double)model_linear_weights(work->model), head = (double)s->vocab * s->width;
    const double linear = 2 * (layers * (double)work->read + head * (double)work->scored);
    return linear / rates->linear + attention_seconds(rates, s, &work->keys) +
           (double)work->written * ((layers + head) / rates->decode + attention_seconds(rates, s, &work->kept));
}
