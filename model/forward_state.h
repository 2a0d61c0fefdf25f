/* What forward.c (prefill) and forward_decode.c share: the state of a forward pass. Not for others. */
#ifndef LONGHAUL_MODEL_FORWARD_STATE_H
#define LONGHAUL_MODEL_FORWARD_STATE_H

#include "attention/landmark.h"
#include "model/forward.h"
#include "model/forward_attention.h"
#include "model/ops.h"

/* A layer's end and the next one's beginning, on this rank's rows of a segment. */
struct layer_step {
    const int32_t *tokens;        /* [rows] of the block, before the first layer */
    const struct layer *finished; /* NULL before the first layer */
    const struct layer *begun;    /* NULL behind the last */
    int begun_index;
};

/* y = stack * x over the rows first .. end of the stack; both vectors are the host's. */
struct forward_product {
    const struct stack *stack;
    const float *x; /* [n_in] */
    float *y;       /* [n_out] */
    int64_t first, end;
};

/* The arithmetic on the rows of a segment, and the products of one token, where the device holds them. What a
 * function has computed is there when it returns. */
struct forward_arithmetic {
    /* Bytes that create allocates. */
    struct forward_memory (*bytes)(const struct forward_options *options);
    /* What it needs in forward->own, and host_q and host_attended, which are NULL before. */
    int (*create)(struct forward *forward, struct error *err);
    void (*free)(struct forward *forward); /* also of what create could not finish */

    /* A step on all rows: from forward->attended (or the tokens) to forward->x, q, and keys and values in memory;
     * for a layer with bounded memory from and to the host's. */
    int (*carry)(struct forward *forward, const struct layer_step *step, struct error *err);
    /* What the rows say of their targets. */
    int (*score)(struct forward *forward, const struct forward_scores *scores, struct error *err);
    /* x [width] = the residual stream of a row. */
    int (*row)(struct forward *forward, int64_t row, float *x, struct error *err);

    /* In decode, and for logits: of what the model was packed with rows of. */
    int (*multiply)(struct forward *forward, const struct forward_product *product, struct error *err);
};

extern const struct forward_arithmetic forward_on_cpu;
/* NULL in a program that was built without CUDA. */
const struct forward_arithmetic *forward_on_cuda(void);

struct forward {
    struct forward_options options;
    const struct model *model;
    const struct forward_arithmetic *arithmetic;
    void *own; /* the arithmetic's */
    struct forward_attention attention;

    /* Landmark tokens, one after every `landmark_block` tokens of the text; 0: none. A landmark is carried with the
     * token behind it, so that what comes before does not depend on where segments end. Lengths and positions count
     * landmarks. */
    int64_t landmark_block;
    int32_t landmark;

    int64_t length;    /* tokens of the chunk so far */
    int64_t prefilled; /* of those, the ones that came by segments: the others were dealt round-robin */

    /* The segment just carried and this rank's block of it. */
    int64_t first, end;
    struct zigzag block;
    int64_t rows;
    int64_t *row_positions; /* [max_block], the host's */

    /* On the device. */
    float *x;       /* [max_block][width]: the residual stream */
    float *q;       /* [max_block][heads * dim] */
    void *attended; /* [max_block][heads * dim] in the model's dtype */

    /* q and attended of layers with bounded memory, which is the host's; on a CPU they are the same. */
    float *host_q;
    void *host_attended;

    /* One token in decode: vectors that every rank holds whole. */
    struct forward_token {
        float *x, *normed;    /* [width] */
        float *qkv;           /* [(heads + 2 kv_heads) * dim] */
        float *attended;      /* [heads * dim] */
        float *hidden, *gate; /* [ffn] */
        float *out;           /* [width] */
        int64_t *parts;       /* [ranks + 1]: the rows that each rank computes */
    } token;
};

/* Elements of q, and of q, k and v together. */
static inline int64_t forward_q_width(const struct model_shape *shape)
{
    return (int64_t)shape->heads * shape->dim;
}

static inline int64_t forward_qkv_width(const struct model_shape *shape)
{
    return (int64_t)(shape->heads + 2 * shape->kv_heads) * shape->dim;
}

/* The place of token `index` of the text, and the text's tokens before a place. */
static inline int64_t forward_place(const struct forward *forward, int64_t index)
{
    return forward->landmark_block ? landmark_place(index, forward->landmark_block) : index;
}

static inline int64_t forward_tokens(const struct forward *forward, int64_t place)
{
    return forward->landmark_block ? landmark_tokens(place, forward->landmark_block) : place;
}

/* Where a row of the block stands among the text's tokens of the segment in hand; -1: it is a landmark. */
int64_t forward_scored(const struct forward *forward, int64_t row);

/* x [rows][width] normed in place, where the layer has that norm: weight is not NULL. */
void forward_norm(const struct model *model, const float *weight, float *x, int64_t rows);

/* The norms of each head's query and key, where the layer has them, in a row of q, k and v. */
void forward_head_norms(const struct model *model, const struct layer *layer, float *qkv);

#endif
