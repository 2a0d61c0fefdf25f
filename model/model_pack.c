#include <stdatomic.h>
#include <stdlib.h>

#include "model/model.h"
#include "model/model_cuda.h"

/* The matrices to pack, in the order in which they lie in the node's shared memory: those of each layer, then,
 * if it is wanted, the head. */
static int64_t matrix_count(const struct model *model, const struct model_pack_options *options)
{
    return (int64_t)model->shape.layers * LINEARS_PER_LAYER + (options->with_head ? 1 : 0);
}

static const struct stack *matrix_stack(const struct model *model, int64_t index)
{
    const int64_t layer = index / LINEARS_PER_LAYER;
    return layer < model->shape.layers ? &model->layers[layer].stacks[index % LINEARS_PER_LAYER] : &model->head;
}

static struct linear **matrix_linear(struct model *model, int64_t index)
{
    const int64_t layer = index / LINEARS_PER_LAYER;
    return layer < model->shape.layers ? &model->layers[layer].linears[index % LINEARS_PER_LAYER]
                                       : &model->packed_head;
}

static struct linear_shape matrix_shape(const struct model *model, int64_t index, enum dtype dtype)
{
    const struct stack *stack = matrix_stack(model, index);
    const int64_t layer = index / LINEARS_PER_LAYER;
    const bool qkv = layer < model->shape.layers && index % LINEARS_PER_LAYER == LINEAR_QKV;
    return (struct linear_shape){stack->n_in, stack->n_out, dtype, qkv ? model->layers[layer].qkv_bias : NULL};
}

int model_packed_bytes(const struct model *model, const struct model_pack_options *options, size_t *out,
                       struct error *err)
{
    *out = 0;
    if (!options->device->host_visible)
        return model_cuda_bytes(model, options, out, err);
    for (int64_t i = 0; i < matrix_count(model, options); i++) {
        const struct linear_shape shape = matrix_shape(model, i, options->dtype);
        size_t bytes;
        if (linear_packed_bytes(&shape, &bytes, err) != 0)
            return -1;
        if (!size_add(*out, bytes, out))
            return error_set(err, ERROR_RESOURCE, "%s: the packed model is too large to address",
                             model->bundle->path);
    }
    return 0;
}

static int attach_all(struct model *model, const struct model_pack_options *options, struct error *err)
{
    char *next = model->packed.data;
    for (int64_t i = 0; i < matrix_count(model, options); i++) {
        const struct linear_shape shape = matrix_shape(model, i, options->dtype);
        size_t bytes;
        if (linear_packed_bytes(&shape, &bytes, err) != 0 ||
            !(*matrix_linear(model, i) = linear_attach(&shape, next, err)))
            return -1;
        next += bytes;
    }
    return 0;
}

/* This rank's share of the packing: every node->size-th matrix. The first failure is kept. */
struct packing {
    struct model *model;
    int64_t first, step;
    atomic_int failed;
    struct error err;
};

static void pack_matrix(void *context, int64_t item, int thread)
{
    (void)thread;
    struct packing *packing = context;
    const int64_t index = packing->first + item * packing->step;
    const struct stack *stack = matrix_stack(packing->model, index);
    struct error err;
    if (linear_pack(*matrix_linear(packing->model, index), stack->parts, stack->n_parts, &err) != 0 &&
        atomic_exchange(&packing->failed, 1) == 0)
        packing->err = err;
}

static int pack_share(struct model *model, const struct model_pack_options *options, struct error *err)
{
    const struct comm *node = options->node;
    const int64_t count = matrix_count(model, options);
    struct packing packing = {.model = model, .first = node->rank, .step = node->size};
    const struct pool_job job = {
        .n_items = count > node->rank ? i64_ceil_div(count - node->rank, node->size) : 0,
        .work = pack_matrix,
        .context = &packing,
    };
    pool_run(options->pool, &job);
    if (!packing.failed)
        return 0;
    return error_set(err, packing.err.code, "%s: %.400s", model->bundle->path, packing.err.text);
}

int model_pack(struct model *model, const struct model_pack_options *options, struct error *err)
{
    size_t bytes;
    model->dtype = options->dtype;
    if (!options->device->host_visible)
        return (model->cuda = model_cuda_create(model, options, err)) ? 0 : -1;
    if (comm_agree(options->node, model_packed_bytes(model, options, &bytes, err), err) != 0 ||
        shared_memory_create(options->node, bytes, &model->packed, err) != 0)
        return -1;
    /* A weight that is no number is found by one rank alone; the others must not wait for its share. */
    const int status = attach_all(model, options, err) != 0 ? -1 : pack_share(model, options, err);
    if (comm_agree(options->node, status, err) != 0)
        return -1;
    return shared_memory_sync(options->node, &model->packed, err);
}
