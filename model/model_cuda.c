#include "model/model_cuda.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/gpu.h"
#include "model/linear_cuda.h"

/* ---- sizes ---- */

static struct linear_shape shape_of(const struct model *model, int layer, enum layer_linear which)
{
    const struct stack *stack = &model->layers[layer].stacks[which];
    const float *bias = which == LINEAR_QKV ? model->layers[layer].qkv_bias : NULL;
    return (struct linear_shape){stack->n_in, stack->n_out, DTYPE_BF16, bias};
}

static struct linear_shape head_shape(const struct model *model)
{
    return (struct linear_shape){model->head.n_in, model->head.n_out, DTYPE_BF16, NULL};
}

/* Norms that a layer may have: four of the width, two of a head; and one behind the last layer. */
static size_t norm_floats(const struct model *model)
{
    const struct model_shape *shape = &model->shape;
    return (size_t)shape->layers * (4 * (size_t)shape->width + 2 * (size_t)shape->dim) + (size_t)shape->width;
}

/* The tensors that one token is multiplied with: part i of all stacks, the head's last; NULL where a stack has
 * fewer. */
static int64_t part_count(const struct model *model)
{
    return ((int64_t)model->shape.layers * LINEARS_PER_LAYER + 1) * STACK_MAX;
}

static const struct tensor *part_at(const struct model *model, int64_t i)
{
    const int64_t matrix = i / STACK_MAX, layer = matrix / LINEARS_PER_LAYER;
    const struct stack *stack =
        layer == model->shape.layers ? &model->head : &model->layers[layer].stacks[matrix % LINEARS_PER_LAYER];
    return i % STACK_MAX < stack->n_parts ? stack->parts[i % STACK_MAX] : NULL;
}

/* The first of those that are wanted: all, the head's, none. */
static int64_t first_part(const struct model *model, enum model_rows rows)
{
    const int64_t n = part_count(model);
    return rows == MODEL_ROWS_ALL ? 0 : rows == MODEL_ROWS_HEAD ? n - STACK_MAX : n;
}

int model_cuda_bytes(const struct model *model, const struct model_pack_options *options, size_t *out,
                     struct error *err)
{
    (void)err;
    *out = linear_cuda_library_bytes() + norm_floats(model) * sizeof(float);
    for (int layer = 0; layer < model->shape.layers; layer++)
        for (int which = 0; which < LINEARS_PER_LAYER; which++) {
            const struct linear_shape shape = shape_of(model, layer, which);
            *out += linear_cuda_bias_bytes(&shape);
            *out += options->streamed && layer > 1 ? 0 : linear_cuda_weight_bytes(&shape);
        }
    const struct linear_shape head = head_shape(model);
    *out += options->with_head ? linear_cuda_weight_bytes(&head) : 0;
    for (int64_t i = first_part(model, options->rows); i < part_count(model); i++)
        *out += part_at(model, i) ? part_at(model, i)->bytes : 0;
    return 0;
}

/* The bytes are there when it returns. */
static int to_device(const struct model_cuda *cuda, void *to, const void *from, size_t bytes, struct error *err)
{
    if (cuda->device->copy(to, from, bytes, DEVICE_FROM_HOST, NULL, err) != 0)
        return -1;
    return cuda->device->stream_wait(NULL, err);
}

/* ---- norms ---- */

/* Where the next norm goes, on the host and on the device. */
struct norm_copy {
    float *host;
    const float *device;
};

/* The device's copy of a norm of n; NULL of NULL. */
static const float *copy_norm(struct norm_copy *copy, const float *norm, int n)
{
    const float *there = copy->device;
    if (!norm)
        return NULL;
    memcpy(copy->host, norm, (size_t)n * sizeof *norm);
    copy->host += n;
    copy->device += n;
    return there;
}

static void copy_norms(struct model_cuda *cuda, const struct model *model, float *host)
{
    const int width = model->shape.width, dim = model->shape.dim;
    struct norm_copy copy = {host, cuda->norms};
    for (int i = 0; i < cuda->n_layers; i++) {
        const struct layer *from = &model->layers[i];
        struct layer_cuda *to = &cuda->layers[i];
        to->attention_norm = copy_norm(&copy, from->attention_norm, width);
        to->attention_post_norm = copy_norm(&copy, from->attention_post_norm, width);
        to->ffn_norm = copy_norm(&copy, from->ffn_norm, width);
        to->ffn_post_norm = copy_norm(&copy, from->ffn_post_norm, width);
        to->query_norm = copy_norm(&copy, from->query_norm, dim);
        to->key_norm = copy_norm(&copy, from->key_norm, dim);
    }
    cuda->output_norm = copy_norm(&copy, model->output_norm, width);
}

static int create_norms(struct model_cuda *cuda, const struct model *model, struct error *err)
{
    const size_t bytes = norm_floats(model) * sizeof(float);
    float *host = calloc(1, bytes);
    if (!host)
        return error_set(err, ERROR_RESOURCE, "no memory for the norms of a model");
    int status = (cuda->norms = cuda->device->alloc(bytes, "norms", err)) ? 0 : -1;
    if (status == 0) {
        copy_norms(cuda, model, host);
        status = to_device(cuda, cuda->norms, host, bytes, err);
    }
    free(host);
    return status;
}

/* ---- matrices ---- */

/* All layers have the same shapes. */
static int create_places(struct model_cuda *cuda, const struct model *model, struct error *err)
{
    const struct device *device = cuda->device;
    if (device->stream_create(&cuda->bringing, err) != 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        if (device->event_create(&cuda->places[i].there, err) != 0)
            return -1;
        for (int which = 0; which < LINEARS_PER_LAYER; which++) {
            const struct linear_shape shape = shape_of(model, 0, which);
            cuda->places[i].matrices[which] =
                device->alloc(linear_cuda_weight_bytes(&shape), "the matrices of a layer", err);
            if (!cuda->places[i].matrices[which])
                return -1;
        }
    }
    return 0;
}

static int create_matrices(struct model_cuda *cuda, const struct model *model, bool with_head, struct error *err)
{
    for (int layer = 0; layer < cuda->n_layers; layer++)
        for (int which = 0; which < LINEARS_PER_LAYER; which++) {
            const struct linear_shape shape = shape_of(model, layer, which);
            void *place = cuda->places[layer % 2].matrices[which];
            if (!(cuda->layers[layer].linears[which] = linear_cuda_create(cuda->library, &shape, place, err)))
                return -1;
        }
    const struct linear_shape head = head_shape(model);
    return !with_head || (cuda->head = linear_cuda_create(cuda->library, &head, NULL, err)) ? 0 : -1;
}

int model_cuda_bring(const struct model_cuda *cuda, int layer, struct error *err)
{
    if (!cuda->bringing)
        return 0;
    for (int which = 0; which < LINEARS_PER_LAYER; which++)
        if (linear_cuda_fetch(cuda->layers[layer].linears[which], (cudaStream_t)cuda->bringing, err) != 0)
            return -1;
    return cuda->device->event_record(cuda->places[layer % 2].there, cuda->bringing, err);
}

int model_cuda_await(const struct model_cuda *cuda, int layer, struct device_stream *stream, struct error *err)
{
    if (!cuda->bringing)
        return 0;
    return gpu_check(cudaStreamWaitEvent((cudaStream_t)stream, (cudaEvent_t)cuda->places[layer % 2].there, 0),
                     "waiting for weights", err);
}

/* The threads load matrices, one at a time each. The first failure is kept. */
struct loading {
    struct model_cuda *cuda;
    const struct model *model;
    atomic_int failed;
    struct error err;
};

static void load_matrix(void *context, int64_t item, int thread)
{
    (void)thread;
    struct loading *loading = context;
    const int64_t layer = item / LINEARS_PER_LAYER;
    const bool head = layer == loading->cuda->n_layers;
    const struct stack *stack =
        head ? &loading->model->head : &loading->model->layers[layer].stacks[item % LINEARS_PER_LAYER];
    struct linear_cuda *linear =
        head ? loading->cuda->head : loading->cuda->layers[layer].linears[item % LINEARS_PER_LAYER];
    struct error err;
    if (linear_cuda_load(linear, stack->parts, stack->n_parts, &err) != 0 &&
        atomic_exchange(&loading->failed, 1) == 0)
        loading->err = err;
}

static int load_matrices(struct model_cuda *cuda, const struct model *model, struct pool *pool, struct error *err)
{
    struct loading loading = {.cuda = cuda, .model = model};
    const struct pool_job job = {
        .n_items = (int64_t)cuda->n_layers * LINEARS_PER_LAYER + (cuda->head ? 1 : 0),
        .work = load_matrix,
        .context = &loading,
    };
    pool_run(pool, &job);
    if (!loading.failed)
        return 0;
    return error_set(err, loading.err.code, "%s: %.400s", model->bundle->path, loading.err.text);
}

/* ---- quantised rows ---- */

static int compare_rows(const void *a, const void *b)
{
    const uintptr_t x = (uintptr_t)((const struct resident_rows *)a)->host,
                    y = (uintptr_t)((const struct resident_rows *)b)->host;
    return (x > y) - (x < y);
}

static int copy_rows(struct model_cuda *cuda, const struct tensor *tensor, struct error *err)
{
    struct resident_rows *rows = &cuda->rows[cuda->n_rows];
    rows->host = tensor->data;
    if (!(rows->device = cuda->device->alloc(tensor->bytes, tensor->name, err)))
        return -1;
    cuda->n_rows++;
    return to_device(cuda, rows->device, tensor->data, tensor->bytes, err);
}

static int create_rows(struct model_cuda *cuda, const struct model *model, enum model_rows wanted,
                       struct error *err)
{
    if (!(cuda->rows = calloc((size_t)part_count(model), sizeof *cuda->rows)))
        return error_set(err, ERROR_RESOURCE, "no memory for the list of a model's tensors");
    for (int64_t i = first_part(model, wanted); i < part_count(model); i++)
        if (part_at(model, i) && copy_rows(cuda, part_at(model, i), err) != 0)
            return -1;
    qsort(cuda->rows, (size_t)cuda->n_rows, sizeof *cuda->rows, compare_rows);
    return 0;
}

int model_cuda_tensor(const struct model_cuda *cuda, const struct tensor *tensor, struct tensor *out,
                      struct error *err)
{
    const struct resident_rows key = {.host = tensor->data};
    const struct resident_rows *found =
        cuda->rows ? bsearch(&key, cuda->rows, (size_t)cuda->n_rows, sizeof key, compare_rows) : NULL;
    if (!found)
        return error_set(err, ERROR_INTERNAL, "%s is not on the GPU", tensor->name);
    *out = *tensor;
    out->data = found->device;
    return 0;
}

/* ---- life ---- */

struct model_cuda *model_cuda_create(const struct model *model, const struct model_pack_options *options,
                                     struct error *err)
{
    struct model_cuda *cuda = calloc(1, sizeof *cuda);
    if (cuda)
        cuda->layers = calloc((size_t)model->shape.layers, sizeof *cuda->layers);
    if (!cuda || !cuda->layers) {
        free(cuda);
        error_set(err, ERROR_RESOURCE, "no memory for %d layers of a model", model->shape.layers);
        return NULL;
    }
    cuda->device = options->device;
    cuda->n_layers = model->shape.layers;
    if (!(cuda->library = linear_cuda_open(options->device, err)) || create_norms(cuda, model, err) != 0 ||
        (options->streamed && create_places(cuda, model, err) != 0) ||
        create_matrices(cuda, model, options->with_head, err) != 0 ||
        load_matrices(cuda, model, options->pool, err) != 0 || create_rows(cuda, model, options->rows, err) != 0) {
        model_cuda_free(cuda);
        return NULL;
    }
    return cuda;
}

void model_cuda_free(struct model_cuda *cuda)
{
    if (!cuda)
        return;
    for (int layer = 0; layer < cuda->n_layers; layer++)
        for (int which = 0; which < LINEARS_PER_LAYER; which++)
            linear_cuda_free(cuda->layers[layer].linears[which]);
    linear_cuda_free(cuda->head);
    linear_cuda_close(cuda->library);
    for (int i = 0; i < 2; i++) {
        for (int which = 0; which < LINEARS_PER_LAYER; which++)
            cuda->device->free(cuda->places[i].matrices[which]);
        cuda->device->event_free(cuda->places[i].there);
    }
    cuda->device->stream_free(cuda->bringing);
    for (int64_t i = 0; i < cuda->n_rows; i++)
        cuda->device->free(cuda->rows[i].device);
    free(cuda->rows);
    cuda->device->free(cuda->norms);
    free(cuda->layers);
    free(cuda);
}
