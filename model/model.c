#include "model/model.h"

#include "model/model_cuda.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/scaling.h"

/* Binding keeps count of the tensors it uses: one left over belongs to a network that this is not. */
struct binding {
    struct model *model;
    int64_t used;
    float *next_float; /* where the next norm or bias goes */
    struct error *err;
};

static const struct tensor *find(struct binding *b, const char *name, int64_t n_in, int64_t n_out)
{
    const struct bundle *bundle = b->model->bundle;
    const struct tensor *tensor = bundle_tensor(bundle, name);
    if (!tensor) {
        error_set(b->err, ERROR_INPUT, "%s: tensor %s is missing", bundle->path, name);
        return NULL;
    }
    if (tensor->dims[0] != n_in || tensor_rows(tensor) != n_out || tensor->n_dims > 2) {
        error_set(b->err, ERROR_INPUT, "%s: tensor %s is %lld x %lld, not %lld x %lld as the metadata says",
                  bundle->path, name, (long long)tensor->dims[0], (long long)tensor_rows(tensor), (long long)n_in,
                  (long long)n_out);
        return NULL;
    }
    b->used++;
    return tensor;
}

/* Copy a few rows (a norm, a bias) as floats; NULL on failure. */
static const float *find_floats(struct binding *b, const char *name, int64_t n_in, int64_t rows)
{
    const struct tensor *tensor = find(b, name, n_in, rows);
    const int64_t n = n_in * rows;
    if (!tensor)
        return NULL;
    const size_t bytes = tensor_row_bytes(tensor->type, n_in);
    float *out = b->next_float;
    for (int64_t row = 0; row < rows; row++)
        tensor_row_to_f32(tensor->type, (const char *)tensor->data + (size_t)row * bytes, out + row * n_in, n_in);
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(out[i])) {
            error_set(b->err, ERROR_INPUT, "%s: tensor %s, element %lld is not finite", b->model->bundle->path,
                      name, (long long)i);
            return NULL;
        }
    b->next_float += n;
    return out;
}

static void layer_name(char out[64], int layer, const char *part)
{
    snprintf(out, 64, "blk.%d.%s", layer, part);
}

static int stack_add(struct binding *b, struct stack *stack, const char *name, int64_t n_out)
{
    const struct tensor *tensor = find(b, name, stack->n_in, n_out);
    if (!tensor)
        return -1;
    stack->parts[stack->n_parts++] = tensor;
    stack->n_out += n_out;
    return 0;
}

static int bind_matrices(struct binding *b, struct layer *layer, int index)
{
    const struct model_shape *s = &b->model->shape;
    const int64_t q = (int64_t)s->heads * s->dim, kv = (int64_t)s->kv_heads * s->dim;
    const struct {
        enum layer_linear where;
        const char *part;
        int64_t n_in, n_out;
    } parts[] = {
        {LINEAR_QKV, "attn_q.weight", s->width, q},
        {LINEAR_QKV, "attn_k.weight", s->width, kv},
        {LINEAR_QKV, "attn_v.weight", s->width, kv},
        {LINEAR_OUT, "attn_output.weight", q, s->width},
        {LINEAR_GATE_UP, "ffn_gate.weight", s->width, s->ffn},
        {LINEAR_GATE_UP, "ffn_up.weight", s->width, s->ffn},
        {LINEAR_DOWN, "ffn_down.weight", s->ffn, s->width},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[64];
        layer_name(name, index, parts[i].part);
        layer->stacks[parts[i].where].n_in = parts[i].n_in;
        if (stack_add(b, &layer->stacks[parts[i].where], name, parts[i].n_out) != 0)
            return -1;
    }
    return 0;
}

/* Memory keeps keys without their bias (attention/memory.h): it moves to a place of its own. */
static void take_key_bias(struct binding *b, struct layer *layer)
{
    const struct model_shape *s = &b->model->shape;
    const size_t bytes = (size_t)s->kv_heads * (size_t)s->dim * sizeof(float);
    float *in_qkv = b->next_float - 2 * s->kv_heads * s->dim, *own = b->next_float;
    memcpy(own, in_qkv, bytes);
    memset(in_qkv, 0, bytes);
    layer->key_bias = own;
    b->next_float += s->kv_heads * s->dim;
}

static int bind_bias(struct binding *b, struct layer *layer, int index)
{
    const struct model_shape *s = &b->model->shape;
    const char *const parts[] = {"attn_q.bias", "attn_k.bias", "attn_v.bias"};
    layer->qkv_bias = b->next_float; /* the three follow one another, as the stacked matrices do */
    for (int i = 0; i < 3; i++) {
        char name[64];
        layer_name(name, index, parts[i]);
        if (!find_floats(b, name, (int64_t)(i == 0 ? s->heads : s->kv_heads) * s->dim, 1))
            return -1;
    }
    take_key_bias(b, layer);
    return 0;
}

static int bind_norms(struct binding *b, struct layer *layer, int index)
{
    const struct arch *arch = b->model->arch;
    const int width = b->model->shape.width, dim = b->model->shape.dim;
    const struct {
        bool wanted;
        const char *part;
        int n;
        const float **out;
    } norms[] = {
        {true, "attn_norm.weight", width, &layer->attention_norm},
        {true, "ffn_norm.weight", width, &layer->ffn_norm},
        {arch->post_norms, "post_attention_norm.weight", width, &layer->attention_post_norm},
        {arch->post_norms, "post_ffw_norm.weight", width, &layer->ffn_post_norm},
        {arch->head_norms, "attn_q_norm.weight", dim, &layer->query_norm},
        {arch->head_norms, "attn_k_norm.weight", dim, &layer->key_norm},
    };
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++) {
        char name[64];
        layer_name(name, index, norms[i].part);
        if (norms[i].wanted && !(*norms[i].out = find_floats(b, name, norms[i].n, 1)))
            return -1;
    }
    return 0;
}

/* The compression of keys or values, if the file has one: PART.weight [dim][rate * dim] and PART.bias [dim]. */
static int bind_convolution(struct binding *b, int index, const char *part, struct convolution *out)
{
    const int dim = b->model->shape.dim;
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "blk.%d.%s.weight", index, part);
    snprintf(bias, sizeof bias, "blk.%d.%s.bias", index, part);
    const struct tensor *tensor = bundle_tensor(b->model->bundle, weight);
    if (!tensor)
        return 0;
    out->dim = dim;
    out->rate = (int)(tensor->dims[0] / dim);
    return (out->weights = find_floats(b, weight, (int64_t)out->rate * dim, dim)) &&
                   (out->bias = find_floats(b, bias, dim, 1))
               ? 0
               : -1;
}

static int bind_convolutions(struct binding *b, struct layer *layer, int index)
{
    struct convolutions *both = &layer->convolutions;
    if (bind_convolution(b, index, "compress_k", &both->keys) != 0 ||
        bind_convolution(b, index, "compress_v", &both->values) != 0)
        return -1;
    return both->keys.rate == both->values.rate
               ? 0
               : error_set(b->err, ERROR_INPUT, "%s: layer %d compresses %d keys and %d values to one",
                           b->model->bundle->path, index, both->keys.rate, both->values.rate);
}

static int bind_layer(struct binding *b, int index)
{
    struct layer *layer = &b->model->layers[index];
    if (bind_norms(b, layer, index) != 0)
        return -1;
    if (b->model->arch->qkv_bias && bind_bias(b, layer, index) != 0)
        return -1;
    if (bind_convolutions(b, layer, index) != 0)
        return -1;
    return bind_matrices(b, layer, index);
}

/* The embedding settles the vocabulary; without a tensor of its own the head is the embedding again. */
static int bind_ends(struct binding *b)
{
    struct model *model = b->model;
    const char *const embedding = "token_embd.weight";
    const struct tensor *tensor = bundle_tensor(model->bundle, embedding);
    int64_t vocab = tensor ? tensor_rows(tensor) : 0;
    if (vocab < 0 || vocab > INT32_MAX)
        return error_set(b->err, ERROR_INPUT, "%s: %s has %lld rows", model->bundle->path, embedding,
                         (long long)vocab);
    model->shape.vocab = (int)vocab;
    model->head.n_in = model->shape.width;
    if (!(model->embedding = find(b, embedding, model->shape.width, vocab)) ||
        !(model->output_norm = find_floats(b, "output_norm.weight", model->shape.width, 1)))
        return -1;
    if (bundle_tensor(model->bundle, "output.weight"))
        return stack_add(b, &model->head, "output.weight", vocab);
    model->head.parts[model->head.n_parts++] = model->embedding;
    model->head.n_out = vocab;
    return 0;
}

/* The tensors that say how positions become angles, if the file has them, and what its metadata says of it. */
static int bind_positions(struct binding *b)
{
    struct model *model = b->model;
    const struct {
        const char *name;
        const float **out;
    } lists[] = {
        {"rope_freqs.weight", &model->rope_divisors},
        {"rope_factors_long.weight", &model->long_factors},
        {"rope_factors_short.weight", &model->short_factors},
    };
    struct scaling scaling;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (bundle_tensor(model->bundle, lists[i].name) &&
            !(*lists[i].out = find_floats(b, lists[i].name, model->shape.rope_dims / 2, 1)))
            return -1;
    if (scaling_read(model->arch, model->bundle, model->long_factors != NULL, &scaling, b->err) != 0)
        return -1;
    if (model_set_positions(model, &scaling.method, scaling.context, b->err) != 0)
        return error_wrap(b->err, "%s", model->bundle->path);
    model->file_positions = model->positions;
    model->file_context = model->context;
    return 0;
}

static int bind_all(struct binding *b)
{
    const struct model *model = b->model;
    if (bind_ends(b) != 0 || bind_positions(b) != 0)
        return -1;
    for (int i = 0; i < model->shape.layers; i++)
        if (bind_layer(b, i) != 0)
            return -1;
    if (b->used != model->bundle->n_tensors)
        return error_set(b->err, ERROR_INPUT, "%s: %lld of its %lld tensors are unknown to architecture %s",
                         model->bundle->path, (long long)(model->bundle->n_tensors - b->used),
                         (long long)model->bundle->n_tensors, model->arch->name);
    return 0;
}

/* Floats of the convolutions of all layers. */
static size_t convolution_floats(const struct bundle *bundle)
{
    size_t floats = 0;
    for (int64_t i = 0; i < bundle->n_tensors; i++)
        if (strstr(bundle->tensors[i].name, ".compress_"))
            floats += (size_t)(bundle->tensors[i].dims[0] * tensor_rows(&bundle->tensors[i]));
    return floats;
}

/* Floats of all norms, biases, divisors and factors, at most. */
static size_t float_count(const struct model_shape *shape)
{
    size_t qkv = (size_t)(shape->heads + 3 * shape->kv_heads) * (size_t)shape->dim; /* the keys' bias twice */
    return (size_t)shape->layers * (4 * (size_t)shape->width + 2 * (size_t)shape->dim + qkv) +
           (size_t)shape->width + 2 * (size_t)shape->rope_dims;
}

struct model *model_open(const struct bundle *bundle, struct error *err)
{
    const struct arch *arch = arch_find(bundle, err);
    struct model_shape shape;
    if (!arch || model_shape_read(arch, bundle, &shape, err) != 0)
        return NULL;
    struct model *model = calloc(1, sizeof *model);
    if (!model)
        goto no_memory;
    *model = (struct model){.bundle = bundle, .arch = arch, .shape = shape, .packed.window = MPI_WIN_NULL};
    model->layers = calloc((size_t)shape.layers, sizeof *model->layers);
    model->floats = calloc(float_count(&shape) + convolution_floats(bundle), sizeof *model->floats);
    if (!model->layers || !model->floats)
        goto no_memory;
    struct binding binding = {.model = model, .next_float = model->floats, .err = err};
    if (bind_all(&binding) != 0) {
        model_free(model);
        return NULL;
    }
    return model;
no_memory:
    error_set(err, ERROR_RESOURCE, "%s: no memory for the model's table of tensors", bundle->path);
    model_free(model);
    return NULL;
}

void model_free(struct model *model)
{
    if (!model)
        return;
    for (int i = 0; model->layers && i < model->shape.layers; i++)
        for (int k = 0; k < LINEARS_PER_LAYER; k++)
            linear_free(model->layers[i].linears[k]);
    linear_free(model->packed_head);
    model_cuda_free(model->cuda);
    shared_memory_free(&model->packed);
    free(model->layers);
    free(model->floats);
    free(model);
}

int model_set_positions(struct model *model, const struct position_method *method, int64_t context,
                        struct error *err)
{
    struct position_method own = *method;
    own.long_factors = model->long_factors;
    own.short_factors = model->short_factors;
    if (position_method_check(&own, model->shape.rope_dims, err) != 0)
        return -1;
    model->positions = own;
    model->context = context;
    return 0;
}

bool model_layer_is_local(const struct model *model, int layer)
{
    const int every = model->shape.global_every;
    return every == 0 ? model->shape.window > 0 : (layer + 1) % every != 0;
}

int64_t model_linear_weights(const struct model *model)
{
    int64_t weights = 0;
    for (int k = 0; k < LINEARS_PER_LAYER; k++)
        weights += model->layers[0].stacks[k].n_in * model->layers[0].stacks[k].n_out;
    return weights * model->shape.layers;
}

struct rope_options model_rope_options(const struct model *model, int64_t max_positions)
{
    return (struct rope_options){
        .dims = model->shape.rope_dims,
        .base = model->shape.rope_base,
        .pairs = model->arch->pairs,
        .divisors = model->rope_divisors,
        .max_positions = max_positions,
        .method = model->positions,
    };
}

struct rope_options model_local_rope_options(const struct model *model, int64_t max_positions)
{
    return (struct rope_options){
        .dims = model->shape.rope_dims,
        .base = model->shape.local_rope_base,
        .pairs = model->arch->pairs,
        .max_positions = max_positions,
    };
}
