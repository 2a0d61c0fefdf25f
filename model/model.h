/* A model: the tensors of a weights file bound to their places in the network, and packed for prefill.
 *
 * model_open binds and checks every tensor (nothing is copied: matrices stay quantised in the mapped file, which
 * decode reads directly); model_pack then lays the matrices out for the prefill GEMMs, once per node, in memory
 * that the node's ranks share. A model that only decodes, or is only inspected, need not be packed.
 */
#ifndef LONGHAUL_MODEL_MODEL_H
#define LONGHAUL_MODEL_MODEL_H

#include "attention/convolution.h"
#include "base/bundle.h"
#include "base/comm.h"
#include "base/device.h"
#include "base/error.h"
#include "base/num.h"
#include "base/pool.h"
#include "model/arch.h"
#include "model/linear.h"

/* The matrices of a layer in the order in which they are packed. */
enum layer_linear { LINEAR_QKV, LINEAR_OUT, LINEAR_GATE_UP, LINEAR_DOWN, LINEARS_PER_LAYER };

/* A matrix as the network uses it: one tensor, or several stacked along their outputs. */
enum { STACK_MAX = 3 };
struct stack {
    const struct tensor *parts[STACK_MAX];
    int n_parts;
    int64_t n_in, n_out;
};

struct layer {
    const float *attention_norm, *ffn_norm;           /* [width] */
    const float *attention_post_norm, *ffn_post_norm; /* [width]: of what is added to the stream; NULL: none */
    const float *query_norm, *key_norm;               /* [dim]: of each head, before it is rotated; NULL: none */
    const float *qkv_bias;                            /* [(heads + 2 kv_heads) * dim], 0 for the keys, or NULL */
    const float *key_bias;                            /* [kv_heads * dim] or NULL: memory keeps keys without it */
    struct convolutions convolutions;                 /* of compressed memory, where the file has them */
    struct stack stacks[LINEARS_PER_LAYER];
    struct linear *linears[LINEARS_PER_LAYER]; /* NULL until packed */
};

struct model {
    const struct bundle *bundle; /* borrowed; must outlive the model */
    const struct arch *arch;
    struct model_shape shape;
    const struct tensor *embedding; /* [vocab][width] */
    struct stack head;              /* [vocab][width]; the embedding again where they are tied */
    const float *output_norm;       /* [width] */
    const float *rope_divisors;     /* [rope_dims / 2], or NULL: they stay under whatever position method */
    const float *long_factors, *short_factors; /* [rope_dims / 2] of LongRoPE, or NULL */
    struct position_method positions;      /* of the global layers: the file's, or that of model_set_positions */
    int64_t context;                       /* tokens that positions reach under it */
    struct position_method file_positions; /* the file's, whatever is set */
    int64_t file_context;
    struct layer *layers;       /* [layers] */
    struct linear *packed_head; /* NULL unless packed with it */
    struct model_cuda *cuda;    /* all of it on a GPU, in place of the packed matrices (model_cuda.h); or NULL */
    enum dtype dtype;           /* of the packed matrices */
    struct shared_memory packed;
    float *floats; /* owns norms, biases and divisors */
};

/* Fails with ERROR_INPUT naming a tensor that is missing, unknown to the architecture, of the wrong size, or (norms
 * and biases) not finite. */
struct model *model_open(const struct bundle *bundle, struct error *err);
void model_free(struct model *model);

/* Quantised rows, which one token is multiplied with: none, the head's for logits, all for decode. */
enum model_rows { MODEL_ROWS_NONE, MODEL_ROWS_HEAD, MODEL_ROWS_ALL };

struct model_pack_options {
    enum dtype dtype;
    bool with_head; /* also the output head: needed to score, not to generate */
    struct pool *pool;
    const struct comm *node;     /* the ranks that share memory; each packs a part */
    const struct device *device; /* where the matrices go: a GPU has all of them by itself */
    enum model_rows rows;        /* that a GPU also gets quantised */
    bool streamed; /* a GPU has the matrices of two layers at a time, and the host all of them, for each rank */
};
/* Bytes that packing takes on a node, or on a rank's GPU. */
int model_packed_bytes(const struct model *model, const struct model_pack_options *options, size_t *out,
                       struct error *err);
/* Called by all ranks of the node, which fail together where the host has the matrices. ERROR_INPUT names a weight
 * that is NaN or infinite. */
int model_pack(struct model *model, const struct model_pack_options *options, struct error *err);

/* Another position method than the file's, and the tokens that positions reach under it; its lists of factors are
 * the model's. Before any forward pass is made. ERROR_INPUT for a method that this model cannot have. */
int model_set_positions(struct model *model, const struct position_method *method, int64_t context,
                        struct error *err);

/* Whether the layer is one of the model's local ones, which attend to a window of model->shape.window tokens (0: no
 * window that the model's context could leave) and have a rope of their own. */
bool model_layer_is_local(const struct model *model, int layer);

/* Weights in one token's linear layers, without the embedding and the head: 2 flops each. */
int64_t model_linear_weights(const struct model *model);
/* What rope_create needs for sequences of up to max_positions tokens. */
struct rope_options model_rope_options(const struct model *model, int64_t max_positions);
/* The same for the local layers, where shape.local_rope_base is not 0. Their window is short: whatever is done to
 * the global layers' positions to reach further is not done to theirs (Gemma Team 2025). */
struct rope_options model_local_rope_options(const struct model *model, int64_t max_positions);

#endif
