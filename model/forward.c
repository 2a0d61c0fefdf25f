#include "model/forward_state.h"

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
    return spec && policy_past(spec) == PAST_LANDMARKS ? spec->rate - 1 : 0;
}

/* ---- sizes ---- */

static const struct forward_arithmetic *arithmetic_of(const struct forward_options *options)
{
    return options->device->host_visible ? &forward_on_cpu : forward_on_cuda();
}

/* The vectors of a token: each begins where a matrix can be multiplied with it. */
enum { TOKEN_VECTORS = 7, TOKEN_GRAIN = 16 };

static void token_lengths(const struct model_shape *shape, int64_t (*lengths)[TOKEN_VECTORS])
{
    const int64_t all[] = {shape->width,
                           shape->width,
                           shape->width,
                           forward_qkv_width(shape),
                           forward_q_width(shape),
                           2 * (int64_t)shape->ffn,
                           shape->ffn};
    for (int i = 0; i < TOKEN_VECTORS; i++)
        (*lengths)[i] = i64_round_up(all[i], TOKEN_GRAIN);
}

static size_t token_floats(const struct model_shape *shape)
{
    int64_t lengths[TOKEN_VECTORS], floats = 0;
    token_lengths(shape, &lengths);
    for (int i = 0; i < TOKEN_VECTORS; i++)
        floats += lengths[i];
    return (size_t)floats;
}

int forward_bytes(const struct forward_options *asked, struct forward_memory *out, struct error *err)
{
    const struct forward_options counting = count_landmarks(asked, landmark_block(asked)), *options = &counting;
    const struct model *model = options->model;
    if (forward_attention_bytes(options, out, err) != 0)
        return -1;
    const size_t row = sizeof(float) * (size_t)(model->shape.width + forward_q_width(&model->shape)) +
                       dtype_size(options->kernel->dtype) * (size_t)forward_q_width(&model->shape);
    const size_t rows = (size_t)forward_attention_block(options);
    out->device += row * rows + sizeof(float) * token_floats(&model->shape);
    out->host += sizeof(int64_t) * rows;
    const struct forward_memory own = arithmetic_of(options)->bytes(options);
    out->device += own.device;
    out->host += own.host;
    if (options->device->host_visible)
        *out = (struct forward_memory){.host = out->host + out->device, .token_keys = out->token_keys};
    return 0;
}

/* ---- life ---- */

static int create_buffers(struct forward *f, struct error *err)
{
    const struct device *device = f->options.device;
    const size_t rows = (size_t)forward_attention_block(&f->options),
                 element = dtype_size(f->options.kernel->dtype);
    const size_t q = (size_t)forward_q_width(&f->model->shape);
    f->row_positions = device->host_alloc(rows * sizeof *f->row_positions, "positions", err);
    f->x = device->alloc(rows * (size_t)f->model->shape.width * sizeof *f->x, "activations", err);
    f->q = device->alloc(rows * q * sizeof *f->q, "queries", err);
    f->attended = device->alloc(rows * q * element, "attention output", err);
    if (!f->row_positions || !f->x || !f->q || !f->attended)
        return -1;
    return f->arithmetic->create(f, err);
}

static int create_token(struct forward *f, struct error *err)
{
    struct forward_token *t = &f->token;
    float **const vectors[TOKEN_VECTORS] = {&t->x,        &t->normed,  &t->out,   &t->qkv,
                                            &t->attended, &t->gate_up, &t->hidden};
    int64_t lengths[TOKEN_VECTORS];
    token_lengths(&f->model->shape, &lengths);
    float *floats =
        f->options.device->alloc(token_floats(&f->model->shape) * sizeof *floats, "decode vectors", err);
    if (!floats)
        return -1;
    for (int i = 0; i < TOKEN_VECTORS; floats += lengths[i++])
        *vectors[i] = floats;
    if (f->options.device->host_visible) {
        t->host_qkv = t->qkv;
        t->host_attended = t->attended;
    }
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
    f->arithmetic = arithmetic_of(options);
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
    forward_attention_free(&f->attention);
    f->arithmetic->free(f);
    device->host_free(f->row_positions);
    device->free(f->x);
    device->free(f->q);
    device->free(f->attended);
    device->free(f->token.x);
    free(f->token.parts);
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

const char *forward_transport_name(const struct forward *f)
{
    return f->attention.transport ? f->attention.transport->name : NULL;
}

struct ring_stats forward_ring_stats(const struct forward *f)
{
    return f->attention.ring ? ring_stats(f->attention.ring) : (struct ring_stats){0};
}

/* ---- one segment ---- */

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
    return forward_attention_begin(&f->attention, (struct stretch){f->first, f->end}, f->row_positions, f->rows,
                                   err);
}

/* The ring's arithmetic is the device's; bounded memory is the host's. */
static int attend(struct forward *f, int layer, struct error *err)
{
    const bool bounded = forward_attention_is_bounded(&f->options, layer);
    return forward_attention_attend(&f->attention, layer, bounded ? f->host_q : f->q,
                                    bounded ? f->host_attended : f->attended, err);
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
        const struct layer_step step = {
            .tokens = block_tokens,
            .finished = layer > 0 ? &f->model->layers[layer - 1] : NULL,
            .begun = layer < layers ? &f->model->layers[layer] : NULL,
            .begun_index = layer,
        };
        status = f->arithmetic->carry(f, &step, err);
        if (status == 0 && layer < layers)
            status = attend(f, layer, err);
    }
    free(block_tokens);
    f->length = f->prefilled = f->end;
    return status;
}

/* ---- what the segment says ---- */

/* Where a row of the block stands among the text's tokens of the segment; -1: it is a landmark. */
int64_t forward_scored(const struct forward *f, int64_t row)
{
    const int64_t place = f->row_positions[row];
    if (f->landmark_block && landmark_is(place, f->landmark_block))
        return -1;
    return forward_tokens(f, place) - forward_tokens(f, f->first);
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
    if (!f->options.scores)
        return error_set(err, ERROR_INTERNAL, "scores were asked of a forward pass made without them");
    if (f->arithmetic->score(f, scores, err) != 0)
        return -1;
    return share_scores(f, scores, err);
}
