/* What forward.c (prefill), forward_decode.c and the arithmetics share: the state of a forward pass. Not for
 * others. */
#ifndef LONGHAUL_MODEL_FORWARD_STATE_H
#define LONGHAUL_MODEL_FORWARD_STATE_H

#include "attention/landmark.h"
#include "model/forward.h"
#include "model/forward_attention.h"
#include "model/ops.h"

/* A layer's end and the next one's beginning, on this rank's rows of a segment or on one token. Bounded memory,
 * here and below, is that of forward_attention_is_bounded: the host's. */
struct layer_step {
    const int32_t *tokens;        /* [rows] of the block, or the one; looked at before the first layer */
    const struct layer *finished; /* NULL before the first layer */
    const struct layer *begun;    /* NULL behind the last */
    int begun_index;
};

/* The arithmetic on one token in decode. Every rank holds its vectors whole; the rows of every matrix are shared by
 * the ranks of the group. Collective over the group. Needs a model that was packed with rows. */
struct forward_one_arithmetic {
    /* A step as with a segment's rows: from token.attended (or *step->tokens) to token.x and token.qkv; for a layer
     * with bounded memory from and to the host's. */
    int (*carry)(struct forward *forward, const struct layer_step *step, struct error *err);
    /* token.x = the residual stream of a row that rank `owner` has. */
    int (*take_row)(struct forward *forward, int owner, int64_t row, struct error *err);
    /* logits [vocab], the host's, of the token after the one in token.x. */
    int (*head)(struct forward *forward, float *logits, struct error *err);
};

/* The arithmetic on the rows of a segment, where the device holds them. What a function, here and above, has
 * computed is there when it returns. */
struct forward_arithmetic {
    /* Bytes that create allocates. */
    struct forward_memory (*bytes)(const struct forward_options *options);
    /* What it needs in forward->own, and what there is of the host's for layers with bounded memory, NULL before.
     */
    int (*create)(struct forward *forward, struct error *err);
    void (*free)(struct forward *forward); /* also of what create could not finish */

    /* A step on all rows: from forward->attended (or the tokens) to forward->x, q, and keys and values in memory;
     * for a layer with bounded memory from and to the host's. */
    int (*carry)(struct forward *forward, const struct layer_step *step, struct error *err);
    /* What the rows say of their targets. */
    int (*score)(struct forward *forward, const struct forward_scores *scores, struct error *err);

    const struct forward_one_arithmetic *one;
};

extern const struct forward_arithmetic forward_on_cpu;
extern const struct forward_one_arithmetic forward_one_on_cpu;
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

    /* One token in decode, on the device. */
    struct forward_token {
        float *x, *normed; /* [width] */
        float *qkv;        /* [(heads + 2 kv_heads) * dim] */
        float *attended;   /* [heads * dim] */
        float *gate_up;    /* [2 ffn] */
        float *hidden;     /* [ffn] */
        float *out;        /* [width] */
        /* qkv and attended of layers with bounded memory; on a CPU they are the same. */
        float *host_qkv, *host_attended;
        int64_t *parts; /* [ranks + 1]: the rows that each rank computes */
    } token;
};

/* Even shares of n rows in token.parts: rank r computes the rows parts[r] .. parts[r + 1]. Borders lie where rows
 * of any type begin at 16 bytes. */
void forward_share_rows(struct forward *forward, int64_t n);

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
