/* Decode: one token through all layers, the rows of every matrix shared by the ranks of the group. */
#include "model/forward_state.h"

/* Even shares of n rows: rank r computes parts[r] .. parts[r + 1]. Borders lie where rows of any type begin at 16
 * bytes. */
static void share_rows(struct forward *f, int64_t n)
{
    enum { GRAIN = 16 };
    const int64_t ranks = f->options.group->size;
    for (int64_t r = 0; r <= ranks; r++)
        f->token.parts[r] = r == ranks ? n : n / GRAIN * r / ranks * GRAIN;
}

/* y = stack * x, complete on every rank. */
static int multiply(struct forward *f, const struct stack *stack, const float *x, float *y, struct error *err)
{
    const int rank = f->options.group->rank;
    share_rows(f, stack->n_out);
    const struct forward_product product = {stack, x, y, f->token.parts[rank], f->token.parts[rank + 1]};
    if (f->arithmetic->multiply(f, &product, err) != 0)
        return -1;
    return comm_share_parts(f->options.group, y, f->token.parts, err);
}

/* One part of a stack by itself. */
static struct stack stack_part(const struct stack *stack, int part)
{
    return (struct stack){{stack->parts[part]}, 1, stack->n_in, tensor_rows(stack->parts[part])};
}

/* hidden = activation(gate x) * (up x): each rank computes the same rows of both, so only the product is shared. */
static int multiply_gate_up(struct forward *f, const struct layer *layer, struct error *err)
{
    struct forward_token *t = &f->token;
    const struct stack gate = stack_part(&layer->stacks[LINEAR_GATE_UP], 0);
    const struct stack up = stack_part(&layer->stacks[LINEAR_GATE_UP], 1);
    share_rows(f, f->model->shape.ffn);
    const int64_t first = t->parts[f->options.group->rank], end = t->parts[f->options.group->rank + 1];
    const struct forward_product gate_product = {&gate, t->normed, t->gate, first, end};
    const struct forward_product up_product = {&up, t->normed, t->hidden, first, end};
    if (f->arithmetic->multiply(f, &gate_product, err) != 0 || f->arithmetic->multiply(f, &up_product, err) != 0)
        return -1;
    ops_gate_apart(f->model->arch->activation, t->gate + first, t->hidden + first, end - first);
    return comm_share_parts(f->options.group, t->hidden, t->parts, err);
}

static void norm_token(const struct forward *f, const float *weight)
{
    const struct rms_norm norm = {weight, f->model->shape.width, (float)f->model->shape.norm_eps};
    ops_rms_norm(&norm, f->token.x, f->token.normed, DTYPE_F32, 1);
}

/* New tokens are dealt round-robin, so that the shards stay even. */
static bool owns_token(const struct forward *f)
{
    return (f->length - f->prefilled) % f->options.group->size == f->options.group->rank;
}

static int attend_token(struct forward *f, int index, struct error *err)
{
    const struct layer *layer = &f->model->layers[index];
    const struct model_shape *shape = &f->model->shape;
    struct forward_token *t = &f->token;
    norm_token(f, layer->attention_norm);
    if (multiply(f, &layer->stacks[LINEAR_QKV], t->normed, t->qkv, err) != 0)
        return -1;
    if (layer->qkv_bias)
        ops_add(t->qkv, layer->qkv_bias, forward_qkv_width(shape));
    forward_head_norms(f->model, layer, t->qkv);
    const struct forward_one one = {f->length, owns_token(f), t->qkv, t->attended};
    if (forward_attention_attend_one(&f->attention, index, &one, err) != 0 ||
        multiply(f, &layer->stacks[LINEAR_OUT], t->attended, t->out, err) != 0)
        return -1;
    forward_norm(f->model, layer->attention_post_norm, t->out, 1);
    ops_add(t->x, t->out, shape->width);
    return 0;
}

static int feed_token(struct forward *f, const struct layer *layer, struct error *err)
{
    struct forward_token *t = &f->token;
    norm_token(f, layer->ffn_norm);
    if (multiply_gate_up(f, layer, err) != 0 ||
        multiply(f, &layer->stacks[LINEAR_DOWN], t->hidden, t->out, err) != 0)
        return -1;
    forward_norm(f->model, layer->ffn_post_norm, t->out, 1);
    ops_add(t->x, t->out, f->model->shape.width);
    return 0;
}

/* logits of the token whose residual stream is in t->x */
static int head_token(struct forward *f, float *logits, struct error *err)
{
    norm_token(f, f->model->output_norm);
    return multiply(f, &f->model->head, f->token.normed, logits, err);
}

/* The rank that holds the token at `position` of the segment in hand, and the row of its block. */
static int find_row(const struct forward *f, int64_t position, int64_t *row)
{
    for (int rank = 0; rank < f->options.group->size; rank++) {
        const struct zigzag z = zigzag_block(f->first, f->end, rank, f->options.group->size);
        int64_t before = 0;
        for (int part = 0; part < 2; part++) {
            if (position >= z.first[part] && position < z.end[part]) {
                *row = before + position - z.first[part];
                return rank;
            }
            before += z.end[part] - z.first[part];
        }
    }
    return -1;
}

int forward_logits(struct forward *f, int64_t index, float *logits, struct error *err)
{
    const struct comm *group = f->options.group;
    const int64_t width = f->model->shape.width;
    int64_t row;
    const int64_t first = forward_tokens(f, f->first), n = forward_tokens(f, f->end) - first;
    const int owner = find_row(f, forward_place(f, first + index), &row);
    if (owner < 0)
        return error_set(err, ERROR_INTERNAL, "logits of token %lld of a segment of %lld", (long long)index,
                         (long long)n);
    if (group->rank == owner && f->arithmetic->row(f, row, f->token.x, err) != 0)
        return -1;
    if (comm_broadcast(group, f->token.x, (size_t)width * sizeof *f->token.x, owner, err) != 0)
        return -1;
    return head_token(f, logits, err);
}

int forward_next(struct forward *f, float *logits, struct error *err)
{
    return forward_logits(f, forward_tokens(f, f->end) - forward_tokens(f, f->first) - 1, logits, err);
}

/* The token through all layers: what it becomes is in f->token.x. */
static int carry_token(struct forward *f, int32_t token, struct error *err)
{
    if (f->length == f->options.max_tokens)
        return error_set(err, ERROR_INTERNAL, "no room for a token behind %lld", (long long)f->length);
    ops_embed(f->model->embedding, &token, 1, f->model->shape.embedding_scale, f->token.x);
    if (forward_attention_begin_one(&f->attention, f->length, owns_token(f), err) != 0)
        return -1;
    for (int layer = 0; layer < f->model->shape.layers; layer++)
        if (attend_token(f, layer, err) != 0 || feed_token(f, &f->model->layers[layer], err) != 0)
            return -1;
    f->length++;
    return 0;
}

int forward_step(struct forward *f, int32_t token, float *logits, struct error *err)
{
    if (token < 0 || token >= f->model->shape.vocab)
        return error_set(err, ERROR_INPUT, "token id %d; the model has %d", token, f->model->shape.vocab);
    if (f->landmark_block && landmark_is(f->length, f->landmark_block) && carry_token(f, f->landmark, err) != 0)
        return -1;
    return carry_token(f, token, err) != 0 ? -1 : head_token(f, logits, err);
}
