/* One token's arithmetic on a GPU, in f32 by quantised rows, as on the CPU. What a rank of several has computed of
 * a vector goes to the others through the host. */
#include "model/forward_cuda_parts.h"
#include "model/linear_cuda.h"
#include "model/matvec_cuda.h"
#include "model/model_cuda.h"
#include "model/ops_cuda.h"

/* ---- products ---- */

/* y over the rows first .. end of the stack, as far as they are in one of its parts, which begins at `part_first`.
 */
struct product {
    const float *x; /* [n_in] */
    float *y;       /* [n_out] */
    int64_t first, end;
};

static int multiply_part(struct forward *f, const struct product *product, const struct tensor *part,
                         int64_t part_first, struct error *err)
{
    const int64_t first = i64_max(product->first, part_first);
    const int64_t end = i64_min(product->end, part_first + tensor_rows(part));
    struct tensor rows;
    if (first >= end)
        return 0;
    if (model_cuda_tensor(f->model->cuda, part, &rows, err) != 0)
        return -1;
    const size_t row_bytes = tensor_row_bytes(part->type, part->dims[0]);
    rows.data = (const char *)rows.data + (size_t)(first - part_first) * row_bytes;
    rows.dims[1] = end - first;
    rows.dims[2] = rows.dims[3] = 1;
    const struct matvec_cuda_vector vector = {product->x, product->y + first};
    return matvec_cuda(&rows, &vector, stream_of(f), err);
}

static int multiply_rows(struct forward *f, const struct stack *stack, const struct product *product,
                         struct error *err)
{
    int64_t part_first = 0;
    for (int i = 0; i < stack->n_parts; i++) {
        if (multiply_part(f, product, stack->parts[i], part_first, err) != 0)
            return -1;
        part_first += tensor_rows(stack->parts[i]);
    }
    return 0;
}

/* The rows of y that each rank has computed, by token.parts, to all of them. */
static int share(struct forward *f, float *y, struct error *err)
{
    const struct comm *group = f->options.group;
    const int64_t *parts = f->token.parts, first = parts[group->rank], n = parts[group->rank + 1] - first;
    float *host = gpu_of(f)->host_rows;
    if (group->size == 1)
        return 0;
    return forward_cuda_copy(f, host + first, y + first, (size_t)n * sizeof *y, DEVICE_TO_HOST, err) == 0 &&
                   forward_cuda_settle(f, err) == 0 && comm_share_parts(group, host, parts, err) == 0
               ? forward_cuda_copy(f, y, host, (size_t)parts[group->size] * sizeof *y, DEVICE_FROM_HOST, err)
               : -1;
}

/* y = stack * x, complete on every rank. */
static int multiply(struct forward *f, const struct stack *stack, const float *x, float *y, struct error *err)
{
    const int rank = f->options.group->rank;
    forward_share_rows(f, stack->n_out);
    const struct product product = {x, y, f->token.parts[rank], f->token.parts[rank + 1]};
    return multiply_rows(f, stack, &product, err) == 0 ? share(f, y, err) : -1;
}

/* hidden = activation(gate x) * (up x): each rank computes the same rows of both, so only the product is shared. */
static int multiply_gate_up(struct forward *f, const struct stack *stack, struct error *err)
{
    struct forward_token *t = &f->token;
    const int64_t ffn = f->model->shape.ffn;
    const int rank = f->options.group->rank;
    forward_share_rows(f, ffn);
    const struct product gate = {t->normed, t->gate_up, t->parts[rank], t->parts[rank + 1]};
    const struct product up = {t->normed, t->gate_up, ffn + gate.first, ffn + gate.end};
    const struct ops_cuda_gate gated = {{f->model->arch->activation, ffn}, t->gate_up, t->hidden, DTYPE_F32, 1};
    return multiply_rows(f, stack, &gate, err) == 0 && multiply_rows(f, stack, &up, err) == 0 &&
                   ops_cuda_gate(&gated, stream_of(f), err) == 0
               ? share(f, t->hidden, err)
               : -1;
}

/* ---- a layer's end and the next one's beginning ---- */

/* normed = x normed by the weight. */
static int norm_token(struct forward *f, const float *weight, struct error *err)
{
    const struct ops_cuda_rms_norm call = {norm_of(f, weight), f->token.x, f->token.normed, DTYPE_F32, 1};
    return ops_cuda_rms_norm(&call, stream_of(f), err);
}

/* out is added to x, normed where the layer norms it; the sum, normed by the next weight, goes to normed. */
static int add_norm(struct forward *f, const float *post_norm, const float *next, struct error *err)
{
    const struct forward_token *t = &f->token;
    const struct ops_cuda_add_norm call = {norm_of(f, next), post_norm, t->x, t->out, t->normed, DTYPE_F32, 1};
    return ops_cuda_add_norm(&call, stream_of(f), err);
}

static int embed(struct forward *f, int32_t token, const float *norm, struct error *err)
{
    float *host = gpu_of(f)->host_rows;
    ops_embed(f->model->embedding, &token, 1, f->model->shape.embedding_scale, host);
    return forward_cuda_copy(f, f->token.x, host, (size_t)f->model->shape.width * sizeof *host, DEVICE_FROM_HOST,
                             err) == 0
               ? norm_token(f, norm, err)
               : -1;
}

/* The bias of q, k and v, and the norms of their heads. */
static int edit_heads(struct forward *f, const struct layer_cuda *layer, struct error *err)
{
    const struct model_shape *shape = &f->model->shape;
    const int64_t width = forward_qkv_width(shape);
    const float *bias = linear_cuda_bias(layer->linears[LINEAR_QKV]);
    const struct ops_cuda_add_norm add = {
        .norm = {.n = width}, .x = f->token.qkv, .y = bias, .dtype = DTYPE_F32, .rows = 1};
    const struct ops_cuda_head_norms norms = {f->token.qkv,
                                              width,
                                              shape->heads,
                                              shape->kv_heads,
                                              shape->dim,
                                              layer->query_norm,
                                              layer->key_norm,
                                              (float)shape->norm_eps,
                                              1};
    if (bias && ops_cuda_add_norm(&add, stream_of(f), err) != 0)
        return -1;
    return layer->query_norm || layer->key_norm ? ops_cuda_head_norms(&norms, stream_of(f), err) : 0;
}

static int begin_layer(struct forward *f, int index, struct error *err)
{
    struct forward_token *t = &f->token;
    const size_t bytes = (size_t)forward_qkv_width(&f->model->shape) * sizeof *t->qkv;
    if (multiply(f, &f->model->layers[index].stacks[LINEAR_QKV], t->normed, t->qkv, err) != 0 ||
        edit_heads(f, &f->model->cuda->layers[index], err) != 0)
        return -1;
    return forward_attention_is_bounded(&f->options, index)
               ? forward_cuda_copy(f, t->host_qkv, t->qkv, bytes, DEVICE_TO_HOST, err)
               : 0;
}

/* `next` is the norm of what follows, NULL behind the last layer. */
static int finish_layer(struct forward *f, int index, const float *next, struct error *err)
{
    struct forward_token *t = &f->token;
    const struct layer *layer = &f->model->layers[index];
    const struct layer_cuda *norms = &f->model->cuda->layers[index];
    const size_t bytes = (size_t)forward_q_width(&f->model->shape) * sizeof *t->attended;
    if (forward_attention_is_bounded(&f->options, index) &&
        forward_cuda_copy(f, t->attended, t->host_attended, bytes, DEVICE_FROM_HOST, err) != 0)
        return -1;
    return multiply(f, &layer->stacks[LINEAR_OUT], t->attended, t->out, err) == 0 &&
                   add_norm(f, norms->attention_post_norm, norms->ffn_norm, err) == 0 &&
                   multiply_gate_up(f, &layer->stacks[LINEAR_GATE_UP], err) == 0 &&
                   multiply(f, &layer->stacks[LINEAR_DOWN], t->hidden, t->out, err) == 0
               ? add_norm(f, norms->ffn_post_norm, next, err)
               : -1;
}

static int gpu_carry_one(struct forward *f, const struct layer_step *step, struct error *err)
{
    const float *next = step->begun ? f->model->cuda->layers[step->begun_index].attention_norm : NULL;
    const int status =
        step->finished ? finish_layer(f, step->begun_index - 1, next, err) : embed(f, *step->tokens, next, err);
    return status == 0 && (!step->begun || begin_layer(f, step->begun_index, err) == 0)
               ? forward_cuda_settle(f, err)
               : -1;
}

/* ---- the head ---- */

static int gpu_take_row(struct forward *f, int owner, int64_t row, struct error *err)
{
    const struct comm *group = f->options.group;
    const size_t width = (size_t)f->model->shape.width, bytes = width * sizeof *f->token.x;
    const float *from = f->x + (size_t)row * width;
    float *host = gpu_of(f)->host_rows;
    int status = 0;
    if (group->size == 1)
        status = forward_cuda_copy(f, f->token.x, from, bytes, DEVICE_WITHIN, err);
    else if (group->rank == owner)
        status = forward_cuda_copy(f, host, from, bytes, DEVICE_TO_HOST, err);
    if (status != 0 || forward_cuda_settle(f, err) != 0)
        return -1;
    if (group->size == 1)
        return 0;
    return comm_broadcast(group, host, bytes, owner, err) == 0 &&
                   forward_cuda_copy(f, f->token.x, host, bytes, DEVICE_FROM_HOST, err) == 0
               ? forward_cuda_settle(f, err)
               : -1;
}

static int gpu_head(struct forward *f, float *logits, struct error *err)
{
    const struct comm *group = f->options.group;
    float *const on_gpu = gpu_of(f)->logits;
    forward_share_rows(f, f->model->head.n_out);
    const int64_t first = f->token.parts[group->rank], end = f->token.parts[group->rank + 1];
    const struct product product = {f->token.normed, on_gpu, first, end};
    return norm_token(f, f->model->cuda->output_norm, err) == 0 &&
                   multiply_rows(f, &f->model->head, &product, err) == 0 &&
                   forward_cuda_copy(f, logits + first, on_gpu + first, (size_t)(end - first) * sizeof *logits,
                                     DEVICE_TO_HOST, err) == 0 &&
                   forward_cuda_settle(f, err) == 0
               ? comm_share_parts(group, logits, f->token.parts, err)
               : -1;
}

const struct forward_one_arithmetic forward_one_on_cuda = {
    .carry = gpu_carry_one,
    .take_row = gpu_take_row,
    .head = gpu_head,
};
