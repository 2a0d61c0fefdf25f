/* One token's arithmetic on the CPU, in f32. */
#include <string.h>

#include "model/forward_state.h"
#include "model/matvec.h"

/* ---- products, their rows shared by the ranks and the threads of each ---- */

/* y = stack * x over the rows first .. end of the stack. */
struct product {
    const struct stack *stack;
    const float *x; /* [n_in] */
    float *y;       /* [n_out] */
    int64_t first, end;
};

/* Rows of a matrix in one item of work: enough to pay for the dealing, few enough to balance. */
enum { MATVEC_ROWS = 64 };

static void product_item(void *context, int64_t item, int thread)
{
    (void)thread;
    const struct product *product = context;
    int64_t row = product->first + item * MATVEC_ROWS;
    const int64_t end = i64_min(row + MATVEC_ROWS, product->end);
    int64_t part_first = 0;
    for (int i = 0; i < product->stack->n_parts; i++) {
        const struct tensor *part = product->stack->parts[i];
        const int64_t part_end = part_first + tensor_rows(part);
        if (row < part_end && row < end) {
            const int64_t stop = i64_min(end, part_end);
            matvec_rows(part, product->x, product->y + part_first, row - part_first, stop - part_first);
            row = stop;
        }
        part_first = part_end;
    }
}

static void multiply_rows(const struct forward *f, const struct product *product)
{
    const struct pool_job job = {i64_ceil_div(product->end - product->first, MATVEC_ROWS), product_item,
                                 (void *)product, f->options.poll, f->options.poll_context};
    pool_run(f->options.pool, &job);
}

/* y = stack * x, complete on every rank. */
static int multiply(struct forward *f, const struct stack *stack, const float *x, float *y, struct error *err)
{
    const int rank = f->options.group->rank;
    forward_share_rows(f, stack->n_out);
    const struct product product = {stack, x, y, f->token.parts[rank], f->token.parts[rank + 1]};
    multiply_rows(f, &product);
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
    forward_share_rows(f, f->model->shape.ffn);
    const int64_t first = t->parts[f->options.group->rank], end = t->parts[f->options.group->rank + 1];
    const struct product gate_product = {&gate, t->normed, t->gate_up, first, end};
    const struct product up_product = {&up, t->normed, t->hidden, first, end};
    multiply_rows(f, &gate_product);
    multiply_rows(f, &up_product);
    ops_gate_apart(f->model->arch->activation, t->gate_up + first, t->hidden + first, end - first);
    return comm_share_parts(f->options.group, t->hidden, t->parts, err);
}

/* ---- a layer's end and the next one's beginning ---- */

static void norm_token(const struct forward *f, const float *weight)
{
    const struct rms_norm norm = {weight, f->model->shape.width, (float)f->model->shape.norm_eps};
    ops_rms_norm(&norm, f->token.x, f->token.normed, DTYPE_F32, 1);
}

static int begin_layer(struct forward *f, const struct layer *layer, struct error *err)
{
    struct forward_token *t = &f->token;
    norm_token(f, layer->attention_norm);
    if (multiply(f, &layer->stacks[LINEAR_QKV], t->normed, t->qkv, err) != 0)
        return -1;
    if (layer->qkv_bias)
        ops_add(t->qkv, layer->qkv_bias, forward_qkv_width(&f->model->shape));
    forward_head_norms(f->model, layer, t->qkv);
    return 0;
}

static int finish_layer(struct forward *f, const struct layer *layer, struct error *err)
{
    struct forward_token *t = &f->token;
    const int64_t width = f->model->shape.width;
    if (multiply(f, &layer->stacks[LINEAR_OUT], t->attended, t->out, err) != 0)
        return -1;
    forward_norm(f->model, layer->attention_post_norm, t->out, 1);
    ops_add(t->x, t->out, width);
    norm_token(f, layer->ffn_norm);
    if (multiply_gate_up(f, layer, err) != 0 ||
        multiply(f, &layer->stacks[LINEAR_DOWN], t->hidden, t->out, err) != 0)
        return -1;
    forward_norm(f->model, layer->ffn_post_norm, t->out, 1);
    ops_add(t->x, t->out, width);
    return 0;
}

static int cpu_carry_one(struct forward *f, const struct layer_step *step, struct error *err)
{
    if (!step->finished)
        ops_embed(f->model->embedding, step->tokens, 1, f->model->shape.embedding_scale, f->token.x);
    else if (finish_layer(f, step->finished, err) != 0)
        return -1;
    return step->begun ? begin_layer(f, step->begun, err) : 0;
}

/* ---- the head ---- */

static int cpu_take_row(struct forward *f, int owner, int64_t row, struct error *err)
{
    const size_t width = (size_t)f->model->shape.width, bytes = width * sizeof *f->token.x;
    if (f->options.group->rank == owner)
        memcpy(f->token.x, f->x + (size_t)row * width, bytes);
    return comm_broadcast(f->options.group, f->token.x, bytes, owner, err);
}

static int cpu_head(struct forward *f, float *logits, struct error *err)
{
    norm_token(f, f->model->output_norm);
    return multiply(f, &f->model->head, f->token.normed, logits, err);
}

const struct forward_one_arithmetic forward_one_on_cpu = {
    .carry = cpu_carry_one,
    .take_row = cpu_take_row,
    .head = cpu_head,
};
