#include "model/forward_state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- landmarks ---- */

/* The same, with its lengths counting landmarks, of which none follows `block` 0 tokens. */
static struct forward_options count_landmarks(const struct forward_options *options, int64_t block)
{
    struct forward_options counting = *options;
    if (block == 0)
        return counting;
    counting.segment = i64_min(options->segment, options->max_tokens);
    counting.segment += counting.segment / block + 1;
    counting.max_tokens += options->max_tokens / block + 1;
    counting.max_generated += options->max_generated / block + 1;
    return counting;
}

/* All layers have landmarks or none has. */
static int64_t landmark_block(const struct forward_options *options)
{
    const struct policy_spec *spec = options->policies;
    return spec && policy_of(spec->kind)->landmarks ? spec->rate - 1 : 0;
}

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

static size_t token_floats(const struct model_shape *shape)
{
    return 3 * (size_t)shape->width + (size_t)forward_qkv_width(shape) + (size_t)forward_q_width(shape) +
           2 * (size_t)shape->ffn;
}

int forward_bytes(const struct forward_options *asked, size_t *out, struct error *err)
{
    const struct forward_options counting = count_landmarks(asked, landmark_block(asked)), *options = &counting;
    const struct model *model = options->model;
    size_t of_attention;
    if (forward_attention_bytes(options, &of_attention, err) != 0)
        return -1;
    const size_t element = dtype_size(options->kernel->dtype);
    const size_t row = sizeof(float) * (size_t)(model->shape.width + forward_q_width(&model->shape)) +
                       element * (size_t)forward_q_width(&model->shape) + sizeof(int64_t);
    const size_t per_thread = element * scratch_in(model) + sizeof(float) * scratch_out(options);
    *out = of_attention + row * (size_t)forward_attention_block(options) +
           per_thread * (size_t)pool_threads(options->pool) + sizeof(float) * token_floats(&model->shape);
    return 0;
}

/* ---- life ---- */

static int create_buffers(struct forward *f, struct error *err)
{
    const struct device *device = f->options.device;
    const struct model_shape *shape = &f->model->shape;
    const size_t rows = (size_t)forward_attention_block(&f->options),
                 element = dtype_size(f->options.kernel->dtype);
    const size_t q = (size_t)forward_q_width(shape);
    f->row_positions = device->alloc(rows * sizeof *f->row_positions, "positions", err);
    f->x = device->alloc(rows * (size_t)shape->width * sizeof *f->x, "activations", err);
    f->q = device->alloc(rows * q * sizeof *f->q, "queries", err);
    f->attended = device->alloc(rows * q * element, "attention output", err);
    f->scratch = calloc((size_t)pool_threads(f->options.pool), sizeof *f->scratch);
    if (!f->row_positions || !f->x || !f->q || !f->attended)
        return -1;
    if (!f->scratch)
        return error_set(err, ERROR_RESOURCE, "no memory for %d threads", pool_threads(f->options.pool));
    for (int i = 0; i < pool_threads(f->options.pool); i++) {
        struct forward_scratch *scratch = &f->scratch[i];
        scratch->in = device->alloc(scratch_in(f->model) * element, "a thread's inputs", err);
        scratch->y = device->alloc(scratch_out(&f->options) * sizeof(float), "a thread's outputs", err);
        scratch->linear = device->alloc(linear_scratch(f->model), "a thread's matrix products", err);
        if (!scratch->in || !scratch->y || !scratch->linear)
            return -1;
    }
    return 0;
}

static int create_token(struct forward *f, struct error *err)
{
    const struct model_shape *shape = &f->model->shape;
    float *floats = f->options.device->alloc(token_floats(shape) * sizeof *floats, "decode vectors", err);
    if (!floats)
        return -1;
    struct forward_token *t = &f->token;
    t->x = floats;
    t->normed = t->x + shape->width;
    t->out = t->normed + shape->width;
    t->qkv = t->out + shape->width;
    t->attended = t->qkv + forward_qkv_width(shape);
    t->hidden = t->attended + forward_q_width(shape);
    t->gate = t->hidden + shape->ffn;
    t->parts = calloc((size_t)f->options.group->size + 1, sizeof *t->parts);
    return t->parts ? 0 : error_set(err, ERROR_RESOURCE, "no memory for decode");
}

struct forward *forward_create(const struct forward_options *options, struct error *err)
{
    struct forward *f = calloc(1, sizeof *f);
    if (!f) {
        error_set(err, ERROR_RESOURCE, "no memory for the forward pass");
        return NULL;
    }
    f->landmark_block = landmark_block(options);
    f->landmark = f->landmark_block ? (int32_t)options->policies->token : -1;
    f->options = count_landmarks(options, f->landmark_block);
    f->model = options->model;
    if (forward_attention_create(&f->attention, &f->options, err) != 0 || create_buffers(f, err) != 0 ||
        create_token(f, err) != 0) {
        forward_free(f);
        return NULL;
    }
    return f;
}

void forward_free(struct forward *f)
{
    if (!f)
        return;
    const struct device *device = f->options.device;
    for (int i = 0; f->scratch && i < pool_threads(f->options.pool); i++) {
        device->free(f->scratch[i].in);
        device->free(f->scratch[i].y);
        device->free(f->scratch[i].linear);
    }
    free(f->scratch);
    device->free(f->row_positions);
    device->free(f->x);
    device->free(f->q);
    device->free(f->attended);
    device->free(f->token.x);
    free(f->token.parts);
    forward_attention_free(&f->attention);
    free(f);
}

void forward_reset(struct forward *f)
{
    forward_attention_reset(&f->attention);
    f->length = f->prefilled = f->first = f->end = f->rows = 0;
}

int64_t forward_length(const struct forward *f)
{
    return forward_tokens(f, f->length);
}

size_t forward_resident(const struct forward *f)
{
    return forward_attention_resident(&f->attention);
}

int64_t forward_forgotten(const struct forward *f)
{
    return forward_tokens(f, forward_attention_forgotten(&f->attention));
}

struct ring_stats forward_ring_stats(const struct forward *f)
{
    return f->attention.ring ? ring_stats(f->attention.ring) : (struct ring_stats){0};
}

/* ---- one segment ---- */

/* A layer's end and the next one's beginning, on a tile of rows: between them the rows stay in the cache. */
struct layer_step {
    struct forward *forward;
    const int32_t *tokens;        /* of the block, before the first layer */
    const struct layer *finished; /* NULL before the first layer */
    const struct layer *begun;    /* NULL behind the last */
    int begun_index;
};

/* scratch->y = the linear layer of x; the first failure of a thread is kept for run_tiles. */
static void apply(const struct linear *linear, const void *x, int64_t rows, struct forward_scratch *scratch)
{
    struct error err;
    const struct linear_rows of_tile = {x, scratch->y, rows};
    if (linear_apply(linear, &of_tile, scratch->linear, &err) != 0 && scratch->err.code == ERROR_NONE)
        scratch->err = err;
}

void forward_norm(const struct model *model, const float *weight, float *x, int64_t rows)
{
    const struct rms_norm norm = {weight, model->shape.width, (float)model->shape.norm_eps};
    if (weight)
        ops_rms_norm(&norm, x, x, DTYPE_F32, rows);
}

void forward_head_norms(const struct model *model, const struct layer *layer, float *qkv)
{
    const struct model_shape *shape = &model->shape;
    const struct rms_norm queries = {layer->query_norm, shape->dim, (float)shape->norm_eps};
    const struct rms_norm keys = {layer->key_norm, shape->dim, (float)shape->norm_eps};
    float *k = qkv + forward_q_width(shape);
    if (layer->query_norm)
        ops_rms_norm(&queries, qkv, qkv, DTYPE_F32, shape->heads);
    if (layer->key_norm)
        ops_rms_norm(&keys, k, k, DTYPE_F32, shape->kv_heads);
}

/* Attention output, feed-forward. */
static void finish_layer(struct forward *f, const struct layer *layer, int64_t row, int64_t rows,
                         struct forward_scratch *scratch)
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
static void begin_layer(const struct layer_step *step, int64_t row, int64_t rows, struct forward_scratch *scratch)
{
    struct forward *f = step->forward;
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
    const struct layer_step *step = context;
    struct forward *f = step->forward;
    const int64_t row = item * f->tile_rows, rows = i64_min(f->tile_rows, f->rows - row);
    if (step->finished)
        finish_layer(f, step->finished, row, rows, &f->scratch[thread]);
    else
        ops_embed(f->model->embedding, step->tokens + row, rows, f->model->shape.embedding_scale,
                  f->x + row * f->model->shape.width);
    if (step->begun)
        begin_layer(step, row, rows, &f->scratch[thread]);
}

static int run_tiles(struct forward *f, void (*work)(void *, int64_t, int), void *context, struct error *err)
{
    const struct pool_job job = {i64_ceil_div(f->rows, f->tile_rows), work, context, f->options.poll,
                                 f->options.poll_context};
    pool_run(f->options.pool, &job);
    for (int i = 0; i < pool_threads(f->options.pool); i++)
        if (f->scratch[i].err.code != ERROR_NONE) {
            *err = f->scratch[i].err;
            return -1;
        }
    return 0;
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

static int check_tokens(const struct forward *f, const int32_t *tokens, int64_t n, struct error *err)
{
    const int64_t before = forward_length(f), end = n < 1 ? 0 : forward_place(f, before + n - 1) + 1;
    if (n < 1 || end - f->length > f->options.segment || end > f->options.max_tokens)
        return error_set(err, ERROR_INTERNAL, "a segment of %lld tokens behind %lld, made for %lld and %lld in all",
                         (long long)n, (long long)f->length, (long long)f->options.segment,
                         (long long)f->options.max_tokens);
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= f->model->shape.vocab)
            return error_set(err, ERROR_INPUT, "token %lld is id %d; the model has %d", (long long)(before + i),
                             tokens[i], f->model->shape.vocab);
    return 0;
}

/* What stands at a place of the segment in hand, whose first token of the text is *tokens. */
static int32_t token_at(const struct forward *f, const int32_t *tokens, int64_t place)
{
    if (f->landmark_block && landmark_is(place, f->landmark_block))
        return f->landmark;
    return tokens[forward_tokens(f, place) - forward_tokens(f, f->first)];
}

/* This rank's tokens of the segment, one behind the other; their positions go to f->row_positions. */
static int take_block(struct forward *f, const int32_t *tokens, int32_t **block_tokens, struct error *err)
{
    f->block = zigzag_block(f->first, f->end, f->options.group->rank, f->options.group->size);
    f->rows = 0;
    *block_tokens = malloc((size_t)forward_attention_block(&f->options) * sizeof **block_tokens);
    if (!*block_tokens)
        return error_set(err, ERROR_RESOURCE, "no memory for the tokens of a segment");
    for (int part = 0; part < 2; part++)
        for (int64_t p = f->block.first[part]; p < f->block.end[part]; p++) {
            (*block_tokens)[f->rows] = token_at(f, tokens, p);
            f->row_positions[f->rows++] = p;
        }
    f->tile_rows = choose_tile_rows(f->rows, pool_threads(f->options.pool));
    return forward_attention_begin(&f->attention, (struct stretch){f->first, f->end}, f->row_positions, f->rows,
                                   err);
}

int forward_segment(struct forward *f, const int32_t *tokens, int64_t n, struct error *err)
{
    if (check_tokens(f, tokens, n, err) != 0)
        return -1;
    const int layers = f->model->shape.layers;
    int32_t *block_tokens;
    f->first = f->length;
    f->end = forward_place(f, forward_length(f) + n - 1) + 1;
    int status = take_block(f, tokens, &block_tokens, err);
    for (int layer = 0; layer <= layers && status == 0; layer++) {
        struct layer_step step = {
            .forward = f,
            .tokens = block_tokens,
            .finished = layer > 0 ? &f->model->layers[layer - 1] : NULL,
            .begun = layer < layers ? &f->model->layers[layer] : NULL,
            .begun_index = layer,
        };
        status = run_tiles(f, layer_tile, &step, err);
        if (status == 0 && layer < layers)
            status = forward_attention_attend(&f->attention, layer, f->q, f->attended, err);
    }
    free(block_tokens);
    f->length = f->prefilled = f->end;
    return status;
}

/* ---- what the segment says ---- */

struct score_step {
    struct forward *forward;
    const struct forward_scores *scores;
};

static void score_tile(void *context, int64_t item, int thread)
{
    const struct score_step *step = context;
    struct forward *f = step->forward;
    struct forward_scratch *scratch = &f->scratch[thread];
    const int64_t row = item * f->tile_rows, rows = i64_min(f->tile_rows, f->rows - row);
    const struct rms_norm norm = {f->model->output_norm, f->model->shape.width, (float)f->model->shape.norm_eps};
    ops_rms_norm(&norm, f->x + row * f->model->shape.width, scratch->in, f->model->dtype, rows);
    apply(f->model->packed_head, scratch->in, rows, scratch);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t place = f->row_positions[row + i];
        const int64_t at = forward_tokens(f, place) - forward_tokens(f, f->first);
        if (f->landmark_block && landmark_is(place, f->landmark_block))
            continue;
        const int32_t target = step->scores->target[at];
        const struct ops_logprob said =
            ops_log_softmax(scratch->y + i * f->model->shape.vocab, f->model->shape.vocab, target < 0 ? 0 : target);
        if (target >= 0)
            step->scores->logprob[at] = said.logprob;
        step->scores->top1[at] = said.top;
    }
}

/* Every rank tells the others the scores of its stretches. */
static int share_scores(struct forward *f, const struct forward_scores *scores, struct error *err)
{
    for (int rank = 0; rank < f->options.group->size; rank++) {
        const struct zigzag z = zigzag_block(f->first, f->end, rank, f->options.group->size);
        for (int part = 0; part < 2; part++) {
            const int64_t first = forward_tokens(f, z.first[part]), n = forward_tokens(f, z.end[part]) - first;
            const int64_t at = first - forward_tokens(f, f->first);
            if (n > 0 &&
                (comm_broadcast(f->options.group, scores->logprob + at, (size_t)n * sizeof(float), rank, err) !=
                     0 ||
                 comm_broadcast(f->options.group, scores->top1 + at, (size_t)n * sizeof(int32_t), rank, err) != 0))
                return -1;
        }
    }
    return 0;
}

int forward_score(struct forward *f, const struct forward_scores *scores, struct error *err)
{
    if (!f->model->packed_head)
        return error_set(err, ERROR_INTERNAL, "scores were asked of a model packed without its head");
    struct score_step step = {f, scores};
    if (run_tiles(f, score_tile, &step, err) != 0)
        return -1;
    return share_scores(f, scores, err);
}
